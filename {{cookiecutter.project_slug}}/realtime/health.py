"""/healthz, for load balancers and containers."""

import asyncio

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import connection
from django.http import JsonResponse

TIMEOUT = 2  # seconds


async def healthz(request):
    """
    Answer 200 when the database and the channel layer answer within 2 seconds, 503 when not.

    The body is a JSON object: {"database": "ok", "channel_layer": "ok"}, or the name of the error instead of "ok".
    """
    checks = {
        "database": asyncio.create_task(sync_to_async(check_database, thread_sensitive=False)()),
        "channel_layer": asyncio.create_task(check_channel_layer()),
    }
    # Not wait_for(): it waits for the thread of a call that hangs.
    await asyncio.wait(checks.values(), timeout=TIMEOUT)
    answers = {name: outcome(task) for name, task in checks.items()}
    status = 200 if set(answers.values()) == {"ok"} else 503
    return JsonResponse(answers, status=status)


def check_database():
    """Raise a django.db.Error when the database does not answer."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        # The thread is not one of Django's requests, so nothing else would close it.
        connection.close()


async def check_channel_layer():
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
