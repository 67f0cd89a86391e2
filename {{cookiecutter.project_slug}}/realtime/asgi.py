"""What asgi.py puts around the consumers: the Origin check in front of them, the unknown paths behind them."""

import logging
from urllib.parse import urlsplit

from channels.security.websocket import OriginValidator
from django.conf import settings
from django.urls import re_path

from .health import activity
from .sessions import accept_and_close, client_address, get_header

logger = logging.getLogger(__name__)


class AllowedOrigins(OriginValidator):
    """
    Channels' AllowedHostsOriginValidator, which says why it refuses (https://github.com/django/channels/issues/2062).

    A refused handshake is answered with HTTP 403 (RFC 6455, section 4.2.2) and one log line.
    """

    def __init__(self, application):
        allowed_hosts = settings.ALLOWED_HOSTS
        if settings.DEBUG and not allowed_hosts:
            # The hosts that Django allows then.
            allowed_hosts = [".localhost", "127.0.0.1", "[::1]"]
        super().__init__(application, allowed_hosts)

    async def __call__(self, scope, receive, send):
        origin = get_header(scope, b"origin")
        if self.is_allowed(origin):
            return await self.application(scope, receive, send)
        logger.warning(
            "WebSocket %s of %s refused: its page's Origin is %s, the Host is %s."
            " If the page is yours, add its host to DJANGO_ALLOWED_HOSTS.",
            scope["path"],
            client_address(scope),
            "missing" if origin is None else repr(origin),
            get_header(scope, b"host"),
        )
        activity["refused_origins"] += 1
        activity.watch()
        await receive()
        await send({"type": "websocket.close"})

    def is_allowed(self, origin):
        """Tell whether a page from `origin`, a str or None, may open a socket."""
        try:
            return self.valid_origin(None if origin is None else urlsplit(origin))
        except ValueError:
            # No URL at all, such as "http://[".
            return False


async def close_with_4404(scope, receive, send):
    """
    ASGI application that closes with 4404 and writes one log line.

    URLRouter itself raises ValueError, an HTTP 500 with a traceback: https://github.com/django/channels/issues/2147
    """
    logger.warning("WebSocket %s of %s: no such path in routing.py", scope["path"], client_address(scope))
    await accept_and_close(receive, send, 4404)


unknown_path = re_path("", close_with_4404)
