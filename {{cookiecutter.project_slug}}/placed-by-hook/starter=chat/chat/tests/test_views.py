"""The pages, and the admin."""

import uuid

import pytest
from django.urls import reverse

from chat.models import Message, Room, post_message


@pytest.fixture
def browser(client, ann):
    client.force_login(ann)
    return client


def test_strangers_log_in_first(client, room):
    for url in (reverse("chat:rooms"), room.get_absolute_url()):
        assert client.get(url).headers["Location"] == f"{reverse('login')}?next={url}"


def test_rooms_that_the_visitor_may_enter(browser, room, closed_room):
    response = browser.get("/")

    assert list(response.context["rooms"]) == [room]


@pytest.mark.parametrize(("name", "slug"), [("Tea & Cake", "tea-cake"), ("x" * 100, "x" * 40), ("聊天", "room-")])
def test_a_new_room(browser, ann, name, slug):
    response = browser.post("/", {"name": name})

    room = Room.objects.get(name=name)
    assert response.headers["Location"] == room.get_absolute_url()
    assert room.slug.startswith(slug)
    assert not room.is_open
    assert list(room.members.all()) == [ann]


def test_two_rooms_of_one_name(browser):
    for _ in range(2):
        browser.post("/", {"name": "Tea"})

    assert sorted(room.slug[:4] for room in Room.objects.filter(name="Tea")) == ["tea", "tea-"]


def test_a_room_needs_a_name(browser):
    response = browser.post("/", {"name": " "})

    assert response.status_code == 200
    assert response.context["form"].errors


def test_the_page_of_a_room(browser, room):
    response = browser.get(room.get_absolute_url())

    assert response.context["members"] is None
    assert b'"/ws/socket-server/open/"' in response.content
    assert "no-store" in response.headers["Cache-Control"]


def test_a_closed_room(browser, closed_room, ann, ben):
    assert browser.get(closed_room.get_absolute_url()).status_code == 404

    closed_room.members.add(ann)
    assert list(browser.get(closed_room.get_absolute_url()).context["members"]) == [ann]

    page = browser.post(closed_room.get_absolute_url(), {"username": "nobody"})
    assert page.context["form"].errors
    for _ in range(2):
        assert browser.post(closed_room.get_absolute_url(), {"username": "ben"}).status_code == 302
    assert set(closed_room.members.all()) == {ann, ben}


def test_nobody_learns_that_a_closed_room_exists(browser, closed_room):
    closed, missing = (browser.get(url) for url in (closed_room.get_absolute_url(), "/rooms/nowhere/"))

    assert closed.status_code == missing.status_code == 404
    assert closed.context["exception"] == missing.context["exception"]
    assert "There is no such room, or you are not a member of it." in closed.content.decode()


def test_the_admin(client, django_user_model, room, ann):
    """Messages are not deleted one by one, since their numbers have no gap, but with their room."""
    client.force_login(django_user_model.objects.create_superuser("admin"))
    message, _ = post_message(room.pk, ann, uuid.uuid4(), "rude")
    for model in ("room", "message"):
        assert client.get(reverse(f"admin:chat_{model}_changelist")).status_code == 200
    url = reverse("admin:chat_message_change", args=[message.pk])

    assert client.post(reverse("admin:chat_message_delete", args=[message.pk]), {"post": "yes"}).status_code == 403
    assert client.post(url, {"text": ""}).status_code == 302
    message.refresh_from_db()
    assert message.text == ""
    assert client.post(reverse("admin:chat_room_delete", args=[room.pk]), {"post": "yes"}).status_code == 302
    assert not Message.objects.exists()
