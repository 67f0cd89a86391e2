"""Messages for other processes, many in one call to Redis: under load, a call costs more than what it carries."""

import asyncio
from collections import deque

from . import layers
from .frames import size_of
from .outage import Unavailable

# What one call carries at most: messages, and bytes.
MESSAGES = 100
SIZE = 2**16


class Batcher:
    """
    Sends messages to the groups of one shard, in order: while a call is under way, the next ones gather.

    call: Fanout's, which raises ChannelLayerUnavailable.
    """

    def __init__(self, call, layer, shard):
        self._call, self._layer, self._shard = call, layer, shard
        self._waiting = deque()
        self._task = None

    async def send(self, message):
        """Send `message`, a dict with a "group"; return when Redis has it. Raises ChannelLayerUnavailable."""
        sent = asyncio.get_running_loop().create_future()
        self._waiting.append((message, sent))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_waiting())
        await sent

    async def _send_waiting(self):
        while batch := self._next():
            await self._send(batch)

    async def _send(self, batch):
        error = None
        try:
            await self._call(layers.send_together, self._layer, self._shard, [message for message, _ in batch])
        except Unavailable as unavailable:
            error = unavailable
            # They have waited as long.
            batch += self._waiting
            self._waiting.clear()
        except Exception as mistake:
            error = mistake
            if len(batch) > 1:
                # It is that of one sender.
                for pair in batch:
                    await self._send([pair])
                return
        for _, sent in batch:
            if not sent.done():
                sent.set_exception(error) if error else sent.set_result(None)

    def _next(self):
        """Return the pairs of the next call, without those whose sender has given up."""
        batch, size = [], 0
        while self._waiting and len(batch) < MESSAGES and size < SIZE:
            message, sent = self._waiting.popleft()
            if not sent.done():
                batch.append((message, sent))
                size += size_of(message.get("text") or message.get("bytes") or b"")
        return batch
