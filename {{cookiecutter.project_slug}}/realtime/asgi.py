"""What asgi.py puts around consumers, from the outside in: Sockets, AllowedOrigins, Authentication, unknown_path."""

import logging
from urllib.parse import urlsplit

from asgiref.sync import markcoroutinefunction
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http.request import validate_host
from django.urls import re_path

from .authentication import Authentication
from .close import Close
from .socket import NO_SOCKETS, Sockets, get_header, shown

__all__ = ["AllowedOrigins", "Authentication", "Sockets", "unknown_path"]

if not apps.is_installed("realtime"):
    # Nothing else would say so: its checks and defaults are missing then.
    raise ImproperlyConfigured('"realtime" is not in INSTALLED_APPS.')

LOCALHOST = [".localhost", "127.0.0.1", "[::1]"]


class AllowedOrigins:
    """
    ASGI middleware: a page may open sockets to its own scheme, host and port, as Django's forms may be posted.

    Other pages need an entry in DJANGO_ALLOWED_ORIGINS. A client that offers a token needs no Origin, since its
    cookies do not count. A refused handshake is answered with HTTP 403 (RFC 6455, section 4.2.2), and one line names
    the setting that helps: https://github.com/django/channels/issues/2062
    """

    def __init__(self, application: object):
        self.application = application

    @markcoroutinefunction
    def __call__(self, scope, receive, send):
        if "realtime" not in scope:
            raise ImproperlyConfigured(NO_SOCKETS)
        if scope["realtime"].token is not None or (remedy := remedy_for(scope)) is None:
            return self.application(scope, receive, send)
        return refuse(scope, receive, send, remedy)


async def refuse(scope, receive, send, remedy):
    """ASGI application that answers with HTTP 403 and writes one log line."""
    socket = scope["realtime"]
    socket.activity["refused_origins"] += 1
    origin, host = (shown(get_header(scope, name) or "missing") for name in (b"origin", b"host"))
    socket.log(logging.WARNING, "refused: its page's Origin is %s, the Host is %s. %s", origin, host, remedy)
    await receive()
    await send({"type": "websocket.close"})


def remedy_for(scope):
    """Return None if the page may open a socket, or else a sentence that names the setting which would allow it."""
    origin = get_header(scope, b"origin")
    scheme, host = own_address(scope)
    hosts = settings.ALLOWED_HOSTS or (LOCALHOST if settings.DEBUG else [])
    if not validate_host(without_port(host), hosts):
        return f"If the site has this host, add {shown(without_port(host))} to DJANGO_ALLOWED_HOSTS."
    if origin is None:
        return "Browsers always send one; a client that is no page of a browser offers a token instead."
    if origin == "null":
        return "A page from a file or in a sandboxed frame has none: serve the page from a host, or offer a token."
    if origin.lower() in (f"{scheme}://{host}", *settings.REALTIME_ALLOWED_ORIGINS):
        return None
    if settings.DEBUG and validate_host(without_port(urlsplit_netloc(origin)), LOCALHOST):
        # Whatever serves the page in development, such as a bundler with a port of its own.
        return None
    if origin.lower() == f"https://{host}":
        return "If a proxy in front ends TLS, set DJANGO_TRUST_PROXY=true."
    return f"If the page is yours, add {shown(origin)} to DJANGO_ALLOWED_ORIGINS."


def own_address(scope):
    """Return scheme and host, with a port that is not the scheme's own, at which the client asks: as in an Origin."""
    secure = scope.get("scheme") in ("wss", "https")
    if settings.SECURE_PROXY_SSL_HEADER:
        # As HttpRequest.scheme reads it.
        name, value = settings.SECURE_PROXY_SSL_HEADER
        header = get_header(scope, name.removeprefix("HTTP_").replace("_", "-").lower().encode())
        secure = secure if header is None else header.split(",")[0].strip() == value
    forwarded = get_header(scope, b"x-forwarded-host") if settings.USE_X_FORWARDED_HOST else None
    host = (forwarded or get_header(scope, b"host") or "").lower()
    return ("https", host.removesuffix(":443")) if secure else ("http", host.removesuffix(":80"))


def without_port(host):
    return host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host


def urlsplit_netloc(origin):
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        # No URL at all, such as "http://[".
        return ""


async def close_unknown_path(scope, receive, send):
    """
    ASGI application that closes with 4404 and writes one log line.

    URLRouter itself raises ValueError, an HTTP 500 with a traceback: https://github.com/django/channels/issues/2147
    """
    scope["realtime"].log(logging.WARNING, "refused: no such path in routing.py")
    await receive()
    await scope["realtime"].close(Close.NOT_FOUND)


unknown_path = re_path("", close_unknown_path)
