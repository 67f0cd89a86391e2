"""The user of a socket, and the end of a login: sessions of each engine, tokens, bad cookies, races."""

import asyncio
import datetime
import gc
import logging
import os
import threading
import weakref
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    login,
    update_session_auth_hash,
)
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends import file
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from django.http import HttpRequest, parse_cookie
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from realtime import authentication, outage, users
from realtime.asgi import Authentication, Sockets
from realtime.authentication import GROUP, Logins, heard
from realtime.broadcasts import digest, user_group
from realtime.consumers import RealtimeConsumer
from realtime.fanout import get_fanout
from realtime.process import process
from realtime.users import get_users, session_store

User = get_user_model()

ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]
# Engines that store a session outside of its cookie.
STORED = ENGINES[:-1]


class Ours(RealtimeConsumer):
    """Greets with connection_established, and answers pings."""


class Plain(AsyncJsonWebsocketConsumer):
    """Channels' own."""

    async def connect(self):
        await self.accept()
        await self.send_json({"type": "connection_established"})

    async def receive_json(self, content):
        await self.send_json({"type": "pong"})


async def hold(scope, receive, send):
    """An application that does nothing but stay open."""
    scope["seen"].update(scope)
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


APPLICATION = Sockets(
    Authentication(URLRouter([path("ws/ours/", Ours.as_asgi()), path("ws/plain/", Plain.as_asgi())]))
)
PATHS = ["/ws/ours/", "/ws/plain/"]


@pytest.fixture(params=ENGINES)
def engine(request, settings, tmp_path, monkeypatch):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    monkeypatch.delattr(file.SessionStore, "_storage_path", raising=False)
    yield request.param
    cache.clear()


@pytest.fixture
def ann(transactional_db):
    return User.objects.create_user("ann")


def log_in(user):
    """Log `user` in, in a new browser, and return that: a Client with the cookie of a session."""
    client = Client()
    client.force_login(user)
    return client


def key_of(client):
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def cookie(key):
    """Return the headers of a browser with this session key."""
    return [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode())]


def token(value):
    return [(b"authorization", b"Bearer " + value.encode())]


@pytest.fixture
async def connect(open_socket):
    """Return a coroutine function that opens a socket of `client`, a Client or None."""

    async def connect(client=None, path="/ws/ours/", headers=(), greeting=True):
        headers = [*headers, *(cookie(key_of(client)) if client else ())]
        return await open_socket(path, application=APPLICATION, headers=headers, greeting=greeting)

    return connect


@pytest.fixture
async def scope_of(open_socket):
    """Return a coroutine function that opens a socket with these headers, and returns the scope of its application."""

    async def scope_of(headers=(), middleware=Authentication):
        seen = {}

        async def application(scope, receive, send):
            await Sockets(middleware(hold))(dict(scope, seen=seen), receive, send)

        await open_socket("/ws/hold/", application=application, headers=headers, greeting=False)
        return seen

    return scope_of


async def assert_out(*sockets):
    for socket in sockets:
        assert await socket.closed_with() == 4401


async def assert_in(*sockets):
    for socket in sockets:
        await socket.send_json_to({"type": "ping"})
        assert (await socket.receive_json_from(5))["type"] == "pong"


async def recheck():
    """As the process does every REALTIME_RECHECK_SECONDS."""
    logins = process()[Logins]
    await logins._recheck(list({login for some in logins._logins.values() for login in some}))


def complaints(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Who it is


async def test_session_and_user(engine, ann, scope_of):
    client = await sync_to_async(log_in)(ann)

    scope = await scope_of(cookie(key_of(client)))

    assert scope["user"] == scope["realtime"].user == ann
    assert scope["session"].session_key == key_of(client)
    assert scope["session"][SESSION_KEY] == str(ann.pk)
    assert scope["cookies"] == {settings.SESSION_COOKIE_NAME: key_of(client)}


async def test_an_anonymous_session(engine, ann, scope_of):
    client = Client()
    session = await sync_to_async(lambda: client.session)()
    session["basket"] = ["apple"]
    await sync_to_async(session.save)()

    scope = await scope_of(cookie(session.session_key))

    assert isinstance(scope["user"], AnonymousUser)
    assert scope["session"]["basket"] == ["apple"]


@pytest.mark.parametrize("key", [None, "", "short", "unknown-but-possible"])
async def test_nobody(engine, ann, scope_of, key):
    scope = await scope_of([] if key is None else cookie(key))

    assert isinstance(scope["user"], AnonymousUser)
    assert scope["session"].get(SESSION_KEY) is None
    # As Django has it: what is stored there gets a key of the server's.
    assert scope["session"].session_key is None or engine not in STORED


async def test_without_a_session_cookie_nothing_is_read(scope_of, reads):
    await scope_of([(b"cookie", b"theme=dark")])

    assert reads == []


async def test_all_cookie_lines_count(ann, scope_of):
    """HTTP/2 splits them, and not every proxy joins them again."""
    client = await sync_to_async(log_in)(ann)

    # Of the bytes of a cookie nothing is sure.
    scope = await scope_of([(b"cookie", b"theme=dark"), *cookie(key_of(client)), (b"cookie", b"a=b; c=\xe4")])

    assert scope["user"] == ann
    assert scope["cookies"] == {"theme": "dark", settings.SESSION_COOKIE_NAME: key_of(client), "a": "b", "c": "ä"}


@pytest.fixture
def reads(monkeypatch):
    """The numbers of claims that were read together, a list."""
    reads = []

    def get_users_and_count(claims):
        reads.append(len(claims))
        return get_users(claims)

    monkeypatch.setattr(users, "get_users", get_users_and_count)
    return reads


@pytest.mark.parametrize(("engine", "queries"), [("db", 2), ("cached_db", 2), ("cache", 1)], indirect=["engine"])
def test_many_in_two_queries(engine, queries, ann):
    ben, eve = User.objects.create_user("ben"), User.objects.create_user("eve")
    keys = [key_of(log_in(user)) for user in (ann, ben, eve, ann)]
    User.objects.filter(pk=eve.pk).update(is_active=False)
    stores = [session_store(key) for key in [*keys, keys[0], "x" * 32, None]]

    with CaptureQueriesContext(connection) as captured:
        found = get_users(stores)

    assert len(captured) == queries
    assert [user and user.username for user in found] == ["ann", "ben", None, "ann", "ann", None, None]
    # Changes that one socket makes to its user and session are not seen by the others.
    assert found[0] is not found[4]
    stores[0]._session_cache["basket"] = "apple"
    assert "basket" not in stores[4]
    assert stores[5].session_key is None


async def test_those_who_come_at_once_are_read_together(engine, ann, connect, reads):
    client = await sync_to_async(log_in)(ann)

    await asyncio.gather(*[connect(client) for _ in range(20)])

    assert sum(reads) == 20
    assert len(reads) <= 3


async def test_a_query_has_an_end(ann, connect, reads, monkeypatch):
    monkeypatch.setattr(users, "BATCH", 5)
    client = await sync_to_async(log_in)(ann)

    await asyncio.gather(*[connect(client) for _ in range(20)])

    assert max(reads) <= 5
    assert sum(reads) == 20


class OtherBackend(BaseBackend):
    """It may find users elsewhere than in the table, so that it must be asked."""

    def get_user(self, user_id):
        return User.objects.get(pk=user_id)


def test_another_backend_is_asked(ann, settings):
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.OtherBackend"]

    assert get_users([session_store(key_of(log_in(ann)))]) == [ann]


def test_another_backend_is_asked_for_each_socket(ann, settings):
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.OtherBackend"]
    key = key_of(log_in(ann))

    found = get_users([session_store(key), session_store(key)])

    assert found == [ann, ann]
    assert found[0] is not found[1]


def test_a_hash_that_is_no_text_logs_nobody_in(ann):
    session = log_in(ann).session
    session[HASH_SESSION_KEY] = ["of", "another", "program"]
    session.save()

    assert get_users([session_store(session.session_key)]) == [None]


def test_a_backend_that_is_gone_logs_nobody_in(ann, settings):
    key = key_of(log_in(ann))
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.OtherBackend"]

    assert get_users([session_store(key)]) == [None]


async def test_a_changed_password_logs_out(engine, ann, scope_of):
    client = await sync_to_async(log_in)(ann)
    ann.set_password("new")
    await ann.asave()

    assert isinstance((await scope_of(cookie(key_of(client))))["user"], AnonymousUser)


async def test_a_changed_secret_key_keeps_session_and_user(ann, scope_of, settings):
    client = await sync_to_async(log_in)(ann)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new key"

    assert (await scope_of(cookie(key_of(client))))["user"] == ann
    assert await Session.objects.acount() == 1


async def test_sockets_must_be_around_it():
    with pytest.raises(ImproperlyConfigured, match="Sockets"):
        await Authentication(hold)({"type": "websocket", "path": "/", "headers": []}, None, None)


async def test_the_stack_of_channels_works_in_its_place(ann, scope_of):
    client = await sync_to_async(log_in)(ann)

    assert (await scope_of(cookie(key_of(client)), AuthMiddlewareStack))["user"] == ann


# Bad cookies, and services that are away

BAD_KEYS = [
    # In a quoted cookie this is a NUL, which PostgreSQL does not take.
    '"aaaaaaaaaaaaaaaa\\000"',
    "a" * 4000,
    "../../../../etc/passwd",
    "äöüäöüäöüäöü",
    "%00%00%00%00%00%00",
    "'; DROP TABLE django_session; --",
]


@pytest.mark.parametrize("engine", STORED, indirect=True)
def test_what_cannot_be_a_key_is_not_looked_up(engine):
    for key in BAD_KEYS:
        assert session_store(parse_cookie(f"sessionid={key}")["sessionid"]).session_key is None
    assert session_store("a" * 32).session_key
    # Of an engine of the project's own.
    assert session_store("b:c.d-e_").session_key


async def test_bad_cookies_are_their_senders_alone(engine, ann, connect, caplog, settings):
    settings.REALTIME_SOCKETS_PER_USER = None
    client = await sync_to_async(log_in)(ann)
    strange = []
    for data in ({SESSION_KEY: "not a number"}, {SESSION_KEY: ["a list"]}, {SESSION_KEY: str(10**30)}):
        session = session_store()
        session.update(data | {BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0], HASH_SESSION_KEY: "hash"})
        await sync_to_async(session.save)()
        strange.append(session.session_key)
    if engine in ("db", "cached_db"):
        await Session.objects.filter(pk=strange[0]).aupdate(session_data="no session data")
    bad = [*BAD_KEYS, *strange]

    sockets = await asyncio.gather(
        *[connect(client) for _ in range(100)],
        *[connect(headers=[(b"cookie", f"sessionid={key}".encode())]) for key in bad],
        *[connect(client) for _ in range(100)],
    )

    logins = process()[Logins]
    assert len(logins._logins[digest(ann.pk)]) == 200
    assert len(sockets) == 200 + len(bad)
    # Only a number that is too large for the database fails in the query itself.
    assert caplog.text.count("cannot be read") <= 1
    assert not any(key in caplog.text for key in [*strange, key_of(client)])


async def test_a_claim_that_fails_is_found_by_halves(ann, connect, caplog, monkeypatch, settings):
    settings.REALTIME_SOCKETS_PER_USER = None
    client, other = await sync_to_async(log_in)(ann), await sync_to_async(log_in)(ann)
    calls = []

    def get_users_or_fail(claims):
        calls.append(len(claims))
        if any(claim.session_key == key_of(other) for claim in claims):
            raise OverflowError("cannot be read")
        return get_users(claims)

    monkeypatch.setattr(users, "get_users", get_users_or_fail)

    await asyncio.gather(*[connect(client) for _ in range(100)], connect(other), *[connect(client) for _ in range(99)])

    assert len(process()[Logins]._logins[digest(ann.pk)]) == 199
    # Not 200: half and half again.
    assert len(calls) < 30
    (line,) = complaints(caplog)
    assert line == "WebSocket /ws/ours/ of unknown has a session that cannot be read"
    assert "OverflowError: cannot be read" in caplog.text
    assert key_of(other) not in caplog.text


@pytest.fixture
def soon(monkeypatch):
    """Let outages be short."""
    monkeypatch.setattr(outage, "PATIENCE", 0.05)
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)


async def test_a_database_that_is_away_at_the_handshake(connect, soon, monkeypatch, caplog):
    def fail(claims):
        raise OperationalError("connection refused")

    monkeypatch.setattr(users, "get_users", fail)
    monkeypatch.setattr(outage, "RETRY_EVERY", 60)

    for _ in range(2):
        socket = await connect(headers=cookie("a" * 32), greeting=False)
        assert await socket.closed_with() == 4000

    assert complaints(caplog) == ["The database does not answer: connection refused"]


async def test_a_handshake_waits_for_a_database_that_is_away_for_a_moment(ann, connect, monkeypatch, caplog):
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    client, calls, get_users = await sync_to_async(log_in)(ann), [], users.get_users

    def fail_once(claims):
        calls.append(claims)
        if len(calls) == 1:
            raise OperationalError("connection refused")
        return get_users(claims)

    monkeypatch.setattr(users, "get_users", fail_once)

    await assert_in(await connect(client))

    assert complaints(caplog)[0] == "The database does not answer: connection refused"


@pytest.fixture
def no_cache(monkeypatch):
    """The cache of the sessions is away. Django's own engine would log its users out."""

    def away(self, *args, **kwargs):
        raise ConnectionError("the cache is away")

    return lambda: [monkeypatch.setattr(LocMemCache, name, away) for name in ("get", "get_many")]


@pytest.mark.parametrize("engine", ["cache"], indirect=True)
async def test_a_cache_that_is_away(engine, ann, connect, soon, no_cache, caplog):
    client = await sync_to_async(log_in)(ann)
    socket = await connect(client)
    no_cache()

    late = await connect(client, greeting=False)
    assert await late.closed_with() == 4000
    await recheck()

    await assert_in(socket)
    assert "the cache is away" in caplog.text


# Tokens


@pytest.fixture
def bearers(monkeypatch, settings):
    """What REALTIME_TOKEN_USER returns for a token, a dict; an exception is raised."""
    bearers = {}

    async def user_of_token(token, scope):
        assert "seen" in scope or scope["path"] in PATHS
        answer = bearers.get(token)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(authentication, "user_of_token", user_of_token, raising=False)
    settings.REALTIME_TOKEN_USER = "realtime.authentication.user_of_token"
    return bearers


async def test_a_token_decides_alone(ann, scope_of, bearers):
    ben = await User.objects.acreate_user("ben")
    client = await sync_to_async(log_in)(ben)
    bearers["good"] = ann

    scope = await scope_of([*cookie(key_of(client)), *token("good")])

    assert scope["user"] == scope["realtime"].user == ann
    assert scope["session"].session_key is None
    assert SESSION_KEY not in scope["session"]
    assert scope["cookies"] == {}
    assert key_of(client) not in str(scope["headers"])


@pytest.mark.parametrize("answer", ["None", "inactive", "anonymous", "expired"])
async def test_a_token_that_does_not_hold_is_4401_beside_a_good_cookie(ann, connect, bearers, caplog, answer):
    caplog.set_level(logging.INFO, "realtime")
    client = await sync_to_async(log_in)(ann)
    bearers["bad"] = {
        "None": None,
        "inactive": User(pk=7, is_active=False),
        "anonymous": AnonymousUser(),
        "expired": (ann, timezone.now() - datetime.timedelta(seconds=1)),
    }[answer]

    socket = await connect(client, headers=token("bad"), greeting=False)

    assert await socket.closed_with() == 4401
    # No consumer has seen it.
    assert " opened" not in caplog.text


async def test_an_error_of_the_function_is_no_refusal(bearers):
    bearers["bug"] = ZeroDivisionError("a bug")
    socket = WebsocketCommunicator(APPLICATION, "/ws/ours/", token("bug"))

    await socket.send_input({"type": "websocket.connect"})

    with pytest.raises(ZeroDivisionError):
        await socket.receive_output()


async def test_an_outage_in_the_function_is_4000(ann, connect, bearers, soon):
    bearers["token"] = OperationalError("connection refused")

    socket = await connect(headers=token("token"), greeting=False)

    assert await socket.closed_with() == 4000


@pytest.mark.parametrize("path", PATHS)
async def test_a_token_that_expires_closes_its_socket_at_that_time(ann, connect, bearers, path):
    bearers["short"] = (ann, timezone.now() + datetime.timedelta(seconds=1))
    bearers["long"] = (ann, timezone.now() + datetime.timedelta(days=36500))
    bearers["endless"] = (ann, None)
    short, *others = [await connect(path=path, headers=token(value)) for value in bearers]
    await assert_in(short)

    assert await short.closed_with() == 4401
    assert timezone.now() >= bearers["short"][1]
    await assert_in(*others)


class Stranger:
    """A user who is in no table, as simplejwt's TokenUser."""

    pk = "somebody"
    is_active = is_authenticated = True
    is_anonymous = False


async def test_a_token_that_expires_while_the_machine_sleeps(ann, connect, bearers, monkeypatch):
    """The clock of timers stands still meanwhile."""
    bearers["ann"] = ann, timezone.now() + datetime.timedelta(hours=1)
    socket = await connect(headers=token("ann"))
    later = timezone.now() + datetime.timedelta(hours=2)
    monkeypatch.setattr(authentication.timezone, "now", lambda: later)

    await recheck()

    await assert_out(socket)


async def test_a_user_without_a_table_holds_until_the_token_expires(connect, bearers, ann, caplog):
    bearers["stranger"] = Stranger()
    socket = await connect(headers=token("stranger"))
    client = await connect(await sync_to_async(log_in)(ann))

    await recheck()

    await assert_in(socket, client)
    assert complaints(caplog) == []


# Whether it still holds


@pytest.fixture
def expire(settings, tmp_path):
    """Return a function that lets the session of a key end by age, as far as the server can tell."""

    def expire(key):
        past = timezone.now() - datetime.timedelta(seconds=1)
        match settings.SESSION_ENGINE.rpartition(".")[2]:
            case "db" | "cached_db":
                Session.objects.filter(pk=key).update(expire_date=past)
            case "cache":
                session_store(key).delete()
            case "file":
                os.utime(tmp_path / f"{settings.SESSION_COOKIE_NAME}{key}", (0, 0))
            case "signed_cookies":
                settings.SESSION_COOKIE_AGE = -1

    return sync_to_async(expire)


@pytest.mark.parametrize("path", PATHS)
async def test_a_session_that_ends_by_age(engine, ann, connect, expire, path):
    client = await sync_to_async(log_in)(ann)
    socket, nobody = await connect(client, path), await connect(path=path)

    await recheck()
    await assert_in(socket, nobody)
    await expire(key_of(client))
    await recheck()

    await assert_out(socket)
    await assert_in(nobody)


@pytest.mark.parametrize("engine", STORED, indirect=True)
async def test_a_session_that_is_deleted_without_a_word(engine, ann, connect):
    client, other = await sync_to_async(log_in)(ann), await sync_to_async(log_in)(ann)
    socket, stays = await connect(client), await connect(other)
    if engine in ("db", "cached_db"):
        # As SQL by hand: no signal. Django's own cached_db would believe its cache.
        await sync_to_async(Session.objects.filter(pk=key_of(client))._raw_delete)("default")
    else:
        await sync_to_async(session_store(key_of(client)).delete)()

    await recheck()

    await assert_out(socket)
    await assert_in(stays)


async def test_a_session_that_is_somebody_elses_now(ann, connect):
    client = await sync_to_async(log_in)(ann)
    socket = await connect(client)
    other = await sync_to_async(log_in)(await User.objects.acreate_user("ben"))
    row = await Session.objects.aget(pk=key_of(other))
    await Session.objects.filter(pk=key_of(client)).aupdate(session_data=row.session_data)

    await recheck()

    await assert_out(socket)


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "another"}, None])
@pytest.mark.parametrize("path", PATHS)
async def test_a_user_who_changes_without_a_word(engine, ann, connect, bearers, path, change):
    ben = await User.objects.acreate_user("ben")
    bearers.update(ann=ann, ben=ben)
    sockets = [await connect(headers=token("ann"), path=path), await connect(await sync_to_async(log_in)(ann), path)]
    others = [await connect(headers=token("ben"), path=path), await connect(await sync_to_async(log_in)(ben), path)]
    queryset = User.objects.filter(pk=ann.pk)
    if change is None:
        await sync_to_async(queryset._raw_delete)("default")
    else:
        await queryset.aupdate(**change)

    await recheck()

    await assert_out(*sockets)
    await assert_in(*others)


async def test_all_are_asked_however_many_they_are(ann, connect, monkeypatch):
    monkeypatch.setattr(authentication, "BATCH", 1)
    sockets = [await connect(await sync_to_async(log_in)(ann)) for _ in range(3)]
    await User.objects.filter(pk=ann.pk).aupdate(is_active=False)

    await recheck()

    await assert_out(*sockets)


async def test_all_are_asked_in_two_queries(ann, connect):
    for name in ("ben", "eve"):
        client = await sync_to_async(log_in)(await User.objects.acreate_user(name))
        for _ in range(5):
            await connect(client)
    logins = process()[Logins]
    claims = [login.claim for some in logins._logins.values() for login in some]

    def count():
        with CaptureQueriesContext(connection) as captured:
            get_users(claims)
        return len(captured)

    assert len(claims) == 20
    assert await sync_to_async(count)() == 2


async def test_all_are_asked_again_and_again_as_long_as_there_is_somebody(ann, connect, until, reads, settings):
    settings.REALTIME_RECHECK_SECONDS = 0.01
    socket = await connect(await sync_to_async(log_in)(ann))

    await until(lambda: len(reads) > 3)
    await assert_in(socket)
    await User.objects.aupdate(is_active=False)
    await assert_out(socket)
    await socket.disconnect()
    await until(lambda: process()[Logins]._rechecking is None)

    again = await sync_to_async(log_in)(await User.objects.acreate_user("ben"))
    before = len(reads)
    await connect(again)
    await until(lambda: len(reads) > before + 3)


async def test_an_outage_closes_nobody(engine, ann, connect, soon, monkeypatch, caplog):
    socket = await connect(await sync_to_async(log_in)(ann))

    def fail(claims):
        raise OperationalError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(users, "get_users", fail)
        await User.objects.aupdate(is_active=False)
        await recheck()
        await assert_in(socket)
        assert complaints(caplog) == ["The database does not answer: connection refused"]

    await recheck()
    await assert_out(socket)


async def test_an_unexpected_error_closes_nobody_and_is_logged(ann, connect, until, settings, monkeypatch, caplog):
    settings.REALTIME_RECHECK_SECONDS = 0.01
    socket = await connect(await sync_to_async(log_in)(ann))

    def fail(claims):
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(users, "get_users", fail)
        await until(lambda: caplog.messages.count("A login cannot be checked") > 2)
        assert "ZeroDivisionError: a bug" in caplog.text
        patch.setattr(users.UserBatcher, "add", fail)
        await until(lambda: caplog.messages.count("Logins cannot be checked") > 2)
    await assert_in(socket)
    await User.objects.aupdate(is_active=False)

    await assert_out(socket)


# At once


@pytest.mark.parametrize("path", PATHS)
async def test_logout_closes_the_sockets_of_the_session(engine, ann, connect, path, until):
    client, elsewhere = await sync_to_async(log_in)(ann), await sync_to_async(log_in)(ann)
    if engine == "signed_cookies":
        # Made in the same second, the two would be one.
        elsewhere.cookies[settings.SESSION_COOKIE_NAME] = await sync_to_async(signed_cookie)(elsewhere)
    sockets = [await connect(client, path), await connect(client, path)]
    others = [await connect(elsewhere, path), await connect(path=path)]

    await sync_to_async(client.logout)()

    await assert_out(*sockets)
    await assert_in(*others)
    await until(lambda: not process()[Logins]._tasks)


def signed_cookie(client):
    """Return the cookie of the client's session with one more entry."""
    session = session_store(key_of(client))
    session["another"] = True
    session.save()
    return session.session_key


@pytest.mark.parametrize("engine", ["db", "cached_db"], indirect=True)
async def test_a_deleted_row_of_a_session_closes_its_sockets(engine, ann, connect):
    client, elsewhere = await sync_to_async(log_in)(ann), await sync_to_async(log_in)(ann)
    socket, other = await connect(client), await connect(elsewhere)

    await Session.objects.filter(pk=key_of(client)).adelete()

    await assert_out(socket)
    await assert_in(other)


async def test_clearsessions_tells_nobody(ann, connect, monkeypatch):
    client, expired = await sync_to_async(log_in)(ann), await sync_to_async(log_in)(ann)
    await Session.objects.filter(pk=key_of(expired)).aupdate(expire_date=timezone.now() - datetime.timedelta(days=1))
    socket = await connect(client)
    told = []
    monkeypatch.setattr(authentication, "send_on_commit", told.append)

    await sync_to_async(call_command)("clearsessions")

    assert not told
    assert await Session.objects.acount() == 1
    await assert_in(socket)


@pytest.mark.parametrize("path", PATHS)
async def test_login_as_somebody_else_closes_the_sockets_of_the_first(engine, ann, connect, path):
    client = await sync_to_async(log_in)(ann)
    socket = await connect(client, path)
    ben = await User.objects.acreate_user("ben", password="secret", is_staff=True)

    await sync_to_async(post_login)(client, ben)

    await assert_out(socket)
    await assert_in(await connect(client, path))


def post_login(client, user):
    """Log `user` in on the page, in the session that `client` has."""
    response = client.post("/admin/login/", {"username": user.username, "password": "secret", "next": "/nowhere/"})
    assert response.status_code in (200, 302), response.status_code
    if response.status_code == 200:
        assert "errornote" not in response.text


async def test_a_changed_password_ends_the_cookie_and_not_the_person(engine, ann, connect):
    client = await sync_to_async(log_in)(ann)
    socket = await connect(client)

    def change():
        request = HttpRequest()
        request.session, request.user = session_store(key_of(client)), ann
        ann.set_password("new")
        ann.save()
        update_session_auth_hash(request, ann)
        request.session.save()
        client.cookies[settings.SESSION_COOKIE_NAME] = request.session.session_key

    await sync_to_async(change)()

    await assert_out(socket)
    await assert_in(await connect(client))


@pytest.mark.parametrize("change", ["password", "is_active", "delete"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_user_who_is_saved_or_deleted(ann, connect, bearers, path, change):
    bearers["ann"] = await User.objects.aget()
    sockets = [await connect(await sync_to_async(log_in)(ann), path), await connect(headers=token("ann"), path=path)]
    other = await connect(await sync_to_async(log_in)(await User.objects.acreate_user("ben")), path)
    if change == "delete":
        await ann.adelete()
    else:
        setattr(ann, change, False if change == "is_active" else "another")
        await ann.asave()

    await assert_out(*sockets)
    await assert_in(other)


async def test_a_process_that_has_tokens_only_hears_of_users(ann, connect, bearers):
    bearers["ann"] = await User.objects.aget()
    socket = await connect(headers=token("ann"))
    ann.is_active = False

    await ann.asave()

    await assert_out(socket)


async def test_a_save_in_a_thread_with_an_event_loop(ann, connect, monkeypatch):
    """As in a notebook, and in tests with Playwright."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    socket = await connect(await sync_to_async(log_in)(ann))
    ann.is_active = False

    ann.save()

    await assert_out(socket)
    connections.close_all()


async def test_an_edit_of_the_profile_closes_nobody(engine, ann, connect, bearers, until, reads):
    bearers["ann"] = await User.objects.aget()
    client = await sync_to_async(log_in)(ann)
    sockets = [*[await connect(client) for _ in range(10)], await connect(headers=token("ann"))]
    reads.clear()
    ann.first_name = "Ann"
    await ann.asave()

    await until(lambda: reads)
    await asyncio.sleep(0.05)
    # One question about all of them, though each hears of it in the group of the user, too.
    assert reads == [11]
    await assert_in(*sockets)


def test_a_login_elsewhere_tells_nobody(ann, monkeypatch):
    told = []
    monkeypatch.setattr(authentication, "send_on_commit", told.append)

    log_in(ann)
    assert User.objects.get().last_login
    # But of the anonymous session that the login has replaced.
    assert not any(message["user"] for message in told)

    # Nor does somebody new, or what `loaddata` puts there.
    User.objects.create_user("ben").save_base(raw=True)
    assert not any(message["user"] for message in told)

    ann.save()
    assert any(message["user"] for message in told)


def test_a_visitor_who_was_not_logged_in_and_code_without_a_request_tell_nobody(ann, monkeypatch):
    told = []
    monkeypatch.setattr(authentication, "send_on_commit", told.append)
    visitor = Client()
    visitor.session.save()

    visitor.logout()
    user_logged_in.send(User, request=None, user=ann)
    user_logged_out.send(User, request=None, user=ann)

    # Of the row of the visitor's session.
    assert len(told) == 1


async def test_whoever_logs_in_once_more_keeps_their_sockets(ann, connect):
    client = await sync_to_async(log_in)(ann)
    socket = await connect(client)

    def log_in_again():
        request = HttpRequest()
        request.COOKIES[settings.SESSION_COOKIE_NAME] = key_of(client)
        request.session = session_store(key_of(client))
        login(request, ann)
        assert request.session.session_key == key_of(client)

    await sync_to_async(log_in_again)()
    await asyncio.sleep(0.01)

    await assert_in(socket)


async def test_an_anonymous_session_holds(connect):
    session = session_store()
    session["theme"] = "dark"
    await sync_to_async(session.save)()
    socket = await connect(headers=cookie(session.session_key))

    await recheck()

    await assert_in(socket)


@pytest.mark.parametrize("message", ["session", "user"])
async def test_the_last_release_tells_the_group_of_the_user(ann, connect, message):
    client, elsewhere = await sync_to_async(log_in)(ann), await sync_to_async(log_in)(ann)
    socket, other = await connect(client), await connect(elsewhere)
    session = digest(key_of(client)) if message == "session" else None
    if message == "user":
        await Session.objects.filter(pk=key_of(client)).aupdate(expire_date=timezone.now())

    group = user_group(ann.pk)
    await get_fanout().send(group, {"type": "realtime.logout", "group": group, "session": session})

    await assert_out(socket)
    await assert_in(other)


async def test_the_last_release_is_told(ann, connect, monkeypatch):
    told = []
    monkeypatch.setattr(authentication, "send_on_commit", told.append)
    client = await sync_to_async(log_in)(ann)
    key = key_of(client)

    await ann.asave()
    await sync_to_async(client.logout)()

    sessions = [message["session"] for message in told if message["group"] == user_group(ann.pk)]
    assert sessions == [None, digest(key)]


# Logouts that race a handshake


@pytest.fixture
def slow_read(monkeypatch):
    """Return a function that lets the next read end when the Event that it returns is set."""

    def slow_read():
        started, go_on = threading.Event(), threading.Event()

        def get_users_slowly(claims):
            monkeypatch.setattr(users, "get_users", get_users)
            found = get_users(claims)
            started.set()
            assert go_on.wait(5)
            return found

        monkeypatch.setattr(users, "get_users", get_users_slowly)
        return started, go_on

    return slow_read


async def test_a_session_that_ends_while_it_is_read(engine, ann, connect, until, slow_read, monkeypatch):
    client = await sync_to_async(log_in)(ann)
    key = key_of(client)
    started, go_on = slow_read()
    connecting = asyncio.create_task(connect(client, greeting=False))
    await until(started.is_set)

    # In a thread of its own: that of the ORM is reading.
    monkeypatch.setattr(users, "get_users", None)
    await asyncio.to_thread(in_a_thread, client.logout)
    await until(lambda: digest(key) in process()[Logins]._heard)
    go_on.set()

    # Without another read, which would fail.
    await assert_out(await connecting)


def in_a_thread(function):
    try:
        function()
    finally:
        connections.close_all()


async def test_a_session_that_is_read_between_the_signal_of_its_logout_and_its_end(
    engine, ann, connect, until, monkeypatch
):
    """Engines without a table say nothing when it ends."""
    client = await sync_to_async(log_in)(ann)
    # Now the process listens.
    await connect(await sync_to_async(log_in)(ann))
    await sync_to_async(authentication.tell)(ann, key_of(client))
    await until(lambda: digest(key_of(client)) in process()[Logins]._heard)

    await assert_out(await connect(client, greeting=False))
    monkeypatch.setattr(authentication, "RECENT", -60)
    await assert_in(await connect(client))


@pytest.mark.parametrize("ends", ["session", "user"])
async def test_a_login_that_ends_meanwhile_reaches_no_consumer(ann, connect, monkeypatch, ends):
    """Its connect() would join groups and read the database for somebody who is out."""
    connected = []

    async def connect_and_note(consumer):
        connected.append(consumer.scope["user"])
        await consumer.accept()

    monkeypatch.setattr(Ours, "connect", connect_and_note, raising=False)
    client = await sync_to_async(log_in)(ann)
    watch = Logins.watch

    async def watch_late(logins, login, since):
        # It ends between the read and this.
        await User.objects.filter(pk=ann.pk).aupdate(is_active=False)
        user, session = login.names
        logins.handle({"user": user, "session": session if ends == "session" else None})
        await watch(logins, login, since)

    monkeypatch.setattr(Logins, "watch", watch_late)

    socket = await connect(client, greeting=False)
    await assert_out(socket)
    await socket.disconnect()
    assert connected == []


async def test_a_user_who_is_saved_while_the_session_is_read(engine, ann, connect, until, slow_read):
    client = await sync_to_async(log_in)(ann)
    started, go_on = slow_read()
    connecting = asyncio.create_task(connect(client, greeting=False))
    await until(started.is_set)

    ann.is_active = False
    await asyncio.to_thread(in_a_thread, ann.save)
    await until(lambda: digest(ann.pk) in process()[Logins]._heard)
    go_on.set()

    await assert_out(await connecting)


async def test_a_profile_that_is_edited_while_the_session_is_read(ann, connect, until, slow_read):
    client = await sync_to_async(log_in)(ann)
    started, go_on = slow_read()
    connecting = asyncio.create_task(connect(client))
    await until(started.is_set)

    await asyncio.to_thread(in_a_thread, ann.save)
    await until(lambda: digest(ann.pk) in process()[Logins]._heard)
    go_on.set()

    await assert_in(await connecting)


async def test_what_was_heard_is_forgotten(monkeypatch):
    monkeypatch.setattr(authentication, "RECENT", 0.01)
    logins = process()[Logins]

    for name in "abc":
        logins.handle({"session": name, "user": None})
        await asyncio.sleep(0.02)

    assert list(logins._heard) == ["c"]


async def test_what_is_heard_again_is_forgotten_later(monkeypatch):
    times = iter([0, 10, 50, 80])
    monkeypatch.setattr(authentication, "time", SimpleNamespace(monotonic=lambda: next(times)))
    logins = process()[Logins]

    for name in "abac":
        logins.handle({"session": name, "user": None})

    assert list(logins._heard) == ["a", "c"]


async def test_the_process_listens_before_it_reads(ann, connect, monkeypatch):
    client = await sync_to_async(log_in)(ann)
    groups = get_fanout().groups
    subscribed = []

    def get_users_and_look(claims):
        subscribed.append(groups[GROUP].subscribed)
        return get_users(claims)

    monkeypatch.setattr(users, "get_users", get_users_and_look)
    await connect(client)

    assert subscribed == [True]


async def test_a_channel_layer_that_is_away_is_not_waited_for(ann, connect, until, monkeypatch, settings, caplog):
    monkeypatch.setattr(authentication, "LISTEN_TIMEOUT", 0.05)
    monkeypatch.setattr(outage, "RETRY_EVERY", 0.01)
    settings.REALTIME_RECHECK_SECONDS = 0.05
    client = await sync_to_async(log_in)(ann)
    layer = get_fanout().layer
    group_discard = layer.group_discard

    async def away(*args):
        raise ConnectionError("Redis is away")

    with monkeypatch.context() as patch:
        # As one that is in no memory of this process.
        patch.setattr(get_fanout(), "_local_groups", None)
        patch.setattr(layer, "group_add", away)
        patch.setattr(layer, "group_discard", away)
        socket = await connect(client, "/ws/plain/")
        assert complaints(caplog) == ["The channel layer is lost, and no broadcast arrives: Redis is away"]
        assert GROUP not in get_fanout().groups or not get_fanout().groups[GROUP].subscribed
    assert layer.group_discard == group_discard

    await until(lambda: GROUP in get_fanout().groups and get_fanout().groups[GROUP].subscribed)
    await sync_to_async(client.logout)()
    await assert_out(socket)


async def test_a_slow_channel_layer_is_joined_by_one_for_all(ann, connect, until, monkeypatch):
    monkeypatch.setattr(authentication, "LISTEN_TIMEOUT", 0.05)
    client = await sync_to_async(log_in)(ann)
    layer = get_fanout().layer
    group_add = layer.group_add
    answer = asyncio.Event()

    async def slowly(*args):
        await answer.wait()
        await group_add(*args)

    monkeypatch.setattr(layer, "group_add", slowly)
    sockets = [await connect(client, "/ws/plain/") for _ in range(3)]
    answer.set()
    await until(lambda: GROUP in get_fanout().groups and get_fanout().groups[GROUP].subscribed)

    await sync_to_async(client.logout)()

    await assert_out(*sockets)


async def test_nothing_is_kept_of_a_socket_that_is_gone(ann, connect, bearers, until):
    bearers["ann"] = (ann, timezone.now() + datetime.timedelta(days=1))
    sockets = [await connect(await sync_to_async(log_in)(ann)), await connect(headers=token("ann"))]
    logins = process()[Logins]
    assert len(logins._logins[digest(ann.pk)]) == 2

    for socket in sockets:
        await socket.disconnect()

    await until(lambda: not logins._logins)


async def test_a_token_that_expires_tomorrow_keeps_nothing_until_then(ann, connect, bearers, until):
    """A phone that comes back each minute would leave a thousand of its logins."""
    bearers["ann"] = (ann, timezone.now() + datetime.timedelta(days=1))
    socket = await connect(headers=token("ann"))
    (login,) = process()[Logins]._logins[digest(ann.pk)]
    login = weakref.ref(login)

    await socket.disconnect()

    await until(lambda: gc.collect() >= 0 and login() is None)


async def test_heard_ignores_what_the_registry_hears_itself(ann, connect, reads, monkeypatch):
    handled = []
    monkeypatch.setattr(Logins, "handle", lambda self, message: handled.append(message))

    heard({"type": "realtime.logout", "group": user_group(1), "session": None, "user": digest(1)})
    heard({"type": "realtime.logout", "group": user_group(1), "session": None})

    assert len(handled) == 1
