import pytest
from django.contrib.auth import get_user_model

from chat.models import Room


@pytest.fixture
def room(transactional_db):
    """A room that is open to everybody; the lobby is gone once a test has emptied the tables."""
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
