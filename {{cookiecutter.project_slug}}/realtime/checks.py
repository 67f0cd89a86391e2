"""System checks, which explain what would otherwise be a WebSocket that answers 404 or 500."""

from channels.routing import get_default_application
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler

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
