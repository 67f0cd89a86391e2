"""The base consumer: what every socket of this project needs, so that a consumer holds only its own subject."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.utils import await_many_dispatch
from django.conf import settings

from . import frames
from .authentication import heard
from .broadcasts import user_group
from .close import Close
from .database import DatabaseUse
from .fanout import Broadcast, Fanout, broadcast_of
from .limits import Limit
from .outage import Unavailable
from .socket import Sockets
from .tasks import Tasks

T = TypeVar("T")

# Frames of one socket after which the others have their turn: thousands may have come at once.
TURN = 32

# Methods of Channels that would never be called here, and what to write instead.
REPLACED = {
    "receive": "receive_frame() for the frames that `receives` names, or receive_bytes() for binary ones",
    "receive_json": "receive_frame(), and name the frames in `receives`",
    "decode_json": "a Frame in `receives`",
    "encode_json": "a Frame",
    "clean_up": "disconnect(), which is called however a socket ends",
}


class RealtimeConsumer(AsyncJsonWebsocketConsumer):
    """
    A consumer of typed JSON frames. Override `connect()`, `receive_frame()` and `disconnect()`.

    Beyond Channels' AsyncJsonWebsocketConsumer:

    - `receives` names the frames that it takes. All others are answered with an `error` frame; the socket stays open.
    - A greeting is sent when `connect()` has accepted and sent nothing.
    - `join()`, `leave()` and `broadcast()` talk to groups; whatever way a socket ends, it leaves them.
    - `{"type": "ping"}` is answered with `{"type": "pong"}`.
    - Clients over the frame limit are told to wait; those that keep sending are closed with 4429.
    - When the channel layer or the database does not answer, the socket is closed with 4000, and the page comes back.
    - `start_task()` runs what takes long, so that the socket stays responsive meanwhile.
    - `disconnect()` is called once for each socket, however it ends.
    """

    # Subclasses of frames.Frame: what `receive_frame()` is handed, and what is sent, for `manage.py frames`.
    receives: list[type[frames.Frame]] = []
    sends: list[type[frames.Frame]] = []
    _decode = staticmethod(frames.decoder_of([]))

    # Frames in the long run, and at once: a number, None for no limit, or the name of a setting.
    frames_per_second: float | str | None = "REALTIME_FRAMES_PER_SECOND"
    frame_burst: float | str = "REALTIME_FRAME_BURST"
    # Bytes that may wait for a slow reader before it is closed with 4000.
    outbox_limit = 2**20

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in REPLACED.keys() & vars(cls).keys():
            raise TypeError(f"{cls.__name__}.{name}() is never called by a RealtimeConsumer: write {REPLACED[name]}.")
        cls._decode = staticmethod(frames.decoder_of(cls.receives))

    async def __call__(self, scope, receive, send):
        if "realtime" not in scope:
            # In a test of this consumer alone.
            return await Sockets(self)(scope, receive, send)
        self.scope, self.base_send, self.socket = scope, send, scope["realtime"]
        self._joined, self._tasks, self._turn, self._channel_used = set(), Tasks(self.socket), 0, False
        self._outbox = self.socket.outbox
        self._outbox.limit, self.socket.counts_itself = self.outbox_limit, True
        if type(self).deliver is RealtimeConsumer.deliver:
            self.deliver = self._outbox.deliver
        self._limit = Limit(self.socket, self.frames_per_second, self.frame_burst)
        self._fanout = self.socket.process[Fanout, self.channel_layer_alias]
        self.channel_layer = self._fanout.layer
        self._channel_name = await self.channel_layer.new_channel()
        self._use = DatabaseUse().begin()
        try:
            await self._serve(receive)
        finally:
            await self._end()

    async def _serve(self, receive):
        """Dispatch what comes from the server and, once the consumer has used it, from the channel of its own."""
        self._loop = asyncio.current_task()
        # One step less for each frame, unless a middleware has a receive of its own.
        direct = self.socket.server_receive if receive == self.socket.receive else receive
        try:
            # Receiving from a channel costs as much as the rest of the socket.
            while not self._channel_used and not self._ended:
                self._waits = True
                message = await (direct if self.socket.accepted else receive)()
                self._waits = False
                await self.dispatch(message)
        except asyncio.CancelledError:
            if not self._channel_used or not self._waits or self._loop.uncancel():
                raise
        if not self._ended:
            with contextlib.suppress(StopConsumer):
                channel_receive = partial(self._fanout.receive, self._channel_name)
                await await_many_dispatch([receive, channel_receive], self.dispatch)

    def dispatch(self, message):
        """Return a coroutine that handles one message of the server or of the channel layer, a dict with a "type"."""
        return self._run(getattr(self, get_handler_name(message))(message))

    async def _run(self, coroutine):
        """Await `coroutine`, and close the socket with 4000 if a service does not answer. The log has its own line."""
        try:
            try:
                result = await coroutine
            except Exception as error:
                await self._use.settle(error)
                raise
            if self._use.used:
                await self._use.settle()
            return result
        except Unavailable:
            await self.socket.close(Close.COME_BACK)

    # To override

    async def connect(self) -> None:
        """Accept the socket, or close it. self.scope has the user and the session, as a view's request has."""
        await self.accept()

    async def receive_frame(self, frame: Any) -> None:
        """
        Handle a frame, an instance of one of `receives`.

        Raise FrameError to refuse it: the client gets an `error` frame with its id.
        """

    async def receive_bytes(self, data: bytes) -> None:
        """Handle a binary frame, bytes. Raise FrameError to refuse it, as this does."""
        raise frames.FrameError("not_text", "Binary frames are not understood; send JSON as text.")

    async def pong(self) -> frames.Pong:
        """Return the answer to a ping, a Pong or a subclass of it that tells the page more."""
        return frames.Pong()

    async def disconnect(self, code: int | None) -> None:
        """Give back what `connect()` took. Groups are left already. code: int, or None without a close, as after an error."""

    # Groups

    async def join(self, group: str) -> None:
        """
        Add this socket to `group`: from the return on it receives what is broadcast there.

        group: str, fewer than 100 ASCII letters, digits, hyphens, underscores and periods; TypeError if not.
        """
        self._joined.add(group)
        await self._fanout.join(group, self)

    async def leave(self, group: str) -> None:
        """Take this socket out of `group`, a str; nothing happens if it is not in there."""
        self._joined.discard(group)
        await self._fanout.leave(group, self)

    async def broadcast(self, group: str, frame: frames.Sendable, *, to_self: bool = True) -> None:
        """
        Send `frame` to every socket in `group`, in this process and, over Redis, in all others.

        frame: a Frame, a dict with a "type", a str that is sent as it is, such as HTML, or bytes. to_self: whether
        this socket gets it, too, if it has joined. Code that is no consumer has realtime.notify().
        """
        sender = None if to_self else self._outbox.identify()
        self._limit.charge(members=self._fanout.count(group))
        await self._fanout.send(group, broadcast_of(group, frames.encode(frame), sender))

    def deliver(self, broadcast: Broadcast) -> None:
        """
        Take a broadcast to a group of this socket. Never waits; a socket whose reader is too slow is closed.

        Override it to leave out or put off what this viewer need not see, and call super() for the rest.
        """
        self._outbox.deliver(broadcast)

    def handle(self, message):
        """Take a message of realtime.notify_consumers(): the method that its "type" names is called, in a task."""
        if message["type"] == "realtime.logout":
            # Of the last release.
            heard(message)
        elif not self._outbox.closed:
            self.start_task(self.dispatch(message))

    async def realtime_broadcast(self, event):
        """Take a broadcast to a group that this socket is in through `channel_layer.group_add()`."""
        self.deliver(Broadcast.of(event))

    @property
    def channel_name(self) -> str:
        """The channel of this socket alone, for Channels' own group_add() and handler methods."""
        if not self._channel_used:
            self._channel_used = True
            if self._waits:
                # In a task: from now on the channel is waited for, too.
                self._loop.cancel()
        return self._channel_name

    # Tasks

    def start_task(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T | None]":
        """
        Run `coroutine` beside the socket, and return its asyncio.Task. It is cancelled when the socket closes.

        Handlers of one socket run one after the other, so a slow one would hold up even `disconnect()`.
        https://github.com/django/channels/issues/1119
        """
        return self._tasks.start(self._run, coroutine)

    # The socket

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        """
        Close the socket, after what was sent. Without `code` before `accept()`: refuse it with HTTP 403.

        code: int, 1000 or 4000 to 4999 (RFC 6455, section 7.4.2); ValueError if not, since daphne sends no other.
        """
        if code not in (None, True, 1000) and not 4000 <= code <= 4999:
            raise ValueError(f"An application closes with 1000 or 4000 to 4999, not with {code}.")
        await super().close(code, reason)

    async def send(
        self, text_data: frames.Sendable | None = None, bytes_data: bytes | None = None, close: bool = False
    ) -> None:
        """Send a Frame, a dict with a "type", a str that is sent as it is, or bytes. After the end it does nothing."""
        data = bytes_data if text_data is None else frames.encode(self.socket.activity.filled(text_data, self._limit))
        await self.base_send({"type": "websocket.send", "bytes" if isinstance(data, bytes) else "text": data})
        if close:
            await self.close(close)

    async def send_json(self, content: frames.Frame | dict[str, Any], close: bool = False) -> None:
        await self.send(content, close=close)

    async def websocket_connect(self, message):
        if self.scope.get("user") is not None and self.scope["user"].is_authenticated:
            await self.join(user_group(self.scope["user"].pk))
        await super().websocket_connect(message)
        # What a task would accept later has no greeting, and broadcasts would come before it.
        await self.socket.refuse_unanswered()
        if self.socket.accepted and not self._outbox.has_sent:
            await self.send(frames.ConnectionEstablished())
        # Broadcasts that came meanwhile follow what connect() has sent.
        self._outbox.release()
        self.socket.greeted()

    async def websocket_receive(self, message):
        if self._outbox.closed:
            return
        self.socket.activity["frames_in"] += 1
        self._turn += 1
        if self._turn % TURN == 0:
            await asyncio.sleep(0)
        text, data = message.get("text"), message.get("bytes")
        if seconds := self._limit.take():
            return await self._slow_down(seconds, text)
        frame = None
        try:
            if frames.size_of(data if text is None else text) > settings.REALTIME_MAX_FRAME_SIZE:
                raise frames.FrameError("too_large", f"A frame has at most {settings.REALTIME_MAX_FRAME_SIZE} bytes.")
            if text is None:
                return await self.receive_bytes(data)
            frame = self._decode(text)
            if type(frame) is frames.Ping:
                await self.send(await self.pong())
            else:
                await self.receive_frame(frame)
        except frames.FrameError as error:
            await self.refuse(error, error.id or getattr(frame, "id", None))

    def charge(self, size: int) -> None:
        """Count an answer of `size` bytes as so many frames, 4 KiB each, for which the next frame waits."""
        self._limit.charge(size)

    async def _slow_down(self, seconds, text):
        """Refuse a frame, of this text or None, for `seconds`; or close the socket if it has had its warnings."""
        self.socket.activity["rate_limited"] += 1
        if self._limit.is_abused:
            self.socket.log(logging.WARNING, "sends too many frames")
            return await self.socket.close(Close.TOO_MANY_MESSAGES)
        if not self._warned:
            self._warned = True
            self.socket.log(logging.WARNING, "is over %s frames a second and told to wait", self._limit.rate)
        # The page needs the id, to send the frame again.
        error = frames.FrameError("rate_limited", f"Too many frames; wait {seconds} seconds.")
        await self.refuse(error, frames.find_id(text or ""), retry_after=seconds)

    async def refuse(self, error, id=None, **details):
        """Answer with an `error` frame of `error`, a FrameError, for the frame with this id."""
        await self.send(frames.Error(code=error.code, message=error.message, id=id, **details))

    async def websocket_disconnect(self, message):
        self._ended = True
        self.socket.disconnected(message.get("code", 1005))
        if self._channel_used:
            raise StopConsumer

    _ended = _waits = _warned = False

    async def _end(self):
        """End the tasks and leave the groups, however the socket ends, and call disconnect()."""
        await self._tasks.end()
        for group in list(self._joined):
            await self.leave(group)
        try:
            for group in self.groups if self._channel_used else ():
                await self.channel_layer.group_discard(group, self._channel_name)
        finally:
            await self._run(self.disconnect(self.socket.code))
