"""Limits of a process: the sockets of one user or address and their frames, and how many sockets are greeted at a time."""

import asyncio
import ipaddress
import math
import time
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from channels.exceptions import StopConsumer
from django.conf import settings

# An address may be that of an office: it is taken for so many people.
PEOPLE = 10
# Bytes of an answer, and members of a group that is broadcast to, that cost as much as a frame.
CHARGED = 4096
CHARGED_MEMBERS = 100

# Enough for queries that many share. With more, each turn of the event loop takes longer, and with it the time until a
# connection is accepted and told to wait: a page that is told nothing for 10 s comes back, which is work for nothing.
AT_A_TIME = 50
# Seconds after which a greeting makes room for another: it waits for something, which is no work.
TURN = 1
# Seconds between two words to those who wait. Pages take so much and 10 s of silence for a loss.
TELL_EVERY = 5


class Owner(NamedTuple):
    """The owner of a socket: kind "user" with a primary key, or kind "address" for anonymous sockets."""

    kind: str
    name: object


def owner_of(user, address):
    """Return the Owner of the sockets of `user`, at this address, a str, if nobody is logged in."""
    return Owner("address", network_of(address)) if user.is_anonymous else Owner("user", user.pk)


@lru_cache(maxsize=1000)
def network_of(address):
    """
    Return what one household has, a str: of an IPv6 address the network of 64 bits, of another one itself.

    address: a str. A server that listens for both kinds sees 192.0.2.7 as ::ffff:192.0.2.7.
    """
    try:
        ip = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip), 64), strict=False))


class Bucket:
    """
    A token bucket: it holds `burst` tokens, of which `rate` a second come back.

    refused: how often tokens were missing since the bucket was last full.
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
        """Whether more than `burst` was refused."""
        self.wait(0)
        return self.refused > self.burst


class Usage:
    """The sockets and buckets of one owner, forgotten when it has no socket and its buckets are full."""

    def __init__(self):
        self.sockets = 0
        self.buckets = {}


class Owners(dict):
    """A Usage for each Owner."""

    def __missing__(self, owner):
        self[owner] = Usage()
        return self[owner]

    def enter(self, owner):
        """
        Return whether another socket of `owner` may stay, and count it until `leave()` if so.

        It may not when the owner has REALTIME_SOCKETS_PER_USER (or _PER_ADDRESS) sockets, or has been cut off for its
        frames and its bucket is not full again, or has not paid for its last answers.
        """
        usage = self[owner]
        most = settings.REALTIME_SOCKETS_PER_USER if owner.kind == "user" else settings.REALTIME_SOCKETS_PER_ADDRESS
        # A bucket owes tokens after large answers, and another socket might be sent the same ones again.
        may_send = not any(bucket.is_abused or bucket.wait(0) for bucket in usage.buckets.values())
        is_free = may_send and (most is None or usage.sockets < most)
        usage.sockets += is_free
        return is_free

    def leave(self, owner):
        self[owner].sockets -= 1
        self.forget(owner)

    def forget(self, owner):
        """Forget `owner` once its buckets are full: before that, a new socket would renew them."""
        if not self[owner].sockets:
            if seconds := max((bucket.wait(math.inf) for bucket in self[owner].buckets.values()), default=0):
                asyncio.get_running_loop().call_later(seconds, self.forget, owner)
            else:
                del self[owner]


class Limit:
    """
    The frames that one socket may send: `burst` at once, `rate` a second in the long run; None is no limit.

    A user's sockets with the same rate and burst share a bucket, which a new socket does not renew. An anonymous
    socket has a bucket of its own, and its address one of PEOPLE times that; a socket without an owner (None) has its
    own.
    """

    def __init__(self, socket, rate, burst):
        owner = socket.owner
        rate, burst = (getattr(settings, value) if isinstance(value, str) else value for value in (rate, burst))
        self.rate, self.burst, self._buckets, self._closed_until = rate or None, burst, [], 0
        if rate and (owner is None or owner.kind == "address"):
            self._buckets.append(Bucket(rate, burst))
        if rate and owner is not None:
            people = PEOPLE if owner.kind == "address" else 1
            shared = socket.process[Owners][owner].buckets
            self._buckets.append(shared.setdefault((rate, burst), Bucket(rate * people, burst * people)))

    def take(self, cost=1):
        """
        Take `cost` tokens. Returns None, or without them the seconds until there will be, in tenths, above 0.

        Until then all is refused: the frame that was refused first must not be overtaken by the next.
        """
        if not self._buckets:
            return None
        now = time.monotonic()
        seconds = max(self._closed_until - now, *(bucket.wait(cost) for bucket in self._buckets))
        if seconds <= 0:
            return self.spend(cost)
        for bucket in self._buckets:
            bucket.refused += 1
        seconds = math.ceil(round(seconds * 10, 6)) / 10
        self._closed_until = max(self._closed_until, now + seconds)
        return seconds

    def spend(self, cost):
        """Take `cost` tokens, also more than there are: the next take() waits the longer."""
        for bucket in self._buckets:
            bucket.tokens -= cost

    def charge(self, size=0, members=0):
        """
        Count what a frame has led to as further frames: an answer of `size` bytes, size / CHARGED; a broadcast to so many
        members, who all have to be written to, members / CHARGED_MEMBERS, so that one to less than hundred is free.
        """
        self.spend(size / CHARGED + members // CHARGED_MEMBERS)

    @property
    def is_abused(self):
        """Whether more than `burst` was refused: the client does not wait as it is told."""
        return bool(self._buckets) and self._buckets[0].is_abused


class Admission:
    """The sockets of a process that wait for their turn, first come, first served, and those that are greeted."""

    def __init__(self):
        self._waiting, self._greeting = {}, {}

    async def enter(self, socket):
        """Return when `socket` may be greeted. Raises StopConsumer when its client has left before."""
        self._waiting[socket] = turn = asyncio.get_running_loop().create_future()
        self._admit()
        if turn.done():
            return
        messages = [await socket.server_receive()]
        receiving = asyncio.create_task(socket.server_receive())
        try:
            while not turn.done():
                if receiving.done() and receiving.result()["type"] == "websocket.disconnect":
                    socket.disconnected(receiving.result().get("code", 1005))
                    raise StopConsumer
                await socket.tell_to_wait(TELL_EVERY)
                # A client that sends something meanwhile is heard later.
                waiting = {turn} if receiving.done() else {turn, receiving}
                await asyncio.wait(waiting, timeout=TELL_EVERY, return_when=asyncio.FIRST_COMPLETED)
        finally:
            receiving.cancel()
            await asyncio.wait([receiving])
        if not receiving.cancelled():
            messages.append(receiving.result())
        socket.put_back(messages)

    def leave(self, socket):
        """Make room for the next: `socket` is greeted, or gone."""
        self._waiting.pop(socket, None)
        if timer := self._greeting.pop(socket, None):
            timer.cancel()
            self._admit()

    def _admit(self):
        loop = asyncio.get_running_loop()
        for socket in list(islice(self._waiting, AT_A_TIME - len(self._greeting))):
            self._greeting[socket] = loop.call_later(TURN, self.leave, socket)
            self._waiting.pop(socket).set_result(None)
