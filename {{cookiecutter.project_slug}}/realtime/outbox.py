"""The bounded queue of what is written to one socket."""

import asyncio
import types
from collections import deque
from uuid import uuid4


class Outbox:
    """
    Writes to one socket, in order, and keeps a bounded amount for a reader that is slow.

    write: the `send` of ASGI. On uvicorn it waits while the socket's buffer is full; daphne's never waits. activity:
    the process's, which counts frames. overflow: called once, when more than `limit` bytes would have to wait.

    Until `release()` is called, broadcasts wait. closed: everything further is ignored, since a task may still run
    after the end. id: the sender in broadcasts that leave this socket out, or None.
    """

    def __init__(self, write, activity, overflow):
        self.limit = 2**20
        self.id = None
        self.is_open = self.has_sent = self.closed = False
        self._write, self._activity, self._overflow = write, activity, overflow
        # A deque once something waits: an empty one is 760 bytes.
        self._waiting = ()
        self._size = 0
        self._held = True
        # Whether deliver() may write at once: not held, and nothing under way.
        self._free = False
        self._task = None

    def deliver(self, broadcast):
        """Write a fanout.Broadcast, now if the server takes it at once, or else soon. Never waits."""
        if self.closed or (self.id is not None and self.id == broadcast.sender):
            return
        self._activity["frames_out"] += 1
        if self._free:
            try:
                self._begin(broadcast.event)
            except (OSError, RuntimeError):
                # As in send().
                self.closed = True
        elif self._size + broadcast.size <= self.limit:
            self._waiting = self._waiting or deque()
            self._waiting.append((broadcast.event, broadcast.size))
            self._size += broadcast.size
        else:
            self.closed = True
            self._overflow()

    def identify(self):
        """Return an id of this socket for the "sender" of its broadcasts, a str, so that it is left out of them."""
        self.id = self.id or uuid4().hex
        return self.id

    async def send(self, message):
        """Write `message`, an ASGI dict, after all that waits, and return when the server has taken it."""
        if message["type"] == "websocket.send":
            self.has_sent = True
            self._activity["frames_out"] += 1
        while self._task is not None:
            await asyncio.wait([self._task])
        if not self.closed:
            await self._send(message)

    async def end(self, message):
        """Write `message`, the last one, after all that waits."""
        self.closed = True
        while self._task is not None:
            await asyncio.wait([self._task])
        await self._send(message)

    def release(self):
        """Write what has been delivered so far, and from now on at once."""
        self._held = False
        self._free = self._task is None
        if self._free and self._waiting:
            self._start()

    def clear(self):
        """Forget what waits."""
        self._waiting = ()
        self._size = 0

    async def stop(self):
        """End all writing."""
        self.closed = True
        self.clear()
        # A cycle would wait for the garbage collector, which goes through all that the other sockets hold.
        self._overflow = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            # One that had not begun has not done so itself.
            self._task = None

    async def _send(self, message):
        try:
            self._begin(message)
            if self._task is not None:
                await asyncio.shield(self._task)
        except (OSError, RuntimeError):
            # The connection is gone (OSError, says ASGI) or the server is closing it (RuntimeError, on uvicorn).
            if not self.is_open:
                raise
            self.closed = True

    def _begin(self, message):
        """
        Write `message` up to where the server makes it wait, and start a task only for the rest.

        Nearly every write is done at once, and a task for each of thousands would cost more than the writes. From
        Python 3.12 on, asyncio's eager tasks do the same.
        """
        coroutine = self._write(message)
        try:
            future = coroutine.send(None)
        except StopIteration:
            return
        self._start(_rest(coroutine, future))

    def _start(self, first=None):
        self._free = False
        self._task = asyncio.create_task(self._write_waiting(first))
        # Only send() waits for the outcome; for deliver() an error means that the socket is closing.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _write_waiting(self, first):
        """Await `first`, if there is one, and write what waits."""
        try:
            if first is not None:
                await first
            while self._waiting and not self._held:
                message, size = self._waiting.popleft()
                self._size -= size
                await self._write(message)
        finally:
            self._task = None
            self._free = not self._held


@types.coroutine
def _rest(coroutine, future):
    """Go on with `coroutine`, which waits for `future`."""
    try:
        yield future
        yield from coroutine
    finally:
        coroutine.close()
