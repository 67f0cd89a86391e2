"""
For a project's tests: fixtures of pytest, which its conftest.py takes over with `pytest_plugins = ["realtime.testing"]`.

    async def test_a_message_reaches_everybody(open_socket):
        ann, bob = await open_socket("/ws/socket-server/"), await open_socket("/ws/socket-server/")
        await ann.send_json_to({"type": "message", "text": "Hello"})
        assert (await bob.receive_type("message"))["text"] == "Hello"
"""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from channels.routing import get_default_application
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.db import connections, transaction
from django.test import Client

from . import broadcasts, database
from .fanout import Fanout

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


class Socket(WebsocketCommunicator):
    """A browser's end of a WebSocket."""

    greeting: Any = None

    @classmethod
    async def open(
        cls,
        path: str,
        *,
        user: "AbstractBaseUser | None" = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        application: Any = None,
        greeting: bool = True,
    ) -> Self:
        """
        Open a socket: `socket = await Socket.open("/ws/socket-server/", user=ann)`.

        The fixture `open_socket` does so, and disconnects it, too. Tests of Django's TestCase have no fixtures: they
        call this, and `await socket.disconnect()` at the end. What waits for a commit, such as notify() and a logout,
        reaches the socket in a TransactionTestCase only.

        It goes through the whole of asgi.py, unless another `application` is given, and logs in `user` by a session
        cookie. The greeting is read, unless `greeting=False`; it is `socket.greeting`: a dict, or the str or bytes that
        is no JSON object. One that is refused has none: `greeting=False`, and `await socket.closed_with()` is the code.
        """
        pairs = [(b"host", b"testserver"), (b"origin", b"http://testserver"), *headers]
        if user is not None:
            client = Client()
            await sync_to_async(client.force_login)(user)
            name = settings.SESSION_COOKIE_NAME
            pairs.append((b"cookie", f"{name}={client.cookies[name].value}".encode()))
        socket = cls(application or get_default_application(), path, pairs)
        accepted, code = await socket.connect(timeout=5)
        assert accepted, f"refused with {code}"
        if greeting:
            socket.greeting = await socket.receive_greeting()
        return socket

    async def receive_json_from(self, timeout: float = 5) -> Any:  # noqa: ASYNC109
        """As Channels' own, which waits for 1 second: not enough for a busy machine."""
        return await super().receive_json_from(timeout)

    async def receive_type(self, type: str) -> dict[str, Any]:
        """Return the next frame, a dict, which must be of this type. Fails with the frame that it is instead."""
        frame = await self.receive_json_from()
        assert frame["type"] == type, frame
        return frame

    async def receive_greeting(self, seconds: float = 5) -> Any:
        """Return what comes first, as `greeting`, and skip the frames that say to wait."""
        while True:
            try:
                message = await self.receive_output(seconds)
            except TimeoutError:
                raise AssertionError(
                    "no greeting came; a socket that has none is opened with greeting=False"
                ) from None
            code = message.get("code")
            assert message["type"] == "websocket.send", (
                f"closed with {code} before a greeting; greeting=False asks for none"
            )
            frame = frame_of(message)
            if not (isinstance(frame, dict) and frame.get("type") == "wait"):
                return frame

    async def closed_with(self) -> int:
        """Return the code with which the server closes; frames that come before it are skipped."""
        while (message := await self.receive_output(5))["type"] != "websocket.close":
            pass
        return message.get("code", 1000)


@pytest.fixture(scope="session", autouse=True)
def load_asgi():
    """asgi.py sets up logging once more. In the middle of a test that would take caplog's handler away."""
    get_default_application()


@pytest.fixture(scope="session", autouse=True)
def keep_transactions():
    """Django closes a connection in a transaction, too, and with it the one in which a TestCase runs."""
    with mock.patch.object(database, "close_old_connections", close_old_connections):
        yield


def close_old_connections():
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


@pytest.fixture
async def open_socket(transactional_db):
    """
    Return a coroutine function that opens a Socket, as Socket.open() does: `await open_socket("/ws/…", user=ann)`.

    A consumer reads the database in a thread with a connection of its own. Under the `db` fixture it would not see what
    a test has saved, and what it writes itself would stay: hence `transactional_db`.
    https://github.com/django/channels/issues/1091
    """
    sockets = []

    class ListedSocket(Socket):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            sockets.append(self)

    yield ListedSocket.open
    for socket in sockets:
        with contextlib.suppress(asyncio.CancelledError):
            await socket.disconnect()
    # The consumers' connection, in their thread; ours is pytest-django's to close.
    await sync_to_async(connections.close_all)()


@pytest.fixture
def until():
    """Return a coroutine function that waits for a condition, 5 seconds at most: `await until(lambda: frames)`."""

    async def until(condition):
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    return until


@contextlib.contextmanager
def assert_broadcast(group: "str | AbstractBaseUser", /, **fields: object) -> Iterator[list[Any]]:
    """
    Assert that exactly one frame with these fields is broadcast to `group`, by a consumer or by notify().

        with assert_broadcast("news", type="news", title="Hello"):
            client.post("/news/", {"title": "Hello"})

    What notify() would send at the commit counts, also in a test that never commits, such as one of Django's TestCase.

    group: a str, or a user, for what notify_user() sends. Without fields any frame counts, also a str or bytes.

    A consumer takes a moment: in the block, wait for what the test's socket receives from it.

    Yields the list of all frames that are broadcast to the group meanwhile: a dict each, or the str or bytes it was.
    It is complete after the block.
    """
    group = group if isinstance(group, str) else broadcasts.group_of(group)
    messages: list[dict[str, Any]] = []
    uncommitted: list[Any] = []
    send, hand_over, send_on_commit = Fanout.send, broadcasts._hand_over, broadcasts.send_on_commit

    def record(message):
        # What notify() hands over comes to the fan-out later.
        is_new = not any(message is other for other in messages)
        if is_new and message["group"] == group and message["type"] == "realtime.broadcast":
            messages.append(message)
            frames.append(frame_of(message))

    async def record_and_send(fanout, name, message):
        record(message)
        await send(fanout, name, message)

    def record_and_hand_over(message):
        record(message)
        hand_over(message)

    def remember_and_send_on_commit(message):
        connection = transaction.get_connection()
        send_on_commit(message)
        # Of this thread: the test may run in another one.
        uncommitted.extend((message, hook, connection) for hook in connection.run_on_commit[-1:])

    frames: list[Any] = []
    with (
        mock.patch.object(Fanout, "send", record_and_send),
        mock.patch.object(broadcasts, "_hand_over", record_and_hand_over),
        mock.patch.object(broadcasts, "send_on_commit", remember_and_send_on_commit),
    ):
        yield frames
    for message, hook, connection in uncommitted:
        # A rollback has taken it out.
        if hook in connection.run_on_commit:
            record(message)
    matching = [f for f in frames if not fields or (isinstance(f, dict) and fields.items() <= f.items())]
    hint = "" if frames else " (where a consumer sends it, wait in the block for what a socket receives)"
    assert len(matching) == 1, f"{len(matching)} frames with {fields} to {group!r}; all of them: {frames}{hint}"


def frame_of(message):
    """Return what was sent: a dict, or the str or bytes that is no JSON object."""
    data = message["bytes"] if "bytes" in message else message["text"]
    with contextlib.suppress(ValueError):
        if isinstance(frame := json.loads(data), dict):
            return frame
    return data
