"""/healthz tells a load balancer whether the process can serve."""

import asyncio
import time

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.http import JsonResponse
from django.utils.decorators import async_only_middleware

from . import layers
from .outage import ask_database
from .process import process, serve

# Seconds
TIMEOUT = 2
# An answer is reused for so long: many requests ask the services once.
VALID = 1


@async_only_middleware
def healthz(get_response):
    """
    Answer /healthz: 200 when the database and the channel layer answer within 2 seconds, 503 when not.

    The body is a JSON object: {"database": "ok", "channel_layer": "ok"}, or the name of the error instead of "ok". It
    is a middleware, so that it comes before the check of the host: a load balancer knows only an address.
    """

    async def middleware(request):
        serve()
        if request.path_info != "/healthz":
            return await get_response(request)
        answers = await process()[Health].ask()
        return JsonResponse(answers, status=200 if set(answers.values()) == {"ok"} else 503)

    return middleware


class Health:
    def __init__(self):
        self._asked_at = -VALID
        self._task = None

    async def ask(self):
        """Return the answer of each service, a dict of "ok", "timeout" or the name of an exception."""
        if time.monotonic() >= self._asked_at + VALID and (self._task is None or self._task.done()):
            self._asked_at = time.monotonic()
            self._task = asyncio.create_task(ask_services())
        return await asyncio.shield(self._task)


async def ask_services():
    tasks = {
        "database": asyncio.create_task(sync_to_async(ask_database, thread_sensitive=False)()),
        "channel_layer": asyncio.create_task(layers.ask(get_channel_layer())),
    }
    # Not wait_for(): it waits for the thread of a call that hangs.
    await asyncio.wait(tasks.values(), timeout=TIMEOUT)
    return {name: outcome(task) for name, task in tasks.items()}


def outcome(task):
    if not task.done():
        task.cancel()
        return "timeout"
    error = task.exception()
    return "ok" if error is None else type(error).__name__
