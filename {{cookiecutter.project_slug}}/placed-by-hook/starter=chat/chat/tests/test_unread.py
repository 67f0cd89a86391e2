"""How many messages are unread, in the database, on the pages and over the socket of a list."""

import asyncio
import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat import rooms, unread
from chat.consumers import ListConsumer
from chat.frames import RoomState
from chat.models import Membership, Reading, Room, list_rooms, post_message, take_back
from chat.unread import Lists, find_changes, mark_read, parse_time
from realtime.database import query
from realtime.outage import Unavailable
from realtime.process import process

LONG_AGO = timezone.now() - timedelta(days=365)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Tests need not wait for what polling finds."""
    monkeypatch.setattr(unread, "POLL", 0.1)
    monkeypatch.setattr(unread, "SETTLE", 0.01)


def post(room, *users):
    return [post_message(room.pk, user, uuid.uuid4(), f"by {user}")[0].seq for user in users][-1]


def read(room, user, seq):
    mark_read({(room.pk, user.pk): seq})


def count(room, user):
    """Return what is unread, as the page says, and as a socket does."""
    (on_page,) = [found.unread for found in list_rooms(user) if found == room]
    changes = find_changes(LONG_AGO, {user.pk})
    if (room.pk, user.pk) in changes:
        assert changes[room.pk, user.pk].unread == on_page
    return on_page


# The count


def test_what_others_write_is_unread_until_it_is_read(room, ann, ben):
    read(room, ann, 0)
    post(room, ben, ben, ben)
    assert count(room, ann) == 3

    read(room, ann, 2)
    assert count(room, ann) == 1
    read(room, ann, 3)
    assert count(room, ann) == 0


def test_ones_own_messages_never_count(room, ann, ben):
    read(room, ann, 0)
    read(room, ben, 0)
    post(room, ann, ben, ann, ann, ben)

    assert count(room, ann) == 2
    assert count(room, ben) == 3

    # What is between is left out, too, however far one has read.
    read(room, ann, 2)
    assert count(room, ann) == 1
    read(room, ann, 3)
    assert count(room, ann) == 1
    post(room, ann)
    assert count(room, ann) == 1
    read(room, ann, 5)
    post(room, ann)
    assert count(room, ann) == 0


def test_reading_never_goes_back(room, ann, ben):
    post(room, ben, ben, ben)
    for seq in (3, 1):
        read(room, ann, seq)

    assert Reading.objects.get().read_seq == 3


def test_a_list_shows_that_its_last_message_is_taken_back(room, ann, ben):
    read(room, ann, 0)
    post(room, ben, ben)
    since = timezone.now()

    take_back(room.pk, ben, 1)
    assert find_changes(since, {ann.pk}) == {}
    take_back(room.pk, ben, 2)
    assert find_changes(since, {ann.pk})[room.pk, ann.pk].text == ""


def test_a_room_that_nobody_has_opened_counts_nothing(room, ann, ben):
    post(room, ben)

    assert count(room, ann) == 0
    assert find_changes(LONG_AGO, {ann.pk, ben.pk}) == {}


def test_what_was_said_before_a_member_came_is_not_unread(closed_room, ann, ben):
    post(closed_room, ben, ben)

    Membership.objects.create(room=closed_room, user=ann)

    assert count(closed_room, ann) == 0
    post(closed_room, ben)
    assert count(closed_room, ann) == 1


def test_nobody_hears_of_rooms_that_they_may_not_enter(closed_room, ann, ben):
    Membership.objects.create(room=closed_room, user=ann)
    post(closed_room, ben)
    assert len(find_changes(LONG_AGO, {ann.pk, ben.pk})) == 1

    Membership.objects.all().delete()

    assert find_changes(LONG_AGO, {ann.pk, ben.pk}) == {}


def test_marks_for_what_is_gone_are_dropped(room, ann):
    mark_read({(room.pk + 1, ann.pk): 1, (room.pk, ann.pk + 1): 1, (room.pk, ann.pk): 0})

    assert [(reading.room, reading.user) for reading in Reading.objects.all()] == [(room, ann)]


def test_a_message_in_a_room_of_a_thousand_writes_three_rows(room, ann):
    users = get_user_model().objects.bulk_create(get_user_model()(username=f"user{number}") for number in range(1000))
    with CaptureQueriesContext(connection) as queries:
        mark_read({(room.pk, user.pk): 0 for user in [ann, *users]})
    assert len(queries) < 20

    with CaptureQueriesContext(connection) as queries:
        post(room, ann)
    written = [query["sql"].split()[0] for query in queries if query["sql"].startswith(("INSERT", "UPDATE"))]
    assert sorted(written) == ["INSERT", "UPDATE", "UPDATE"]
    assert Reading.objects.filter(read_seq=1).count() == 1

    # All of them read it at about the same time.
    with CaptureQueriesContext(connection) as queries:
        mark_read({(room.pk, user.pk): 1 for user in users})
    assert len([query for query in queries if query["sql"].startswith("UPDATE")]) == 1
    assert Reading.objects.filter(read_seq=1).count() == 1001


# The list


def test_ones_own_rooms_come_first_and_then_the_last_message_counts(ann, ben):
    rooms = [Room.objects.create(name=name, slug=name) for name in "abcd"]
    for room in (rooms[1], rooms[0], rooms[2], rooms[3]):
        post(room, ben)
    for room in rooms[:2]:
        read(room, ann, 0)

    assert [room.name for room in list_rooms(ann)] == ["a", "b", "d", "c"]
    post(rooms[1], ben)
    assert [room.name for room in list_rooms(ann)] == ["b", "a", "d", "c"]


def test_saving_a_room_leaves_its_time_alone(room, ann):
    stale = Room.objects.get(pk=room.pk)
    post(room, ann)
    last_at = Room.objects.get(pk=room.pk).last_at

    stale.save()

    assert Room.objects.get(pk=room.pk).last_at == last_at


# Over the socket


@pytest.fixture
def open_list(open_socket):
    """Return a coroutine function that opens the socket of a list that was rendered `minutes` ago."""

    async def open_list(user, minutes=0, path=""):
        listed = int((timezone.now() - timedelta(minutes=minutes)).timestamp() * 1000)
        socket = await open_socket(f"/ws/socket-server/{path}?listed={listed}", user=user, greeting=False)
        assert (await socket.receive_type("connection_established"))["user"] == user.username
        return socket

    return open_list


async def receive_room(socket, unread):
    """Return the next state of a room in which so many are unread."""
    while (frame := await socket.receive_json_from())["type"] != "room" or frame["unread"] != unread:
        pass
    return frame


async def test_a_list_is_live(open_list, room, ann, ben):
    await sync_to_async(read)(room, ann, 0)
    socket = await open_list(ann)

    await sync_to_async(post)(room, ben)

    frame = await receive_room(socket, 1)
    assert (frame["slug"], frame["name"], frame["user"], frame["text"]) == ("open", "Open", "ben", "by ben")
    await sync_to_async(read)(room, ann, 1)
    await receive_room(socket, 0)


async def test_what_is_seen_on_one_page_is_read_on_all(open_list, room, ann, ben):
    await sync_to_async(read)(room, ann, 0)
    await sync_to_async(post)(room, ben, ben)
    elsewhere = await open_list(ann, minutes=1)
    await receive_room(elsewhere, 2)

    page = await open_list(ann, path="open/")
    while (await page.receive_json_from()).get("seq") != 2:
        pass
    # Nobody can have read more than they were sent.
    await page.send_json_to({"type": "read", "seq": 1000})

    await receive_room(elsewhere, 0)
    assert (await Reading.objects.aget()).read_seq == 2


async def test_a_page_that_stays_open_brings_back_no_room_that_was_left(open_list, room, ann, ben):
    """In another tab, or right after this one told what was seen. Who writes in the room has it again."""

    async def enter(user):
        page = await open_list(user, path="open/")
        while (await page.receive_json_from()).get("seq") != 2:
            pass
        return page

    await sync_to_async(post)(room, ben, ben)
    page = await enter(ann)
    await page.send_json_to({"type": "read", "seq": 1})
    await receive_room(page, 1)

    await Reading.objects.all().adelete()
    await page.send_json_to({"type": "read", "seq": 2})
    await page.send_json_to({"type": "ping"})
    while (await page.receive_json_from())["type"] != "pong":
        pass
    # Marks are stored in their order: that of ben after it.
    other = await enter(ben)
    await other.send_json_to({"type": "read", "seq": 2})
    await receive_room(other, 0)
    assert [reading.user_id async for reading in Reading.objects.all()] == [ben.pk]

    await page.send_json_to({"type": "message", "text": "I am back"})
    while (await page.receive_json_from()).get("seq") != 3:
        pass
    await page.send_json_to({"type": "read", "seq": 3})
    await receive_room(page, 0)


async def test_a_room_that_is_entered_in_an_outage_comes_into_the_list(open_list, until, room, ann, monkeypatch):
    outages = [Unavailable()]

    async def query_later(*arguments):
        if outages:
            raise outages.pop()
        return await query(*arguments)

    monkeypatch.setattr(unread, "query", query_later)
    lists = unread.Lists()
    lists.mark(room.pk, ann.pk, 0, enters=True)

    await until(lambda: lists._task is None)
    assert [reading.user_id async for reading in Reading.objects.all()] == [ann.pk]


@pytest.mark.parametrize("minutes", [1, 60])
async def test_a_page_that_comes_back_is_told_what_it_has_missed(open_list, room, ann, ben, minutes):
    await sync_to_async(read)(room, ann, 0)
    await sync_to_async(post)(room, ben)

    await receive_room(await open_list(ann, minutes), 1)


def test_memberships_of_a_dump_may_come_before_their_rooms(ann):
    post_save.send(Membership, instance=Membership(room_id=7, user=ann), created=True, raw=True)

    assert not Reading.objects.exists()


async def test_changes_are_told_once_and_from_a_little_before_they_were_asked_for(monkeypatch):
    state = RoomState(slug="", name="", is_open=True, last_seq=1, unread=1, user="", text="", sent_at="", as_of=0)
    lists, asked, sent = Lists(), [], []

    async def query(find, since, users):
        asked.append(since)
        return {(1, 1): state}

    async def send(state, consumers, is_answer=False):
        sent.append(is_answer)

    monkeypatch.setattr(unread, "query", query)
    monkeypatch.setattr(lists, "_send", send)
    monkeypatch.setattr(lists, "look", lambda: None)
    now = lists._polled_at = timezone.now()
    times = [now - timedelta(minutes=minutes) for minutes in (1, 3, 2)]
    for time in times:
        page = ListConsumer()
        page.scope = {"user": SimpleNamespace(pk=1)}
        lists.enter(page, time)
    await lists._greet()
    for _ in range(3):
        await lists._tell_of_changes()

    # Pages that come together are told of what any of them has missed.
    assert asked[:2] == [min(times) - unread.MARGIN, now - unread.MARGIN]
    assert asked[1] < asked[2] < asked[3]
    assert sent == [True, False]


async def test_of_two_pages_the_one_that_has_read_more_counts(monkeypatch):
    """Also when one of them has read on while the database was away."""
    lists = Lists()
    monkeypatch.setattr(lists, "look", lambda: None)
    for seq in (7, 3):
        lists.mark(1, 1, seq=seq, enters=False)
    assert lists._marks == {(1, 1): 7}

    async def fail(*arguments):
        lists.mark(1, 1, seq=9, enters=False)
        raise Unavailable

    monkeypatch.setattr(unread, "query", fail)
    with pytest.raises(Unavailable):
        await lists._store_marks()

    assert lists._marks == {(1, 1): 9}


async def test_nothing_is_kept_of_a_list_that_is_gone(open_list, ann):
    socket = await open_list(ann)
    assert process()[Lists]._consumers

    await socket.disconnect()

    assert not process()[Lists]._consumers
    assert not process()[Lists]._arrived


async def test_a_list_of_many_rooms_is_paid_for(open_list, open_socket, settings, ann):
    """One with 2,000 rooms, asked for again and again, would hold up everybody for seconds."""
    # On a slow machine a second would have paid for it.
    settings.REALTIME_FRAMES_PER_SECOND, settings.REALTIME_FRAME_BURST = 0.01, 2
    many = await Room.objects.abulk_create([Room(name=f"{n:0100}", slug=f"room-{n}") for n in range(100)])
    await Reading.objects.abulk_create([Reading(room=room, user=ann) for room in many])
    socket = await open_list(ann, minutes=60)
    for _ in many:
        await socket.receive_type("room")

    again = await open_socket("/ws/socket-server/?listed=0", user=ann, greeting=False)

    assert await again.closed_with() == 4429


async def test_lists_of_many_rooms_leave_turns_to_others():
    class Page:
        def deliver(self, broadcast):
            pass

        def charge(self, size):
            pass

    async def count_turns():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    turns, lists, pages = [], unread.Lists(), [Page() for _ in range(40)]
    state = RoomState(slug="a", name="a", is_open=True, last_seq=0, unread=0, user="", text="", sent_at="", as_of=0)
    others = asyncio.create_task(count_turns())

    for _ in range(100):
        await lists._send(state, pages, is_answer=True)

    others.cancel()
    assert len(turns) > 40


@pytest.mark.parametrize("text", ["0", "-62135596800000", "-" + "9" * 30])
def test_no_time_is_too_early(text):
    """Python knows no time before the year 1, and what is subtracted from it is an error."""
    assert parse_time(text).year == 1970


def test_no_time_is_in_the_future():
    assert parse_time("9" * 14) <= timezone.now()


@pytest.mark.parametrize("listed", ["", "x", "9" * 30, "1e3"])
async def test_without_a_time_there_is_no_list(open_socket, room, ann, ben, listed):
    """As for the page of the last release."""
    await sync_to_async(read)(room, ann, 0)
    socket = await open_socket(f"/ws/socket-server/?listed={listed}", user=ann)
    await sync_to_async(post)(room, ben)

    await socket.send_json_to({"type": "ping"})

    assert await socket.receive_type("pong")


async def test_a_list_is_for_those_who_are_logged_in(open_socket, room):
    socket = await open_socket("/ws/socket-server/?listed=0", greeting=False)

    assert await socket.closed_with() == 4401


# Who is typing


async def test_others_see_that_somebody_is_typing(open_socket, room, ann, ben):
    sockets = [await open_socket("/ws/socket-server/open/", user=user, greeting=False) for user in (ann, ben)]
    for socket in sockets:
        await socket.receive_type("connection_established")

    await sockets[0].send_json_to({"type": "typing"})

    while (frame := await sockets[1].receive_json_from())["type"] != "typing":
        pass
    assert frame == {"type": "typing", "user": "ann"}


async def test_where_forty_are_here_nobody_is_told_of_it(monkeypatch):
    here, told = rooms.OpenRoom(1), []

    async def tell_all(message):
        told.append(message)

    monkeypatch.setattr(here, "tell_all", tell_all)
    await here.tell_typing("ann")
    here.show_present([f"user{number}" for number in range(40)])
    await here.tell_typing("ben")

    assert told == [{"type": "chat.typing", "user": "ann"}]
