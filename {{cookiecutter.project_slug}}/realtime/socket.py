"""The life of one socket, the same for every consumer, Channels' own included: opened, counted, logged, closed."""

import asyncio
import base64
import binascii
import logging
import time

from channels.exceptions import StopConsumer
from django.core.exceptions import ImproperlyConfigured

from . import conf
from .activity import Activity
from .close import Close
from .outage import Unavailable
from .process import of_process, serve

logger = logging.getLogger(__name__)

# Seconds
# After connect() has returned, to accept or close.
ANSWER_TIMEOUT = 5
# For the server to take the close of a client that reads nothing.
CLOSE_TIMEOUT = 2


class Sockets:
    """
    ASGI middleware, the outermost of all WebSockets: gives each its Socket, `scope["realtime"]`.

    A bearer token is taken out of the scope, whatever way it was offered, and with it all cookies.
    """

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        serve()
        await Socket(dict(scope), receive, send).run(self.application)


def socket_of(scope):
    """Return the Socket of an ASGI scope. Raises ImproperlyConfigured where asgi.py has no Sockets."""
    try:
        return scope["realtime"]
    except KeyError:
        raise ImproperlyConfigured(
            "realtime.asgi.Sockets must be the outermost of the WebSocket's in asgi.py."
        ) from None


class Socket:
    """
    One WebSocket, from the handshake to its end.

    token: the bearer token that the client offered, a str, or None. user, session: what Authentication has made of it.
    address, path: for the log. code: what the socket was closed with, or None.
    """

    def __init__(self, scope, receive, send):
        self.scope = scope
        self.path = shown(scope["path"])
        self.address = client_address(scope)
        self.user = self.session = self.owner = None
        self.accepted = self.has_sent = self.closed = False
        self.code = None
        self.activity = of_process(Activity)
        self._connected = self._aborted = False
        self._receive, self._send = receive, send
        self.token, self._protocols = take_token(scope)
        scope["realtime"] = self

    async def run(self, application):
        self._task = asyncio.current_task()
        started = time.monotonic()
        try:
            if self.token is not None and self._protocols == []:
                self.log(
                    logging.WARNING, "refused: a browser that offers bearer.<token> must offer another protocol, too"
                )
                return await self.send({"type": "websocket.close"})
            await application(self.scope, self.receive, self.send)
        except Unavailable:
            await self.close(Close.COME_BACK)
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            if not self._aborted:
                raise
            self._task.uncancel()
        except Exception:
            # The server logs the traceback, and closes with 1011 (RFC 6455, section 7.4.1).
            self.code = Close.INTERNAL_ERROR
            raise
        finally:
            self.closed = True
            if self.accepted:
                # Without a code the server was stopped, or the connection is gone.
                self.code = self.code or 1006
                self.activity.closed(self.code)
                self.log(logging.INFO, "closed with %s after %.1f s", self.code, time.monotonic() - started)
            else:
                self.log(logging.INFO, "not accepted")

    async def receive(self):
        """As the `receive` of ASGI."""
        if self._connected and not self.accepted:
            message = await self._receive_while_connecting()
        else:
            message = await self._receive()
        match message["type"]:
            case "websocket.receive":
                self.activity["frames_in"] += 1
            case "websocket.connect":
                self._connected = True
            case "websocket.disconnect":
                self.closed = True
                if self.code is None:
                    self.code = message.get("code", 1005)
        return message

    async def send(self, message):
        """As the `send` of ASGI. After the end it does nothing: a task may still be running."""
        if self.closed:
            return
        match message["type"]:
            case "websocket.send":
                self.has_sent = True
                self.activity["frames_out"] += 1
                await self._send(message)
            case "websocket.accept":
                await self._accept(message)
            case "websocket.close" if self.accepted or "code" in message:
                await self.close(message.get("code", Close.NORMAL), message.get("reason"))
            case _:
                # A refusal: HTTP 403, or a response of its own.
                self.closed = message["type"] == "websocket.close"
                await self._send(message)

    async def close(self, code, reason=None):
        """
        Close the socket with `code`, whatever consumer it has, also before it was accepted. Never waits long.

        A refused handshake carries no code, and browsers would see 1006, so that it is accepted first.
        https://github.com/django/daphne/issues/486
        """
        if self.closed:
            return
        if not self.accepted:
            await self._accept({"type": "websocket.accept"}, to_close=True)
        self.closed, self.code = True, int(code)
        message = {"type": "websocket.close", "code": self.code}
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._send(message | {"reason": reason} if reason else message)
        except TimeoutError:
            # It reads nothing, not even this. When its application has ended, the server drops it.
            self._aborted = True
            self._task.cancel()
        except (OSError, RuntimeError):
            # The connection is gone (OSError, says ASGI) or the server is closing it (RuntimeError, on uvicorn).
            logger.debug("Too late to close", exc_info=True)

    def log(self, level, text, *arguments):
        """Log a line about this socket."""
        logger.log(level, f"WebSocket %s of %s {text}", self.path, self.address, *arguments)

    async def _accept(self, message, to_close=False):
        if self.token is not None and self.user is None and not to_close:
            self.log(logging.ERROR, "refused: it offers a token, and asgi.py has no realtime.asgi.Authentication")
            return await self.close(Close.NOT_LOGGED_IN)
        if self._protocols and not message.get("subprotocol"):
            # Browsers fail a handshake that picks none of the protocols they offer.
            message = message | {"subprotocol": self._protocols[0]}
        self.accepted = True
        self.activity.opened()
        await self._send(message)
        if not to_close:
            self.log(logging.INFO, "opened")

    async def _receive_while_connecting(self):
        """connect() has returned: it may still accept from a task, but not never."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self._receive()
        except TimeoutError:
            if not self.accepted and not self.closed:
                self.log(logging.ERROR, "refused: its consumer's connect() has neither accepted nor closed it")
                await self.send({"type": "websocket.close"})
        return await self._receive()


def take_token(scope):
    """
    Take a bearer token out of `scope`, an ASGI scope, and all cookies if there is one.

    Return the token, a str, or None, and the list of the other subprotocols that were offered, or None if none were.
    The token is a subprotocol, `bearer.<token>` or `bearer64.<base64url>`, or in the header Authorization (RFC 6750).
    """
    token = None
    offered = scope.get("subprotocols") or []
    for protocol in offered:
        kind, _, value = protocol.partition(".")
        if token is None and kind in ("bearer", "bearer64"):
            token = value if kind == "bearer" else decode64(value)
    protocols = [protocol for protocol in offered if not protocol.startswith(("bearer.", "bearer64."))]
    if token is None:
        scheme, _, value = (get_header(scope, b"authorization") or "").partition(" ")
        token = value.strip() if scheme.lower() == "bearer" else None
    if token is not None:
        hidden = (b"authorization", b"cookie", b"sec-websocket-protocol")
        scope["headers"] = [header for header in scope["headers"] if header[0] not in hidden]
        scope["subprotocols"] = protocols
    return token, protocols if offered else None


def decode64(value):
    """Return the text of `value`, base64url without padding, or "" if it is none."""
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def shown(text):
    """Return `text`, which a client sent, for the log: on one line, without control characters, and not too long."""
    text = text if len(text) <= 200 else text[:200] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def client_address(scope):
    """
    Return the IP address of the client, a str for the log.

    scope: the ASGI scope. With REALTIME_TRUST_PROXY it is the last entry of X-Forwarded-For, the one that our own proxy
    wrote; a client may have sent those before it.
    """
    if conf.TRUST_PROXY and (forwarded := get_header(scope, b"x-forwarded-for")):
        return shown(forwarded.rpartition(",")[2].strip())
    client = scope.get("client")
    return client[0] if client else "unknown"


def get_header(scope, name):
    """Return the last value of the header `name` (bytes, lower case) as a str, or None."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1") if values else None
