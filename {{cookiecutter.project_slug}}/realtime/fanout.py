"""
The fan-out: from one broadcast to the many sockets of a group.

Channels' own way puts a message into the channel layer once for every socket. Here the process subscribes to a group,
once, whatever the number of its sockets, and hands what arrives to them directly. The layer carries a message once for
each process, already encoded.
"""

import asyncio
import logging
from weakref import WeakKeyDictionary

from asgiref.sync import async_to_sync
from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import get_channel_layer
from django.db import transaction

from .frames import encode_frame
from .health import Outage, Unavailable

logger = logging.getLogger(__name__)

# Seconds. Memberships expire in Redis after a day (group_expiry), and a Redis that restarts has forgotten them.
# https://github.com/django/channels/issues/999
RENEW_EVERY = 60

# Each call to Redis that is under way takes a connection, of which redis-py 8 allows 100.
MAX_CALLS = 50

_fanouts = WeakKeyDictionary()


def get_fanout(alias=DEFAULT_CHANNEL_LAYER):
    """Return the Fanout of the running event loop for the channel layer of this alias, a str."""
    fanouts = _fanouts.setdefault(asyncio.get_running_loop(), {})
    if alias not in fanouts:
        fanouts[alias] = Fanout(get_channel_layer(alias))
    return fanouts[alias]


def broadcast_of(group, frame):
    """Return the message that carries `frame`, a dict, through the channel layer; see frames.encode_frame()."""
    return {"type": "realtime.broadcast", "group": group, "text": encode_frame(frame)}


def notify(group, frame):
    """
    Broadcast `frame`, a dict with a "type", to `group`, a str, from a view, a signal, a task or a command.

    It is sent when the transaction commits, and never after a rollback; without a transaction, at once. An error of the
    channel layer is logged, since what is committed cannot be undone. In asynchronous code use `broadcast()`.
    """
    notify_members(broadcast_of(group, frame))


def notify_members(message):
    """As notify(), for any message that Fanout.send() takes."""
    send = async_to_sync(get_channel_layer().group_send)
    transaction.on_commit(lambda: send(message["group"], message), robust=True)


class ChannelLayerUnavailable(Unavailable):
    """The channel layer has not answered."""


class Group:
    """A group's members in this process."""

    def __init__(self):
        self.members = {}  # As a set, in the order of joining.
        self.subscribed = False
        self.lock = asyncio.Lock()


class Fanout:
    """
    The groups of one process. A member has two methods, neither of which waits.

    deliver(message, size): an ASGI message to be written, and its number of characters.
    handle(message): a message with the "type" of a handler method.
    """

    def __init__(self, layer):
        self.layer = layer
        self.groups = {}
        self.channel = None
        self._tasks = ()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._outage = Outage(
            ChannelLayerUnavailable,
            "The channel layer is lost, and no broadcast arrives",
            "The channel layer is back",
            self._come_back,
        )

    async def send(self, name, message):
        """
        Send `message` to the members of the group `name` in all processes that share the layer.

        message: of `broadcast_of()`, or another dict with "group" and the "type" of a handler method of the members.
        Raises TypeError for a bad name, ChannelLayerUnavailable.
        """
        await self._call(self.layer.group_send, name, message)

    async def join(self, name, member):
        """
        Return when what is broadcast to the group `name`, a str, reaches `member`.

        Raises TypeError for a bad name, ChannelLayerUnavailable.
        """
        group = self.groups.setdefault(name, Group())
        group.members[member] = None
        try:
            # The second to join waits for the subscription of the first.
            async with group.lock:
                if not group.subscribed:
                    await self._start()
                    await self._call(self.layer.group_add, name, self.channel)
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
            # Somebody may have joined while the lock was waited for.
            if not group.members and group.subscribed:
                group.subscribed = False
                try:
                    await self.layer.group_discard(name, self.channel)
                except Exception:
                    # Then the layer still has this process in the group, until that expires, and _deliver() finds nobody.
                    logger.debug("Group %s could not be left", name, exc_info=True)
        self._forget(name, group)

    def _forget(self, name, group):
        if not group.members and not group.lock.locked() and self.groups.get(name) is group:
            del self.groups[name]

    async def receive(self, channel):
        """Return the next message for `channel`. Raises ChannelLayerUnavailable."""
        message = await self._try(self.layer.receive, channel)
        # channels_redis clears its copy of the message in a task that it forgets: if Redis is killed just then, asyncio
        # would log a traceback.
        for cleaner in getattr(self.layer, "receive_cleaners", ()):
            cleaner.add_done_callback(lambda task: task.cancelled() or task.exception())
        return message

    async def _call(self, function, *arguments):
        async def call():
            async with self._calls:
                try:
                    return await function(*arguments)
                except (TypeError, ValueError):
                    raise
                except Exception:
                    # Redis may have closed a connection that was idle; the next one is new.
                    return await self._try(function, *arguments)

        return await self._outage.patiently(call)

    async def _try(self, function, *arguments):
        try:
            return await function(*arguments)
        except (TypeError, ValueError):
            raise
        except Exception as error:
            self._outage.begin(error)
            raise ChannelLayerUnavailable from error

    async def _start(self):
        if self.channel is None:
            self.channel = await self.layer.new_channel()
            self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._renew())]

    async def _receive(self):
        """Deliver what comes for this process, for ever."""
        while True:
            try:
                self._deliver(await self.receive(self.channel))
            except ChannelLayerUnavailable:
                await self._outage.over()
            except Exception:
                logger.exception("A message of the channel layer could not be delivered")

    def _deliver(self, message):
        if "group" not in message:
            logger.error(
                "%r was sent with group_send() to a group that sockets are in through join(): use broadcast() there.",
                message["type"],
            )
            return
        group = self.groups.get(message["group"])
        if group is None:
            return
        if message["type"] != "realtime.broadcast":
            for member in list(group.members):
                member.handle(message)
            return
        text = message["text"]
        frame = {"type": "websocket.send", "text": text}
        for member in list(group.members):
            member.deliver(frame, len(text))

    async def _come_back(self):
        # Otherwise each connection of the pool that Redis has closed would be one more error.
        for index in range(getattr(self.layer, "ring_size", 0)):
            await self.layer.connection(index).connection_pool.disconnect(inuse_connections=False)
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
        # Of no effect: without groups, too, it asks whether the layer is there.
        await self.layer.group_discard("nobody", self.channel)
        for name, group in list(self.groups.items()):
            if not group.subscribed:
                # Its lock may be held by a join, which waits until the layer is back.
                continue
            async with group.lock:
                if group.subscribed:
                    await self.layer.group_add(name, self.channel)
