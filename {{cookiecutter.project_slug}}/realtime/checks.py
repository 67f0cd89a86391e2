"""System checks, which explain what would otherwise be a WebSocket that answers 404, 403 or 500."""

import importlib
import sys
from contextlib import suppress
from pathlib import Path

from channels.routing import ProtocolTypeRouter, get_default_application
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler

from .socket import Sockets

SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"


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
    what += ": runserver would speak no WebSocket, and every socket would get a 404."
    return [checks.Error(what, hint=hint, id="realtime.E001")]


@checks.register
def check_asgi_application(app_configs, **kwargs):
    """ASGI_APPLICATION must name something that takes WebSockets, with Sockets outermost."""
    hint = 'It must be the path of the ProtocolTypeRouter in asgi.py, such as "mysite.asgi.application".'
    try:
        application = get_default_application()
    except (ImproperlyConfigured, ImportError) as error:
        # Channels hides what the import has failed of.
        return [checks.Error(what_failed(error), hint=hint, id="realtime.E002")]
    # Another ASGI middleware around it is not looked into.
    routes = application.application_mapping if isinstance(application, ProtocolTypeRouter) else None
    if not callable(application) or isinstance(application, ASGIHandler) or (routes and "websocket" not in routes):
        what = f"{settings.ASGI_APPLICATION} takes HTTP only, and every WebSocket would get a 500."
        return [checks.Error(what, hint=hint, id="realtime.E002")]
    if routes and not isinstance(routes["websocket"], Sockets):
        what = f'The "websocket" of {settings.ASGI_APPLICATION} is not realtime.asgi.Sockets.'
        hint = "Put Sockets(…) around all the rest: it logs and counts, and carries close codes to the page."
        return [checks.Error(what, hint=hint, id="realtime.E003")]
    return []


def what_failed(error):
    """Return the innermost reason of an import that has failed: its class, its text and its place."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    where = f" ({traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno})" if traceback else ""
    return f"{settings.ASGI_APPLICATION} cannot be imported: {type(error).__name__}: {error}{where}"


@checks.register
def check_routing(app_configs, **kwargs):
    """A routing.py of an app of this project that asgi.py does not use is a socket that answers 4404."""
    # Django runs checks in any order.
    with suppress(ImproperlyConfigured, ImportError):
        get_default_application()
    unused = [
        f"{config.name}.routing"
        for config in apps.get_app_configs()
        if "site-packages" not in Path(config.path).parts
        and (Path(config.path) / "routing.py").exists()
        and f"{config.name}.routing" not in sys.modules
    ]
    return [
        checks.Warning(
            f"{name} is not imported by {settings.ASGI_APPLICATION}: its sockets would be closed with 4404.",
            hint="In asgi.py: import its websocket_urlpatterns and put them into URLRouter([…]).",
            id="realtime.W002",
        )
        for name in unused
    ]


@checks.register
def check_allowed_hosts(app_configs, **kwargs):
    """A site that answers to every host opens its sockets to pages that reach it under a name of their own."""
    if settings.DEBUG or "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "Name the hosts in DJANGO_ALLOWED_HOSTS; for a phone in the same network, the address of this computer."
    return [checks.Error('DJANGO_ALLOWED_HOSTS is "*" with debug off.', hint=hint, id="realtime.E004")]


@checks.register
def check_token_user(app_configs, **kwargs):
    """REALTIME_TOKEN_USER must be the path of a function."""
    module, _, name = settings.REALTIME_TOKEN_USER.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = "It is the path of an async function (token, scope) that returns a user, (user, expires_at) or None."
        return [checks.Error(f"REALTIME_TOKEN_USER cannot be imported: {error}", hint=hint, id="realtime.E005")]
    return []


@checks.register
def check_sessions(app_configs, **kwargs):
    if settings.SESSION_ENGINE != SIGNED_COOKIES:
        return []
    what = "Sessions in signed cookies cannot be ended by the server: a socket outlives the logout of its page."
    hint = "Use another SESSION_ENGINE; age, user and password are still re-checked."
    return [checks.Warning(what, hint=hint, id="realtime.W003")]


@checks.register(deploy=True)
def check_channel_layer(app_configs, **kwargs):
    """In production, messages must reach the sockets of the other processes."""
    if settings.CHANNEL_LAYERS["default"]["BACKEND"] != "channels.layers.InMemoryChannelLayer":
        return []
    what = "The channel layer is in memory: a broadcast reaches the sockets of its own process only."
    hint = "Set REDIS_URL. With one process for ever, silence this check."
    return [checks.Warning(what, hint=hint, id="realtime.W001")]
