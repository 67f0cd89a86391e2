"""What a page sees over its socket, from the handshake on."""

import asyncio
import contextlib
import gc
import json
import re
import uuid
import weakref
from collections import Counter
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.db import ProgrammingError, connection, transaction
from django.utils import timezone

from chat import consumers, feed, presence, rooms, signals
from chat.models import (
    PRESENCE_LIFETIME,
    Membership,
    Message,
    Presence,
    Reading,
    Room,
    find_places,
    post_message,
    take_back,
)
from realtime import Close, anotify
from realtime.fanout import Subscription
from realtime.process import process


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Tests need not wait for what polling finds."""
    monkeypatch.setattr(rooms, "POLL", 0.1)
    monkeypatch.setattr(rooms, "SETTLE", 0.01)


@pytest.fixture
def seldom(monkeypatch):
    """What a test sees is not found by polling."""
    monkeypatch.setattr(rooms, "POLL", 600)
    monkeypatch.setattr(rooms, "SETTLE", 600)


@pytest.fixture
def enter(open_socket):
    """Return a coroutine function that opens a socket to `room` as `user`, or as nobody."""

    async def enter(user, room, query=""):
        slug = room if isinstance(room, str) else room.slug
        return await open_socket(f"/ws/socket-server/{slug}/{query}", user=user, greeting=False)

    return enter


@pytest.fixture
def queries(transactional_db):
    """An asynchronous context manager that counts SELECTs by the table that they begin with: a Counter."""

    @contextlib.asynccontextmanager
    async def queries():
        counts = Counter()

        def count(execute, sql, *args):
            # Without what it asks beside that, such as whether there are bans.
            counts.update(re.findall(r'FROM "(\w+)"', re.sub(r"EXISTS\(.*? LIMIT 1\)", "", sql))[:1])
            return execute(sql, *args)

        # Of the thread that all consumers share.
        wrappers = await sync_to_async(lambda: connection.execute_wrappers)()
        wrappers.append(count)
        yield counts
        wrappers.remove(count)

    return queries()


class Member:
    """Another process, in the group of a room."""

    def __init__(self):
        self.told = []

    def handle(self, message):
        self.told.append(message)


async def receive(socket, type):
    """Return the next frame of this type; those about presence come when they like."""
    while (frame := await socket.receive_json_from())["type"] != type:
        assert frame["type"] in ("presence", "presence_change"), frame
    return frame


async def receive_until(socket, type):
    """Return the next frame of this type, whatever comes before it."""
    while (frame := await socket.receive_json_from())["type"] != type:
        pass
    return frame


async def receive_seqs(socket, count):
    return [(await receive(socket, "message"))["seq"] for _ in range(count)]


async def is_live(socket):
    """Return when all that was stored before the handshake has been read."""
    await receive(socket, "connection_established")
    await socket.send_json_to({"type": "ping"})
    await receive(socket, "pong")


async def send(socket, text="hello", **fields):
    frame = {"type": "message", "id": str(uuid.uuid4()), "text": text} | fields
    await socket.send_json_to(frame)
    return frame["id"]


@sync_to_async
def store(room, user, count, text="stored"):
    """Store messages that no feed hears of, as if the channel layer had dropped them."""
    for _ in range(count):
        post_message(room.pk, user, uuid.uuid4(), text)


# The handshake


async def test_greets(enter, room, ann):
    await store(room, ann, 3)

    socket = await enter(ann, room)

    greeting = await receive(socket, "connection_established")
    assert greeting.pop("max_size") == 2**16
    assert greeting.pop("crowd") >= 0
    assert (greeting.pop("frames_per_second"), greeting.pop("frame_burst")) == (20, 200)
    assert greeting == {
        "type": "connection_established",
        "message": "You are now connected!",
        "room": "open",
        "user": "ann",
        "user_id": str(ann.pk),
        "last_seq": 3,
        "edits": 0,
    }


async def test_a_page_that_has_gone_is_forgotten(enter, room, ann, until):
    """Not when the garbage collector next goes through what all the others hold."""
    page = await enter(ann, room)
    await receive(page, "connection_established")
    (reader,) = process()[rooms.OpenRooms].open(room.pk).readers
    held = [weakref.ref(reader), weakref.ref(reader.consumer)]
    del reader

    gc.disable()
    try:
        await page.disconnect()
        await until(lambda: [reference() for reference in held] == [None, None])
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("user", "slug", "code"),
    [(None, "open", Close.NOT_LOGGED_IN), ("ann", "nowhere", Close.NOT_FOUND), ("ann", "closed", Close.NOT_FOUND)],
)
async def test_whom_a_room_does_not_let_in(enter, room, closed_room, ann, user, slug, code):
    socket = await enter(ann if user else None, slug)

    assert await socket.closed_with() == code


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ("", range(11, 61)),
        ("?after=", range(11, 61)),
        ("?after=0", range(1, 61)),
        ("?after=57", range(58, 61)),
        ("?after=60", []),
        ("?after=1000000", []),
    ],
)
async def test_what_was_missed_comes_first(enter, room, ann, monkeypatch, query, seqs):
    monkeypatch.setattr(feed, "PAGE", 7)
    await store(room, ann, 60)

    socket = await enter(ann, room, query)

    await receive(socket, "connection_established")
    await send(socket)
    assert await receive_seqs(socket, len(seqs) + 1) == [*seqs, 61]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "1e3", "9" * 30, "%00", "²"])
async def test_a_bad_number_is_refused(enter, room, ann, after):
    socket = await enter(ann, room, f"?after={after}")

    await receive(socket, "connection_established")
    assert (await receive(socket, "error"))["code"] == "bad_number"
    await send(socket)
    assert await receive_seqs(socket, 1) == [1]


def test_a_query_string_may_have_any_bytes():
    consumer = consumers.ListConsumer()
    consumer.scope = {"query_string": b"after=\xff&listed=7"}

    assert consumer.parameters == {"after": "\xff", "listed": "7"}


@pytest.mark.parametrize(("after", "seqs"), [(9, range(10, 21)), (8, range(16, 21)), (0, range(16, 21))])
async def test_a_page_that_has_missed_too_many_starts_anew(enter, room, ann, monkeypatch, after, seqs):
    monkeypatch.setattr(consumers, "MAX_MISSED", 11)
    monkeypatch.setattr(consumers, "PAGE", 5)
    await store(room, ann, 20)

    socket = await enter(ann, room, f"?after={after}")

    assert (await receive(socket, "connection_established"))["last_seq"] == (20 if after == 9 else -1)
    await send(socket)
    assert await receive_seqs(socket, len(seqs) + 1) == [*seqs, 21]


async def test_those_who_come_together_share_queries(room, closed_room, ann, ben, queries):
    await closed_room.members.aadd(ann)
    batcher = rooms.PlaceBatcher(find_places)
    pairs = [(slug, user.pk) for slug in ("open", "closed", "nowhere") for user in (ann, ben)]

    async with queries as counts:
        places = await asyncio.gather(*[batcher.add(pair) for pair in pairs])

    assert [place.may_enter for place in places[:4]] == [True, True, True, False]
    assert places[4:] == [None, None]
    assert counts == {"chat_room": 1, "chat_membership": 1}


async def test_how_many_queries_a_page_makes(enter, room, ann, seldom, monkeypatch, queries):
    """One for the room, and none for messages if it has all."""
    monkeypatch.setattr(feed, "KEPT", 0)
    await store(room, ann, 3)
    await is_live(await enter(ann, room, "?after=3"))

    async with queries as counts:
        socket = await enter(ann, room, "?after=3")
        await receive(socket, "connection_established")
        assert counts.keys() <= {"chat_room", "django_session", "accounts_user"}
        assert counts["chat_room"] == 1
        await socket.send_json_to({"type": "ping"})
        await receive(socket, "pong")
        assert counts["chat_room"] == 2
        assert counts["chat_message"] == 0


async def test_those_who_have_missed_the_same_share_a_query(enter, room, ann, queries, monkeypatch):
    # On a busy machine five take longer to enter than a page is kept.
    monkeypatch.setattr(feed, "KEPT", 60)
    await store(room, ann, 3)

    async with queries as counts:
        for socket in [await enter(ann, room, "?after=1") for _ in range(5)]:
            await receive(socket, "connection_established")
            assert await receive_seqs(socket, 2) == [2, 3]

    assert counts["chat_message"] == 1


@pytest.mark.parametrize("is_told", [True, False], ids=["over a socket", "in the admin"])
async def test_a_page_is_not_sent_again_when_a_text_of_it_was_taken_back(enter, room, ann, monkeypatch, is_told):
    monkeypatch.setattr(feed, "KEPT", 60)
    await store(room, ann, 2)
    first = await enter(ann, room, "?after=1")
    assert (await receive_until(first, "message"))["text"] != ""

    if is_told:
        await first.send_json_to({"type": "take_back", "seq": 2})
        await receive_until(first, "taken_back")
        await first.send_json_to({"type": "resume", "after": 1})
        assert (await receive_until(first, "message"))["text"] == ""
    else:
        await sync_to_async(take_back)(room.pk, ann, 2)
    second = await enter(ann, room, "?after=1")

    assert (await receive(second, "connection_established"))["edits"] == 1
    assert (await receive(second, "message"))["text"] == ""


# Messages


async def test_a_message_reaches_everybody(enter, room, ann, ben):
    sockets = [await enter(ann, room), await enter(ben, room)]
    for socket in sockets:
        await receive(socket, "connection_established")

    id = await send(sockets[0], "Hello, 世界!")

    for socket in sockets:
        frame = await receive(socket, "message")
        assert frame.pop("sent_at").endswith("Z")
        assert frame == {"type": "message", "seq": 1, "id": id, "user": "ann", "text": "Hello, 世界!"}


@pytest.mark.parametrize(
    "text",
    ["😀" * 2000, "שלום, \u202eולם", "<script>alert(1)</script>", " spaces  \n\tand lines ", "e\u0301", "\ufeff"],
)
async def test_texts_are_kept_exactly(enter, room, ann, text):
    socket = await enter(ann, room)
    await receive(socket, "connection_established")

    await send(socket, text)

    assert (await receive(socket, "message"))["text"] == text
    assert (await Message.objects.aget()).text == text


async def test_what_is_no_ascii_is_sent_as_utf_8(enter, room, ann):
    """As \\u escapes an emoji would be three times as long."""
    socket = await enter(ann, room)
    await receive(socket, "connection_established")

    await send(socket, "😀" * 10)

    while "message" not in (text := (await socket.receive_output())["text"])[:20]:
        pass
    assert "😀" * 10 in text


async def test_the_sockets_of_a_user_share_a_limit(enter, room, ann, ben, settings):
    settings.REALTIME_FRAME_BURST = 5
    settings.REALTIME_FRAMES_PER_SECOND = 0.1
    sockets = [await enter(ann, room) for _ in range(3)]
    for socket in sockets:
        await receive(socket, "connection_established")

    for socket in sockets * 2:
        await send(socket)

    assert await receive_seqs(sockets[0], 5) == [1, 2, 3, 4, 5]
    assert (await receive_until(sockets[2], "error"))["code"] == "rate_limited"
    assert await Message.objects.acount() == 5
    other = await enter(ben, room, "?after=5")
    await receive(other, "connection_established")
    await send(other)
    assert await receive_seqs(other, 1) == [6]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"text": ""}, "text_empty"),
        ({"text": "x" * 2001}, "text_too_long"),
        ({"text": "a\0b"}, "text_has_nul"),
        ({"text": None}, "no_text"),
        ({"id": "7"}, "bad_id"),
        ({"id": "6F9619FF-8B86-D011-B42D-00CF4FC964FF"}, "bad_id"),
    ],
)
async def test_bad_messages_are_refused(enter, room, ann, fields, code):
    socket = await enter(ann, room)
    await receive(socket, "connection_established")

    id = await send(socket, **fields)

    error = await receive(socket, "error")
    assert (error["code"], error["id"]) == (code, id)
    assert not await Message.objects.aexists()


async def test_a_message_without_an_id_gets_one(enter, room, ann):
    socket = await enter(ann, room)
    await receive(socket, "connection_established")

    await send(socket, id=None)

    assert uuid.UUID((await receive(socket, "message"))["id"])


async def test_the_same_id_is_answered_with_the_stored_message(enter, room, ann):
    socket, other = await enter(ann, room), await enter(ann, room)
    for each in (socket, other):
        await receive(each, "connection_established")
    id = await send(socket, "first")
    first = await receive(socket, "message")

    await send(socket, "again", id=id)
    assert await receive(socket, "message") == first

    # Nobody else sees it twice.
    await send(socket)
    assert await receive_seqs(other, 2) == [1, 2]


async def test_an_id_of_somebody_else_is_refused(enter, room, ann, ben):
    socket, other = await enter(ann, room), await enter(ben, room)
    for each in (socket, other):
        await receive(each, "connection_established")
    id = await send(socket)
    await receive(other, "message")

    await send(other, id=id)

    error = await receive(other, "error")
    assert (error["code"], error["id"]) == ("id_taken", id)


async def test_one_order_for_everybody(enter, room, ann, ben):
    sockets = [await enter(user, room) for user in (ann, ben) for _ in range(3)]
    for socket in sockets:
        await receive(socket, "connection_established")

    await asyncio.gather(*[send(socket) for socket in sockets for _ in range(10)])

    received = [[await receive(socket, "message") for _ in range(60)] for socket in sockets]
    assert [frame["seq"] for frame in received[0]] == list(range(1, 61))
    assert all(frames == received[0] for frames in received)


# What the channel layer loses


async def test_what_the_channel_layer_drops_arrives(enter, room, ann):
    socket = await enter(ann, room)
    await is_live(socket)
    await store(room, ann, 3)

    await send(socket)

    assert await receive_seqs(socket, 4) == [1, 2, 3, 4]


async def test_the_last_one_arrives_too(enter, room, ann):
    """Nothing follows that would show a gap."""
    socket = await enter(ann, room)
    await is_live(socket)

    await store(room, ann, 1)

    assert await receive_seqs(socket, 1) == [1]


async def test_pong_tells_the_last_number(enter, room, ann, seldom):
    socket = await enter(ann, room)
    await is_live(socket)
    await store(room, ann, 2)

    await socket.send_json_to({"type": "ping"})

    # First, or the page would ask for what is on its way.
    assert await receive_seqs(socket, 2) == [1, 2]
    assert (await receive(socket, "pong"))["last_seq"] == 2


async def test_a_page_that_has_seen_more_than_the_feed(enter, room, ann, seldom):
    """In another process, whose hint has not come yet."""
    await is_live(await enter(ann, room))
    await store(room, ann, 3)

    socket = await enter(ann, room, "?after=3")

    assert (await receive(socket, "connection_established"))["last_seq"] == 3
    await send(socket)
    assert await receive_seqs(socket, 1) == [4]


async def test_a_page_that_has_missed_more_than_the_feed_knows(enter, room, ann, seldom, monkeypatch):
    monkeypatch.setattr(feed, "PAGE", 7)
    await is_live(await enter(ann, room))
    await store(room, ann, 30)

    socket = await enter(ann, room, "?after=0")

    await receive(socket, "connection_established")
    assert await receive_seqs(socket, 30) == list(range(1, 31))


async def test_a_page_that_was_read_is_kept_for_a_moment(enter, room, ann, seldom, until):
    await store(room, ann, 3)

    socket = await enter(ann, room, "?after=0")
    await receive(socket, "connection_established")
    await receive_seqs(socket, 3)

    pages = process()[rooms.OpenRooms].open(room.pk).feed._pages
    assert pages
    await until(lambda: not pages)


async def test_other_processes_are_told(enter, room, ann, seldom, until):
    """They do not wait for their poll, and neither does this one."""
    elsewhere = await Subscription.join(rooms.room_group(room.pk), Member())
    socket = await enter(ann, room)
    await is_live(socket)

    await send(socket)
    await until(lambda: elsewhere.member.told)
    text = elsewhere.member.told[0]["messages"][0][1]
    hints = [[2, text.replace('"seq":1', '"seq":2')]]
    await elsewhere.send({"type": "chat.messages", "messages": hints})

    assert await receive_seqs(socket, 2) == [1, 2]
    await elsewhere.leave()


async def test_hints_of_the_last_release(enter, room, ann, seldom):
    """It runs beside this one while a version is deployed: no version in the message, spaces in the JSON."""
    socket = await enter(ann, room)
    await is_live(socket)
    frame = '{"type": "message", "seq": 1, "id": "%s", "user": "ann", "text": "x", "sent_at": "2026-01-01T00:00:00Z"}'
    group = rooms.room_group(room.pk)
    hints = [[1, frame % uuid.uuid4()]]

    await get_channel_layer().group_send(group, {"type": "chat.messages", "group": group, "messages": hints})

    assert await receive_seqs(socket, 1) == [1]


async def test_what_is_broadcast_to_the_room(enter, room, ann):
    socket = await enter(ann, room)
    await is_live(socket)

    await anotify(rooms.room_group(room.pk), {"type": "notice"})

    assert await receive(socket, "notice") == {"type": "notice"}


async def test_what_a_view_or_a_command_says_is_shown_at_once(enter, room, ann, seldom):
    socket = await enter(ann, room)
    await is_live(socket)

    message = await sync_to_async(rooms.say)(room.pk, ann, "Hello")

    frame = await receive(socket, "message")
    assert (frame["seq"], frame["id"], frame["text"]) == (1, str(message.pk), "Hello")


def test_nobody_says_nothing(room, ann):
    """An empty text is one that was taken back."""
    with pytest.raises(ValueError, match="has a text"):
        rooms.say(room.pk, ann, "")


async def test_a_room_is_left_with_its_last_reader(enter, room, ann, until):
    sockets = [await enter(ann, room) for _ in range(2)]
    open_rooms = process()[rooms.OpenRooms]
    for socket in sockets:
        await is_live(socket)
        assert room.pk in open_rooms._rooms
        await socket.disconnect()

    assert not open_rooms._rooms
    await until(lambda: open_rooms._task is None)
    assert not await Presence.objects.aexists()


async def test_rooms_are_asked_for_when_somebody_comes_and_now_and_then(monkeypatch):
    monkeypatch.setattr(rooms, "POLL", 60)
    monkeypatch.setattr(rooms, "SETTLE", 0.001)
    open_rooms, asked = rooms.OpenRooms(), []
    open_rooms.open(1)

    async def ask(room_ids):
        asked.append(set(room_ids))

    monkeypatch.setattr(open_rooms, "_ask_for_numbers", ask)
    monkeypatch.setattr(open_rooms, "_ask_who_is_here", ask)
    open_rooms._look(open_rooms.open(1))
    await asyncio.sleep(0.05)

    assert asked == [{1}, {1}]


async def test_hints_that_overtake_each_other(room, ann):
    """They are put in order without a query."""
    consumer = SimpleNamespace(scope={"user": ann}, handed_out=[])
    consumer.deliver = lambda broadcast: consumer.handed_out.append(broadcast.event["text"])
    messages = feed.Feed(room.pk, None)
    messages.start(0)
    reader = feed.Reader(consumer, messages)
    messages.readers[reader] = None
    reader.send_after(0)

    for seq in (2, 3, 1, 1, 2, 4):
        messages.hear(seq, str(seq))

    assert consumer.handed_out == ["1", "2", "3", "4"]


async def test_a_number_that_no_message_has_is_asked_for_once(monkeypatch):
    """As after a hint of another database."""
    asked = []

    async def query(*arguments):
        asked.append(arguments)
        return []

    monkeypatch.setattr(feed, "OVERTAKEN", 0.001)
    monkeypatch.setattr(feed, "query", query)
    of_room = feed.Feed(1, None)
    of_room.start(0)
    of_room.hear_of(5)
    await asyncio.sleep(0.05)

    assert len(asked) == 1


async def test_who_gives_up_a_page_ends_no_other(monkeypatch):
    asked = asyncio.Event()

    async def query(*arguments):
        await asked.wait()
        return [(1, "text")]

    monkeypatch.setattr(feed, "query", query)
    of_room = feed.Feed(1, None)
    leaving, staying = (asyncio.create_task(of_room.read_page(0)) for _ in range(2))
    await asyncio.sleep(0)

    leaving.cancel()
    await asyncio.wait([leaving])
    asked.set()

    assert await staying == [(1, "text")]


async def test_hints_without_end_are_dropped():
    """Polling makes up for them."""
    told = []

    async def tell_others(message):
        told.extend(seq for seq, _ in message["messages"])

    messages = feed.Feed(1, tell_others)
    for seq in range(2 * feed.MAX_HINTS):
        messages.tell(seq, "text")
        assert len(messages._early) <= feed.MAX_HINTS

    await messages._hinting

    assert told == list(range(feed.MAX_HINTS, 2 * feed.MAX_HINTS))


async def test_pong_comes_after_what_was_missed(enter, room, ann, monkeypatch):
    monkeypatch.setattr(feed, "PAGE", 7)
    await store(room, ann, 60)
    socket = await enter(ann, room, "?after=0")
    await receive(socket, "connection_established")

    await socket.send_json_to({"type": "ping"})

    assert await receive_seqs(socket, 60) == list(range(1, 61))
    assert (await receive(socket, "pong"))["last_seq"] == 60


async def test_resume(enter, room, ann):
    await store(room, ann, 5)
    socket = await enter(ann, room, "?after=5")
    await receive(socket, "connection_established")

    await socket.send_json_to({"type": "resume", "after": 2})
    await send(socket)

    assert await receive_seqs(socket, 4) == [3, 4, 5, 6]


async def test_resume_in_the_middle_of_a_replay(enter, room, ann, monkeypatch):
    monkeypatch.setattr(feed, "PAGE", 10)
    await store(room, ann, 100)
    socket = await enter(ann, room, "?after=0")
    await receive(socket, "connection_established")
    await receive_seqs(socket, 5)

    await socket.send_json_to({"type": "resume", "after": 0})

    seqs = [6]
    while seqs[-1] != 100 or 1 not in seqs:
        seqs += await receive_seqs(socket, 1)
    begin = seqs.index(1)
    assert seqs[begin:] == list(range(1, 101))


async def test_a_long_replay_leaves_turns_to_others(monkeypatch):
    """Sends do not wait for a client that reads, so that a replay of thousands would be one turn of the event loop."""
    sent, most = 0, 0
    page = [(number, "x" * 500) for number in range(1, 1001)]
    room = feed.Feed(1, None)
    room.seq = room.newest = 1000
    monkeypatch.setattr(feed, "read_page", lambda room_id, seq: page[seq : seq + feed.PAGE])

    class Consumer:
        scope = {"user": SimpleNamespace(pk=1)}
        start_task = staticmethod(asyncio.create_task)

        async def answer(self, text):
            nonlocal sent
            sent += len(text)

    reader = feed.Reader(Consumer(), room)
    reader.send_after(0)
    while not reader.live:
        before = sent
        await asyncio.sleep(0)
        most = max(most, sent - before)

    assert sent == 500_000
    assert most <= feed.TURN + 500


async def test_resume_after_too_many(enter, room, ann, monkeypatch):
    """The page comes back, and then it is told to start anew."""
    monkeypatch.setattr(consumers, "MAX_MISSED", 11)
    await store(room, ann, 20)
    socket = await enter(ann, room)
    await receive(socket, "connection_established")

    await socket.send_json_to({"type": "resume", "after": 8})

    assert await socket.closed_with() == Close.COME_BACK


async def test_a_database_with_fewer_messages_than_were_handed_out(enter, room, ann):
    """A replay ends that will never find them."""
    await store(room, ann, 5)
    socket = await enter(ann, room, "?after=5")
    await is_live(socket)
    await Message.objects.filter(seq__gt=3).adelete()

    await socket.send_json_to({"type": "resume", "after": 2})

    assert await receive_seqs(socket, 1) == [3]
    await socket.send_json_to({"type": "ping"})
    await receive(socket, "pong")
    assert all(reader.live for reader in process()[rooms.OpenRooms].open(room.pk).readers)


@pytest.mark.parametrize(
    ("frame", "count"), [({"type": "history", "before": 51}, 1), ({"type": "resume", "after": 0}, 50)]
)
@pytest.mark.parametrize("text", ["x" * 2000, "\u20ac" * 667], ids=["letters", "euros"])
async def test_large_answers_count_as_frames(enter, room, ann, settings, frame, count, text):
    # One a second: on a slow machine twenty would have paid for it.
    settings.REALTIME_FRAMES_PER_SECOND, settings.REALTIME_FRAME_BURST = 1, 20
    await store(room, ann, 50, text)
    sockets = [await enter(ann, room, "?after=50") for _ in range(2)]
    for socket in sockets:
        await receive(socket, "connection_established")

    await sockets[0].send_json_to(frame)
    for _ in range(count):
        await receive(sockets[0], "history" if count == 1 else "message")

    # A hundred thousand bytes are 25 frames, of all sockets of the user.
    id = await send(sockets[1])
    error = await receive(sockets[1], "error")
    assert (error["code"], error["id"]) == ("rate_limited", id)
    assert 0 < error["retry_after"] < 40


async def test_history(enter, room, ann):
    await store(room, ann, 60)
    socket = await enter(ann, room, "?after=60")
    await receive(socket, "connection_established")

    await socket.send_json_to({"type": "history", "before": 56})
    page = await receive(socket, "history")
    await socket.send_json_to({"type": "history", "before": 6})
    last_page = await receive(socket, "history")

    assert [frame["seq"] for frame in page["messages"]] == list(range(6, 56))
    assert (page["before"], page["more"]) == (56, True)
    assert [frame["seq"] for frame in last_page["messages"]] == list(range(1, 6))
    assert last_page["more"] is False

    # A page that is full, and the last one.
    await socket.send_json_to({"type": "history", "before": 51})
    page = await receive(socket, "history")
    assert (len(page["messages"]), page["more"]) == (50, False)


@pytest.mark.parametrize("number", [None, "3", -1, 1.5, True, 2**60, []])
async def test_bad_numbers_in_frames_are_refused(enter, room, ann, number):
    socket = await enter(ann, room)
    await receive(socket, "connection_established")

    for frame in ({"type": "history", "before": number}, {"type": "resume", "after": number}):
        await socket.send_json_to(frame)
        assert (await receive(socket, "error"))["code"] == "bad_number"


# Who is here


def test_those_who_are_here_are_greeted_with_one_text():
    present = presence.Present()
    present.change(["ann", "ben"])

    text = present.greet("ann")

    assert json.loads(text)["users"] == ["ann", "ben"]
    assert present.greet("ben") is text
    # Nobody has stored yet that they are here.
    assert json.loads(present.greet("amy"))["users"] == ["amy", "ann", "ben"]
    present.change(["ben"])
    assert json.loads(present.greet("ben"))["users"] == ["ben"]


async def test_presence(enter, room, ann, ben):
    socket = await enter(ann, room)
    assert await socket.receive_type("connection_established")
    assert await socket.receive_type("presence") == {"type": "presence", "users": ["ann"]}

    other = await enter(ben, room)
    while (await socket.receive_type("presence"))["users"] != ["ann", "ben"]:
        pass
    # A second tab changes nothing.
    tab = await enter(ben, room)
    await tab.disconnect()
    await other.disconnect()
    assert (await socket.receive_type("presence"))["users"] == ["ann"]


async def test_who_was_in_a_process_that_died_is_gone(enter, room, ann, ben, until):
    there = await Presence.objects.acreate(room=room, user=ben, process=uuid.uuid4(), seen_at=timezone.now())
    socket = await enter(ann, room)
    await receive(socket, "connection_established")
    while (await receive(socket, "presence"))["users"] != ["ann", "ben"]:
        pass
    # The sign of life of this process has passed, with which it deletes those of others.
    await until(lambda: not process()[rooms.OpenRooms]._recorder.is_empty)

    await Presence.objects.filter(pk=there.pk).aupdate(seen_at=timezone.now() - PRESENCE_LIFETIME)

    assert (await receive(socket, "presence"))["users"] == ["ann"]


def test_a_sign_of_life_is_given_once_in_a_beat(monkeypatch):
    """And not with each poll: it writes a row for each who is here."""
    signs = []
    monkeypatch.setattr(presence, "record_presence", lambda process, stored, pairs, beats: signs.append(beats) or {})
    # The clock of Windows stands still for 16 ms.
    now = 1000
    monkeypatch.setattr(presence, "time", SimpleNamespace(monotonic=lambda: now))
    recorder = presence.Recorder()

    for _ in range(3):
        recorder.record(set())
    now += presence.BEAT
    recorder.record(set())

    assert signs == [True, True]


async def test_where_many_are_here_only_changes_are_told(enter, room, ann, ben, monkeypatch):
    monkeypatch.setattr(presence, "LISTED", 1)
    socket = await enter(ann, room)
    assert await socket.receive_type("connection_established")
    assert (await socket.receive_type("presence"))["users"] == ["ann"]

    others = [await enter(user, room) for user in (ben, await get_user_model().objects.acreate_user("cy"))]
    names = {"ann"}
    while names != {"ann", "ben", "cy"}:
        frame = await socket.receive_json_from()
        names = {*frame["users"]} if frame["type"] == "presence" else names | {*frame["came"]} - {*frame["left"]}

    await others[0].disconnect()

    assert await socket.receive_type("presence_change") == {"type": "presence_change", "came": [], "left": ["ben"]}


def test_forty_people_are_many():
    here, names = presence.Present(), sorted(f"user{number}" for number in range(40))
    assert json.loads(here.change(names)) == {"type": "presence", "users": names}

    left = json.loads(here.change(names[1:]))

    assert left == {"type": "presence_change", "came": [], "left": names[:1]}


async def test_a_process_that_was_taken_for_dead(enter, room, ann, monkeypatch, until):
    """It was frozen for a while, and says again who is here."""
    monkeypatch.setattr(presence, "BEAT", 0.1)
    socket = await enter(ann, room)
    await is_live(socket)
    await until(lambda: not process()[rooms.OpenRooms]._recorder.is_empty)

    await Presence.objects.all().adelete()

    recorded = sync_to_async(Presence.objects.filter(room=room, user=ann).exists)
    async with asyncio.timeout(5):
        while not await recorded():
            pass


# Rights that end


async def test_who_is_no_longer_a_member_is_out(enter, closed_room, ann, ben):
    for user in (ann, ben):
        await Membership.objects.acreate(room=closed_room, user=user)
    sockets = [await enter(ann, closed_room), await enter(ben, closed_room)]
    for socket in sockets:
        await receive(socket, "connection_established")

    await Membership.objects.filter(user=ben).adelete()

    assert await sockets[1].closed_with() == Close.NOT_ALLOWED
    await send(sockets[0])
    assert await receive_seqs(sockets[0], 1) == [1]


async def test_a_room_that_is_deleted_or_closed(enter, room, ann):
    socket = await enter(ann, room)
    await receive(socket, "connection_established")
    room.is_open = False
    await room.asave()
    assert await socket.closed_with() == Close.NOT_ALLOWED

    room.is_open = True
    await room.asave()
    socket = await enter(ann, room)
    await receive(socket, "connection_established")
    await Room.objects.all().adelete()
    assert await socket.closed_with() == Close.NOT_FOUND


def delete_silently(gone):
    """Delete a user or a room as another process does, of which this one has not heard yet."""
    with transaction.atomic():
        for model in (Presence, Reading):
            model.objects.filter(**{"room" if isinstance(gone, Room) else "user": gone}).delete()
        type(gone).objects.filter(pk=gone.pk)._raw_delete("default")


async def test_an_account_that_is_deleted_as_it_writes(enter, room, ann, caplog):
    socket = await enter(ann, room)
    await is_live(socket)
    await sync_to_async(delete_silently)(ann)

    await send(socket)

    assert await socket.closed_with() == Close.NOT_LOGGED_IN
    assert "Traceback" not in caplog.text


async def test_a_room_that_is_deleted_as_somebody_writes(enter, room, ann, seldom):
    socket = await enter(ann, room)
    await is_live(socket)
    await sync_to_async(delete_silently)(room)

    await send(socket)

    assert await socket.closed_with() == Close.NOT_FOUND


@pytest.mark.parametrize("field", ["room", "user"])
async def test_a_membership_that_is_given_away(enter, room, closed_room, ann, ben, seldom, field):
    membership = await Membership.objects.acreate(room=closed_room, user=ann)
    socket = await enter(ann, closed_room)
    await is_live(socket)

    setattr(membership, field, {"room": room, "user": ben}[field])
    await membership.asave()

    assert await socket.closed_with() == Close.NOT_ALLOWED


async def test_a_new_slug_ends_nothing(enter, room, ann):
    socket = await enter(ann, room)
    await is_live(socket)

    room.slug = "renamed"
    await room.asave()

    await send(socket)
    assert await receive_seqs(socket, 1) == [1]


@pytest.mark.parametrize(
    ("slug", "change", "code"),
    [
        ("closed", lambda ben: Membership.objects.all().delete(), Close.NOT_ALLOWED),
        ("closed", lambda ben: Membership.objects.update(user=ben), Close.NOT_ALLOWED),
        ("open", lambda ben: Room.objects.update(is_open=False), Close.NOT_ALLOWED),
        ("open", lambda ben: Room.objects.all().delete(), Close.NOT_FOUND),
    ],
)
async def test_what_nobody_tells_is_polled(
    enter, room, closed_room, ann, ben, settings, monkeypatch, slug, change, code
):
    """As when Redis is away, or after update()."""
    monkeypatch.setattr(signals, "tell", lambda *args: None)
    settings.REALTIME_RECHECK_SECONDS = 0.1
    await Membership.objects.acreate(room=closed_room, user=ann)
    socket = await enter(ann, slug)
    await is_live(socket)

    await sync_to_async(change)(ben)

    assert await socket.closed_with() == code


async def test_a_membership_that_ends_during_the_handshake(enter, closed_room, ann, seldom, monkeypatch):
    """After it was read, and before this process was in the room's group."""
    await Membership.objects.acreate(room=closed_room, user=ann)
    join = Subscription.join

    async def join_late(group, member):
        await Membership.objects.all().adelete()
        return await join(group, member)

    monkeypatch.setattr(Subscription, "join", join_late)

    assert await (await enter(ann, closed_room)).closed_with() == Close.NOT_ALLOWED


async def test_a_membership_that_ends_as_somebody_enters(enter, closed_room, ann, ben, seldom, monkeypatch):
    """After it was read; the process is in the room's group, since somebody else is there, but has nobody to close."""
    for user in (ann, ben):
        await Membership.objects.acreate(room=closed_room, user=user)
    await is_live(await enter(ben, closed_room))
    heard = asyncio.Event()
    handle = rooms.OpenRoom.handle

    def read_and_end(pairs):
        places = find_places(pairs)
        Membership.objects.filter(user=ann).delete()
        return places

    async def look_up_late(batcher, pairs):
        places = await look_up_all(batcher, pairs)
        if batcher._look_up is read_and_end:
            await heard.wait()
        return places

    look_up_all = rooms.PlaceBatcher._look_up_all
    monkeypatch.setattr(rooms.OpenRoom, "handle", lambda room, message: (handle(room, message), heard.set()))
    monkeypatch.setattr(rooms.PlaceBatcher, "_look_up_all", look_up_late)
    monkeypatch.setattr(consumers, "find_places", read_and_end)

    assert await (await enter(ann, closed_room)).closed_with() == Close.NOT_ALLOWED


# Mistakes


@pytest.mark.parametrize("name", ["get_last_seqs", "get_names_present"])
async def test_a_missing_table_is_in_the_log(enter, room, ann, monkeypatch, caplog, until, name):
    """And it does not keep the process busy."""
    calls = []

    def fail(room_ids):
        calls.append(room_ids)
        raise ProgrammingError("no such table")

    monkeypatch.setattr(rooms, name, fail)
    await is_live(await enter(ann, room))

    await until(lambda: len(calls) >= 3)

    assert "no such table" in caplog.text
    # Each waits for the next poll.
    count = len(calls)
    await asyncio.sleep(0)
    assert len(calls) == count
