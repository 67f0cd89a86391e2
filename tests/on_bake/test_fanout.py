"""The fan-out, the outbox and the channel layer below them."""

import asyncio
import contextlib
import gc
import json
from collections import Counter, deque

import pytest
from channels.layers import InMemoryChannelLayer

from realtime import fanout, outage
from realtime.fanout import Broadcast, ChannelLayerUnavailable, Fanout, Subscription, broadcast_of
from realtime.frames import encode
from realtime.outbox import Outbox


class Member:
    def __init__(self):
        self.texts = []

    def deliver(self, broadcast):
        text = broadcast.event["text"]
        assert broadcast.size == len(text.encode())
        self.texts.append(json.loads(text)["text"])


def message(text):
    return broadcast_of("room", encode({"type": "message", "text": text}))


class Layer(InMemoryChannelLayer):
    """Counts the subscriptions, takes its time for them, and can be broken."""

    broken = False

    def __init__(self):
        super().__init__(capacity=10_000)
        self.calls = []

    async def group_add(self, group, channel):
        if self.broken:
            raise ConnectionError
        self.calls.append("add")
        await asyncio.sleep(0.01)
        await super().group_add(group, channel)

    async def group_discard(self, group, channel):
        if self.broken:
            raise ConnectionError
        self.calls.append("discard")
        await asyncio.sleep(0.01)
        await super().group_discard(group, channel)

    async def receive(self, channel):
        receiving = asyncio.ensure_future(super().receive(channel))
        while not receiving.done():
            if self.broken:
                receiving.cancel()
                raise ConnectionError
            await asyncio.wait([receiving], timeout=0.01)
        return receiving.result()


@pytest.fixture
async def layer():
    return Layer()


@pytest.fixture
async def groups(layer, monkeypatch):
    """A Fanout that takes `layer` for one that reaches other processes, too."""
    monkeypatch.setattr(fanout, "get_channel_layer", lambda alias: layer)
    monkeypatch.setattr(fanout.layers, "is_local", lambda layer: False)
    groups = Fanout("default")
    yield groups
    for task in groups._tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_process_subscribes_once(layer, groups, until):
    members = [Member() for _ in range(10)]

    await asyncio.gather(*[groups.join("room", member) for member in members])
    await groups.send("room", message("hello"))
    await until(lambda: all(member.texts == ["hello"] for member in members))
    await asyncio.gather(*[groups.leave("room", member) for member in members])

    assert layer.calls == ["add", "discard"]
    assert not groups.groups


async def test_the_second_to_join_waits_for_the_subscription(layer, groups, until):
    first, second = Member(), Member()
    joining = asyncio.create_task(groups.join("room", first))
    await asyncio.sleep(0)

    await groups.join("room", second)
    await groups.send("room", message("hello"))

    await until(lambda: second.texts == ["hello"])
    await joining


@pytest.mark.parametrize("pause", [0, 0.005, 0.015])
async def test_a_leave_racing_a_join_loses_nobody(layer, groups, pause, until):
    leaving, joining = Member(), Member()
    await groups.join("room", leaving)

    task = asyncio.create_task(groups.leave("room", leaving))
    await asyncio.sleep(pause)
    await groups.join("room", joining)
    await task
    await groups.send("room", message("hello"))

    await until(lambda: joining.texts == ["hello"])
    assert not leaving.texts


async def test_a_join_that_is_given_up_beside_a_leave_loses_nobody(layer, groups, monkeypatch):
    leaving, joining = Member(), Member()
    await groups.join("room", leaving)
    discard, go_on = layer.group_discard, asyncio.Event()

    async def discard_late(group, channel):
        await go_on.wait()
        await discard(group, channel)

    monkeypatch.setattr(layer, "group_discard", discard_late)
    tasks = [asyncio.create_task(groups.leave("room", leaving)), asyncio.create_task(groups.join("room", Member()))]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    joined = asyncio.create_task(groups.join("room", joining))
    # Until what is not held back has ended.
    await asyncio.wait([joined], timeout=0.05)
    go_on.set()
    await asyncio.wait([tasks[0], joined])

    assert layer.groups.get("room")


async def test_what_goes_wrong_at_each_receive_is_said_now_and_then(layer, groups, monkeypatch, caplog, until):
    """Without a pause in between nothing else would have its turn."""
    tries = []

    async def receive(channel):
        tries.append(channel)
        if len(tries) > 3:
            await asyncio.Event().wait()
        raise TypeError

    monkeypatch.setattr(layer, "receive", receive)
    await groups.join("room", Member())

    await until(lambda: caplog.messages)
    await asyncio.sleep(0.1)

    assert len(tries) == 1


async def test_a_cancelled_join_leaves_nothing(layer, groups):
    task = asyncio.create_task(groups.join("room", Member()))
    await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert not groups.groups


@pytest.mark.parametrize("is_local", [True, False])
async def test_large_groups_have_one_broadcast_in_each_turn_of_the_loop(groups, monkeypatch, is_local, until):
    """Hundreds of senders at the same moment would have all of theirs in one, while the others wait."""
    turns, served = 0, []

    class Noting(Member):
        def deliver(self, broadcast):
            served.append(turns)

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    if is_local:
        monkeypatch.setattr(groups, "_local_groups", groups.layer.groups)
    else:
        monkeypatch.setattr(groups.layer, "group_send", lambda name, message: note(served))

    async def note(served):
        served.extend([turns] * 30)

    for _ in range(30):
        await groups.join("room", Noting())
    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*[groups.send("room", message("hello")) for _ in range(20)])
    counting.cancel()

    assert Counter(served).most_common(1)[0][1] == 30
    assert len(served) == 20 * 30


async def test_broadcasts_to_a_large_group_wait_together_for_a_layer_that_is_away(groups, monkeypatch):
    """Not each for those before it."""
    monkeypatch.setattr(outage, "PATIENCE", 0.2)
    for _ in range(30):
        await groups.join("room", Member())
    groups.outage.begin(ConnectionError("away"))
    monkeypatch.setattr(groups.outage, "_ask", asyncio.Event().wait)

    async with asyncio.timeout(2):
        results = await asyncio.gather(
            *[groups.send("room", message("hello")) for _ in range(50)], return_exceptions=True
        )

    assert {type(result) for result in results} == {ChannelLayerUnavailable}


async def test_the_size_of_a_broadcast_is_in_bytes():
    assert Broadcast.of(broadcast_of("room", "\u20ac" * 10)).size == 30
    assert Broadcast.of(broadcast_of("room", b"x" * 10)).size == 10


async def test_a_burst_loses_nothing_and_keeps_its_order(layer, groups, until):
    member = Member()
    await groups.join("room", member)

    for number in range(2000):
        await groups.send("room", message(number))

    await until(lambda: len(member.texts) == 2000)
    assert member.texts == list(range(2000))


async def test_a_burst_of_joins_makes_no_more_calls_than_redis_has_connections(layer, groups, monkeypatch):
    under_way, most = set(), []

    async def group_add(group, channel):
        under_way.add(group)
        most.append(len(under_way))
        await asyncio.sleep(0)
        under_way.discard(group)

    monkeypatch.setattr(layer, "group_add", group_add)
    await asyncio.gather(*[groups.join(f"room.{number}", Member()) for number in range(200)])

    # There are 1000, for all that a process does.
    assert max(most) == fanout.MAX_CALLS < 100


async def test_a_lost_layer_is_said_once_and_subscribed_again(layer, groups, monkeypatch, caplog, until):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    member = Member()
    await groups.join("room", member)

    layer.broken = True
    await until(lambda: "is lost" in caplog.text)
    await layer.flush()
    await asyncio.sleep(0.05)
    layer.broken = False
    await until(lambda: "is back" in caplog.text)
    await groups.send("room", message("hello"))

    await until(lambda: member.texts == ["hello"])
    assert len(caplog.messages) == 2


async def test_a_lost_layer_is_said_once_without_a_group(layer, groups, monkeypatch, caplog, until):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    monkeypatch.setattr(outage, "PATIENCE", 0.05)
    layer.broken = True

    for _ in range(3):
        with pytest.raises(ChannelLayerUnavailable):
            await groups.join("room", Member())
    layer.broken = False

    await until(lambda: "is back" in caplog.text)
    assert len(caplog.messages) == 2


async def test_a_message_that_nobody_understands_ends_nothing(layer, groups, until, caplog, monkeypatch):
    monkeypatch.setattr(fanout, "RETRY_EVERY", 0.01)
    member = Member()
    await groups.join("room", member)

    await groups.send("room", {"type": "realtime.broadcast", "group": "room"})
    await groups.send("room", {"type": "unknown", "group": "room"})
    await groups.layer.group_send("room", {"type": "of.another.origin"})
    await groups.send("room", message("hello"))

    await until(lambda: member.texts == ["hello"])
    assert "could not be delivered" in caplog.messages[0]
    assert "has failed to handle a message to the group room" in caplog.messages[1]
    assert "use broadcast() there" in caplog.messages[2]


async def test_what_comes_together_with_a_message_that_fails_is_delivered(layer, groups, until, monkeypatch):
    monkeypatch.setattr(fanout, "RETRY_EVERY", 0.01)
    member, received = Member(), [[{"type": "realtime.broadcast", "group": "room"}, message("hello")]]

    async def receive(layer, inbox):
        return received.pop() if received else await asyncio.Event().wait()

    monkeypatch.setattr(fanout.layers, "receive", receive)
    await groups.join("room", member)

    await until(lambda: member.texts == ["hello"])


async def test_others_have_their_turn_between_two_messages_for_a_large_group(groups, monkeypatch):
    monkeypatch.setattr(fanout, "TURN", 1)
    members = [Member(), Member()]
    await asyncio.gather(*[groups.join("room", member) for member in members])
    asyncio.get_running_loop().call_soon(lambda: members[0].texts.append("somebody's turn"))

    await groups._deliver_all(deque([message("one"), message("two")]))

    assert members[0].texts == ["one", "somebody's turn", "two"]


@pytest.mark.parametrize("error", [TypeError, ValueError, OverflowError])
async def test_the_mistake_of_a_caller_is_no_outage(layer, groups, error, monkeypatch):
    async def fail(*arguments):
        raise error

    monkeypatch.setattr(layer, "receive", fail)

    with pytest.raises(error):
        await groups._call(fail)
    if error is not OverflowError:
        with pytest.raises(error):
            await groups.receive("channel")
    assert groups.outage.is_over


async def test_what_a_subscription_sends_has_a_version(groups, monkeypatch):
    monkeypatch.setattr(fanout, "get_fanout", lambda: groups)
    sent = []

    async def send(group, message):
        sent.append(message)

    monkeypatch.setattr(groups, "send", send)

    await Subscription("room", Member()).send({"type": "room.renamed"})

    assert sent == [{"type": "room.renamed", "group": "room", "version": fanout.VERSION}]


async def test_messages_of_the_last_release_are_taken_and_those_of_a_later_one_are_not(layer, groups, until, caplog):
    member, last = Member(), message("last")
    assert last.pop("version") == fanout.VERSION
    await groups.join("room", member)

    await groups.layer.group_send("room", message("next") | {"version": fanout.VERSION + 1})
    await groups.layer.group_send("room", last)

    await until(lambda: member.texts == ["last"])
    assert caplog.messages == ["A message 'realtime.broadcast' of a later release is not understood"]


async def test_a_lost_layer_does_not_keep_a_socket_from_leaving(layer, groups, monkeypatch):
    member = Member()
    await groups.join("room", member)
    layer.broken = True

    await groups.leave("room", member)

    assert not groups.groups


async def test_a_call_waits_for_the_layer(layer, groups, until, monkeypatch):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    layer.broken = True
    joining = asyncio.create_task(groups.join("room", Member()))
    await asyncio.sleep(0.05)
    assert not joining.done()

    layer.broken = False

    await joining


async def test_a_connection_that_was_closed_while_idle_is_no_outage(layer, groups, monkeypatch, caplog, until):
    errors = [ConnectionError("closed by server")]
    group_send = layer.group_send

    async def fail_once(group, message):
        if errors:
            raise errors.pop()
        await group_send(group, message)

    monkeypatch.setattr(layer, "group_send", fail_once)
    member = Member()
    await groups.join("room", member)

    await groups.send("room", message("hello"))

    await until(lambda: member.texts == ["hello"])
    assert not caplog.messages


async def test_a_call_does_not_wait_for_ever(layer, groups, monkeypatch):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    monkeypatch.setattr(outage, "PATIENCE", 0.05)
    layer.broken = True

    with pytest.raises(ChannelLayerUnavailable):
        await groups.join("room", Member())

    assert not groups.groups


async def test_a_service_that_hangs_is_asked_again(monkeypatch):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    monkeypatch.setattr(outage, "ANSWER_TIMEOUT", 0.01)
    asked = []

    async def ask():
        asked.append("asked")
        if len(asked) == 1:
            await asyncio.Event().wait()

    lost = outage.Outage(outage.Unavailable, "lost", "back", ask)
    lost.begin(OSError())

    assert await lost.over(5)
    assert len(asked) == 2


async def test_a_service_that_is_away_is_asked_now_and_then(monkeypatch):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.05)
    asked = []

    async def ask():
        asked.append("asked")
        raise OSError

    outage.Outage(outage.Unavailable, "lost", "back", ask).begin(OSError())
    await asyncio.sleep(0.12)

    assert 1 <= len(asked) <= 3


async def test_a_bad_name_is_refused_at_once(groups):
    with pytest.raises(TypeError, match="Group name"):
        await groups.join("no spaces", Member())
    with pytest.raises(TypeError, match="Group name"):
        await groups.send("no spaces", message("hello"))


async def test_a_group_that_is_left_meanwhile_is_not_subscribed_again(layer, groups, until):
    member = Member()
    await groups.join("room", member)
    group = groups.groups["room"]
    async with group.lock:
        renewing = asyncio.create_task(groups._subscribe_again())
        await until(lambda: group.lock._waiters)
        # As in leave().
        group.subscribed = False
    await renewing

    assert layer.calls.count("add") == 1


async def test_memberships_are_renewed(layer, groups, monkeypatch, until):
    monkeypatch.setattr(fanout, "RENEW_EVERY", 0.01)
    member = Member()
    await groups.join("room", member)

    layer.groups.clear()
    await until(lambda: layer.groups)
    await groups.send("room", message("hello"))

    await until(lambda: member.texts == ["hello"])


class Server:
    """The server's end of a socket, whose buffer can be full."""

    def __init__(self):
        self.sent = []
        self.writable = asyncio.Event()
        self.writable.set()

    async def send(self, message):
        await self.writable.wait()
        self.sent.append(message["text"])


@pytest.fixture
async def server():
    return Server()


def make_outbox(write, limit=1000):
    """Return an Outbox of an open socket; `overflows` is a list of what it has given up."""
    outbox = Outbox(write, Counter(), lambda: outbox.overflows.append("overflow"))
    outbox.limit, outbox.is_open, outbox.overflows = limit, True, []
    return outbox


def open_outbox(server, limit=1000):
    outbox = make_outbox(server.send, limit)
    outbox.release()
    return outbox


def put(outbox, text):
    outbox.deliver(Broadcast("room", {"type": "websocket.send", "text": text}, len(text), None))


async def test_a_write_that_need_not_wait_makes_no_task(server):
    outbox = open_outbox(server)
    tasks = asyncio.all_tasks()

    put(outbox, "hello")

    assert server.sent == ["hello"]
    assert asyncio.all_tasks() == tasks


async def test_what_is_put_before_the_release_waits(server, until):
    """Also when the one before has to wait for its reader."""
    outbox = make_outbox(server.send)
    put(outbox, "second")
    server.writable.clear()
    sending = asyncio.create_task(outbox.send({"type": "websocket.send", "text": "first"}))
    await asyncio.sleep(0)
    server.writable.set()
    await sending
    assert server.sent == ["first"]

    outbox.release()

    await until(lambda: server.sent == ["first", "second"])


async def test_a_slow_reader_gets_all_in_order(server):
    outbox = open_outbox(server)
    server.writable.clear()
    for number in range(100):
        put(outbox, str(number))
    sending = asyncio.create_task(outbox.send({"type": "websocket.send", "text": "last"}))
    await asyncio.sleep(0)
    assert not server.sent

    server.writable.set()
    await sending

    assert server.sent == [*map(str, range(100)), "last"]


async def test_what_is_sent_does_not_overtake_what_waits():
    sent = []

    async def send(message):
        # Each write waits, as with a reader that takes one frame at a time.
        await asyncio.sleep(0)
        sent.append(message["text"])

    outbox = make_outbox(send)
    outbox.release()
    for number in range(3):
        put(outbox, str(number))

    await outbox.send({"type": "websocket.send", "text": "last"})

    assert sent == ["0", "1", "2", "last"]


async def test_who_gives_up_a_send_ends_no_other(server):
    outbox = open_outbox(server)
    server.writable.clear()
    sending = asyncio.create_task(outbox.send({"type": "websocket.send", "text": "first"}))
    await asyncio.sleep(0)
    put(outbox, "second")

    sending.cancel()
    await asyncio.wait([sending])
    server.writable.set()
    await asyncio.wait_for(outbox.send({"type": "websocket.send", "text": "last"}), 5)

    assert server.sent == ["first", "second", "last"]


async def test_whoever_sends_after_the_end_does_not_wait_for_ever(server):
    """A task that has not begun is cancelled without a word: to wait for its last one took a whole core."""
    outbox = open_outbox(server)
    server.writable.clear()
    put(outbox, "hello")

    await outbox.stop()

    await asyncio.wait_for(outbox.send({"type": "websocket.send", "text": "late"}), 5)
    assert server.sent == []


async def test_too_slow_a_reader_is_refused(server):
    outbox = open_outbox(server, limit=1000)
    server.writable.clear()

    # The first is with the server, ten more wait.
    for _ in range(11):
        put(outbox, "x" * 100)
    assert not outbox.closed
    for _ in range(9):
        put(outbox, "x" * 100)

    assert outbox.closed
    assert outbox.overflows == ["overflow"]
    await outbox.stop()


async def test_a_write_that_fails_later_leaves_no_traceback(caplog):
    async def send(message):
        await asyncio.sleep(0)
        raise OSError("the client is gone")

    outbox = make_outbox(send)
    outbox.release()
    put(outbox, "hello")
    await asyncio.sleep(0.01)
    gc.collect()

    assert not caplog.messages


async def test_a_write_that_fails_before_the_socket_is_open_is_an_error():
    async def send(message):
        raise RuntimeError("Unexpected ASGI message")

    outbox = make_outbox(send)
    outbox.is_open = False

    with pytest.raises(RuntimeError, match="Unexpected"):
        await outbox.send({"type": "websocket.accept"})


async def test_a_socket_has_one_id(server):
    outbox = open_outbox(server)

    assert outbox.identify() == outbox.identify()


async def test_what_has_been_written_makes_room(server):
    outbox = open_outbox(server, limit=1000)
    for _ in range(3):
        server.writable.clear()
        for _ in range(11):
            put(outbox, "x" * 100)
        server.writable.set()
        await outbox.send({"type": "websocket.send", "text": "last"})

    assert not outbox.closed


@pytest.mark.parametrize("error", [OSError, RuntimeError])
async def test_a_closed_connection_disturbs_nobody(error):
    async def send(message):
        raise error("the client is gone")

    outbox = make_outbox(send)
    outbox.release()

    put(outbox, "hello")
    assert outbox.closed
    outbox.closed = False
    await outbox.send({"type": "websocket.send", "text": "hello"})

    assert outbox.closed


async def test_a_task_that_the_layer_forgets_leaves_no_traceback(layer, groups, monkeypatch, caplog, until):
    """As that of channels_redis, which fails when Redis is killed at the wrong moment."""

    async def fail():
        await asyncio.sleep(0)
        raise ConnectionError

    async def receive(channel, receive=layer.receive):
        received = await receive(channel)
        cleaner = asyncio.ensure_future(fail())
        layer.receive_cleaners = [cleaner]
        cleaner.add_done_callback(lambda cleaner: layer.receive_cleaners.clear())
        return received

    monkeypatch.setattr(layer, "receive", receive)
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "hello"})

    assert await groups.receive(channel) == {"type": "hello"}

    await until(lambda: not layer.receive_cleaners)
    gc.collect()
    assert not caplog.messages
