"""System checks, which explain what would otherwise be a WebSocket that answers 404, 403 or 500."""

import inspect
import re
import sys
import traceback
from pathlib import Path
from typing import get_args

import msgspec
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter, get_default_application
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.urls import URLPattern
from django.utils.module_loading import import_string, module_has_submodule

from .asgi import unknown_path
from .consumers import RealtimeConsumer
from .frames import Frame, Text
from .socket import Sockets

# Methods of a RealtimeConsumer.
ASYNCHRONOUS = ("connect", "receive_frame", "receive_bytes", "pong", "disconnect")


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
    if not getattr(settings, "ASGI_APPLICATION", None):
        return [checks.Error("ASGI_APPLICATION is not set.", hint=hint, id="realtime.E002")]
    try:
        application = get_default_application()
    except ImproperlyConfigured as error:
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
    places = traceback.extract_tb(error.__traceback__)
    where = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
    return f"{settings.ASGI_APPLICATION} cannot be imported: {type(error).__name__}: {error}{where}"


def routers_of(application):
    """Yield each URLRouter of the WebSockets in `application`, through the usual middleware; of None, none."""
    if isinstance(application, URLRouter):
        yield application
        for route in application.routes:
            yield from routers_of(route.callback)
    elif application is not None:
        yield from routers_of(inner_of(application))


def inner_of(application):
    """Return what is inside of a middleware, or has the WebSockets in a ProtocolTypeRouter; of anything else None."""
    if isinstance(application, ProtocolTypeRouter):
        return application.application_mapping.get("websocket")
    inner = (getattr(application, name, None) for name in ("application", "inner", "app"))
    return next(filter(None, inner), None)


def default_routers():
    """Return those of ASGI_APPLICATION, or None if it cannot be imported, which check_asgi_application() tells."""
    # Django runs checks in any order.
    try:
        return list(routers_of(get_default_application()))
    except ImproperlyConfigured:
        return None


def default_routes():
    """Return the routes of all of them, or None."""
    routers = default_routers()
    return None if routers is None else [route for router in routers for route in router.routes]


@checks.register
def check_routes(app_configs, **kwargs):
    """A route must have what makes a consumer for each socket, and be reached."""
    return list(mistakes_in_routes())


def mistakes_in_routes():
    """Yield a message for each mistake in the routes of ASGI_APPLICATION."""
    for index, router in enumerate(default_routers() or ()):
        before = {}
        for route in router.routes:
            path = str(route.pattern)
            if consumer := consumer_without_as_asgi(route.callback):
                what = f'The route "{path}" has {consumer}, which makes no consumer for each socket.'
                yield checks.Error(what, hint=f"Write {consumer}.as_asgi().", id="realtime.E009")
            # Below another router the rest of a path may begin so.
            if index == 0 and path.lstrip("^").startswith("/"):
                what = f'The route "{path}" is never reached: paths are matched without the "/" at their beginning.'
                yield checks.Warning(what, hint="Remove it, as in urls.py.", id="realtime.W005")
            elif path in before or unknown_path in before.values():
                what = f'The route "{path}" is never reached: one before it takes its path.'
                hint = "Give each its own path, and put unknown_path last in URLRouter([…])."
                yield checks.Warning(what, hint=hint, id="realtime.W005")
            before[path] = route


def consumer_without_as_asgi(callback):
    """Return the name of the consumer if `callback` is its class, an instance or the method as_asgi(); else None."""
    callback = getattr(callback, "__self__", callback)
    cls = callback if inspect.isclass(callback) else type(callback)
    return cls.__name__ if issubclass(cls, AsyncConsumer | SyncConsumer) else None


@checks.register
def check_routing(app_configs, **kwargs):
    """A routing module of an app of this project that asgi.py does not use is a socket that answers 4404."""
    if (routes := default_routes()) is None:
        return []
    used = set(map(id, routes))
    unused = []
    for config in apps.get_app_configs():
        if "site-packages" in Path(config.path).parts or not module_has_submodule(config.module, "routing"):
            continue
        # A view may have imported it, to reverse a path.
        module = sys.modules.get(f"{config.name}.routing")
        lists = [value for value in (vars(module).values() if module else ()) if isinstance(value, list | tuple)]
        patterns = {id(item) for items in lists for item in items if isinstance(item, URLPattern)}
        # Without routes, they are behind a middleware that routers_of() cannot look into.
        if module is None or (used and patterns and not used & patterns):
            unused.append(f"{config.name}.routing")
    return [
        checks.Warning(
            f"{name} is not used by {settings.ASGI_APPLICATION}: its sockets would be closed with 4404.",
            hint="In asgi.py: import its websocket_urlpatterns and put them into URLRouter([…]).",
            id="realtime.W002",
        )
        for name in unused
    ]


@checks.register
def check_consumers(app_configs, **kwargs):
    """What a consumer overrides must be what is called, and in the way it is called."""
    classes = dict.fromkeys(getattr(route.callback, "consumer_class", object) for route in default_routes() or ())
    return [mistake for cls in classes if issubclass(cls, RealtimeConsumer) for mistake in mistakes_in(cls)]


def mistakes_in(consumer):
    """Yield a message for each mistake in `consumer`, a subclass of RealtimeConsumer."""
    name = f"{consumer.__module__}.{consumer.__qualname__}"
    for method in (*ASYNCHRONOUS, "deliver"):
        is_async = method in ASYNCHRONOUS
        function = inspect.unwrap(getattr(consumer, method))
        if inspect.isfunction(function) and inspect.iscoroutinefunction(function) != is_async:
            what = f"{name}.{method}() is {'not ' * is_async}asynchronous."
            yield checks.Error(what, hint=f"Write `{'async ' * is_async}def {method}`.", id="realtime.E006")
    handles = consumer.receive_frame is not RealtimeConsumer.receive_frame
    if handles and not consumer.receives:
        hint = "Name the classes of the frames that it takes in `receives`."
        yield checks.Warning(f"{name}.receive_frame() is never called.", hint=hint, id="realtime.W004")
    elif consumer.receives and not handles:
        what = f"{name} takes frames and does nothing with them."
        yield checks.Warning(what, hint="Override `async def receive_frame(self, frame)`.", id="realtime.W004")
    is_list = isinstance(consumer.sends, list | tuple)
    if not is_list or not all(inspect.isclass(frame) and issubclass(frame, Frame) for frame in consumer.sends):
        what = f"{name}.sends must be a list of subclasses of Frame, not {consumer.sends!r}."
        yield checks.Error(what, hint="Put the classes into it: `sends = [Message]`.", id="realtime.E011")
    for frame in consumer.receives:
        for field in msgspec.structs.fields(frame):
            for rule in rules_without_call(field.type):
                what = f"{frame.__module__}.{frame.__qualname__}.{field.name} has no limit: {rule} is not called."
                hint = f"Write {rule}(…), as in `Annotated[str, Text(max_length=200)]`."
                yield checks.Error(what, hint=hint, id="realtime.E010")


def rules_without_call(type):
    """Return the names of what says nothing in this type: Text or Meta itself, in place of what they return."""
    here = [rule.__name__ for rule in getattr(type, "__metadata__", ()) if rule in (Text, msgspec.Meta)]
    return here + [rule for part in get_args(type) for rule in rules_without_call(part)]


@checks.register
def check_allowed_origins(app_configs, **kwargs):
    """What no browser sends as an Origin allows nothing."""
    hint = "Write scheme and host, with a port that is not the scheme's own and no slash: https://app.example.com"
    return [
        checks.Error(f'DJANGO_ALLOWED_ORIGINS has "{origin}", which is no origin.', hint=hint, id="realtime.E007")
        for origin in settings.REALTIME_ALLOWED_ORIGINS
        if not re.fullmatch(r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://[^/?#\s*A-Z]+", origin)
    ]


@checks.register
def check_allowed_hosts(app_configs, **kwargs):
    """What is no host allows none, and "*" opens the sockets to a page that has the site under a name of its own."""
    hint = "Write names alone, such as example.com; for a phone in the same network, the address of this computer."
    return [
        checks.Error(f'DJANGO_ALLOWED_HOSTS has "{host}", which names no host.', hint=hint, id="realtime.E004")
        for host in settings.ALLOWED_HOSTS
        if not (host == "*" and settings.DEBUG) and not re.fullmatch(r"\[.+]|[^/:*]+", host)
    ]


@checks.register
def check_token_user(app_configs, **kwargs):
    """REALTIME_TOKEN_USER must be the path of an asynchronous function."""
    try:
        function = inspect.unwrap(import_string(settings.REALTIME_TOKEN_USER))
        is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
        what = "" if is_async else "is not asynchronous."
    except (ImportError, AttributeError, ValueError) as error:
        what = f"cannot be imported: {error}"
    hint = "It is the path of an async function (token, scope) that returns a user, (user, expires_at) or None."
    return [checks.Error(f"REALTIME_TOKEN_USER {what}", hint=hint, id="realtime.E005")] if what else []


@checks.register
def check_sessions(app_configs, **kwargs):
    if settings.SESSION_ENGINE != "django.contrib.sessions.backends.signed_cookies":
        return []
    what = "Sessions in signed cookies cannot be ended by the server: a socket outlives the logout of its page."
    hint = "Use another SESSION_ENGINE; age, user and password are still re-checked."
    return [checks.Warning(what, hint=hint, id="realtime.W003")]


@checks.register
def check_channel_layers(app_configs, **kwargs):
    """Without a channel layer no socket can be opened."""
    hint = 'For one process: CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}'
    return [] if default_layer() else [checks.Error("CHANNEL_LAYERS has no default.", hint=hint, id="realtime.E008")]


def default_layer():
    # Django has no such setting, so that a project which was never baked may have none.
    return getattr(settings, "CHANNEL_LAYERS", {}).get("default", {})


@checks.register(deploy=True)
def check_channel_layer(app_configs, **kwargs):
    """In production, messages must reach the sockets of the other processes."""
    if default_layer().get("BACKEND") != "channels.layers.InMemoryChannelLayer":
        return []
    what = "The channel layer is in memory: a broadcast reaches the sockets of its own process only."
    hint = "Set REDIS_URL. With one process for ever, silence this check."
    return [checks.Warning(what, hint=hint, id="realtime.W001")]
