"""What waits to be written to one socket."""

import asyncio
import types
from collections import deque


class Outbox:
    """
    Writes to one socket, in order, and keeps a bounded amount for a reader that is slow.

    write: the `send` of ASGI. On uvicorn it waits while the socket's buffer is full; daphne's never waits.
    limit: how much may wait, in characters (text) or bytes.

    Until `release()` is called, what is put in waits.
    """

    def __init__(self, write, limit):
        self._send = write
        self._limit = limit
        self._waiting = deque()
        self._size = 0
        self._held = True
        # Whether put() may write at once: not held, and nothing under way.
        self._free = False
        self._task = None

    def put(self, message, size):
        """
        Write `message`, an ASGI dict, now if the server takes it at once, or else soon. Never waits.

        Returns False if it does not fit: the reader is too slow.
        """
        if self._free:
            # suppress() would cost as much as the write.
            try:  # noqa: SIM105
                self._begin(message)
            except (OSError, RuntimeError):
                # The socket is closing, of which the server tells the consumer.
                pass
            return True
        if self._size + size > self._limit:
            return False
        self._waiting.append((message, size))
        self._size += size
        return True

    async def send(self, message):
        """
        Write `message`, an ASGI dict, after all that waits, and return when the server has taken it.

        Raises OSError or RuntimeError when the socket is closing.
        """
        while self._task is not None:
            await asyncio.wait([self._task])
        self._begin(message)
        if self._task is not None:
            await asyncio.shield(self._task)

    def release(self):
        """Let go what has been put in so far."""
        self._held = False
        self._free = self._task is None
        if self._free and self._waiting:
            self._start()

    def clear(self):
        """Forget what waits."""
        self._waiting.clear()
        self._size = 0

    async def close(self):
        """End all writing."""
        self.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _begin(self, message):
        """
        Write `message` up to where the server makes it wait, and start a task only for the rest.

        Nearly every write is done at once, and a task for each of thousands would cost more than the writes. From Python
        3.12 on, asyncio's eager tasks do the same.
        """
        coroutine = self._send(message)
        try:
            future = coroutine.send(None)
        except StopIteration:
            return
        self._start(_rest(coroutine, future))

    def _start(self, first=None):
        self._free = False
        self._task = asyncio.create_task(self._write(first))
        # Only send() waits for the outcome; for put() an error means that the socket is closing, as above.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _write(self, first):
        """Await `first`, if there is one, and write what waits."""
        try:
            if first is not None:
                await first
            while self._waiting and not self._held:
                message, size = self._waiting.popleft()
                self._size -= size
                await self._send(message)
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
