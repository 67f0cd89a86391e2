"""What members and owners can do: leave, remove, ban, block, and take messages back."""

import uuid

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse

from chat.models import Ban, Block, Membership, Message, Reading, Room, can_join, post_message, take_back
from realtime import Close


@pytest.fixture
def browser(client, ann):
    client.force_login(ann)
    return client


@pytest.fixture
def own_room(transactional_db, ann, ben):
    """A closed room of ann, with ben as a member."""
    room = Room.objects.create(name="Own", slug="own", is_open=False, owner=ann)
    for user in (ann, ben):
        Membership.objects.create(room=room, user=user)
    return room


def act(browser, room, person, what):
    url = reverse("chat:person", args=[room.slug, person.username])
    assert browser.get(url).status_code == 200
    return browser.post(url, {"act": what})


def test_members_leave(client, own_room, ben):
    client.force_login(ben)
    url = reverse("chat:leave", args=["own"])

    # A link that a browser follows of itself is no leave.
    assert client.get(url).status_code == 405
    assert can_join(ben, own_room)
    assert client.post(url).headers["Location"] == "/"

    assert not can_join(ben, own_room)
    assert not Reading.objects.filter(user=ben).exists()


def test_the_owner_of_a_closed_room_stays(browser, own_room, ann):
    assert browser.post(reverse("chat:leave", args=["own"])).status_code == 403
    assert can_join(ann, own_room)

    Room.objects.update(is_open=True)
    assert browser.post(reverse("chat:leave", args=["own"])).status_code == 302


def test_only_the_owner_sees_who_is_banned(browser, client, own_room, ann, ben):
    Ban.objects.create(room=own_room, user=get_user_model().objects.create_user("carl"))
    assert b"carl" in browser.get(own_room.get_absolute_url()).content

    client.force_login(ben)

    assert b"carl" not in client.get(own_room.get_absolute_url()).content


def test_owners_remove_members(browser, own_room, ben):
    act(browser, own_room, ben, "remove")

    assert not can_join(ben, own_room)
    browser.post(own_room.get_absolute_url(), {"username": "ben"})
    assert can_join(ben, own_room)


def test_who_is_banned_stays_out(browser, own_room, ben):
    act(browser, own_room, ben, "ban")

    assert not can_join(ben, own_room)
    # Nor is a member again who is not banned any more.
    assert not Membership.objects.filter(user=ben).exists()
    page = browser.post(own_room.get_absolute_url(), {"username": "ben"})
    assert "This person is banned from the room." in page.content.decode()
    own_room.is_open = True
    own_room.save()
    assert not can_join(ben, own_room)
    act(browser, own_room, ben, "unban")
    assert can_join(ben, own_room)


@pytest.mark.parametrize("what", ["remove", "ban", "unban", "nothing"])
def test_only_owners_do_that(client, own_room, ann, ben, what):
    client.force_login(ben)

    assert act(client, own_room, ann, what).status_code == 403
    assert can_join(ann, own_room)


def test_nobody_bans_themselves(browser, own_room, ann):
    assert act(browser, own_room, ann, "ban").status_code == 403


async def test_a_ban_ends_the_sockets(open_socket, room, ann):
    socket = await open_socket("/ws/socket-server/open/", user=ann)

    await Ban.objects.acreate(room=room, user=ann)

    assert await socket.closed_with() == Close.NOT_ALLOWED
    again = await open_socket("/ws/socket-server/open/", user=ann, greeting=False)
    assert await again.closed_with() == Close.NOT_FOUND


def test_who_is_blocked_adds_nobody(browser, client, own_room, ann, ben):
    client.force_login(ben)
    act(client, own_room, ann, "block")
    assert client.get(own_room.get_absolute_url()).context["blocked"] == ["ann"]
    Membership.objects.filter(user=ben).delete()

    client.force_login(ann)
    page = client.post(own_room.get_absolute_url(), {"username": "ben"})

    assert "This person does not want to be added by you." in page.content.decode()
    assert not can_join(ben, own_room)
    Block.objects.all().delete()
    client.post(own_room.get_absolute_url(), {"username": "ben"})
    assert can_join(ben, own_room)


def test_who_may_take_a_message_back(own_room, ann, ben):
    by_ann, by_ben = (post_message(own_room.pk, user, uuid.uuid4(), "rude")[0].seq for user in (ann, ben))

    assert take_back(own_room.pk, ben, by_ann) is None
    assert take_back(own_room.pk, ann, by_ben) == 1
    assert take_back(own_room.pk, ann, by_ann) == 2
    # There is nothing left of it.
    assert take_back(own_room.pk, ann, by_ann) is None
    assert take_back(own_room.pk, ann, 99) is None
    assert list(Message.objects.values_list("seq", "text")) == [(1, ""), (2, "")]


async def test_a_message_is_taken_back(open_socket, room, ann, ben):
    sockets = [await open_socket("/ws/socket-server/open/", user=user, greeting=False) for user in (ann, ben)]

    async def receive(socket, type):
        while (frame := await socket.receive_json_from())["type"] != type:
            pass
        return frame

    for socket in sockets:
        assert (await receive(socket, "connection_established"))["edits"] == 0
    await sockets[0].send_json_to({"type": "message", "id": str(uuid.uuid4()), "text": "rude"})
    for socket in sockets:
        await receive(socket, "message")

    await sockets[1].send_json_to({"type": "take_back", "seq": 1})
    assert (await receive(sockets[1], "error"))["code"] == "not_allowed"
    await sockets[0].send_json_to({"type": "take_back", "seq": 1})

    for socket in sockets:
        assert await receive(socket, "taken_back") == {"type": "taken_back", "seq": 1, "edits": 1}
        # A page that has missed it learns so from the next pong.
        await socket.send_json_to({"type": "ping"})
        assert (await receive(socket, "pong"))["edits"] == 1


def test_a_change_in_the_admin_is_an_edit(client, django_user_model, room, ann):
    client.force_login(django_user_model.objects.create_superuser("admin"))
    message, _ = post_message(room.pk, ann, uuid.uuid4(), "rude")

    client.post(reverse("admin:chat_message_change", args=[message.pk]), {"text": ""})

    assert Room.objects.get(pk=room.pk).edits == 1
