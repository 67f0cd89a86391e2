"""The limits that a user's sockets share, and those of an address."""

import asyncio
import itertools
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import path

from realtime import limits
from realtime.asgi import Authentication, Sockets
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame
from realtime.limits import Limit, Owner, Owners
from realtime.process import process


def socket_of(owner):
    return SimpleNamespace(owner=owner, process=process())


def limit_of(owner, rate, burst):
    return Limit(socket_of(owner), rate, burst)


@contextmanager
def place_of(owner):
    """A socket of `owner`, in the context; whether it may stay."""
    owners = process()[Owners]
    is_free = owners.enter(owner)
    yield is_free
    if is_free:
        owners.leave(owner)


User = get_user_model()

ANN = Owner("user", 1)
BEN = Owner("user", 2)
OFFICE = Owner("address", "192.0.2.7")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still: `clock.now += 1`."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(limits.time, "monotonic", lambda: Clock.now)
    return Clock


def take(limit, count):
    """Return how many of `count` frames are taken."""
    return sum(limit.take() is None for _ in range(count))


# Frames


async def test_what_is_refused_is_not_overtaken(clock):
    limit = limit_of(None, 8, 1)
    assert limit.take() is None
    assert limit.take() == 0.2

    clock.now += 0.15  # There is a token, but the client has been told to wait longer.
    assert limit.take() == 0.1
    clock.now += 0.1

    assert limit.take() is None


async def test_the_sockets_of_a_user_share_a_bucket(clock):
    one, two, other = limit_of(ANN, 20, 200), limit_of(ANN, 20, 200), limit_of(BEN, 20, 200)

    assert (take(one, 150), take(two, 150), take(other, 250)) == (150, 50, 200)
    clock.now += 1
    assert (take(one, 15), take(two, 15)) == (15, 5)


async def test_a_reconnect_does_not_renew_it(clock):
    with place_of(ANN):
        assert take(limit_of(ANN, 20, 200), 200) == 200
    with place_of(ANN):
        assert take(limit_of(ANN, 20, 200), 1) == 0


async def test_consumers_with_other_limits_have_buckets_of_their_own(clock):
    assert (take(limit_of(ANN, 20, 200), 500), take(limit_of(ANN, 60, 300), 500)) == (200, 300)


async def test_those_without_a_login_have_one_each_and_ten_together(clock):
    sockets = [limit_of(OFFICE, 20, 200) for _ in range(12)]

    assert [take(socket, 250) for socket in sockets] == [200] * 10 + [0, 0]
    clock.now += 1
    assert [take(socket, 25) for socket in sockets] == [20] * 10 + [0, 0]


async def test_a_socket_without_an_owner_has_its_own(clock):
    assert [take(limit_of(None, 20, 200), 250) for _ in range(12)] == [200] * 12


@pytest.mark.parametrize("rate", [None, 0])
@pytest.mark.parametrize("owner", [ANN, OFFICE, None])
async def test_no_limit(owner, rate):
    limit = limit_of(owner, rate, 200)

    assert take(limit, 10_000) == 10_000
    limit.spend(10_000)
    assert limit.take() is None
    assert not limit.is_abused
    # What a page is told, which knows null.
    assert limit.rate is None


@pytest.mark.parametrize("owner", [ANN, OFFICE, None])
async def test_the_seconds_to_wait_are_enough_and_no_more(clock, owner):
    limit = limit_of(owner, 20, 200)
    take(limit, 200)

    assert limit.take() == 0.1
    limit.spend(40)
    assert limit.take() == 2.1
    clock.now += 2
    assert limit.take() == 0.1
    clock.now += 0.1
    assert limit.take() is None


async def test_an_answer_may_cost_more_than_there_is(clock):
    one, two = limit_of(ANN, 20, 200), limit_of(ANN, 20, 200)

    one.spend(300)

    assert two.take() == 5.1
    assert limit_of(BEN, 20, 200).take() is None


async def test_small_answers_add_up(clock):
    limit = limit_of(ANN, 20, 200)
    for _ in range(400):
        limit.charge(2048)

    assert limit.take() == 0.1


async def test_a_broadcast_to_hundreds_costs_more_than_one_to_ten(clock):
    limit = limit_of(OFFICE, 20, 200)
    for members, cost in ((0, 0), (99, 0), (100, 1), (250, 2), (2000, 20)):
        before = [bucket.tokens for bucket in limit._buckets]
        limit.charge(members=members)
        assert [a - b.tokens for a, b in zip(before, limit._buckets, strict=True)] == [cost, cost]


async def test_a_cost_above_the_burst_is_taken_when_the_bucket_is_full(clock):
    limit = limit_of(ANN, 20, 200)

    assert limit.take(300) is None
    assert limit.take(300) == 15


@pytest.mark.parametrize("owner", [ANN, OFFICE, None])
async def test_who_goes_on_sending_is_abusing_until_the_bucket_is_full(clock, owner):
    limit = limit_of(owner, 20, 200)
    take(limit, 400)
    assert not limit.is_abused

    take(limit, 1)
    assert limit.is_abused
    clock.now += 9.9
    assert limit.is_abused
    clock.now += 0.1
    assert not limit.is_abused


async def test_one_who_abuses_an_address_does_not_end_the_others(clock):
    honest, abuser = limit_of(OFFICE, 20, 200), limit_of(OFFICE, 20, 200)
    take(abuser, 10_000)

    assert abuser.is_abused
    assert not honest.is_abused
    assert honest.take() is None


# Sockets


async def test_the_next_socket_of_a_user_is_one_too_many(settings):
    settings.REALTIME_SOCKETS_PER_USER = 3
    places = [place_of(ANN) for _ in range(3)]
    assert [each.__enter__() for each in places] == [True] * 3

    with place_of(ANN) as is_free, place_of(BEN) as is_free_for_ben:
        assert (is_free, is_free_for_ben) == (False, True)
    places.pop().__exit__(None, None, None)
    with place_of(ANN) as is_free:
        assert is_free
    for each in places:
        each.__exit__(None, None, None)


async def test_an_address_has_a_limit_of_its_own_if_any(settings):
    with place_of(OFFICE), place_of(OFFICE), place_of(OFFICE) as is_free:
        assert is_free
    settings.REALTIME_SOCKETS_PER_ADDRESS = 2
    with place_of(OFFICE), place_of(OFFICE), place_of(OFFICE) as is_free:
        assert not is_free


async def test_a_new_socket_of_one_who_is_abusing_is_refused(clock):
    with place_of(ANN):
        take(limit_of(ANN, 20, 200), 401)

    with place_of(ANN) as is_free:
        assert not is_free
    clock.now += 10
    with place_of(ANN) as is_free:
        assert is_free


async def test_a_new_socket_of_one_who_has_not_paid_for_the_last_answers_is_refused(clock):
    """Each would be sent the same megabytes again."""
    with place_of(ANN):
        limit_of(ANN, 20, 200).spend(300)

        with place_of(ANN) as is_free, place_of(BEN) as is_free_for_ben:
            assert (is_free, is_free_for_ben) == (False, True)
    clock.now += 5
    with place_of(ANN) as is_free:
        assert is_free


async def test_an_address_is_refused_when_ten_are_abusing(clock):
    for _ in range(9):
        take(limit_of(OFFICE, 20, 200), 401)
    with place_of(OFFICE) as is_free:
        assert is_free

    take(limit_of(OFFICE, 20, 200), 401)
    with place_of(OFFICE) as is_free:
        assert not is_free


async def test_nothing_is_kept_of_those_who_are_gone(until):
    owners = process()[Owners]
    with place_of(ANN), place_of(OFFICE), place_of(BEN):
        limit_of(ANN, 20, 200)
        take(limit_of(ANN, 1000, 10), 20)
        take(limit_of(OFFICE, 1000, 10), 1)
    # They have sent nothing, or long ago.
    assert BEN not in owners
    assert owners[ANN].buckets

    await until(lambda: not owners)


async def test_who_is_back_before_the_bucket_is_full_still_counts():
    owners = process()[Owners]
    with place_of(ANN):
        take(limit_of(ANN, 1000, 10), 20)
    with place_of(ANN):
        await asyncio.sleep(0.05)
        assert owners[ANN].sockets == 1


async def test_thousands_of_addresses_leave_nothing(until):
    for number in range(5000):
        owner = Owner("address", str(number))
        with place_of(owner):
            limit_of(owner, 20, 200)

    assert not process()[Owners]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_the_addresses_of_a_household_are_one(address, network):
    assert limits.network_of(address) == network


# Real sockets


class Ours(RealtimeConsumer):
    """Greets, and answers pings."""


class Say(Frame):
    """Say something to all in the room."""


class Room(RealtimeConsumer):
    receives = [Say]

    async def connect(self):
        await self.accept()
        await self.join("room")

    async def receive_frame(self, frame):
        await self.broadcast("room", {"type": "said"})


class Plain(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json({"type": "connection_established"})


ROUTES = [path("ws/ours/", Ours.as_asgi()), path("ws/room/", Room.as_asgi()), path("ws/plain/", Plain.as_asgi())]
APPLICATION = Sockets(Authentication(URLRouter(ROUTES)))


@pytest.fixture
async def connect(open_socket):
    """Return a coroutine function that opens a socket of `client`, a Client or None."""

    async def connect(client=None, path="/ws/ours/", greeting=True):
        name = django_settings.SESSION_COOKIE_NAME
        headers = [(b"cookie", f"{name}={client.cookies[name].value}".encode())] if client else []
        return await open_socket(path, application=APPLICATION, headers=headers, greeting=greeting)

    return connect


@pytest.fixture
async def ann(transactional_db):
    """A Client in which ann is logged in."""
    client = Client()
    await sync_to_async(lambda: client.force_login(User.objects.create_user("ann")))()
    return client


@pytest.mark.parametrize("path", ["/ws/ours/", "/ws/plain/"])
async def test_one_socket_too_many_of_a_user_is_4429(ann, connect, settings, path, caplog):
    settings.REALTIME_SOCKETS_PER_USER = 2
    sockets = [await connect(ann, path) for _ in range(2)]

    third = await connect(ann, path, greeting=False)
    assert await third.closed_with() == 4429
    assert any("too many sockets" in message for message in caplog.messages)
    await connect(path=path)

    await sockets[0].disconnect()
    await connect(ann, path)


async def test_anonymous_sockets_of_a_household_count_together(open_socket, settings):
    """IPv6 gives it 2**64 addresses."""
    settings.REALTIME_TRUST_PROXY, settings.REALTIME_SOCKETS_PER_ADDRESS = True, 1

    async def connect(address, greeting=True):
        headers = [(b"x-forwarded-for", address)]
        return await open_socket("/ws/ours/", application=APPLICATION, headers=headers, greeting=greeting)

    await connect(b"2001:db8::1")
    assert await (await connect(b"2001:db8::2", greeting=False)).closed_with() == 4429
    for address in (b"2001:db8:0:1::1", b"::ffff:192.0.2.7", b"::ffff:192.0.2.8"):
        await connect(address)


async def test_broadcasts_to_a_large_group_are_charged(connect, settings, monkeypatch):
    settings.REALTIME_FRAMES_PER_SECOND, settings.REALTIME_FRAME_BURST = 0.01, 5
    monkeypatch.setattr(limits, "CHARGED_MEMBERS", 2)
    sockets = [await connect(path="/ws/room/") for _ in range(4)]

    for _ in range(3):
        await sockets[0].send_json_to({"type": "say"})
    answers = [(await sockets[0].receive_json_from(5))["type"] for _ in range(3)]

    # Each of the two is a frame and two pairs of members.
    assert answers == ["said", "said", "error"]


@pytest.mark.parametrize("size", ["euros", "letters"])
async def test_the_size_of_a_frame_is_in_bytes(connect, settings, size):
    settings.REALTIME_MAX_FRAME_SIZE = 1000
    socket = await connect(path="/ws/room/")

    await socket.send_to(text_data='{"type": "say", "a": "%s"}' % ("\u20ac" * 400 if size == "euros" else "e" * 976))

    frame = await socket.receive_json_from(5)
    assert frame.get("code", frame["type"]) == ("too_large" if size == "euros" else "said")


@pytest.mark.parametrize("who", ["ann", "nobody"])
async def test_more_frames_than_allowed_are_refused_on_all_sockets(ann, connect, settings, who):
    settings.REALTIME_FRAMES_PER_SECOND, settings.REALTIME_FRAME_BURST = 0.01, 3
    client = ann if who == "ann" else None
    one, two = await connect(client), await connect(client)

    for socket in itertools.chain([one] * 3, [two] * 3):
        await socket.send_json_to({"type": "ping"})
    answers = [(await socket.receive_json_from(5))["type"] for socket in (one, one, one, two, two, two)]

    assert answers == ["pong"] * 3 + (["error"] if who == "ann" else ["pong"]) * 3


async def test_who_is_cut_off_does_not_come_back_at_once(ann, connect, settings):
    settings.REALTIME_FRAMES_PER_SECOND, settings.REALTIME_FRAME_BURST = 0.01, 3
    socket = await connect(ann)
    for _ in range(8):
        await socket.send_json_to({"type": "ping"})
    assert await socket.closed_with() == 4429
    await asyncio.sleep(0)

    again = await connect(ann, greeting=False)

    assert await again.closed_with() == 4429
    await connect()
