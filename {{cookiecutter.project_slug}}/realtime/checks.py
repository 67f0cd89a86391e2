"""
Is all as it should be? Before the start `manage.py check` tells, while it runs /healthz.

The system checks explain what would otherwise be a WebSocket that answers 404 or 500.
"""

import asyncio

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.routing import get_default_application
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.db import connection
from django.http import JsonResponse
from django.utils.decorators import async_only_middleware

HEALTHZ_TIMEOUT = 2  # seconds
IN_MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"


@checks.register
def check_daphne(app_configs, **kwargs):
    """With debug on, daphne must be the first app, because runserver is WSGI without it."""
    if not settings.DEBUG or settings.INSTALLED_APPS[0] == "daphne":
        return []
    if "daphne" in settings.INSTALLED_APPS:
        what = "daphne is not the first of INSTALLED_APPS"
        hint = "Move it to the top, so that its runserver is the one that Django finds."
    else:
        what = "daphne is not in INSTALLED_APPS"
        hint = "Put it first. Since Channels 4 it is a package of its own, in the dev group of pyproject.toml."
    return [
        checks.Error(
            f"{what}: runserver would speak no WebSocket, and every socket would get a 404.",
            hint=hint,
            id="realtime.E001",
        )
    ]


@checks.register
def check_asgi_application(app_configs, **kwargs):
    """ASGI_APPLICATION must name something that takes WebSockets."""
    try:
        application = get_default_application()
    except ImproperlyConfigured as error:
        what = str(error)
    else:
        if callable(application) and not isinstance(application, ASGIHandler):
            return []
        what = f"{settings.ASGI_APPLICATION} takes HTTP only, and every WebSocket would get a 500."
    return [
        checks.Error(
            what,
            hint='It must be the path of the ProtocolTypeRouter in asgi.py, such as "mysite.asgi.application".',
            id="realtime.E002",
        )
    ]


@checks.register(deploy=True)
def check_channel_layer(app_configs, **kwargs):
    """In production, messages must reach the sockets of the other processes."""
    if settings.CHANNEL_LAYERS["default"]["BACKEND"] != IN_MEMORY_LAYER:
        return []
    return [
        checks.Warning(
            "The channel layer is in memory: a broadcast reaches the sockets of its own process only.",
            hint="Set REDIS_URL. With one process for ever, silence this check.",
            id="realtime.W001",
        )
    ]


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
