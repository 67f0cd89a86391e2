"""How much the sockets of one user, or of one address, may do in this process: how many they are, and what they send."""

import asyncio
import math
import time
from contextlib import contextmanager
from typing import NamedTuple

from django.conf import settings

# People who share an address, such as those of one office.
PEOPLE = 10


class Owner(NamedTuple):
    """Whose a socket is: kind "user", with a primary key, or kind "address" for the anonymous."""

    kind: str
    name: object


class Bucket:
    """
    As many tokens as `burst`, of which `rate` a second come back.

    refused: how often there were too few, since it was full.
    """

    def __init__(self, rate, burst):
        self.rate, self.burst, self.tokens, self.refused = rate, burst, burst, 0
        self._then = time.monotonic()

    def wait(self, cost):
        """Return the seconds until it has `cost` tokens, or is full."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self._then) * self.rate)
        self._then = now
        if self.tokens == self.burst:
            self.refused = 0
        return max(0, min(cost, self.burst) - self.tokens) / self.rate

    @property
    def is_abused(self):
        """Whether more was refused than is allowed at once."""
        self.wait(0)
        return self.refused > self.burst


class Usage:
    """What an owner has here. Forgotten when it has no socket and its buckets are full."""

    def __init__(self):
        self.sockets = 0
        self.buckets = {}


class Owners(dict):
    """A Usage for each Owner."""

    def __missing__(self, owner):
        self[owner] = Usage()
        return self[owner]

    def forget(self, owner):
        """Forget `owner`, as soon as nobody can tell the difference."""
        if owner in self and not self[owner].sockets:
            if seconds := max((bucket.wait(math.inf) for bucket in self[owner].buckets.values()), default=0):
                asyncio.get_running_loop().call_later(seconds, self.forget, owner)
            else:
                del self[owner]


@contextmanager
def place(socket):
    """
    Count `socket` as its owner's until the context ends.

    It yields whether the socket may stay: not above REALTIME_SOCKETS_PER_USER or REALTIME_SOCKETS_PER_ADDRESS, nor after
    others of the owner's that have sent too much, until their bucket is full again.
    """
    owners, owner = socket.process[Owners], socket.owner
    usage = owners[owner]
    most = settings.REALTIME_SOCKETS_PER_USER if owner.kind == "user" else settings.REALTIME_SOCKETS_PER_ADDRESS
    is_free = (most is None or usage.sockets < most) and not any(b.is_abused for b in usage.buckets.values())
    usage.sockets += is_free
    try:
        yield is_free
    finally:
        usage.sockets -= is_free
        owners.forget(owner)


class Limit:
    """
    How much one socket may do: `burst` at once, `rate` a second in the long run, without a limit if that is None.

    A user's sockets with the same rate and burst share a bucket, which a new socket does not renew. Those of the anonymous
    have one each, and one of ten times that for their address; those without an owner (None) one each.
    """

    def __init__(self, socket, rate, burst):
        owner = socket.owner
        rate, burst = (getattr(settings, value) if isinstance(value, str) else value for value in (rate, burst))
        self.rate, self._buckets = rate, []
        if rate and (owner is None or owner.kind == "address"):
            self._buckets.append(Bucket(rate, burst))
        if rate and owner is not None:
            people = PEOPLE if owner.kind == "address" else 1
            shared = socket.process[Owners][owner].buckets
            self._buckets.append(shared.setdefault((rate, burst), Bucket(rate * people, burst * people)))

    def take(self, cost=1):
        """Take `cost` tokens. Returns None, or without them the seconds until there will be, in tenths, above 0."""
        seconds = max((bucket.wait(cost) for bucket in self._buckets), default=0)
        if not seconds:
            return self.spend(cost)
        for bucket in self._buckets:
            bucket.refused += 1
        return math.ceil(seconds * 10) / 10

    def spend(self, cost):
        """Take `cost` tokens, also more than there are: the next take() waits the longer."""
        for bucket in self._buckets:
            bucket.tokens -= cost

    @property
    def is_abused(self):
        """Whether more was refused than is allowed at once: then the client does not wait as it is told."""
        return bool(self._buckets) and self._buckets[0].is_abused
