"""What owners test with: realtime/testing.py, in tests of pytest and of Django's TestCase."""

import asyncio
import contextlib
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import TestCase

from realtime import anotify, database, notify, notify_user
from realtime.asgi import Authentication, Sockets
from realtime.consumers import RealtimeConsumer
from realtime.process import process
from realtime.testing import Socket, assert_broadcast

PATH = "/ws/test/"


class Member(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.join("group")


async def test_what_is_another_frame_or_refused_fails(open_socket):
    class Refusing(RealtimeConsumer):
        async def connect(self):
            await self.close()

    socket = await open_socket(PATH, application=Sockets(Member.as_asgi()))
    await socket.send_json_to({"type": "ping"})
    with pytest.raises(AssertionError, match="pong"):
        await socket.receive_type("news")
    with pytest.raises(AssertionError, match="refused with 1000"):
        await open_socket(PATH, application=Sockets(Refusing.as_asgi()))


def test_assert_broadcast_knows_what_was_rolled_back_from_what_waits_besides(db):
    transaction.on_commit(lambda: None)
    with (
        pytest.raises(AssertionError, match="0 frames"),
        assert_broadcast("group"),
        contextlib.suppress(ZeroDivisionError),
        transaction.atomic(),
    ):
        notify("group", {"type": "news"})
        raise ZeroDivisionError


def test_assert_broadcast_sees_what_waits_for_a_commit(db):
    """A TestCase never commits: what it did not see there would look as if it was never sent."""
    with assert_broadcast("group", type="news", title="Hello") as frames:
        notify("group", {"type": "news", "title": "Hello"})
        notify("other", {"type": "news", "title": "Hello"})

    assert frames == [{"type": "news", "title": "Hello"}]


class Counter(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.send({"type": "count", "count": await type(self.scope["user"]).objects.acount()})


class InTestCase(TestCase):
    async def test_a_socket_sees_what_the_test_has_stored_and_leaves_it(self):
        """A connection is closed when nobody uses it, but not the one in whose transaction the test runs."""
        ann = await get_user_model().objects.acreate_user("ann")

        with mock.patch.object(database, "IDLE", 0):
            socket = await Socket.open(PATH, user=ann, application=Sockets(Authentication(Counter.as_asgi())))
            await process()[database.IdleCloser]._task
            await socket.disconnect()

        assert socket.greeting == {"type": "count", "count": 1}
        assert await get_user_model().objects.acount() == 1

    async def test_assert_broadcast_sees_what_waits_in_the_thread_of_a_view(self):
        with assert_broadcast("group", type="news"):
            await sync_to_async(notify)("group", {"type": "news"})


@pytest.fixture
async def nothing_left_open(transactional_db):
    """Fail if the consumers' thread has a connection when `open_socket`, which comes later, has ended."""
    yield
    assert await sync_to_async(lambda: connection.connection)() is None


async def test_open_socket_closes_the_connection_of_the_consumers(nothing_left_open, open_socket):
    """Nobody could drop the database of the tests meanwhile: PostgreSQL says that others are using it."""
    ann = await get_user_model().objects.acreate_user("ann")

    socket = await open_socket(PATH, user=ann, application=Sockets(Authentication(Counter.as_asgi())))

    assert socket.greeting["count"] == 1


def test_assert_broadcast_does_not_see_what_is_rolled_back(db):
    with pytest.raises(AssertionError, match="0 frames"), assert_broadcast("group", type="news"):
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            notify("group", {"type": "news"})
            raise ZeroDivisionError
        notify("other", {"type": "news"})


@pytest.mark.parametrize("is_outside", [False, True])
def test_assert_broadcast_counts_once_what_a_test_commits(db, django_capture_on_commit_callbacks, is_outside):
    blocks = [django_capture_on_commit_callbacks(execute=True), assert_broadcast("group", type="news")]

    with contextlib.ExitStack() as stack:
        for block in blocks if is_outside else reversed(blocks):
            stack.enter_context(block)
        notify("group", {"type": "news"})


@pytest.mark.parametrize("count", [0, 2])
def test_assert_broadcast_counts(db, count):
    with pytest.raises(AssertionError, match=f"{count} frames"), assert_broadcast("group", type="news"):
        for _ in range(count):
            notify("group", {"type": "news"})


def test_assert_broadcast_takes_users(db):
    ann, bob = [get_user_model().objects.create_user(name) for name in ("ann", "bob")]

    with assert_broadcast(ann, text="Hello") as anns, assert_broadcast(bob) as bobs:
        notify_user(ann, {"type": "ring", "text": "Hello"})
        notify_user(bob, {"type": "ring", "text": "Bye"})

    assert (len(anns), len(bobs)) == (1, 1)


@pytest.mark.parametrize("frame", ["<p>Hello</p>", b"Hello", {"type": "news"}])
def test_assert_broadcast_without_fields_takes_any_frame(db, frame):
    with assert_broadcast("group") as frames:
        notify("group", frame)

    assert frames == [frame]


async def test_assert_broadcast_sees_what_a_consumer_broadcasts_once(open_socket):
    await open_socket(PATH, application=Sockets(Member.as_asgi()))

    with assert_broadcast("group", type="news") as frames:
        await sync_to_async(notify)("group", {"type": "news"})
        await asyncio.sleep(0.05)

    assert len(frames) == 1


async def test_assert_broadcast_says_that_a_consumer_takes_a_moment(open_socket):
    await open_socket(PATH, application=Sockets(Member.as_asgi()))

    with pytest.raises(AssertionError, match="wait in the block"), assert_broadcast("group"):
        sending = asyncio.create_task(anotify("group", {"type": "news"}))
    await sending
