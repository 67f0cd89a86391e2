"""
How a process is: /healthz tells it to a load balancer, the log to people.

The log has one line a minute on what the sockets of the process did, and one when a service is lost, not one for each
socket.
"""

import asyncio
import logging
import time
from collections import Counter

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import connection
from django.http import JsonResponse
from django.utils.decorators import async_only_middleware

logger = logging.getLogger(__name__)

# Seconds
HEALTHZ_TIMEOUT = 2
REPORT_EVERY = 60
RETRY_EVERY = 0.5
# How long a socket waits for a service that is away; a page waits 10 s for its greeting.
PATIENCE = 8


@async_only_middleware
def healthz(get_response):
    """
    Answer /healthz: 200 when the database and the channel layer answer within 2 seconds, 503 when not.

    The body is a JSON object: {"database": "ok", "channel_layer": "ok"}, or the name of the error instead of "ok". As a
    middleware it comes before the check of the host, since those who ask know an address only.
    """

    async def middleware(request):
        if request.path_info == "/healthz":
            return await health()
        return await get_response(request)

    return middleware


async def health():
    tasks = {
        "database": asyncio.create_task(sync_to_async(ask_database, thread_sensitive=False)()),
        "channel_layer": asyncio.create_task(ask_channel_layer()),
    }
    # Not wait_for(): it waits for the thread of a call that hangs.
    await asyncio.wait(tasks.values(), timeout=HEALTHZ_TIMEOUT)
    answers = {name: outcome(task) for name, task in tasks.items()}
    status = 200 if set(answers.values()) == {"ok"} else 503
    return JsonResponse(answers, status=status)


def ask_database():
    """Raise a django.db.Error when the database does not answer."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        # The thread is not one of Django's requests, so nothing else would close it.
        connection.close()


async def ask_channel_layer():
    """Send a message through the channel layer and wait for it."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "healthz"})
    await layer.receive(channel)


def outcome(task):
    """Return "ok", "timeout" or the name of the exception of `task`, an asyncio.Task."""
    if not task.done():
        task.cancel()
        return "timeout"
    error = task.exception()
    return "ok" if error is None else type(error).__name__


class Unavailable(Exception):
    """A service does not answer. The socket is closed with 4000, so that the page comes back later."""


class Outage:
    """
    One line when a service is lost, and one when it is back.

    error: a subclass of Unavailable. lost, back: the lines. ask: a coroutine function that fails while it is away.
    """

    def __init__(self, error, lost, back, ask):
        self._error = error
        self._lost = lost
        self._back = back
        self._ask = ask
        self._task = None

    def begin(self, error):
        """Say that the service is lost, unless it has been said, and ask until it is back."""
        if self._task is None or self._task.done():
            # Those of PostgreSQL have several lines, those of Redis may have none.
            text = " ".join(str(error).split()) or repr(error)
            logger.error("%s: %s", self._lost, text)
            self._task = asyncio.create_task(self._wait())

    async def _wait(self):
        started = time.monotonic()
        while True:
            await asyncio.sleep(RETRY_EVERY)
            try:
                await self._ask()
            except Exception:
                logger.debug("Not yet", exc_info=True)
            else:
                return logger.warning("%s after %.1f s", self._back, time.monotonic() - started)

    async def over(self, seconds=None):
        """Wait until the service is back, for so many seconds at most, and return whether it is."""
        if self._task is None or self._task.done():
            return True
        done, _ = await asyncio.wait([self._task], timeout=seconds)
        return bool(done)

    async def patiently(self, function, *arguments):
        """
        Return `await function(*arguments)`, called again after an outage, so that a short one is a short wait.

        function: calls `begin()` and raises the error when the service does not answer. After PATIENCE, or when it fails
        again though the service answers (a table is missing), the error is raised here.
        """
        deadline = time.monotonic() + PATIENCE
        for _ in range(2):
            if await self.over(deadline - time.monotonic()):
                try:
                    return await function(*arguments)
                except self._error:
                    pass
        raise self._error


class Activity(Counter):
    """
    What the sockets of this process did since the last line about it.

    There is a line every REPORT_EVERY seconds, unless no socket is open and nothing has happened.
    """

    names = ("opened", "frames_in", "frames_out", "refused_origins", "rate_limited", "slow_readers", "dropped")
    sockets = 0
    _task = None

    def opened(self):
        self.sockets += 1
        self["opened"] += 1
        self.watch()

    def closed(self, code):
        self.sockets -= 1
        self[f"closed_{code}"] += 1

    def watch(self):
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._report())

    async def _report(self):
        while True:
            await asyncio.sleep(REPORT_EVERY)
            if self or self.sockets:
                names = [*self.names, *sorted(self.keys() - {*self.names})]
                counts = " ".join(f"{name}={self[name]}" for name in names)
                logger.info("In %g s: sockets=%d %s", REPORT_EVERY, self.sockets, counts)
                self.clear()


activity = Activity()


def count_dropped(record):
    """A filter of the log of channels_redis: "2 of 3 channels over capacity in group …"."""
    if "over capacity" in record.msg:
        activity["dropped"] += record.args[0]
    return True


logging.getLogger("channels_redis.core").addFilter(count_dropped)
