"""Fixtures for the tests of all apps."""

import asyncio
import contextlib

import pytest
from asgiref.sync import sync_to_async
from channels.routing import get_default_application
from channels.testing import WebsocketCommunicator
from django.db import connections


class Socket(WebsocketCommunicator):
    """A browser's end of a WebSocket that goes through the whole of asgi.py, from the Origin check on."""

    def __init__(self, path, headers):
        super().__init__(get_default_application(), path, headers)

    async def receive_type(self, type):
        """Return the next frame, a dict, which must be of this type."""
        frame = await self.receive_json_from()
        assert frame["type"] == type, frame
        return frame


@pytest.fixture
async def open_socket(transactional_db):
    """
    Return a coroutine function that opens a Socket: `socket = await open_socket("/ws/socket-server/")`.

    A consumer reads the database in a thread with a connection of its own. Under the `db` fixture it would not see what
    a test has saved, and what it writes itself would stay: hence `transactional_db`.
    https://github.com/django/channels/issues/1091
    """
    sockets = []

    async def open_socket(path, *, origin="http://testserver", headers=()):
        socket = Socket(path, [(b"host", b"testserver"), (b"origin", origin.encode()), *headers])
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
