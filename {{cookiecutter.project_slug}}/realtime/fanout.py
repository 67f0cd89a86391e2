"""
The fan-out: from one broadcast to the many sockets of a group.

Channels' own way puts a message into the channel layer once for every socket. Here the process subscribes to a group,
once, whatever the number of its sockets, and hands what arrives to them directly. The layer carries a message once for
each other process, already encoded; one in memory carries none.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from channels.layers import get_channel_layer

from . import layers
from .batches import Batcher
from .frames import size_of
from .outage import RETRY_EVERY, Outage, Unavailable
from .process import process, serve

logger = logging.getLogger(__name__)

# Seconds. Memberships expire in Redis after a day (group_expiry), and a Redis that restarts has forgotten them.
# https://github.com/django/channels/issues/999
RENEW_EVERY = 60

# Each call to Redis that is under way takes a connection, of which there are 1000.
MAX_CALLS = 50

# Seconds. A Redis that takes longer is away, or the loop has thousands of handshakes to do.
ANSWER_TIMEOUT = 4

# A group with more members is large: one broadcast to such groups in each turn of the event loop.
TURN = 25

# The version of messages between processes. The last release sends none; messages of a higher one are dropped.
VERSION = 1


class ChannelLayerUnavailable(Unavailable):
    """The channel layer has not answered."""


@dataclass(slots=True)
class Broadcast:
    """
    One broadcast to a group, as each member is handed it.

    event: the ASGI message that carries it, with its "text" (str) or "bytes". size: bytes. sender: the id of the socket
    that is to be left out, or None.
    """

    group: str
    event: dict
    size: int
    sender: str | None

    @classmethod
    def of(cls, message):
        """Return the Broadcast that `message`, a dict of broadcast_of(), carries."""
        kind = "bytes" if "bytes" in message else "text"
        data = message[kind]
        return cls(message["group"], {"type": "websocket.send", kind: data}, size_of(data), message.get("sender"))


def broadcast_of(group, data, sender=None):
    """Return the message that carries `data`, a str or bytes, through the channel layer. sender: as in Broadcast."""
    message = {"type": "realtime.broadcast", "group": group, "version": VERSION}
    message["bytes" if isinstance(data, bytes) else "text"] = data
    return message if sender is None else message | {"sender": sender}


def get_fanout(alias="default"):
    """Return the Fanout of this process for the channel layer of this alias, a str."""
    return process()[Fanout, alias]


class Group:
    """A group's members in this process."""

    def __init__(self):
        self.members = {}  # As a set, in the order of joining.
        self.subscribed = False
        self.lock = asyncio.Lock()


class Member(Protocol):
    """Who can be in a group. Neither method waits."""

    def deliver(self, broadcast: Broadcast) -> None: ...

    def handle(self, message: dict[str, Any]) -> None:
        """Take what realtime.notify_consumers() was given."""


class Subscription:
    """Membership in a group for an object that is no consumer: `await Subscription.join(group, member)`."""

    def __init__(self, group: str, member: Member):
        self.group, self.member = group, member

    @classmethod
    async def join(cls, group: str, member: Member) -> "Subscription":
        """Return the Subscription once messages to `group`, a str, reach `member`. Raises Unavailable."""
        # In a server that has no socket yet, notify() must find this event loop.
        await serve()[Fanout, "default"].join(group, member)
        return cls(group, member)

    async def send(self, message: dict[str, Any]) -> None:
        """As realtime.notify_consumers(), to the members in all processes. Raises Unavailable."""
        await get_fanout().send(self.group, message | {"group": self.group, "version": VERSION})

    async def leave(self) -> None:
        await get_fanout().leave(self.group, self.member)


class Fanout:
    """The groups of one process. Their members have the two methods that Subscription names."""

    def __init__(self, alias):
        self.layer = get_channel_layer(alias)
        self.groups, self._inboxes, self._tasks = {}, {}, ()
        self._local_groups = layers.groups_of(self.layer)
        calls = [partial(self._send_together, shard) for shard in range(layers.shards_of(self.layer))]
        self._batchers = [Batcher(call, layers.BATCH_SIZE, layers.weigh) for call in calls]
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._turn = asyncio.Lock()
        lost, back = "The channel layer is lost, and no broadcast arrives", "The channel layer is back"
        self.outage = Outage(ChannelLayerUnavailable, lost, back, self._come_back)

    async def send(self, name, message):
        """
        Send `message` to the members of the group `name` in all processes that share the layer.

        message: of `broadcast_of()`, or another dict with "group" and the "type" of a handler method of consumers.
        Raises TypeError for a bad name, ChannelLayerUnavailable.
        """
        if name not in self.groups:
            self.layer.require_valid_group_name(name)
        elif self.count(name) > TURN:
            # The call is outside: with a layer that is away, all would wait for all before them.
            async with self._turn:
                await asyncio.sleep(0)
        if self._local_groups is None:
            return await self._batchers[layers.shard_of(self.layer, name)].add(message)
        self._deliver(message)
        if self._local_groups.get(name, {}).keys() - self._inboxes.values():
            # Channels' own consumers are in the group, too.
            await layers.send_to_others(self.layer, name, message, self._inbox(name))

    async def _send_together(self, shard, messages):
        """Send `messages` to the other processes, and deliver those that are for this one."""
        inbox = self._inboxes.get(shard)
        await self._deliver_all(deque(await self._call(layers.send_together, self.layer, shard, messages, inbox)))

    def count(self, name):
        """Return the number of members of the group `name` in this process."""
        return len(self.groups[name].members) if name in self.groups else 0

    async def join(self, name, member):
        """
        Return once broadcasts to the group `name`, a str, reach `member`.

        Raises TypeError for a bad name, ChannelLayerUnavailable.
        """
        group = self.groups.setdefault(name, Group())
        group.members[member] = None
        try:
            # The second to join waits for the subscription of the first.
            async with group.lock:
                if not group.subscribed:
                    await self._start()
                    await self._call(self.layer.group_add, name, self._inbox(name))
                    group.subscribed = True
        except BaseException:
            group.members.pop(member, None)
            self._forget(name, group)
            raise

    async def leave(self, name, member):
        """Forget `member` at once; return when the process has left a group that is empty now."""
        group = self.groups.get(name)
        if group is None:
            return
        group.members.pop(member, None)
        if group.members:
            return
        async with group.lock:
            # A member that has joined while this waited for the lock waits for it, too, and subscribes again.
            if group.subscribed:
                group.subscribed = False
                try:
                    await self.layer.group_discard(name, self._inbox(name))
                except Exception:
                    # The layer keeps this process in the group until that expires; until then _deliver() finds no
                    # member.
                    logger.debug("Group %s could not be left", name, exc_info=True)
        self._forget(name, group)

    def _forget(self, name, group):
        if not group.members and not group.lock.locked() and self.groups.get(name) is group:
            del self.groups[name]

    async def _call(self, function, *arguments):
        if self._local_groups is not None:
            # What is in this process is never away.
            return await function(*arguments)
        return await self.outage.retry(self._call_once, function, *arguments)

    async def _call_once(self, function, *arguments):
        async with self._calls:
            for attempt in range(2):
                try:
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        return await function(*arguments)
                except (TypeError, ValueError, OverflowError):
                    raise
                except Exception as error:
                    # Redis may have closed a connection that was idle; the next one is new.
                    if attempt or isinstance(error, TimeoutError):
                        self._lose(error)

    async def receive(self, channel):
        """Return the next message for `channel`, that of one socket. Raises ChannelLayerUnavailable."""
        message = await self._received(self.layer.receive(channel))
        layers.silence_cleaners(self.layer)
        return message

    async def _received(self, coroutine):
        try:
            return await coroutine
        except (TypeError, ValueError):
            raise
        except Exception as error:
            self._lose(error)

    def _lose(self, error):
        self.outage.begin(error)
        raise ChannelLayerUnavailable from error

    async def _start(self):
        if not self._tasks:
            self._inboxes = await layers.new_inboxes(self.layer)
            self._tasks = [asyncio.create_task(self._renew())]
            self._tasks += [asyncio.create_task(self._receive(inbox)) for inbox in self._inboxes.values()]

    def _inbox(self, name):
        """Return the channel on which this process receives what is sent to the group `name`."""
        return self._inboxes.get(layers.shard_of(self.layer, name))

    async def _receive(self, inbox):
        """Deliver what comes for this process, for ever."""
        messages = deque()
        while True:
            try:
                # Those that came together with one that failed are delivered first.
                messages = messages or deque(await self._received(layers.receive(self.layer, inbox)))
                await self._deliver_all(messages)
            except ChannelLayerUnavailable:
                await self.outage.over()
            except Exception:
                logger.exception("A message of the channel layer could not be delivered")
                # Whatever is wrong may be wrong at once again.
                await asyncio.sleep(RETRY_EVERY)

    async def _deliver_all(self, messages):
        """Deliver `messages`, a deque that loses those that are delivered."""
        while messages:
            message = messages.popleft()
            self._deliver(message)
            if self.count(message.get("group")) > TURN:
                await asyncio.sleep(0)

    def _deliver(self, message):
        """Hand `message` to the members of its group."""
        if "group" not in message:
            logger.error("%r was sent with group_send() to a group of join(): use broadcast() there.", message["type"])
            return
        if message.get("version", VERSION) > VERSION:
            logger.warning("A message %r of a later release is not understood", message["type"])
            return
        group = self.groups.get(message["group"])
        if group is None:
            return
        is_broadcast = message["type"] == "realtime.broadcast"
        name, what = ("deliver", Broadcast.of(message)) if is_broadcast else ("handle", message)
        for member in list(group.members):
            try:
                getattr(member, name)(what)
            except Exception:
                # The mistake of one is not the others', nor the sender's.
                logger.exception("%r has failed to %s a message to the group %s", member, name, message["group"])

    async def _come_back(self):
        await layers.drop_idle_connections(self.layer)
        await self._subscribe_again()

    async def _renew(self):
        while True:
            await asyncio.sleep(RENEW_EVERY)
            try:
                await self._subscribe_again()
            except Exception:
                # _receive() meets the same error, and says so.
                logger.debug("Memberships were not renewed", exc_info=True)

    async def _subscribe_again(self):
        # Also when there are no groups.
        await layers.ask(self.layer)
        # The lock of another one may be held by a join, which waits until the layer is back.
        for name, group in [(name, group) for name, group in self.groups.items() if group.subscribed]:
            async with group.lock:
                if group.subscribed:
                    await self.layer.group_add(name, self._inbox(name))
