"""What happens while Redis or the database does not answer: one line in the log, and sockets that come back later."""

import asyncio
import logging
import time

from django.db import connection

logger = logging.getLogger(__name__)

# Seconds
RETRY_EVERY = 0.5
# A service that takes longer to answer is away.
ANSWER_TIMEOUT = 2
# How long a socket waits for a service that is away; a page waits 10 s for its greeting.
PATIENCE = 8


def ask_database():
    """Raise a django.db.Error when the database does not answer."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        # The thread is not one of Django's requests, so nothing else would close it.
        connection.close()


class Unavailable(Exception):
    """A service does not answer. The socket is closed with 4000, so that the page comes back later."""


class Outage:
    """
    One line when a service is lost, and one when it is back.

    error: a subclass of Unavailable. lost, back: the lines. ask: a coroutine function that fails while it is away.
    """

    def __init__(self, error, lost, back, ask):
        self._error = error
        self._lost = lost
        self._back = back
        self._ask = ask
        self._task = None

    def begin(self, error):
        """Log that the service is lost, unless that is logged already, and ask until it is back."""
        if not self.is_over:
            return
        # Errors of PostgreSQL have several lines, those of Redis may have none.
        text = " ".join(str(error).split()) or repr(error)
        logger.error("%s: %s", self._lost, text)
        self._task = asyncio.create_task(self._wait())

    @property
    def is_over(self):
        return self._task is None or self._task.done()

    async def _wait(self):
        started = time.monotonic()
        while True:
            await asyncio.sleep(RETRY_EVERY)
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    await self._ask()
            except Exception:
                logger.debug("Not yet", exc_info=True)
            else:
                return logger.warning("%s after %.1f s", self._back, time.monotonic() - started)

    async def over(self, seconds=None):
        """Wait until the service is back, for so many seconds at most, and return whether it is."""
        if self.is_over:
            return True
        done, _ = await asyncio.wait([self._task], timeout=seconds)
        return bool(done)

    async def retry(self, function, *arguments):
        """
        Return `await function(*arguments)`, called again after an outage, so that a short one is a short wait.

        function: calls `begin()` and raises the error when the service does not answer. After PATIENCE, or when it fails
        again though the service answers, the error is raised here.
        """
        deadline = time.monotonic() + PATIENCE
        for _ in range(2):
            if await self.over(deadline - time.monotonic()):
                try:
                    return await function(*arguments)
                except self._error:
                    pass
        raise self._error
