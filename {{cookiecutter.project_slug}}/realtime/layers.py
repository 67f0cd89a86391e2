"""All that realtime knows of a channel layer's inside."""

import logging

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer

from .activity import Activity
from .process import process


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
                process()[Activity]["dropped"] += 1


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


def count_dropped(record):
    """A filter of the log of channels_redis: "2 of 3 channels over capacity in group …"."""
    if "over capacity" in record.msg:
        process()[Activity]["dropped"] += record.args[0]
    return True


logging.getLogger("channels_redis.core").addFilter(count_dropped)
