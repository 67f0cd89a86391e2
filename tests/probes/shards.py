"""
Broadcast between two fan-outs, as two processes have them, over REDIS_URL, and print what came of it, as JSON.

complete: whether both got everything, in the order of each group. plain: what a channel of Channels' own in one of the
groups got. trimmed: whether a member that has expired is gone. dropped: how many messages found no room, of 5 more
than may wait for a process that receives nothing.
"""

import asyncio
import json
import time

from channels.layers import get_channel_layer

from realtime.activity import Activity
from realtime.fanout import Fanout, broadcast_of
from realtime.process import process

GROUPS = [f"room.{number}" for number in range(20)]
COUNT = 300


class Member:
    def __init__(self):
        self.texts = {}

    def deliver(self, broadcast):
        self.texts.setdefault(broadcast.group, []).append(broadcast.event["text"])

    @property
    def count(self):
        return sum(map(len, self.texts.values()))


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def main():
    layer = get_channel_layer()
    one, other = Fanout("default"), Fanout("default")
    members = {fanout: Member() for fanout in (one, other)}
    for fanout, member in members.items():
        for group in GROUPS:
            await fanout.join(group, member)

    texts = [(GROUPS[number % len(GROUPS)], str(number)) for number in range(COUNT)]
    await asyncio.gather(*[one.send(group, broadcast_of(group, text)) for group, text in texts])
    await until(lambda: all(member.count == COUNT for member in members.values()))
    in_order = {group: [text for name, text in texts if name == group] for group in GROUPS}
    complete = all(member.texts == in_order for member in members.values())

    key = layer._group_key(GROUPS[0])
    connection = layer.connection(layer.consistent_hash(GROUPS[0]))
    # As that of a process which was killed two days ago.
    await connection.zadd(key, {"realtime.killed!": time.time() - 2 * 86400})
    await one.send(GROUPS[0], broadcast_of(GROUPS[0], "trims"))
    trimmed = await connection.zscore(key, "realtime.killed!") is None

    channel = await layer.new_channel()
    await layer.group_add(GROUPS[0], channel)
    for text in ("a", "b"):
        await one.send(GROUPS[0], broadcast_of(GROUPS[0], text))
    plain = [(await layer.receive(channel))["text"] for _ in range(2)]
    await until(lambda: all(member.texts[GROUPS[0]][-2:] == ["a", "b"] for member in members.values()))
    await layer.group_discard(GROUPS[0], channel)

    for task in other._tasks:
        task.cancel()
    await asyncio.wait(other._tasks)
    before = process()[Activity]["dropped"]
    for number in range(layer.capacity + 5):
        await one.send(GROUPS[1], broadcast_of(GROUPS[1], str(number)))
    dropped = process()[Activity]["dropped"] - before
    print(json.dumps({"complete": complete, "plain": plain, "trimmed": trimmed, "dropped": dropped}))


asyncio.run(main())
