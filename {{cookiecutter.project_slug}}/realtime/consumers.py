"""The base consumer: what every socket of this project needs, so that a consumer holds only its own subject."""

import asyncio
import logging
import time
from functools import partial

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.utils import await_many_dispatch

from .database import DatabaseUse
from .fanout import broadcast_of, get_fanout
from .frames import FrameError, FrameLimit, decode_frame, encode_frame
from .health import Unavailable, activity
from .outbox import Outbox
from .sessions import client_address, digest, load_user, user_group

logger = logging.getLogger(__name__)

# Frames of one socket after which the others have their turn: thousands may have come at once.
TURN = 32


class RealtimeConsumer(AsyncJsonWebsocketConsumer):
    """
    A consumer of JSON frames. Override `connect()`, `receive_json()` and `disconnect()`, as in Channels.

    Beyond Channels' AsyncJsonWebsocketConsumer:

    - `join()`, `leave()` and `broadcast()` talk to groups; whatever way a socket ends, it leaves them.
    - A frame that is no JSON object with a string "type" is answered with an `error` frame, and so is a FrameError
      that `receive_json()` raises. The socket stays open.
    - `{"type": "ping"}` is answered with `{"type": "pong"}`.
    - Who sends too much is told to wait, and closed with 4429 who does not (REALTIME_FRAMES_PER_SECOND).
    - When the channel layer or the database does not answer, the socket is closed with 4000, and the page comes back.
    - `close(4401)` reaches the browser also before `accept()`.
    - `start_task()` runs what takes long, so that the socket stays responsive meanwhile.
    - Opening and closing are logged, with address, code and seconds.

    `disconnect()` runs after a refused connection, too: set attributes before anything can fail.
    """

    # Characters that may wait for a slow reader before it is closed with 4000.
    outbox_limit = 2**20

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._accepted = False
        self._closed = False
        self._close_code = None
        self._joined = set()
        self._tasks = set()
        self._channel_used = False

    async def __call__(self, scope, receive, send):
        started = time.monotonic()
        self.scope = scope
        self._address = client_address(scope)
        self._limit = FrameLimit()
        self._turn = 0
        self._outbox = Outbox(send, self.outbox_limit)
        self.base_send = self._write
        self._fanout = get_fanout(self.channel_layer_alias)
        self.channel_layer = self._fanout.layer
        self._channel_name = await self.channel_layer.new_channel()
        self.channel_receive = partial(self._fanout.receive, self._channel_name)
        try:
            # Few consumers use a channel of their own, and receiving from it costs as much as the rest of the socket.
            while not self._channel_used:
                await self.dispatch(await receive())
            await await_many_dispatch([receive, self.channel_receive], self.dispatch)
        except StopConsumer:
            pass
        except Unavailable:
            await self.close(4000)
        except Exception:
            # The server writes the traceback, and closes with 1011 (RFC 6455, section 7.4.1).
            self._close_code = 1011
            raise
        finally:
            # Not left to disconnect(), which does not run after an error or when the server is stopped.
            await self.clean_up()
            if self._accepted:
                activity.closed(self._close_code)
                logger.info(
                    "WebSocket %s of %s closed with %s after %.1f s",
                    scope["path"],
                    self._address,
                    self._close_code,
                    time.monotonic() - started,
                )
            else:
                logger.info("WebSocket %s of %s not accepted", scope["path"], self._address)

    async def dispatch(self, message):
        await self._run(getattr(self, get_handler_name(message))(message))
        if message["type"] == "websocket.disconnect":
            raise StopConsumer

    async def _run(self, coroutine):
        """Await `coroutine`, and close the socket with 4000 if a service does not answer. The log has its own line."""
        try:
            async with DatabaseUse():
                return await coroutine
        except Unavailable:
            if not self._closed:
                await self.close(4000)

    # Groups

    async def join(self, group):
        """
        Add this socket to `group`: from the return on it receives what is broadcast there.

        group: str, fewer than 100 ASCII letters, digits, hyphens, underscores and periods; TypeError if not.
        """
        self._joined.add(group)
        await self._fanout.join(group, self)

    async def leave(self, group):
        """Take this socket out of `group`, a str; nothing happens if it is not in there."""
        self._joined.discard(group)
        await self._fanout.leave(group, self)

    async def broadcast(self, group, frame):
        """
        Send `frame` to every socket in `group`, in this process and, over Redis, in all others.

        group: str. frame: dict with a "type"; see frames.encode_frame(). A sender that has joined receives it, too.
        Code that is no consumer has realtime.notify().
        """
        await self._fanout.send(group, broadcast_of(group, frame))

    def deliver(self, message, size):
        """Take a broadcast from the fan-out; not called by hand. A socket whose reader is too slow is closed."""
        activity["frames_out"] += 1
        if self._closed or self._outbox.put(message, size):
            return
        logger.warning("WebSocket %s of %s reads too slowly", self.scope["path"], self._address)
        activity["slow_readers"] += 1
        self._outbox.clear()
        self._closed = True
        self.start_task(self._give_up())

    async def _give_up(self):
        await self._leave_groups()
        await self.close(4000)

    def handle(self, message):
        """Take a message for this socket's own handlers from the fan-out; not called by hand."""
        if not self._closed:
            self.start_task(getattr(self, get_handler_name(message))(message))

    async def realtime_logout(self, event):
        """A session of this socket's user has ended, or the user has changed: close with 4401 if it was ours."""
        session = self.scope["session"]
        if event["session"] is None:
            user = await load_user(type(session)(session.session_key))
            ours = not user.is_authenticated
        else:
            ours = event["session"] == digest(session.session_key)
        if ours:
            await self.close(4401)

    async def realtime_broadcast(self, event):
        """Take a broadcast to a group that this socket is in through `channel_layer.group_add()`."""
        await self.send(text_data=event["text"])

    @property
    def channel_name(self):
        """The channel of this socket alone, for Channels' own group_add() and handler methods."""
        self._channel_used = True
        return self._channel_name

    # Tasks

    def start_task(self, coroutine):
        """
        Run `coroutine` beside the socket, and return its asyncio.Task. It is cancelled when the socket closes.

        Handlers of one socket run one after the other, so a slow one would hold up even `disconnect()`.
        https://github.com/django/channels/issues/1119
        """
        task = asyncio.create_task(self._run(coroutine))
        # Cancelled before it has begun, it would never be awaited.
        task.add_done_callback(lambda task: coroutine.close())
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task):
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            logger.error("A task of WebSocket %s failed", self.scope["path"], exc_info=task.exception())

    # The socket

    async def accept(self, subprotocol=None, headers=None):
        self._accepted = True
        activity.opened()
        await super().accept(subprotocol, headers)
        logger.info("WebSocket %s of %s opened", self.scope["path"], self._address)

    async def close(self, code=None, reason=None):
        """
        Close the socket. Without `code` before `accept()`: refuse it with HTTP 403.

        code: int, 1000 or 4000 to 4999 (RFC 6455, section 7.4.2); ValueError if not, since daphne sends no other.
        """
        if code not in (None, True, 1000) and not 4000 <= code <= 4999:
            raise ValueError(f"An application closes with 1000 or 4000 to 4999, not with {code}.")
        if code is not None and not self._accepted:
            # A refused handshake carries no code: browsers would see 1006. https://github.com/django/daphne/issues/486
            await self.accept()
        self._closed = True
        self._close_code = code
        await super().close(code, reason)

    async def send(self, text_data=None, bytes_data=None, close=False):
        """Send a frame, unless the socket is closed: what comes too late then is nobody's fault."""
        if not self._closed:
            activity["frames_out"] += 1
            await super().send(text_data, bytes_data, close)

    async def _write(self, message):
        try:
            await self._outbox.send(message)
        except (OSError, RuntimeError):
            # The connection is gone (OSError, says ASGI) or the server is closing it (RuntimeError, on uvicorn).
            if not self._accepted:
                raise
            self._closed = True

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        if self._closed:
            return
        activity["frames_in"] += 1
        self._turn += 1
        if self._turn % TURN == 0:
            await asyncio.sleep(0)
        if seconds := self._limit.take():
            return await self._slow_down(seconds, text_data)
        frame = None
        try:
            if text_data is None:
                raise FrameError("not_text", "Binary frames are not understood; send JSON as text.")
            frame = decode_frame(text_data)
            if frame["type"] == "ping":
                await self.send_json(await self.pong())
            else:
                await self.receive_json(frame, **kwargs)
        except FrameError as error:
            if frame is not None:
                error.id = frame.get("id")
            await self.refuse(error)

    async def _slow_down(self, seconds, text):
        """Refuse a frame, of this text or None, for `seconds`; or close the socket if it has had its warnings."""
        activity["rate_limited"] += 1
        if self._limit.is_abused:
            logger.warning("WebSocket %s of %s sends too many frames", self.scope["path"], self._address)
            return await self.close(4429)
        try:
            # The page needs the id, to send the frame again.
            id = decode_frame(text or "").get("id")
        except FrameError as error:
            id = error.id
        error = FrameError("rate_limited", f"Too many frames; wait {seconds} seconds.", id)
        await self.refuse(error, retry_after=seconds)

    async def refuse(self, error, **details):
        """Answer with an `error` frame of `error`, a FrameError."""
        frame = {"type": "error", "code": error.code, "message": error.message, **details}
        await self.send_json(frame if error.id is None else frame | {"id": error.id})

    async def pong(self):
        """Return the answer to a ping, a dict. Override it to tell the page more."""
        return {"type": "pong"}

    async def receive_json(self, content, **kwargs):
        """
        Handle a frame: a dict with a string "type".

        Raise FrameError to refuse it. Call this method, `super().receive_json(content)`, for an unknown type.
        """
        raise FrameError("unknown_type", f'Frames of type "{content["type"][:50]}" are not understood.')

    async def websocket_connect(self, message):
        user = self.scope.get("user")
        if user is not None and user.is_authenticated:
            await self.join(user_group(user.pk))
        await super().websocket_connect(message)
        # What was broadcast meanwhile comes behind what connect() sent.
        self._outbox.release()

    async def websocket_disconnect(self, message):
        if self._close_code is None:
            self._close_code = message["code"]
        await self.clean_up()
        for group in self.groups:
            await self.channel_layer.group_discard(group, self.channel_name)
        await self.disconnect(message["code"])

    @classmethod
    async def encode_json(cls, content):
        return encode_frame(content)

    async def clean_up(self):
        """
        End the tasks and leave the groups, however the socket ends: `disconnect()` does not run after an error.

        Override it to give back what `connect()` took. It may run twice.
        """
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._outbox.close()
        await self._leave_groups()

    async def _leave_groups(self):
        for group in list(self._joined):
            await self.leave(group)
