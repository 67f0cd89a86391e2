"""Broadcasts from code that is no consumer: views, signals, tasks and commands."""

import asyncio
import atexit
import hashlib
import json
import logging
import multiprocessing
import os
import socket
import threading
from collections import deque
from contextvars import Context
from functools import cache
from typing import TYPE_CHECKING, Any

from channels.consumer import get_handler_name
from channels.layers import get_channel_layer
from django.db import transaction

from . import layers
from .fanout import VERSION, broadcast_of, get_fanout
from .frames import Sendable, encode
from .outage import Unavailable
from .process import process, server_loop

if TYPE_CHECKING:
    # A model, which cannot be imported before the apps are loaded.
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger(__name__)

# Seconds
ANSWER_TIMEOUT = 1

_pid = os.getpid()
# The last message of notify() in each thread.
_last = threading.local()


def notify(group: str, frame: Sendable) -> None:
    """
    Broadcast `frame` to `group`, a str, from a view, a signal, a task or a command. In asynchronous code: `anotify()`.

    frame: a Frame, a dict with a "type", a str or bytes, as in a consumer's broadcast(). It is sent when the
    transaction commits, and never after a rollback; without a transaction, at once. The caller does not wait for the
    channel layer, save in a child process without a server, 1 s at most. Its errors are logged: what is committed cannot
    be undone. Raises TypeError or ValueError for a bad group or frame.
    """
    _on_commit(broadcast_of(group, encode(frame)))


async def anotify(group: str, frame: Sendable) -> None:
    """As notify(), in asynchronous code, where there are no transactions. Waits for the channel layer, 1 s at most."""
    message = broadcast_of(group, encode(frame))
    get_channel_layer().require_valid_group_name(group)
    if not await process()[Notifier].send(message):
        logger.error("A message of anotify() is lost: Redis does not answer")


def notify_user(user: "AbstractBaseUser", frame: Sendable) -> None:
    """As notify(), to all sockets of `user`: each tab, on each device, whichever RealtimeConsumer it has."""
    notify(group_of(user), frame)


async def anotify_user(user: "AbstractBaseUser", frame: Sendable) -> None:
    """As anotify(), to all sockets of `user`."""
    await anotify(group_of(user), frame)


def notify_consumers(group: str, message: dict[str, Any]) -> None:
    """
    As notify(), to the consumers in `group` rather than to their clients.

    message: a dict whose "type" names the method that is called: room_renamed() for {"type": "room.renamed", …}. It
    arrives as JSON carries it; TypeError for other values, such as dates.
    """
    get_handler_name(message)
    # In memory all would arrive. Redis refuses some where they are received, together with what comes with them.
    message = json.loads(json.dumps(message))
    _on_commit(message | {"group": group, "version": VERSION})


def group_of(user: "AbstractBaseUser") -> str:
    """Return the name of the group of the sockets of `user`. Raises ValueError for what is no user that is saved."""
    if getattr(user, "pk", None) is None:
        raise ValueError(f"Only a saved user can be notified, not {user!r}: of others no socket is known.")
    return user_group(user.pk)


def user_group(pk: object) -> str:
    """Return the name of the group of a user's sockets, a str. Whatever the primary key is, the name is allowed."""
    return f"user.{digest(pk)}"


def digest(value: object) -> str:
    """Return a name for `value`, such as a session key, that may be sent and logged."""
    return hashlib.sha256(str(value).encode()).hexdigest()[:32]


def _on_commit(message):
    get_channel_layer().require_valid_group_name(message["group"])
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _last.message = message
        return send_on_commit(message)
    raise RuntimeError("In asynchronous code write `await anotify(…)`, or call this through sync_to_async().")


def send_on_commit(message):
    """Send `message`, a dict with a "group", in a thread that may have an event loop, as that of a notebook has."""
    transaction.on_commit(lambda: _hand_over(message), robust=True)


def _hand_over(message):
    """Give `message` to the event loop that sends it: the server's, or one in a thread of our own."""
    loop, is_child = server_loop(), False
    if loop is None:
        if layers.is_local(get_channel_layer()):
            # That a login has ended is found out by each process, too, if a little later.
            return None if message["type"] == "realtime.logout" else _warn_that_nobody_hears()
        # A fork has no threads.
        loop = _own_loop(os.getpid())
        is_child = os.getpid() != _pid or multiprocessing.parent_process() is not None
    # In an empty context: in the caller's, whose ORM thread may be this one, members could not use the database.
    loop.call_soon_threadsafe(lambda: process()[Notifier].put(message), context=Context())
    if is_child and message is getattr(_last, "message", None):
        # Pools and queues end their processes without atexit. Only the last of a transaction waits for all.
        _wait_until_sent(loop, os.getpid())


@cache
def _warn_that_nobody_hears():
    logger.warning("notify() reaches nobody: this process has no sockets, and knows no others. Set REDIS_URL.")


class OwnLoop(asyncio.SelectorEventLoop):
    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        """As asyncio's, without its threads: at the end of a command, when this loop first connects, none can start."""
        return socket.getaddrinfo(host, port, family, type, proto, flags)


@cache
def _own_loop(pid):
    loop = OwnLoop()
    threading.Thread(target=loop.run_forever, name="realtime.notify", daemon=True).start()
    atexit.register(_wait_until_sent, loop, pid)
    return loop


def _wait_until_sent(loop, pid):
    if pid == os.getpid():
        asyncio.run_coroutine_threadsafe(_sent(), loop).result()


async def _sent():
    """Wait until all is sent or lost: no message waits longer than ANSWER_TIMEOUT, and with one all are lost."""
    if (task := process()[Notifier].task) is not None:
        await asyncio.wait([task])


class Notifier:
    """Sends messages, dicts with a "group", in order, many at a time."""

    def __init__(self):
        self._waiting = deque()
        self.task = None

    def put(self, message):
        """Send `message` soon."""
        self._waiting.append(message)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._send_waiting())

    async def _send_waiting(self):
        while self._waiting:
            messages = [self._waiting.popleft() for _ in range(min(len(self._waiting), layers.BATCH))]
            lost = (await asyncio.gather(*map(self.send, messages))).count(False)
            if lost:
                logger.error("%d messages of notify() are lost: Redis does not answer", lost + len(self._waiting))
                self._waiting.clear()

    async def send(self, message):
        """Return whether `message` was sent, or cannot be. A channel layer that is away is not waited for twice."""
        fanout = get_fanout()
        if layers.is_local(fanout.layer) and server_loop() is None:
            _warn_that_nobody_hears()
        try:
            if fanout.outage.is_over:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    await fanout.send(message["group"], message)
                return True
        except Unavailable:
            pass
        except TimeoutError as error:
            fanout.outage.begin(error)
        except Exception:
            logger.exception("A message of notify() for the group %s cannot be sent", message["group"])
            return True
        return False
