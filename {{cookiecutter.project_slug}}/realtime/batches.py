"""Work in batches: under load, a call to Redis or to the database costs more than what it carries."""

import asyncio
from collections import deque

from .outage import Unavailable


class Batcher:
    """
    Makes one call after the other, in order, each for all items that have come meanwhile.

    call: a coroutine function that takes a list of items and returns a list of their results, or None. limit: what the
    items of one call may weigh; weigh: a function that returns the weight of one. turns: of the event loop that a call
    waits for more items, each a few hundred microseconds under load, and nothing without.
    """

    def __init__(self, call, limit, weigh=lambda item: 1, turns=0):
        self._call, self._limit, self._weigh, self._turns = call, limit, weigh, turns
        self._waiting, self._task = deque(), None

    def add(self, item):
        """Return a future of the result for `item`, or of what its call raises, such as Unavailable."""
        result = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return result

    async def _work(self):
        while batch := await self._next():
            await self._do(batch)

    async def _next(self):
        """Return the next pairs of an item and its future, without those whose caller has given up."""
        for _ in range(self._turns):
            await asyncio.sleep(0)
        batch, weight = [], 0
        while self._waiting and weight < self._limit:
            item, result = self._waiting.popleft()
            if not result.done():
                batch.append((item, result))
                weight += self._weigh(item)
        return batch

    async def _do(self, batch):
        try:
            results, error = await self._call([item for item, _ in batch]), None
        except Unavailable as unavailable:
            # Those that have come meanwhile have waited as long; _next() leaves them out.
            batch, error = [*batch, *self._waiting], unavailable
        except Exception as mistake:
            if half := len(batch) // 2:
                # An item that fails must not fail the others.
                await self._do(batch[:half])
                return await self._do(batch[half:])
            error = mistake
        for index, (_, result) in enumerate(batch):
            if not result.done():
                result.set_exception(error) if error else result.set_result(results and results[index])
