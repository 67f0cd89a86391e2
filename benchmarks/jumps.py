"""
Count how often a reader of a baked project changes files to follow a handshake, a broadcast and an outage.

    cd <a baked project> && python <this file>

Each runs in one process on the default project, with a session cookie, after a first run that made shared objects.
Each call of a function in the project's own files is noted with sys.setprofile(). A jump is a call, or the resumption
of a coroutine, that leads to another file.
"""

import asyncio
import os
import sys
import threading
from collections import Counter
from pathlib import Path

PROJECT = Path.cwd()
sys.path.insert(0, str(PROJECT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"{next(PROJECT.glob('*/settings.py')).parent.name}.settings_test")

import django  # noqa: E402

django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from channels.routing import get_default_application  # noqa: E402
from channels.testing import WebsocketCommunicator  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import OperationalError, connections  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import setup_databases, teardown_databases  # noqa: E402


class Route:
    """The files that were visited on the way."""

    def __init__(self):
        self.files = []

    def note(self, frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and PROJECT in path.parents:
            name = path.relative_to(PROJECT).as_posix()
            if not self.files or self.files[-1] != name:
                self.files.append(name)

    def __enter__(self):
        threading.setprofile_all_threads(self.note) if sys.version_info >= (3, 12) else threading.setprofile(self.note)
        sys.setprofile(self.note)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)
        threading.setprofile(None)

    def __str__(self):
        counts = ", ".join(f"{name} {count}" for name, count in Counter(self.files).most_common())
        return f"{len(self.files) - 1} jumps between {len(set(self.files))} files ({counts})"


def log_in():
    """Return the Cookie header of a user, bytes."""
    client = Client()
    client.force_login(get_user_model().objects.create_user("reader"))
    name = settings.SESSION_COOKIE_NAME
    return f"{name}={client.cookies[name].value}".encode()


async def handshake(cookie):
    """Return a socket whose first frame, or whose close, has come."""
    headers = [(b"host", b"testserver"), (b"origin", b"http://testserver"), (b"cookie", cookie)]
    socket = WebsocketCommunicator(get_default_application(), "/ws/socket-server/", headers)
    await socket.connect(timeout=30)
    await socket.receive_output(30)
    return socket


async def follow():
    cookie = await sync_to_async(log_in)()
    other = await handshake(cookie)
    await (await handshake(cookie)).disconnect()
    # What closes the connection to the database when it is idle is no part of a handshake.
    await asyncio.sleep(1.5)

    with Route() as route:
        socket = await handshake(cookie)
    print("handshake:", route)
    await asyncio.sleep(1.5)

    with Route() as route:
        await socket.send_json_to({"type": "message", "text": "Hello"})
        await asyncio.gather(socket.receive_output(30), other.receive_output(30))
    print("broadcast to two:", route)

    def fail(connection):
        raise OperationalError("connection refused")

    BaseDatabaseWrapper.cursor, cursor = fail, BaseDatabaseWrapper.cursor
    with Route() as route:
        # It is accepted after a while, and closed with 4000.
        await handshake(cookie)
    print("outage of the database:", route)
    BaseDatabaseWrapper.cursor = cursor
    await sync_to_async(connections.close_all)()


if __name__ == "__main__":
    databases = setup_databases(verbosity=0, interactive=False)
    asyncio.run(follow())
    teardown_databases(databases, verbosity=0)
