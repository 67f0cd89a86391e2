"""The end of the URLRouter's list: the paths that no pattern knows."""

import logging

from django.urls import re_path

from .sessions import client_address

logger = logging.getLogger(__name__)


async def close_with_4404(scope, receive, send):
    """
    ASGI application that closes with 4404 and writes one log line.

    URLRouter itself raises ValueError, an HTTP 500 with a traceback: https://github.com/django/channels/issues/2147
    """
    logger.warning("WebSocket %s of %s: no such path in routing.py", scope["path"], client_address(scope))
    await receive()
    # Accepted first, because a refused handshake carries no code.
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4404})


unknown_path = re_path("", close_with_4404)
