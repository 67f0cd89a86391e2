"""Count what the sockets of a process do, for one line a minute in the log and for their clients."""

import asyncio
import logging
from collections import Counter
from functools import lru_cache

from django.conf import settings
from msgspec.structs import replace

from .frames import Pong, WithBounds, encode

logger = logging.getLogger(__name__)

REPORT_EVERY = 60  # seconds

# Sockets that a fast process greets in a second; a return is spread accordingly. In a slower one they wait for a turn.
GREETINGS_PER_SECOND = 2000


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

    def filled(self, frame, limit):
        """
        Return `frame`, which is to be sent, with what each greeting and pong says: WithBounds, or a dict like it.

        limit: the limits.Limit of the socket.
        """
        is_dict = isinstance(frame, dict) and frame.get("type") in ("connection_established", "pong")
        if not is_dict and not isinstance(frame, WithBounds):
            return frame
        bounds = {"max_size": settings.REALTIME_MAX_FRAME_SIZE, "crowd": self.crowd}
        bounds |= {"frames_per_second": limit.rate, "frame_burst": limit.burst}
        if type(frame) is Pong and frame.id is None:
            return encode_pong(*bounds.values())
        return bounds | frame if is_dict else replace(frame, **bounds)

    async def _report(self):
        while True:
            await asyncio.sleep(REPORT_EVERY)
            if self or self.sockets:
                names = [*self.names, *sorted(self.keys() - {*self.names})]
                counts = " ".join(f"{name}={self[name]}" for name in names)
                logger.info("In %g s: sockets=%d %s", REPORT_EVERY, self.sockets, counts)
                self.clear()


@lru_cache(maxsize=100)
def encode_pong(max_size, crowd, rate, burst):
    """Return a pong as JSON: most frames of a process are pongs, and its sockets are all told the same."""
    return encode(Pong(max_size=max_size, crowd=crowd, frames_per_second=rate, frame_burst=burst))
