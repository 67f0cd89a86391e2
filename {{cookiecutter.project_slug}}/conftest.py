"""Fixtures for the tests of all apps."""

import asyncio
import contextlib

import pytest
from asgiref.sync import sync_to_async
from channels.routing import get_default_application
from channels.testing import WebsocketCommunicator
from django.db import connections


class Socket(WebsocketCommunicator):
    """A browser's end of a WebSocket."""

    async def receive_type(self, type):
        """Return the next frame, a dict, which must be of this type."""
        frame = await self.receive_json_from()
        assert frame["type"] == type, frame
        return frame


@pytest.fixture(scope="session", autouse=True)
def load_asgi():
    """asgi.py sets up logging once more. In the middle of a test that would take caplog's handler away."""
    get_default_application()


@pytest.fixture
async def open_socket(transactional_db):
    """
    Return a coroutine function that opens a Socket: `socket = await open_socket("/ws/socket-server/")`.

    It goes through the whole of asgi.py, from the Origin check on, unless another `application` is given.

    A consumer reads the database in a thread with a connection of its own. Under the `db` fixture it would not see what
    a test has saved, and what it writes itself would stay: hence `transactional_db`.
    https://github.com/django/channels/issues/1091
    """
    sockets = []

    async def open_socket(path, *, headers=(), application=None):
        headers = [(b"host", b"testserver"), (b"origin", b"http://testserver"), *headers]
        socket = Socket(application or get_default_application(), path, headers)
        sockets.append(socket)
        accepted, code = await socket.connect()
        assert accepted, f"refused with {code}"
        return socket

    yield open_socket
    for socket in sockets:
        with contextlib.suppress(asyncio.CancelledError):
            await socket.disconnect()
    # The consumers' connection, in their thread; ours is pytest-django's to close.
    await sync_to_async(connections.close_all)()


@pytest.fixture
def until():
    """Return a coroutine function that waits for a condition: `await until(lambda: frames)`."""

    async def until(condition):
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    return until
