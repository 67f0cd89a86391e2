"""Count what the sockets of a process do, for one line a minute in the log."""

import asyncio
import logging
from collections import Counter

logger = logging.getLogger(__name__)

REPORT_EVERY = 60  # seconds

# Sockets that a fast process greets in a second; a return is spread accordingly. In a slower one they wait for a turn.
GREETINGS_PER_SECOND = 1000


class Activity(Counter):
    """
    Counters since the last line, by name, and the number of sockets that are open.

    There is a line every REPORT_EVERY seconds, unless no socket is open and nothing has happened.
    """

    names = ("opened", "frames_in", "frames_out", "refused_origins", "rate_limited", "slow_readers", "dropped")

    def __init__(self):
        super().__init__()
        self.sockets = 0
        self._task = asyncio.create_task(self._report())

    @property
    def crowd(self):
        """The seconds over which the clients of this process should spread their return, a float."""
        return round(self.sockets / GREETINGS_PER_SECOND, 1)

    async def _report(self):
        while True:
            await asyncio.sleep(REPORT_EVERY)
            if self or self.sockets:
                names = [*self.names, *sorted(self.keys() - {*self.names})]
                counts = " ".join(f"{name}={self[name]}" for name in names)
                logger.info("In %g s: sockets=%d %s", REPORT_EVERY, self.sockets, counts)
                self.clear()
