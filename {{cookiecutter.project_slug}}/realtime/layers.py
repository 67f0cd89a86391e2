"""All that realtime knows of a channel layer's inside."""

import logging
import secrets
import time

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer

from .activity import Activity
from .frames import size_of
from .process import process

logger = logging.getLogger(__name__)

# What the names of the channels begin with on which processes, not sockets, receive.
INBOX = "realtime"

# Of the capacity of an inbox that a batch of messages takes at most.
PLACES = 10

# What one call carries at most: messages, and bytes.
BATCH = 100
BATCH_SIZE = 2**16

# Lua: return the members of each group, without those of processes that were killed. ARGV: the time of the last of these.
GET = """
local found = {}
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[1])
    found[i] = redis.call('ZRANGE', key, 0, -1)
end
return found
"""

# Lua: put a message into each queue that has room, and return the numbers of those that have none. ARGV: now, the
# seconds after which a message is too old, and for each key of a queue its capacity, then for each its message.
PUT = """
local full = {}
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[1] - ARGV[2])
    if redis.call('ZCARD', key) < tonumber(ARGV[2 + i]) then
        redis.call('ZADD', key, ARGV[1], ARGV[2 + #KEYS + i])
        redis.call('EXPIRE', key, ARGV[2])
    else
        full[#full + 1] = i
    end
end
return full
"""


def is_local(layer):
    """Tell whether `layer` reaches the sockets of this process only."""
    return isinstance(layer, InMemoryChannelLayer)


def groups_of(layer):
    """Return the channels in each group of `layer`, dicts by name in a dict, if it is local; or else None."""
    return layer.groups if is_local(layer) else None


async def send_to_others(layer, group, message, channel):
    """Send `message` to the channels of `group` in the local `layer`, except to `channel`."""
    for other in list(layer.groups.get(group, ())):
        if other != channel:
            try:
                await layer.send(other, message)
            except ChannelFull:
                count_dropped(1)


def is_redis(layer):
    return type(layer).__module__ == "channels_redis.core"


def shards_of(layer):
    """Return over how many servers the groups of `layer` are spread."""
    return layer.ring_size if is_redis(layer) else 1


def shard_of(layer, group):
    """Return on which of them `group` is."""
    return layer.consistent_hash(group) if is_redis(layer) else 0


async def ask(layer):
    """Raise an error unless each server of `layer` answers, and takes what is written."""
    if not is_redis(layer):
        return await layer.group_discard("nobody", "nobody")
    for shard in range(layer.ring_size):
        await layer.connection(shard).set(f"{layer.prefix}:asked", "", ex=60)


async def new_inboxes(layer):
    """Return the channels on which a process receives, one for each shard of `layer`."""
    inboxes = {} if is_redis(layer) else {0: await layer.new_channel()}
    while len(inboxes) < shards_of(layer):
        # What is before the "!" names the queue in Redis, and decides on the shard.
        channel = await layer.new_channel(INBOX + secrets.token_hex(6))
        inboxes[layer.consistent_hash(layer.non_local_name(channel))] = channel
    return inboxes


async def receive(layer, channel):
    """
    Return the next messages for `channel`, one of new_inboxes(), a list.

    The receive() of channels_redis makes four calls for each message, so that others may receive from a channel, too.
    """
    if not is_redis(layer):
        return [await layer.receive(channel)]
    name = layer.non_local_name(channel)
    connection, popped = layer.connection(layer.consistent_hash(name)), None
    while popped is None:
        popped = await connection.bzpopmin(layer.prefix + name, timeout=layer.brpop_timeout)
    message = layer.deserialize(popped[1])
    del message["__asgi_channel__"]
    return message["messages"] if message["type"] == "realtime.batch" else [message]


def weigh(message):
    """Return what `message` counts in a call: BATCH_SIZE is reached by so many bytes, or by BATCH messages."""
    return size_of(message.get("text") or message.get("bytes") or b"") + BATCH_SIZE / BATCH


async def send_together(layer, shard, messages, inbox=None):
    """
    Send `messages`, dicts with a "group", to the groups of this shard, with two calls to Redis for all of them.

    Return those for `inbox`, the channel of this process, which need not be sent. group_send() makes four calls for each
    message. As there, one is dropped for a process that has too many waiting.
    """
    if not is_redis(layer):
        for message in messages:
            await layer.group_send(message["group"], message)
        return []
    connection, now = layer.connection(shard), time.time()
    groups = list(dict.fromkeys(message["group"] for message in messages))
    found = await connection.eval(GET, len(groups), *map(layer._group_key, groups), now - layer.group_expiry)
    members = {group: [name.decode() for name in names] for group, names in zip(groups, found, strict=True)}
    # A consumer of Channels' own is in the group, or the last release of this project.
    mixed = {group for group, names in members.items() if not all(name.startswith(INBOX) for name in names)}
    inboxes, own = {}, []
    for message in messages:
        if message["group"] in mixed:
            await layer.group_send(message["group"], message)
            continue
        for channel in members[message["group"]]:
            if channel != inbox:
                inboxes.setdefault(channel, []).append(message)
            elif message["type"] == "realtime.broadcast":
                own.append(message)
            else:
                # As another process would receive it, or fail to.
                own.append(layer.deserialize(layer.serialize(message)))
    keys, capacities, packed = [], [], []
    for channel, waiting in inboxes.items():
        keys.append(layer.prefix + layer.non_local_name(channel))
        # Many in one are more for the memory of Redis, but no more than a few large ones are.
        capacities.append(max(layer.get_capacity(channel) // min(len(waiting), PLACES), 1))
        message = waiting[0] if len(waiting) == 1 else {"type": "realtime.batch", "messages": waiting}
        packed.append(layer.serialize(message | {"__asgi_channel__": channel}))
    full = keys and await connection.eval(PUT, len(keys), *keys, now, int(layer.expiry), *capacities, *packed)
    if full:
        sizes = [len(waiting) for waiting in inboxes.values()]
        dropped = sum(sizes[number - 1] for number in full)
        if count_dropped(dropped):
            logger.warning("%d messages are dropped: %d processes are over capacity", dropped, len(full))
    return own


async def drop_idle_connections(layer):
    """Forget the connections to a service that was away, each of which would be one more error."""
    for index in range(getattr(layer, "ring_size", 0)):
        await layer.connection(index).connection_pool.disconnect(inuse_connections=False)


def silence_cleaners(layer):
    """
    Let the tasks in which channels_redis clears its copy of a message fail without a word.

    It forgets them: if Redis is killed just then, asyncio would log a traceback.
    """
    for cleaner in getattr(layer, "receive_cleaners", ()):
        cleaner.add_done_callback(lambda task: task.cancelled() or task.exception())


def count_dropped(messages):
    """Count dropped messages, and return whether they are the first since the last line of realtime.activity."""
    activity = process()[Activity]
    activity["dropped"] += messages
    return activity["dropped"] == messages


def is_worth_a_line(record):
    """A filter of the log of channels_redis: "2 of 3 channels over capacity in group …"."""
    return "over capacity" not in record.msg or count_dropped(record.args[0])


logging.getLogger("channels_redis.core").addFilter(is_worth_a_line)
