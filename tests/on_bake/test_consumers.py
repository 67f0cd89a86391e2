"""The base consumer: frames in and out, groups, tasks, limits, however a socket ends."""

import asyncio
import gc
import logging
import re
import sys
import weakref
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from channels.testing import WebsocketCommunicator
from django.db import DatabaseError, OperationalError, connection

from realtime import Close, activity, outage
from realtime.activity import Activity
from realtime.authentication import Authentication
from realtime.consumers import TURN, RealtimeConsumer
from realtime.database import DatabaseOutage, query
from realtime.fanout import ChannelLayerUnavailable, broadcast_of, get_fanout
from realtime.frames import Frame, FrameError, Pong
from realtime.process import process
from realtime.socket import Sockets


class Do(Frame):
    """Asks the consumer to do something."""

    what: str


class Consumer(RealtimeConsumer):
    receives = [Do]
    left_with = []

    async def connect(self):
        await self.accept()
        await self.join("group")

    async def receive_frame(self, frame):
        match frame.what:
            case "broadcast":
                await self.broadcast("group", {"type": "news"})
            case "broadcast to others":
                await self.broadcast("group", {"type": "news"}, to_self=False)
            case "broadcast html":
                await self.broadcast("group", "<p>news</p>")
            case "broadcast bytes":
                await self.broadcast("group", b"news")
            case "leave":
                await self.leave("group")
                await self.send({"type": "left"})
            case "task":
                self.task = self.start_task(asyncio.sleep(60))
                await self.send({"type": "started"})
            case "fail":
                raise ZeroDivisionError
            case "refuse":
                raise FrameError("no", "Not this one.")
            case "fail in a task":
                self.start_task(self.fail())
            case "query":
                await self.query()
            case "query in a task":
                self.start_task(self.query())

    async def fail(self):
        raise ZeroDivisionError

    async def query(self):
        raise OperationalError("server closed\n\tthe connection")

    async def disconnect(self, code):
        self.left_with.append(code)


class Plain(RealtimeConsumer):
    """As Channels' own documentation has it."""

    async def connect(self):
        await self.channel_layer.group_add("plain", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("plain", self.channel_name)

    async def plain_news(self, event):
        await self.send_json({"type": "news", "text": event["text"]})


class Failing(Consumer):
    def deliver(self, broadcast):
        raise ZeroDivisionError


class Slow(Consumer):
    outbox_limit = 1000


class Refusing(RealtimeConsumer):
    async def connect(self):
        await self.close()


class Closing(RealtimeConsumer):
    async def connect(self):
        await self.close(Close.NOT_LOGGED_IN)


def do(what):
    return {"type": "do", "what": what, "id": "7"}


async def connect(consumer=Consumer, greeting=True, **scope):
    socket = WebsocketCommunicator(consumer.as_asgi(), "/ws/test/")
    socket.scope.update(scope)
    accepted, _ = await socket.connect()
    assert accepted
    if greeting:
        assert (await socket.receive_json_from())["type"] == "connection_established"
    return socket


def complaints(caplog):
    """Return the warnings and errors of the log."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def members():
    groups = get_fanout().groups
    return groups["group"].members if "group" in groups else {}


async def test_leave():
    socket = await connect()
    await socket.send_json_to(do("leave"))
    assert await socket.receive_json_from() == {"type": "left"}

    await socket.send_json_to(do("broadcast"))

    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_a_sender_may_leave_itself_out():
    sender, other = await connect(), await connect()

    for what in ("broadcast to others", "broadcast"):
        await sender.send_json_to(do(what))

    assert [await other.receive_json_from() for _ in range(2)] == [{"type": "news"}] * 2
    assert await sender.receive_json_from() == {"type": "news"}
    assert await sender.receive_nothing()
    for socket in (sender, other):
        await socket.disconnect()


@pytest.mark.parametrize(("what", "message"), [("html", {"text": "<p>news</p>"}), ("bytes", {"bytes": b"news"})])
async def test_what_is_no_frame_is_broadcast_as_it_is(what, message):
    socket = await connect()

    await socket.send_json_to(do(f"broadcast {what}"))

    assert await socket.receive_output() == {"type": "websocket.send"} | message
    await socket.disconnect()


@pytest.mark.parametrize("number", [1, 3])
async def test_a_plain_group_works_beside_broadcasts(number):
    sockets = [await connect(Plain) for _ in range(number)]
    groups = get_fanout()

    await groups.layer.group_send("plain", {"type": "plain.news", "text": "hello"})
    await groups.send("plain", broadcast_of("plain", '{"type":"broadcast"}'))

    for socket in sockets:
        assert await socket.receive_json_from() == {"type": "news", "text": "hello"}
        assert await socket.receive_json_from() == {"type": "broadcast"}
        await socket.disconnect()


async def test_a_deliver_that_fails_is_not_the_fault_of_others(caplog):
    sender, *_, last = sockets = [await connect(consumer) for consumer in (Consumer, Failing, Consumer)]

    for _ in range(2):
        await sender.send_json_to(do("broadcast"))

    for socket in (sender, last):
        assert [await socket.receive_json_from() for _ in range(2)] == [{"type": "news"}] * 2
    assert len(complaints(caplog)) == 2
    assert "Failing object" in complaints(caplog)[0]
    assert "has failed to deliver a message to the group group" in complaints(caplog)[0]
    for socket in sockets:
        await socket.disconnect()


async def test_a_channel_that_a_task_uses_is_received_from_at_once():
    class Later(Plain):
        async def connect(self):
            await self.accept()
            self.start_task(self.enter())

        async def enter(self):
            await asyncio.sleep(0.05)
            await self.channel_layer.group_add("plain", self.channel_name)
            await self.send({"type": "entered"})

    socket = await connect(Later)
    assert (await socket.receive_json_from())["type"] == "entered"

    await get_fanout().layer.group_send("plain", {"type": "plain.news", "text": "hello"})

    assert await socket.receive_json_from() == {"type": "news", "text": "hello"}
    await socket.send_json_to({"type": "ping"})
    assert (await socket.receive_json_from())["type"] == "pong"
    await socket.disconnect()


async def test_what_comes_over_a_group_of_channels_is_delivered_as_any_broadcast():
    class Choosing(Plain):
        def deliver(self, broadcast):
            if "rumour" not in broadcast.event["text"]:
                super().deliver(broadcast)

    socket = await connect(Choosing)

    for type in ("rumour", "news"):
        await get_fanout().send("plain", broadcast_of("plain", f'{{"type": "{type}"}}'))

    assert (await socket.receive_json_from())["type"] == "news"
    await socket.disconnect()


@pytest.mark.parametrize("used_by", ["itself", "a task"])
async def test_a_server_that_stops_ends_a_socket_whose_channel_is_used_just_then(used_by):
    class Using(Consumer):
        async def connect(self):
            await self.accept()

        async def receive_frame(self, frame):
            if used_by == "itself":
                self.use()
                await asyncio.Event().wait()
            self.start_task(self.use_soon())

        async def use_soon(self):
            self.use()

        def use(self):
            assert self.channel_name
            application.cancel()

    socket = await connect(Using)
    application = socket.future
    await socket.send_json_to(do("use"))

    await asyncio.wait([application], timeout=5)
    assert application.cancelled()


async def test_what_a_middleware_receives_reaches_the_consumer():
    """Though a consumer takes frames from the server itself, where nothing is in between."""
    consumer = Consumer.as_asgi()

    async def middleware(scope, receive, send):
        async def receive_in_small_letters():
            message = await receive()
            return message | {"text": message["text"].lower()} if "text" in message else message

        await consumer(scope, receive_in_small_letters, send)

    socket = WebsocketCommunicator(Sockets(middleware), "/ws/test/")
    await socket.connect()
    await socket.receive_json_from()
    await socket.send_to(text_data='{"TYPE": "PING"}')

    assert (await socket.receive_json_from())["type"] == "pong"
    await socket.disconnect()


async def test_a_task_returns_what_its_coroutine_does():
    class Tasks(Consumer):
        async def connect(self):
            await self.accept()
            await self.send({"type": "result", "result": await self.start_task(asyncio.sleep(0, "done"))})

    socket = await connect(Tasks, greeting=False)

    assert (await socket.receive_json_from())["result"] == "done"
    await socket.disconnect()


async def test_a_task_that_is_no_coroutine_is_told_so():
    class Mistaken(Consumer):
        async def connect(self):
            await self.accept()
            with pytest.raises(TypeError, match=r"self\.count\(\)"):
                self.start_task(self.connect)
            await self.send({"type": "told"})

    socket = await connect(Mistaken, greeting=False)

    assert (await socket.receive_json_from())["type"] == "told"
    await socket.disconnect()


async def test_binary_frames_have_the_same_limit(settings):
    settings.REALTIME_MAX_FRAME_SIZE = 10

    class Binary(RealtimeConsumer):
        async def receive_bytes(self, data):
            await self.send(data[::-1])

    socket = await connect(Binary)
    await socket.send_to(bytes_data=b"123")
    assert await socket.receive_from() == b"321"

    await socket.send_to(bytes_data=b"x" * 11)

    assert (await socket.receive_json_from())["code"] == "too_large"
    await socket.disconnect()


async def test_an_override_that_is_never_called_is_an_error():
    with pytest.raises(TypeError, match="write receive_frame"):

        class Old(RealtimeConsumer):
            async def receive_json(self, content):
                pass


async def test_what_connect_sends_comes_first():
    class Greeting(Consumer):
        async def connect(self):
            await super().connect()
            await self.broadcast("group", {"type": "second"})
            await asyncio.sleep(0.05)
            await self.send({"type": "first"})

    socket = await connect(Greeting, greeting=False)

    assert [(await socket.receive_json_from())["type"] for _ in range(2)] == ["first", "second"]
    await socket.disconnect()


async def test_the_greeting_comes_before_what_is_broadcast_meanwhile():
    class Talking(Consumer):
        async def connect(self):
            await super().connect()
            await self.broadcast("group", {"type": "news"})

    socket = await connect(Talking)

    assert (await socket.receive_json_from())["type"] == "news"
    await socket.disconnect()


@pytest.fixture
async def stuck(until):
    """A socket to Slow whose client reads nothing: its task, what the server has taken, how to let it read again."""

    class Stuck:
        writable, sent, incoming = asyncio.Event(), [], asyncio.Queue()

    async def send(message):
        if message["type"] != "websocket.accept":
            await Stuck.writable.wait()
        Stuck.sent.append(message)

    scope = {"type": "websocket", "path": "/ws/test/", "headers": []}
    Stuck.task = asyncio.create_task(Slow.as_asgi()(scope, Stuck.incoming.get, send))
    await Stuck.incoming.put({"type": "websocket.connect"})
    await until(members)
    for _ in range(50):
        await get_fanout().send("group", broadcast_of("group", "x" * 100))
    return Stuck


async def serve(consumer, send):
    """Let a server whose `send` is given run `consumer`, and return its task, and the queue of what it receives."""
    incoming = asyncio.Queue()
    scope = {"type": "websocket", "path": "/ws/test/", "headers": []}
    task = asyncio.create_task(consumer.as_asgi()(scope, incoming.get, send))
    await incoming.put({"type": "websocket.connect"})
    return task, incoming


async def test_what_waits_is_not_sent_to_who_may_not_have_it_any_more(until):
    """As after a logout."""
    sent, writable = [], asyncio.Event()

    async def send(message):
        if "text" in message:
            await writable.wait()
        sent.append(message.get("text", message["type"]))

    task, incoming = await serve(Consumer, send)
    await until(members)
    await get_fanout().send("group", broadcast_of("group", "secret"))
    (consumer,) = members()
    closing = asyncio.create_task(consumer.socket.close(Close.NOT_LOGGED_IN))
    await asyncio.sleep(0)

    writable.set()
    await closing
    await incoming.put({"type": "websocket.disconnect", "code": 4401})
    await task

    assert [what for what in sent if "connection_established" not in what] == ["websocket.accept", "websocket.close"]


async def test_a_write_that_waits_ends_with_its_socket(until):
    async def send(message):
        if message.get("text") == "news":
            await asyncio.Event().wait()

    task, _ = await serve(Consumer, send)
    await until(members)
    before = asyncio.all_tasks() - {task}
    await get_fanout().send("group", broadcast_of("group", "news"))
    task.cancel()
    await asyncio.wait([task])

    assert asyncio.all_tasks() <= before


async def test_a_client_that_is_gone_is_no_error_of_the_consumer():
    async def send(message):
        if message["type"] != "websocket.accept":
            raise OSError("the client is gone")

    task, incoming = await serve(Consumer, send)
    await incoming.put({"type": "websocket.disconnect", "code": 1006})

    await asyncio.wait_for(task, 5)


async def test_a_reader_that_is_too_slow_is_closed_with_4000(stuck, caplog, until):
    assert [record.getMessage() for record in caplog.get_records("setup")][1:] == [
        "WebSocket /ws/test/ of unknown reads too slowly"
    ]
    assert process()[Activity]["slow_readers"] == 1

    stuck.writable.set()

    await until(lambda: stuck.sent[-1]["type"] == "websocket.close")
    assert stuck.sent[-1]["code"] == 4000
    await stuck.incoming.put({"type": "websocket.disconnect", "code": 4000})
    await stuck.task
    assert not members()


async def test_a_reader_that_reads_nothing_more_is_given_up(stuck, monkeypatch):
    monkeypatch.setattr("realtime.socket.CLOSE_TIMEOUT", 0.05)

    await asyncio.wait_for(stuck.task, 5)

    assert not members()
    assert Slow.left_with[-1] == 4000


async def test_a_closed_socket_has_left_its_groups():
    socket = await connect()
    assert len(members()) == 1

    await socket.disconnect()

    assert not members()


@pytest.mark.parametrize("consumer", [Consumer, Plain])
async def test_a_socket_ends_with_its_client_whether_its_channel_was_used_or_not(consumer):
    socket = await connect(consumer)

    await socket.send_input({"type": "websocket.disconnect"})
    await asyncio.wait([socket.future], timeout=5)

    assert socket.future.done()
    assert process()[Activity]["closed_1005"] == 1


async def test_no_task_joins_a_group_that_its_socket_has_left(monkeypatch):
    class Rejoining(Consumer):
        async def connect(self):
            await super().connect()
            await self.join("another")
            self.start_task(self.rejoin())

        async def rejoin(self):
            while True:
                await asyncio.sleep(0)
                await self.join("group")
                await self.join("another")

    async def group_discard(*names):
        await asyncio.sleep(0.01)

    socket = await connect(Rejoining)
    monkeypatch.setattr(get_fanout().layer, "group_discard", group_discard)

    await socket.disconnect()

    assert not get_fanout().groups


async def test_nothing_is_handled_after_the_close():
    """A message may come before the socket has left its groups."""

    class Closed(Consumer):
        heard = []

        async def connect(self):
            await self.accept()
            await self.close()
            self.handle({"type": "group.news"})

        async def group_news(self, event):
            self.heard.append(event)

    socket = await connect(Closed, greeting=False)
    assert (await socket.receive_output())["type"] == "websocket.close"
    await asyncio.sleep(0)

    await socket.disconnect()

    assert not Closed.heard


async def test_a_failed_socket_has_left_its_groups():
    socket = await connect()

    await socket.send_json_to(do("fail"))
    with pytest.raises(ZeroDivisionError):
        await socket.wait()

    assert not members()


async def test_a_failed_socket_is_logged_with_the_code_of_the_server(caplog):
    caplog.set_level(logging.INFO, "realtime")
    socket = await connect()

    await socket.send_json_to(do("fail"))
    with pytest.raises(ZeroDivisionError):
        await socket.wait()

    assert " closed with 1011 after 0." in caplog.messages[-1]


async def test_a_closed_socket_has_left_the_groups_of_channels():
    class Grouped(Consumer):
        groups = ["of_channels"]

    socket = await connect(Grouped)
    layer = get_fanout().layer
    assert len(layer.groups["of_channels"]) == 1

    await socket.disconnect()

    assert not layer.groups.get("of_channels")


async def test_disconnect_is_called_also_when_the_groups_of_channels_cannot_be_left(monkeypatch):
    class Grouped(Consumer):
        groups = ["of_channels"]
        left_with = []

    socket = await connect(Grouped)
    monkeypatch.setattr(get_fanout().layer, "group_discard", AsyncMock(side_effect=ZeroDivisionError))

    await socket.send_input({"type": "websocket.disconnect", "code": 1001})
    with pytest.raises(ZeroDivisionError):
        await socket.wait()

    assert Grouped.left_with == [1001]


async def test_a_task_ends_with_its_socket():
    socket = await connect()
    before = asyncio.all_tasks()
    await socket.send_json_to(do("task"))
    await socket.receive_json_from()
    assert asyncio.all_tasks() - before

    await socket.disconnect()

    assert not asyncio.all_tasks() - before


async def test_disconnect_comes_after_the_end_of_all_tasks(caplog):
    order = []

    class Cleaning(Consumer):
        async def connect(self):
            await super().connect()
            await self.start_task(asyncio.sleep(0))
            order.append(len(self._tasks._tasks))
            self.start_task(self.work())

        async def work(self):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                order.append("cleaned up")

        async def disconnect(self, code):
            order.append("disconnected")

    socket = await connect(Cleaning)
    await socket.disconnect()

    # Nothing is kept of a task that has ended.
    assert order == [0, "cleaned up", "disconnected"]
    assert not complaints(caplog)


async def test_a_task_that_fails_is_logged_and_its_socket_goes_on(caplog, until):
    socket = await connect()

    await socket.send_json_to(do("fail in a task"))

    await until(lambda: complaints(caplog))
    (line,) = complaints(caplog)
    assert line.endswith("has a task that failed")
    assert "ZeroDivisionError" in caplog.text
    await socket.send_json_to({"type": "ping"})
    assert (await socket.receive_json_from())["type"] == "pong"


async def test_a_task_that_has_not_begun_ends_without_a_word(recwarn):
    class Short(Consumer):
        async def receive_frame(self, frame):
            self.start_task(asyncio.sleep(60))
            raise ZeroDivisionError

    socket = await connect(Short)

    await socket.send_json_to(do("it"))
    with pytest.raises(ZeroDivisionError):
        await socket.wait()

    assert not recwarn.list


async def test_refused(caplog):
    accepted, _ = await WebsocketCommunicator(Refusing.as_asgi(), "/ws/test/").connect()

    assert not accepted
    assert not complaints(caplog)


async def test_a_code_before_accept_reaches_the_client():
    socket = await connect(Closing, greeting=False)

    assert await socket.receive_output() == {"type": "websocket.close", "code": 4401}


async def test_the_code_of_the_server_counts(caplog):
    """Not the one that the client answers with; and who was refused is not logged as opened."""
    caplog.set_level(logging.INFO, "realtime")

    socket = await connect(Closing, greeting=False)
    await socket.disconnect(1006)

    (line,) = caplog.messages
    assert " closed with 4401 after 0." in line


async def test_a_reason_reaches_the_client():
    class Explaining(RealtimeConsumer):
        async def connect(self):
            await self.close(4000, "Later")

    socket = await connect(Explaining, greeting=False)

    assert await socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": "Later"}


async def test_only_codes_of_applications():
    consumer = RealtimeConsumer()
    consumer.base_send = AsyncMock()

    with pytest.raises(ValueError, match="1012"):
        await consumer.close(1012)


@pytest.mark.parametrize("code", [1000, 4321])
async def test_the_last_frame_may_close(code):
    class Closing(Consumer):
        async def connect(self):
            await self.accept()
            await self.send_json({"type": "last"}, close=code)

    socket = await connect(Closing, greeting=False)

    assert await socket.receive_json_from() == {"type": "last"}
    assert await socket.receive_output() == {"type": "websocket.close", "code": code}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "not_json"),
        ('{"type": "x", "n": NaN}', "not_json"),
        ("[]", "not_an_object"),
        ("{}", "no_type"),
        ('{"type": ["x"]}', "no_type"),
        ('{"type": "x"}', "unknown_type"),
        ('{"type": "x", "id": 1}', "bad_id"),
        ('{"type": "x", "text": "\\ud800"}', "not_unicode"),
        # What a frame may hold is not too deep for Python 3.14 and newer.
        ('{"type": "do", "n": ' + "[" * 20_000, "too_deep" if sys.version_info < (3, 14) else "not_json"),
    ],
)
async def test_bad_frames_are_answered(frame, code):
    socket = await connect()

    await socket.send_to(text_data=frame)
    error = await socket.receive_json_from()
    await socket.send_json_to({"type": "ping"})

    assert (error["type"], error["code"]) == ("error", code)
    assert (await socket.receive_json_from())["type"] == "pong"
    await socket.disconnect()


@pytest.mark.parametrize(
    "frame",
    [
        '{"id": "7"}',
        '{"type": "x", "id": "7"}',
        '{"id": "7", "text": "\\udfff"}',
        # By the consumer.
        '{"type": "do", "what": "refuse", "id": "7"}',
    ],
)
async def test_an_error_names_the_refused_frame(frame):
    socket = await connect()

    await socket.send_to(text_data=frame)

    assert (await socket.receive_json_from()).get("id") == "7"
    await socket.disconnect()


async def test_binary_frames_are_answered():
    socket = await connect()

    await socket.send_to(bytes_data=b"\0")

    assert (await socket.receive_json_from())["code"] == "not_text"
    await socket.disconnect()


@pytest.fixture
def limit(settings):
    settings.REALTIME_FRAMES_PER_SECOND = 0.1
    settings.REALTIME_FRAME_BURST = 3


async def test_too_many_frames_are_refused_then_closed(limit, caplog):
    socket = await connect()
    for _ in range(3):
        await socket.send_json_to({"type": "ping"})
        assert (await socket.receive_json_from())["type"] == "pong"

    for frame in ('{"type": "x", "id": "7"}', "{", '{"type": "ping"}'):
        await socket.send_to(text_data=frame)
        error = await socket.receive_json_from()
        assert (error["code"], error.get("id")) == ("rate_limited", "7" if "7" in frame else None)
        assert 9 < error.get("retry_after", 0) <= 10
    for _ in range(3):
        await socket.send_to(bytes_data=b"x")

    assert await socket.receive_output() == {"type": "websocket.close", "code": 4429}
    assert await socket.receive_nothing()
    assert complaints(caplog) == [
        "WebSocket /ws/test/ of unknown is over 0.1 frames a second and told to wait",
        "WebSocket /ws/test/ of unknown sends too many frames",
    ]
    assert process()[Activity]["rate_limited"] == 4
    await socket.disconnect()


async def test_no_limit(limit, settings):
    settings.REALTIME_FRAMES_PER_SECOND = None
    socket = await connect()

    for _ in range(100):
        await socket.send_json_to({"type": "ping"})
        assert (await socket.receive_json_from())["type"] == "pong"

    await socket.disconnect()


async def test_others_have_their_turn_between_frames_that_have_come_at_once():
    class Free(Consumer):
        frames_per_second = None

    socket = await connect(Free)
    counts, frames = [0], process()[Activity]
    for _ in range(10 * TURN):
        await socket.send_json_to({"type": "ping"})
    async with asyncio.timeout(5):
        while counts[-1] < 10 * TURN:
            await asyncio.sleep(0)
            counts.append(frames["frames_in"])

    assert max(after - before for before, after in pairwise(counts)) <= TURN
    await socket.disconnect()


@pytest.mark.parametrize("what", ["query", "query in a task"])
async def test_a_database_that_is_away_closes_with_4000_and_one_line(what, caplog, monkeypatch, until):
    sockets = [await connect() for _ in range(3)]
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    away = True

    async def ask():
        assert not away

    monkeypatch.setattr(process()[DatabaseOutage], "_ask", ask)
    for socket in sockets:
        await socket.send_json_to(do(what))
        assert await socket.receive_output() == {"type": "websocket.close", "code": 4000}
        await socket.disconnect()
    assert complaints(caplog) == ["The database does not answer: server closed the connection"]

    away = False

    await until(lambda: len(complaints(caplog)) == 2)
    assert complaints(caplog)[1].startswith("The database answers again after 0.")


async def test_a_database_that_is_away_at_the_handshake():
    class Querying(Consumer):
        async def connect(self):
            await self.query()

    socket = await connect(Querying, greeting=False)

    assert await socket.receive_output() == {"type": "websocket.close", "code": 4000}
    await socket.disconnect()


async def test_a_missing_table_is_no_outage(transactional_db, caplog):
    """SQLite reports it in the class of errors that a lost connection has."""

    def ask():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM forgotten")

    with pytest.raises(DatabaseError, match="forgotten"):
        await query(ask)

    assert caplog.messages == []


async def test_disconnect_ends_without_the_channel_layer():
    class Leaving(Consumer):
        async def disconnect(self, code):
            raise ChannelLayerUnavailable

    socket = await connect(Leaving)

    await socket.send_input({"type": "websocket.disconnect", "code": 1001})

    await socket.wait()


async def test_there_is_a_line_while_sockets_are_open(caplog, monkeypatch, until):
    caplog.set_level(logging.INFO, "realtime")
    monkeypatch.setattr(activity, "REPORT_EVERY", 0.01)
    process()[Activity].sockets = 120

    await until(lambda: "In 0.01 s: sockets=120 opened=0" in caplog.text)


async def test_greetings_and_pongs_say_what_counts_for_pages():
    counts, limit = process()[Activity], SimpleNamespace(rate=20, burst=200)
    counts.sockets = 120

    # A consumer may say so itself, and a pong may answer a ping with an id.
    own = counts.filled({"type": "pong", "max_size": 7}, limit)
    assert (own["max_size"], own["crowd"]) == (7, 0.1)
    assert counts.filled(Pong(id="7"), limit).id == "7"


async def test_one_line_a_minute(caplog, monkeypatch, until):
    monkeypatch.setattr(activity, "REPORT_EVERY", 0.05)
    socket = await connect()
    await socket.send_json_to(do("broadcast"))
    await socket.receive_json_from()

    def lines():
        return [message for message in caplog.messages if message.startswith("In 0.05 s: ")]

    def counted():
        numbers = [map(int, re.findall(r"(?:opened|frames_in|frames_out)=(\d+)", line)) for line in lines()]
        return [*map(sum, zip(*numbers, strict=True))]

    # On a busy machine what has happened is told in two lines.
    await until(lambda: counted() == [1, 1, 2])
    await socket.disconnect(1001)
    await until(lambda: "sockets=0" in caplog.text)
    await asyncio.sleep(0.2)

    *busy, last = lines()
    nothing = "refused_origins=0 rate_limited=0 slow_readers=0 dropped=0"
    for line in busy:
        assert re.fullmatch(rf"In 0.05 s: sockets=1 opened=\d frames_in=\d frames_out=\d {nothing}", line)
    # And none after it, when there is nothing to say.
    assert last == f"In 0.05 s: sockets=0 opened=0 frames_in=0 frames_out=0 {nothing} closed_1001=1"
    assert counted() == [1, 1, 2]


async def test_dropped_messages_are_counted(caplog):
    """And logged once in a minute: a process that was killed misses each message until its memberships expire."""
    caplog.set_level(logging.INFO, "channels_redis")
    for _ in range(3):
        logging.getLogger("channels_redis.core").info("%s of %s channels over capacity in group %s", 2, 3, "group")

    assert process()[Activity]["dropped"] == 6
    assert caplog.messages == ["2 of 3 channels over capacity in group group"]


async def test_log(caplog):
    caplog.set_level(logging.INFO, "realtime")

    socket = await connect()
    await socket.disconnect(4000)

    opened, closed = caplog.messages
    assert opened == "WebSocket /ws/test/ of unknown opened"
    assert closed.startswith("WebSocket /ws/test/ of unknown closed with 4000 after 0.")


async def test_the_log_has_the_code_that_the_client_has_seen(caplog):
    class LeavingWithAnError(Consumer):
        async def disconnect(self, code):
            raise ZeroDivisionError

    caplog.set_level(logging.INFO, "realtime")

    socket = await connect(LeavingWithAnError)
    with pytest.raises(ZeroDivisionError):
        await socket.disconnect(1001)

    assert "closed with 1001 after 0." in caplog.messages[-1]


# Memory


async def test_nothing_of_a_socket_waits_for_the_garbage_collector():
    """It would keep all of it, some 25 KB, until it next goes through what all the other sockets hold."""
    held = []

    class Held(Consumer):
        # A bucket that is not full has a timer.
        frames_per_second = None

        async def connect(self):
            await super().connect()
            held.extend(map(weakref.ref, (self, self.socket, self._outbox, self._use, self._limit, self._tasks)))

        async def receive_frame(self, frame):
            await self.broadcast("group", {"type": "news"})
            self.start_task(asyncio.Event().wait())

    async def send(message):
        pass

    async def visit():
        frames = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": '{"type": "do", "what": ""}'}]
        messages = iter([*frames, {"type": "websocket.disconnect", "code": 1001}])
        receive = AsyncMock(side_effect=lambda: next(messages))
        scope = {"type": "websocket", "path": "/", "headers": [], "client": ("127.0.0.1", 1), "subprotocols": []}
        await Sockets(Authentication(Held.as_asgi()))(scope, receive, send)

    gc.disable()
    try:
        # What the first one starts for all of the process has its context.
        for _ in range(2):
            held.clear()
            await asyncio.create_task(visit())
            await asyncio.sleep(0)
        assert [reference() for reference in held] == [None] * 6
    finally:
        gc.enable()
