"""Tasks that run beside a socket, and end with it."""

import asyncio
import logging


class Tasks:
    def __init__(self, socket):
        self._socket = socket
        self._tasks = set()

    def start(self, run, coroutine):
        """Run `coroutine` as `await run(coroutine)`, and return the asyncio.Task. An exception is logged."""
        if not asyncio.iscoroutine(coroutine):
            raise TypeError(f"A task is made of a coroutine, as `self.count()` is one, not of {coroutine!r:.100}.")
        task = asyncio.create_task(run(coroutine))
        # Cancelled before it has begun, it would never be awaited.
        task.add_done_callback(lambda task: coroutine.close())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task):
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._socket.log(logging.ERROR, "has a task that failed", exc_info=error)

    async def end(self):
        """Cancel all that run, and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
