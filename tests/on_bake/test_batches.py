"""What gathers while a call to Redis or to the database is under way."""

import asyncio
from datetime import date
from math import ceil
from unittest.mock import AsyncMock

import pytest
from channels_redis.core import RedisChannelLayer

from realtime import layers
from realtime.batches import Batcher
from realtime.fanout import broadcast_of
from realtime.outage import Unavailable


class Calls:
    """
    Takes calls, each of which ends when `go` is set.

    error: what the next ones fail with. bad: the text with which a call fails.
    """

    def __init__(self):
        self.made, self.go, self.error, self.bad = [], asyncio.Event(), None, None

    async def __call__(self, texts):
        self.made.append(texts)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if self.bad in texts:
            raise TypeError(self.bad)
        return [text.upper() for text in texts]


@pytest.fixture
async def calls():
    return Calls()


def add(batcher, *texts):
    return [batcher.add(text) for text in texts]


async def test_what_comes_meanwhile_is_one_call(calls, until):
    batcher = Batcher(calls, 100)
    first = add(batcher, "a")
    await until(lambda: calls.made)
    others = add(batcher, "b", "c", "d")
    await asyncio.sleep(0)
    assert calls.made == [["a"]]

    calls.go.set()
    assert await asyncio.gather(*first, *others) == ["A", "B", "C", "D"]

    assert calls.made == [["a"], ["b", "c", "d"]]


async def test_a_call_waits_some_turns_for_more(calls):
    """A hop to the database costs more than a turn of the event loop, in each of which some of a crowd come."""
    calls.go.set()
    batcher = Batcher(calls, 100, turns=2)

    async def come(turn):
        for _ in range(turn):
            await asyncio.sleep(0)
        return await batcher.add(str(turn))

    assert await asyncio.gather(*map(come, range(6))) == list("012345")

    assert calls.made[0] == ["0", "1", "2"]
    assert len(calls.made) < 6


async def test_a_call_carries_no_more_than_it_may(calls):
    calls.go.set()

    await asyncio.gather(*add(Batcher(calls, 10, len), "a", "b", "x" * 8, "y", "z", "z" * 100, "end"))

    assert calls.made == [["a", "b", "x" * 8], ["y", "z", "z" * 100], ["end"]]


@pytest.mark.parametrize(("data", "most"), [("", 100), ("x" * 1000, 40), ("x" * 70_000, 1), (b"x" * 1000, 40)])
def test_a_call_to_redis_carries_100_messages_or_64_kib(data, most):
    weight = layers.weigh(broadcast_of("room", data))

    assert ceil(layers.BATCH_SIZE / weight) == most


async def test_who_has_given_up_sends_nothing(calls, until):
    batcher = Batcher(calls, 100)
    first = add(batcher, "a")
    await until(lambda: calls.made)
    gone, stays = add(batcher, "b", "c")
    await asyncio.sleep(0)
    gone.cancel()

    calls.go.set()
    await asyncio.gather(*first, stays)

    assert calls.made == [["a"], ["c"]]


async def test_who_gives_up_during_a_call_leaves_the_others_theirs(calls, until):
    gone, stays = add(Batcher(calls, 100), "a", "b")
    await until(lambda: calls.made)

    gone.cancel()
    calls.go.set()

    assert await asyncio.wait_for(stays, 5) == "B"


async def test_an_outage_is_everybodys_who_waits(calls, until):
    batcher = Batcher(calls, 100)
    tasks = add(batcher, "a")
    await until(lambda: calls.made)
    tasks += add(batcher, "b")
    await asyncio.sleep(0)
    calls.error = Unavailable("gone")
    calls.go.set()

    assert await asyncio.gather(*tasks, return_exceptions=True) == [calls.error, calls.error]

    calls.error = None
    await asyncio.gather(*add(batcher, "c"))
    assert calls.made == [["a"], ["c"]]


async def test_one_that_cannot_be_sent_fails_alone(calls):
    """Such as a dict with a date in it, of another app: who waits for the same call did nothing wrong."""
    calls.bad = "b"
    calls.go.set()

    answers = await asyncio.gather(*add(Batcher(calls, 100), "a", "b", "c"), return_exceptions=True)

    assert [type(answer) for answer in answers] == [str, TypeError, str]
    assert calls.made == [["a", "b", "c"], ["a"], ["b", "c"], ["b"], ["c"]]


class FakeRedis:
    """One in which this process and another one are in each group. put: what is called with the queues' script."""

    def __init__(self):
        self.members = [b"realtime1.a!b", b"realtime2.c!d"]
        self.put = AsyncMock(return_value=[])

    async def eval(self, script, *arguments):
        return [self.members] if script == layers.GET else await self.put(*arguments)


@pytest.fixture
def redis(monkeypatch):
    redis = FakeRedis()
    redis.layer = RedisChannelLayer(hosts=["redis://127.0.0.1"], capacity=10_000)
    monkeypatch.setattr(redis.layer, "connection", lambda shard: redis)
    return redis


async def test_what_is_for_this_process_does_not_cross_redis(redis):
    messages = [broadcast_of("room", "hello"), broadcast_of("room", b"hello")]

    assert await layers.send_together(redis.layer, 0, messages, "realtime1.a!b") == messages
    # One key, that of the other.
    assert redis.put.await_args.args[:2] == (1, "asgirealtime2.c!")

    redis.members = [b"realtime1.a!b"]
    await layers.send_together(redis.layer, 0, messages, "realtime1.a!b")
    assert redis.put.await_count == 1


async def test_consumers_are_told_in_this_process_as_in_another(redis):
    """A mistake that only a second process would show is found in production."""
    message = {"type": "room.renamed", "group": "room", "names": ("a", "b")}

    (received,) = await layers.send_together(redis.layer, 0, [message], "realtime1.a!b")
    assert received == message | {"names": ["a", "b"]}

    with pytest.raises(TypeError):
        await layers.send_together(redis.layer, 0, [message | {"when": date(2026, 1, 1)}], "realtime1.a!b")


@pytest.mark.parametrize(("messages", "places"), [(1, 1), (5, 5), (97, 10)])
async def test_a_batch_takes_few_places_in_an_inbox(redis, messages, places):
    """If each of its messages took one, a burst would be dropped while 9,900 of 10,000 places are free."""
    redis.members = [b"realtime1.a!b"]

    await layers.send_together(redis.layer, 0, [broadcast_of("room", "hello")] * messages)

    # After the number of keys, the key, the time and the expiry.
    assert redis.put.await_args.args[4] == 10_000 // places
