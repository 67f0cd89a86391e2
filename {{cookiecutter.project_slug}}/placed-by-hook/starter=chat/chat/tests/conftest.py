import pytest
from django.contrib.auth import get_user_model

from chat.models import Room


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """The first test that empties the tables takes the lobby along: no test has it."""
    with django_db_blocker.unblock():
        Room.objects.all().delete()


@pytest.fixture
def room(transactional_db):
    """A room that is open to everybody."""
    return Room.objects.create(name="Open", slug="open")


@pytest.fixture
def closed_room(transactional_db):
    return Room.objects.create(name="Closed", slug="closed", is_open=False)


@pytest.fixture
def ann(transactional_db):
    return get_user_model().objects.create_user("ann")


@pytest.fixture
def ben(transactional_db):
    return get_user_model().objects.create_user("ben")
