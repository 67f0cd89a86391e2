"""The pages, and the admin."""

import time
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


def test_many_rooms(browser, ann, django_assert_max_num_queries):
    Room.objects.bulk_create(Room(name=f"Room {number:03}", slug=f"room-{number}") for number in range(300))

    with django_assert_max_num_queries(6):
        response = browser.get("/")
    assert len(response.content) < 60_000
    assert [len(browser.get("/", {"page": page}).context["rooms"]) for page in (1, 6, 99, "x")] == [50] * 4
    found = browser.get("/", {"q": "OOM 29", "page": 1}).context["rooms"]
    assert sorted(room.name for room in found) == [f"Room 29{number}" for number in range(10)]
    assert "No room has this in its name." in browser.get("/", {"q": "\0<b>\0"}).content.decode()


def test_a_search_for_more_than_a_database_takes(browser, room):
    assert browser.get("/", {"q": "x" * 60_000}).status_code == 200


def test_nobody_finds_a_closed_room(browser, closed_room):
    assert not browser.get("/", {"q": "Closed"}).context["rooms"].object_list


@pytest.mark.parametrize(("name", "slug"), [("Tea & Cake", "tea-cake"), ("x" * 100, "x" * 40), ("聊天", "room-")])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_new_room(browser, ann, name, slug, is_open):
    response = browser.post("/", {"name": name, "is_open": "on" if is_open else ""})

    room = Room.objects.get(name=name)
    assert response.headers["Location"] == room.get_absolute_url()
    assert room.slug.startswith(slug)
    assert len(room.slug) <= len(slug) + 9
    assert room.is_open is is_open
    assert room.owner == ann
    assert list(room.members.all()) == [ann]


def test_two_rooms_of_one_name(browser):
    for _ in range(2):
        browser.post("/", {"name": "Tea", "is_open": "on"})

    assert sorted(room.slug[:4] for room in Room.objects.filter(name="Tea")) == ["tea", "tea-"]


def test_the_address_of_a_new_room_tells_nothing_of_a_closed_one(browser):
    browser.post("/", {"name": "Surprise party"})
    browser.post("/", {"name": "Surprise party", "is_open": "on"})

    assert Room.objects.get(is_open=True, name="Surprise party").slug == "surprise-party"


@pytest.mark.parametrize(
    "name", [" ", "x" * 101, "two\nlines", "turned \u202e round", "\u200b\u3164\u2800\ufe0f", "a" + "\u0301" * 5]
)
def test_bad_names_of_rooms(browser, name):
    response = browser.post("/", {"name": name})

    assert response.status_code == 200
    assert response.context["form"].errors["name"]


def test_rooms_without_end(browser, ann, ben, room, settings):
    settings.CHAT_ROOMS_PER_USER = 2
    Room.objects.create(name="Of ben", slug="of-ben", owner=ben)
    for number in range(4):
        response = browser.post("/", {"name": f"Room {number}"})

    assert ann.owned_rooms.count() == 2
    assert response.status_code == 200
    assert "You have made 2 rooms, and more are not allowed." in response.content.decode()


def test_the_page_of_a_room(browser, room):
    response = browser.get(room.get_absolute_url())

    assert response.context["members"] is response.context["form"] is None
    # Who is here for the first time sees no line above what is unread.
    assert response.context["read_seq"] is None
    assert abs(response.context["as_of"] - time.time() * 1000) < 60_000
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
    closed = Room.objects.create(name="Closed", slug="closed")
    form = {"room": closed.pk, "user": ann.pk}
    assert client.post(reverse("admin:chat_membership_add"), form).status_code == 302
    for model in ("room", "message", "membership"):
        page = client.get(reverse(f"admin:chat_{model}_changelist"), {"q": room.slug})
        assert page.status_code == 200
    assert "?room__id__exact=" in client.get(reverse("admin:chat_room_changelist")).content.decode()
    messages = client.get(reverse("admin:chat_message_changelist"), {"room__id__exact": room.pk})
    assert list(messages.context["cl"].queryset) == [message]
    url = reverse("admin:chat_message_change", args=[message.pk])

    assert client.get(reverse("admin:chat_message_add")).status_code == 403
    assert client.post(reverse("admin:chat_message_delete", args=[message.pk]), {"post": "yes"}).status_code == 403
    assert client.post(url, {"text": ""}).status_code == 302
    message.refresh_from_db()
    assert message.text == ""
    assert client.post(reverse("admin:chat_room_delete", args=[room.pk]), {"post": "yes"}).status_code == 302
    assert not Message.objects.exists()
