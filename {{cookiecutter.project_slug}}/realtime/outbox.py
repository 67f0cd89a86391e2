"""What waits to be written to one socket."""

import asyncio
import contextlib
import types
from collections import deque


class Outbox:
    """
    Writes to one socket, in order, and keeps a bounded amount for a reader that is slow.

    send: the `send` of the ASGI server. On uvicorn it waits while the socket's buffer is full; daphne's never waits.
    limit: how much may wait, in characters.

    Until `release()` is called, what is put in waits.
    """

    def __init__(self, send, limit):
        self._send = send
        self._limit = limit
        self._waiting = deque()
        self._size = 0
        self._held = True
        self._task = None

    def put(self, message, size):
        """
        Write `message`, an ASGI dict, now if the server takes it at once, or else soon. Never waits.

        size: its number of characters. Returns False if it does not fit: the reader is too slow.
        """
        if self._task is None and not self._held:
            # An error means that the socket is closing, of which the server tells the consumer.
            with contextlib.suppress(OSError, RuntimeError):
                self._begin(message)
            return True
        if self._size + size > self._limit:
            return False
        self._waiting.append((message, size))
        self._size += size
        return True

    async def send(self, message):
        """Write `message`, an ASGI dict, after all that waits, and return when the server has taken it."""
        while self._task is not None:
            await asyncio.wait([self._task])
        self._begin(message)
        if self._task is not None:
            await asyncio.shield(self._task)

    def release(self):
        """Let go what has been put in so far."""
        self._held = False
        if self._waiting and self._task is None:
            self._start(self._drain())

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
        rest = start(self._send(message))
        if rest is not None:
            self._start(self._drain(rest))

    def _start(self, coroutine):
        self._task = asyncio.create_task(coroutine)
        # Only send() waits for the outcome; for put() see there.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _drain(self, rest=None):
        try:
            if rest is not None:
                await rest
            while self._waiting and not self._held:
                message, size = self._waiting.popleft()
                self._size -= size
                await self._send(message)
        finally:
            self._task = None


def start(coroutine):
    """
    Run `coroutine` up to its first wait. Return None if it is done by then, or else an awaitable for the rest.

    Most writes are done at once, and a task for each of thousands would cost more than the write itself. From Python
    3.12 on, asyncio's eager tasks do the same.
    """
    try:
        future = coroutine.send(None)
    except StopIteration:
        return None
    return _continue(coroutine, future)


@types.coroutine
def _continue(coroutine, future):
    try:
        yield future
        yield from coroutine
    finally:
        coroutine.close()
