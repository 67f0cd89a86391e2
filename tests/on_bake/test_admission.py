"""Sockets that come at once: so many are greeted at a time, the others wait, and who leaves costs nothing more."""

import asyncio
from collections import Counter

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.urls import path

from realtime import limits, users
from realtime.activity import Activity
from realtime.asgi import Authentication, Sockets
from realtime.consumers import RealtimeConsumer
from realtime.limits import Admission
from realtime.process import process


class Held(RealtimeConsumer):
    """Greets when the test lets it."""

    async def connect(self):
        await gate.wait()
        await super().connect()


class Plain(AsyncJsonWebsocketConsumer):
    """Channels' own, which sends nothing when it connects."""

    async def receive_json(self, content):
        await self.send_json(content)


class Refusing(RealtimeConsumer):
    async def connect(self):
        await gate.wait()
        await self.close()


class Choosing(RealtimeConsumer):
    async def connect(self):
        await self.accept("two")


ROUTES = {"held": Held, "plain": Plain, "refusing": Refusing, "choosing": Choosing}
APPLICATION = Sockets(
    Authentication(URLRouter([path(f"ws/{name}/", consumer.as_asgi()) for name, consumer in ROUTES.items()]))
)


async def offering(scope, receive, send):
    """The application, for a client that offers a choice of protocols."""
    await APPLICATION(dict(scope, subprotocols=["one", "two"]), receive, send)


async def offering_one(scope, receive, send):
    """The application, for a client that leaves no choice, as a page with a token."""
    await APPLICATION(dict(scope, subprotocols=["one"]), receive, send)


@pytest.fixture(autouse=True)
async def held_back(monkeypatch):
    """Two are greeted at a time, and those of Held wait for the gate."""
    global gate
    gate = asyncio.Event()
    monkeypatch.setattr(limits, "AT_A_TIME", 2)
    monkeypatch.setattr(limits, "TURN", 60)


@pytest.fixture
def crowd(open_socket, until):
    """Return a coroutine function that lets two sockets into Held, and then `count` others wait."""

    async def crowd(count, name="held", **options):
        opening = [asyncio.create_task(open_socket("/ws/held/", application=APPLICATION)) for _ in range(2)]
        await until(lambda: len(process()[Admission]._greeting) == 2)
        options = {"application": APPLICATION, "greeting": False} | options
        waiting = [await open_socket(f"/ws/{name}/", **options) for _ in range(count)]
        return opening, waiting

    return crowd


async def test_who_waits_is_told_so_and_greeted(crowd):
    first, waiting = await crowd(48)
    for socket in waiting:
        assert await socket.receive_type("wait") == {"type": "wait", "seconds": limits.TELL_EVERY}
    assert process()[Activity].sockets == 48

    gate.set()

    for socket in await asyncio.gather(*first):
        assert socket.greeting["type"] == "connection_established"
    for socket in waiting:
        await socket.receive_type("connection_established")
        await socket.send_json_to({"type": "ping"})
        await socket.receive_type("pong")
    assert process()[Activity].sockets == 50
    assert not process()[Admission]._waiting
    assert not process()[Admission]._greeting


async def test_two_are_greeted_at_a_time(open_socket, monkeypatch):
    most = 0
    connect = RealtimeConsumer.connect

    async def counted(consumer):
        nonlocal most
        most = max(most, len(process()[Admission]._greeting))
        await asyncio.sleep(0)
        await connect(consumer)

    monkeypatch.setattr(Held, "connect", counted)
    opening = [open_socket("/ws/held/", application=APPLICATION, greeting=False) for _ in range(50)]
    assert len(await asyncio.gather(*opening)) == 50
    assert most == 2


async def test_the_wait_is_told_again(crowd, monkeypatch):
    monkeypatch.setattr(limits, "TELL_EVERY", 0.01)
    first, (socket,) = await crowd(1)
    for _ in range(3):
        await socket.receive_type("wait")
    gate.set()
    await asyncio.gather(*first)


async def test_who_leaves_while_waiting_costs_no_query(crowd, monkeypatch, until):
    user = await get_user_model().objects.acreate(username="ann")
    read = Counter()
    get_users = users.get_users

    def counted(claims):
        read["claims"] += len(claims)
        return get_users(claims)

    monkeypatch.setattr(users, "get_users", counted)
    first, waiting = await crowd(10, user=user)
    *leaving, staying = waiting
    for socket in leaving:
        await socket.disconnect()
    await until(lambda: len(process()[Admission]._waiting) == 1)
    assert process()[Activity]["closed_1005"] + process()[Activity]["closed_1000"] == 9

    gate.set()

    await staying.receive_type("wait")
    await staying.receive_type("connection_established")
    await asyncio.gather(*first)
    assert read["claims"] == 1


async def test_frames_sent_while_waiting_are_heard_in_order(crowd):
    first, (socket,) = await crowd(1, "plain")
    for number in range(3):
        await socket.send_json_to({"number": number})
    gate.set()
    await socket.receive_type("wait")
    assert [(await socket.receive_json_from())["number"] for _ in range(3)] == [0, 1, 2]
    await asyncio.gather(*first)


async def test_who_sends_something_while_waiting_is_told_no_more_often(crowd):
    first, (socket,) = await crowd(1, "plain")
    await socket.send_json_to({"number": 1})
    await asyncio.sleep(0.05)
    gate.set()
    await socket.receive_type("wait")
    # Once more, since it was heard.
    await socket.receive_type("wait")
    assert await socket.receive_json_from() == {"number": 1}
    await asyncio.gather(*first)


async def test_a_consumer_of_channels_makes_room(open_socket):
    sockets = [await open_socket("/ws/plain/", application=APPLICATION, greeting=False) for _ in range(5)]
    for socket in sockets:
        assert await socket.receive_nothing(0.001)
    assert not process()[Admission]._greeting


async def test_a_connect_that_waits_for_something_makes_room(open_socket, monkeypatch, until):
    monkeypatch.setattr(limits, "TURN", 0.2)
    opening = [asyncio.create_task(open_socket("/ws/held/", application=APPLICATION)) for _ in range(2)]
    await until(lambda: len(process()[Admission]._greeting) == 2)
    socket = await open_socket("/ws/plain/", application=APPLICATION, greeting=False)
    await socket.send_json_to({"number": 1})
    while "number" not in (frame := await socket.receive_json_from()):
        assert frame["type"] == "wait"
    gate.set()
    await asyncio.gather(*opening)


async def test_a_refusal_after_the_wait_has_a_code(crowd):
    first, (socket,) = await crowd(1, "refusing")
    await socket.receive_type("wait")
    gate.set()
    assert await socket.closed_with() == 4403
    await asyncio.gather(*first)


async def test_one_protocol_is_no_choice_to_wait_for(crowd):
    first, (socket,) = await crowd(1, "plain", application=offering_one)
    await socket.receive_type("wait")
    gate.set()
    await asyncio.gather(*first)


async def test_a_choice_of_protocols_waits_for_the_consumer(crowd, open_socket, until):
    first, _ = await crowd(0)
    opening = asyncio.create_task(open_socket("/ws/choosing/", application=offering))
    await until(lambda: process()[Admission]._waiting)
    assert not process()[Activity].sockets
    gate.set()
    socket = await opening
    assert socket.greeting["type"] == "connection_established"
    await asyncio.gather(*first)
