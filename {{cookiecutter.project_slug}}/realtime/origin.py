"""The Origin check: browsers send cookies with any page's WebSocket, so other sites' pages are refused."""

import logging
from urllib.parse import urlsplit

from channels.security.websocket import OriginValidator
from django.conf import settings

from .sessions import client_address, get_header

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
        await receive()
        await send({"type": "websocket.close"})

    def is_allowed(self, origin):
        """Tell whether a page from `origin`, a str or None, may open a socket."""
        try:
            return self.valid_origin(None if origin is None else urlsplit(origin))
        except ValueError:
            # No URL at all, such as "http://[".
            return False
