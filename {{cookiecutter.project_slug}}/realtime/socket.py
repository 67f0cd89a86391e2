"""The life of one socket, the same for every consumer, Channels' own included: opened, counted, logged, closed."""

import asyncio
import base64
import binascii
import logging
import time

from asgiref.sync import markcoroutinefunction
from channels.exceptions import StopConsumer
from django.conf import settings

from .activity import Activity
from .close import Close
from .frames import Wait, encode
from .limits import Admission
from .outage import Unavailable
from .outbox import Outbox
from .process import serve

logger = logging.getLogger(__name__)

# Seconds
# For a consumer to accept or close, once connect() has returned. daphne gives up after 5, without a word.
ANSWER_TIMEOUT = 4
# For the server to take the close of a client that reads nothing.
CLOSE_TIMEOUT = 3


NO_SOCKETS = "realtime.asgi.Sockets must be the outermost of the WebSockets in asgi.py."


class Sockets:
    """
    ASGI middleware, the outermost of all WebSockets: gives each its Socket, `scope["realtime"]`.

    A bearer token is taken out of the scope, whatever way it was offered, and with it all cookies.
    """

    def __init__(self, application: object):
        self.application = application

    @markcoroutinefunction
    def __call__(self, scope, receive, send):
        return Socket(scope := dict(scope), receive, send).run(self.application, scope)


class Socket:
    """
    One WebSocket, from the handshake to its end.

    token: the bearer token that the client offered, a str, or None. user, owner: set by Authentication, None before.
    address, path: for the log. code: what the socket was closed with, or None.
    """

    def __init__(self, scope, receive, send):
        self.path, self.address = shown(scope["path"]), client_address(scope)
        self.token, self._protocols = take_token(scope)
        self.process = serve()
        self.activity = self.process[Activity]
        self.outbox = Outbox(send, self.activity, self._overflow)
        self.user = self.owner = self.code = None
        self.accepted = self.counts_itself = self._opened = self._connected = self._ended = self._aborted = False
        self.server_receive, self._send = receive, send
        scope["realtime"] = self

    async def run(self, application, scope):
        self._task = asyncio.current_task()
        started = time.monotonic()
        try:
            if self.token is not None and self._protocols == []:
                self.log(logging.WARNING, "refused: a browser with bearer.<token> must offer another protocol, too")
                return await self.send({"type": "websocket.close"})
            await application(scope, self.receive, self.send)
        except Unavailable:
            await self.close(Close.COME_BACK)
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            if not self._aborted or self._task.uncancel():
                raise
        except Exception as error:
            # The server logs the traceback, and closes with 1011 (RFC 6455, section 7.4.1).
            self.code = self.code or Close.INTERNAL_ERROR
            if "message type realtime.broadcast" in str(error):
                error.add_note("Consumers of Channels' own hear notify_consumers() and group_send(), not notify().")
            raise
        finally:
            self.greeted()
            await self.outbox.stop()
            if self._opened:
                # Without a code the server was stopped, or the connection is gone.
                self.code = self.code or 1006
                self.activity.sockets -= 1
                self.activity[f"closed_{self.code}"] += 1
                self.log(logging.INFO, "closed with %s after %.1f s", self.code, time.monotonic() - started)
            else:
                self.log(logging.INFO, "not accepted")

    async def receive(self):
        """As the `receive` of ASGI."""
        if self._connected:
            # connect() has returned.
            self.greeted()
        if self._connected and not self.accepted:
            message = await self._receive_while_connecting()
        else:
            message = await self.server_receive()
        match message["type"]:
            case "websocket.receive" if not self.counts_itself:
                self.activity["frames_in"] += 1
            case "websocket.connect":
                self._connected = True
            case "websocket.disconnect":
                self.disconnected(message.get("code", 1005))
        return message

    def greeted(self):
        """Give others their turn: all that is to be sent first has been sent."""
        self.process[Admission].leave(self)

    def put_back(self, messages):
        """Let `messages`, a list of what was received, be received again."""
        receive = self.server_receive

        async def receive_again():
            return messages.pop(0) if messages else await receive()

        self.server_receive = receive_again

    async def tell_to_wait(self, seconds):
        """Accept the socket, which a page need not know from a greeting, and send a `wait` frame."""
        if len(self._protocols or ()) > 1:
            # Which of them is its consumer's choice.
            return
        if not self._opened:
            await self._open({"type": "websocket.accept"})
        await self.outbox.send({"type": "websocket.send", "text": encode(Wait(seconds=seconds))})
        self.outbox.has_sent = False

    def disconnected(self, code):
        self.outbox.closed = self._ended = True
        self.code = self.code or code

    async def _receive_while_connecting(self):
        """Refuse the socket if its consumer has not accepted it ANSWER_TIMEOUT after connect() has returned."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self.server_receive()
        except TimeoutError:
            await self.refuse_unanswered()
        return await self.server_receive()

    async def refuse_unanswered(self):
        """Refuse the socket if connect() has returned, and the socket is neither accepted nor closed."""
        if not self.accepted and not self.outbox.closed:
            self.log(logging.ERROR, "refused: its consumer's connect() has neither accepted nor closed it")
            await self.send({"type": "websocket.close"})

    @markcoroutinefunction
    def send(self, message):
        """As the `send` of ASGI. After the end it does nothing: a task may still be running."""
        # Nearly all are frames: one coroutine less for each.
        return self.outbox.send(message) if message["type"] == "websocket.send" else self._answer(message)

    async def _answer(self, message):
        kind = message["type"]
        if kind == "websocket.accept" and not self.outbox.closed:
            await self._accept(message)
        elif kind == "websocket.close" and (self.accepted or "code" in message):
            await self._end(message.get("code", Close.NORMAL), message.get("reason"))
        elif self._opened:
            # A refusal of a socket that was told to wait.
            await self._end(Close.NOT_ALLOWED)
        elif not self.outbox.closed:
            # A refusal: HTTP 403, or a response of its own.
            self.outbox.closed = self._ended = kind == "websocket.close"
            await self._send(message)

    async def close(self, code):
        """Close the socket at once, whatever consumer it has, also before it was accepted. What waits is not sent."""
        self.outbox.clear()
        await self._end(code)

    async def _end(self, code, reason=None):
        """
        Close the socket with `code`, after what waits.

        A refused handshake carries no code, and browsers would see 1006, so that it is accepted first.
        https://github.com/django/daphne/issues/486
        """
        if self._ended:
            return
        if not self.accepted:
            await self._accept({"type": "websocket.accept"}, to_close=True)
        self._ended, self.code = True, int(code)
        message = {"type": "websocket.close", "code": self.code}
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.outbox.end(message | {"reason": reason} if reason else message)
        except TimeoutError:
            # The client reads nothing, not even the close frame. The server drops it when its application has ended.
            self._aborted = self._task.cancel()

    def _overflow(self):
        self.log(logging.WARNING, "reads too slowly")
        self.activity["slow_readers"] += 1
        self._closer = asyncio.create_task(self.close(Close.COME_BACK))

    async def _accept(self, message, to_close=False):
        if self.token is not None and self.user is None and not to_close:
            self.log(logging.ERROR, "refused: it offers a token, and asgi.py has no realtime.asgi.Authentication")
            return await self.close(Close.NOT_LOGGED_IN)
        # Set before the await: another task may close the socket meanwhile.
        self.accepted = True
        if not self._opened:
            await self._open(message)
        if not to_close:
            self.log(logging.INFO, "opened")

    async def _open(self, message):
        # Browsers fail a handshake that picks none of the protocols they offer, or another one.
        chosen, offered = message.get("subprotocol"), self._protocols or [None]
        if chosen and chosen not in offered:
            self.log(logging.ERROR, "is accepted with the subprotocol %r, which its client has not offered", chosen)
        self._opened = True
        self.activity.sockets += 1
        self.activity["opened"] += 1
        await self.outbox.send(message | {"subprotocol": chosen if chosen in offered else offered[0]})
        self.outbox.is_open = True

    def log(self, level, text, *arguments, **options):
        """Log a line about this socket."""
        logger.log(level, f"WebSocket %s of %s {text}", self.path, self.address, *arguments, **options)


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
    """Return the text of `value`, base64url without padding, or "" if it is none, or one that databases refuse (NUL)."""
    try:
        text = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text if text.isprintable() else ""


def shown(text):
    """Return `text`, which a client sent, for the log: on one line, without control characters, and not too long."""
    text = text if len(text) <= 200 else text[:200] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def client_address(scope):
    """
    Return the IP address of the client, a str for the log.

    scope: the ASGI scope. With REALTIME_TRUST_PROXY it is the last entry of X-Forwarded-For, the one that our own
    proxy wrote; a client may have sent those before it.
    """
    if settings.REALTIME_TRUST_PROXY and (forwarded := get_header(scope, b"x-forwarded-for")):
        return shown(forwarded.rpartition(",")[2].strip())
    client = scope.get("client")
    return client[0] if client else "unknown"


def get_header(scope, name):
    """Return the last value of the header `name` (bytes, lower case) as a str, or None."""
    value = dict(scope["headers"]).get(name)
    return value if value is None else value.decode("latin-1")
