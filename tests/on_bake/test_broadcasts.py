"""notify() and its relatives, in one process; tests/test_notify.py has Redis, commands and threads."""

import asyncio
import contextlib
import datetime
from unittest import mock

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.urls import path
from django.utils.translation import gettext_lazy

from realtime import anotify, anotify_user, broadcasts, notify, notify_consumers, notify_user
from realtime.asgi import AllowedOrigins, Authentication, Sockets
from realtime.consumers import RealtimeConsumer
from realtime.fanout import VERSION, Fanout, Subscription
from realtime.frames import Frame
from realtime.process import process
from realtime.testing import Socket

PATH = "/ws/test/"


class News(Frame):
    title: str


class Consumer(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.join("group")

    async def group_count(self, event):
        await self.send({"type": "count", "count": await get_user_model().objects.acount()})

    async def group_renamed(self, event):
        await self.send({"type": "renamed", "name": event["name"]})


@pytest.fixture
def connect(open_socket):
    async def connect(**options):
        application = Sockets(AllowedOrigins(Authentication(URLRouter([path("ws/test/", Consumer.as_asgi())]))))
        return await open_socket(PATH, application=application, **options)

    return connect


async def test_notify_reaches_a_subscription_where_no_socket_is(transactional_db, until):
    """As that of a page that listens to server-sent events."""
    heard = []

    class Member:
        deliver = staticmethod(heard.append)

    subscription = await Subscription.join("group", Member())
    await sync_to_async(notify)("group", {"type": "news"})
    await until(lambda: heard)
    await subscription.leave()

    assert [broadcast.event["text"] for broadcast in heard] == ['{"type":"news"}']


async def test_notify_sends_on_commit(connect):
    socket = await connect()

    def commit():
        with transaction.atomic():
            notify("group", {"type": "committed"})
            assert async_to_sync(socket.receive_nothing)()

    def roll_back():
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            notify("group", {"type": "rolled_back"})
            raise ZeroDivisionError

    await sync_to_async(roll_back)()
    await sync_to_async(commit)()

    await socket.receive_type("committed")
    assert await socket.receive_nothing()


def test_what_fails_after_the_commit_does_not_fail_the_caller(transactional_db, monkeypatch, caplog):
    hand_over = mock.Mock(side_effect=RuntimeError("can't start new thread"))
    monkeypatch.setattr(broadcasts, "_hand_over", hand_over)

    with transaction.atomic():
        notify("group", {"type": "news"})

    assert "can't start new thread" in caplog.text


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"type": "news", "title": "é"}, '{"type":"news","title":"é"}'),
        (News(title="é"), '{"type":"news","title":"é"}'),
        ("<p>news</p>", "<p>news</p>"),
        (b"\0news", b"\0news"),
    ],
)
async def test_whatever_is_sent_arrives(connect, frame, expected):
    socket = await connect()

    await sync_to_async(notify)("group", frame)
    await anotify("group", frame)

    for _ in range(2):
        assert await socket.receive_from() == expected


async def test_a_user_hears_on_all_sockets(connect):
    ann, bob = [await get_user_model().objects.acreate_user(name) for name in ("ann", "bob")]
    hers, also_hers, his = [await connect(user=user) for user in (ann, ann, bob)]

    await sync_to_async(notify_user)(ann, {"type": "first"})
    await anotify_user(ann, {"type": "second"})

    for socket in (hers, also_hers):
        await socket.receive_type("first")
        await socket.receive_type("second")
    assert await his.receive_nothing()


async def test_consumers_are_told(connect):
    socket = await connect()

    await sync_to_async(notify_consumers)("group", {"type": "group.renamed", "name": "new"})

    assert (await socket.receive_type("renamed"))["name"] == "new"


async def test_consumers_that_are_told_by_the_thread_of_the_orm_may_use_the_database(connect):
    socket = await connect()

    await sync_to_async(notify_consumers)("group", {"type": "group.count"})

    assert (await socket.receive_type("count"))["count"] == 0


@pytest.mark.parametrize(
    ("group", "frame", "error"),
    [
        ("no spaces", {"type": "news"}, TypeError),
        ("x" * 100, {"type": "news"}, TypeError),
        ("group", {"title": "news"}, ValueError),
        ("group", {"type": 1}, ValueError),
        ("group", ["news"], TypeError),
        ("group", {"type": "news", "number": float("nan")}, ValueError),
        ("group", {"type": "news", "what": object()}, TypeError),
    ],
)
def test_a_mistake_is_an_error_where_it_is_made(db, group, frame, error):
    with pytest.raises(error):
        notify(group, frame)
    with pytest.raises(error):
        async_to_sync(anotify)(group, frame)


@pytest.mark.parametrize("message", [{}, {"type": "_run"}])
def test_a_message_that_no_method_takes_is_an_error_where_it_is_made(db, message):
    with pytest.raises(ValueError, match=r"type|_run|method"):
        notify_consumers("group", message)


@pytest.mark.parametrize("value", [datetime.date(2026, 1, 2), {1, 2}, gettext_lazy("Yes"), Consumer])
def test_what_redis_could_not_carry_is_an_error_also_in_memory(db, value):
    with pytest.raises(TypeError, match="serializable"):
        notify_consumers("group", {"type": "group.count", "value": value})


async def test_consumers_are_told_what_redis_would_carry(connect):
    """It takes no keys that are numbers, and fails with all messages that were sent together with one."""
    socket = await connect()

    await sync_to_async(notify_consumers)("group", {"type": "group.renamed", "name": {1: ("new",)}})

    assert (await socket.receive_type("renamed"))["name"] == {"1": ["new"]}


def test_who_is_anonymous_cannot_be_notified(db):
    for user in (AnonymousUser(), get_user_model()(username="not saved"), "ann", None):
        with pytest.raises(ValueError, match="saved user"):
            notify_user(user, {"type": "news"})
        with pytest.raises(ValueError, match="saved user"):
            async_to_sync(anotify_user)(user, {"type": "news"})


async def test_in_asynchronous_code_the_error_names_the_remedy():
    with pytest.raises(RuntimeError, match="anotify"):
        notify("group", {"type": "news"})


@pytest.mark.parametrize("how", [notify, async_to_sync(anotify)])
def test_nobody_hears_is_said_once(transactional_db, caplog, how):
    broadcasts._warn_that_nobody_hears.cache_clear()

    for _ in range(3):
        how("group", {"type": "news"})

    assert len(caplog.messages) == 1
    assert "Set REDIS_URL" in caplog.text


async def test_nothing_is_said_where_a_server_runs(connect, caplog):
    broadcasts._warn_that_nobody_hears.cache_clear()
    await connect()

    await anotify("group", {"type": "news"})

    assert "reaches nobody" not in caplog.text


def test_what_consumers_are_told_has_a_version(monkeypatch):
    told = []
    monkeypatch.setattr(broadcasts, "_on_commit", told.append)

    notify_consumers("group", {"type": "room.renamed"})

    assert told == [{"type": "room.renamed", "group": "group", "version": VERSION}]


async def test_a_message_that_cannot_be_sent_holds_up_no_other(connect, monkeypatch, caplog):
    """Redis takes no keys that are numbers, for instance."""
    socket = await connect()
    fanout = broadcasts.get_fanout()

    async def send(name, message, send=fanout.send):
        if "what" in message:
            raise TypeError("can not serialize")
        await send(name, message)

    monkeypatch.setattr(fanout, "send", send)
    await sync_to_async(notify_consumers)("group", {"type": "group.renamed", "what": {1: 2}})
    await sync_to_async(notify)("group", {"type": "news"})

    await socket.receive_type("news")
    assert "for the group group cannot be sent" in caplog.text


async def test_what_waits_when_the_layer_is_lost_is_counted(connect, monkeypatch, caplog, until):
    await connect()
    fanout = broadcasts.get_fanout()
    monkeypatch.setattr(broadcasts, "ANSWER_TIMEOUT", 0.2)
    # Three are sent, and two wait behind them.
    monkeypatch.setattr(broadcasts.layers, "BATCH", 3)

    async def hang(name, message):
        await asyncio.sleep(60)

    monkeypatch.setattr(fanout, "send", hang)

    def notify_often():
        for number in range(5):
            notify("group", {"type": "news", "number": number})

    await sync_to_async(notify_often)()

    await until(lambda: "5 messages of notify() are lost" in caplog.text)
    await process()[broadcasts.Notifier].task
    assert caplog.text.count("messages of notify() are lost") == 1


def test_nothing_is_said_of_what_the_user_has_not_asked_for(transactional_db, caplog):
    broadcasts._warn_that_nobody_hears.cache_clear()
    user = get_user_model().objects.create_user("ann")

    user.set_password("new")
    user.save()

    assert caplog.messages == []


async def test_a_layer_that_does_not_answer_costs_a_second_once(connect, monkeypatch, caplog):
    await connect()
    fanout = broadcasts.get_fanout()
    assert broadcasts.ANSWER_TIMEOUT <= 1
    monkeypatch.setattr(broadcasts, "ANSWER_TIMEOUT", 0.05)

    waited = []

    async def hang(group, message):
        waited.append(group)
        await asyncio.sleep(60)

    monkeypatch.setattr(fanout, "send", hang)
    monkeypatch.setattr(fanout.outage, "_ask", lambda: asyncio.sleep(60))
    async with asyncio.timeout(5):
        for _ in range(3):
            await anotify("group", {"type": "news"})

    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [line.partition(":")[0] for line in lines] == [
        "The channel layer is lost, and no broadcast arrives",
        *["A message of anotify() is lost"] * 3,
    ]
    assert waited == ["group"]


async def test_the_end_of_a_command_waits_for_all_messages(monkeypatch):
    """However many they are: each has a second of its own."""
    sent = []

    async def send(self, name, message):
        await asyncio.sleep(0.6)
        sent.append(message["number"])

    monkeypatch.setattr(Fanout, "send", send)
    notifier = process()[broadcasts.Notifier]
    for number in range(10):
        notifier.put({"type": "test", "group": "group", "number": number})

    await broadcasts._sent()

    assert sent == list(range(10))


async def test_what_a_consumer_of_channels_own_hears(transactional_db):
    class Plain(AsyncJsonWebsocketConsumer):
        groups = ["group"]

        async def group_renamed(self, event):
            await self.send_json(event["name"])

    socket = await Socket.open(PATH, application=Sockets(Plain.as_asgi()), greeting=False)

    await sync_to_async(notify_consumers)("group", {"type": "group.renamed", "name": "new"})
    assert await socket.receive_json_from() == "new"

    await anotify("group", {"type": "news"})
    with pytest.raises(ValueError, match=r"No handler for message type realtime\.broadcast") as caught:
        await socket.receive_output()
    assert "hear notify_consumers() and group_send(), not notify()" in caught.value.__notes__[0]
