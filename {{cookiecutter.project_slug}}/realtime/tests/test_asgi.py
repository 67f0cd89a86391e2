"""What stands around the consumers: the wiring in asgi.py and settings.py, sessions and users, notify()."""

import asyncio
import contextlib
from importlib import import_module

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.routing import URLRouter, get_default_application
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from realtime import notify
from realtime.asgi import AllowedOrigins
from realtime.checks import check_asgi_application, check_channel_layer, check_daphne
from realtime.consumers import RealtimeConsumer
from realtime.sessions import SessionAndUser, client_address, get_users

PATH = "/ws/test/"
User = get_user_model()


class Consumer(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.join("group")
        await self.send_json({"type": "connected"})

    async def receive_json(self, content):
        match content["type"]:
            case "broadcast":
                await self.broadcast("group", {"type": "news"})
            case "count":
                await self.send_json({"type": "count", "count": await User.objects.acount()})


APPLICATION = AllowedOrigins(SessionAndUser(URLRouter([path("ws/test/", Consumer.as_asgi())])))


@pytest.fixture
def connect(open_socket):
    """Return a coroutine function that opens a socket to the Consumer above."""

    async def connect(**options):
        socket = await open_socket(PATH, application=APPLICATION, **options)
        await socket.receive_type("connected")
        return socket

    return connect


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://["])
async def test_a_foreign_origin_is_refused_and_logged(caplog, origin):
    headers = [(b"host", b"testserver")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))

    accepted, _ = await WebsocketCommunicator(get_default_application(), PATH, headers).connect()

    assert not accepted
    (line,) = caplog.messages
    assert str(origin or "missing") in line
    assert "testserver" in line
    assert "DJANGO_ALLOWED_HOSTS" in line


async def test_an_unknown_path_is_closed_and_logged(caplog, open_socket):
    socket = await open_socket("/ws/nowhere/")

    assert (await socket.receive_output())["code"] == 4404
    assert caplog.messages == ["WebSocket /ws/nowhere/ of unknown: no such path in routing.py"]


async def test_healthz(async_client, transactional_db):
    response = await async_client.get("/healthz", headers={"host": "10.0.0.7"})

    assert (response.status_code, response.json()) == (200, {"database": "ok", "channel_layer": "ok"})


def test_runserver_refuses_with_debug_off():
    with pytest.raises(CommandError, match=r"python -m \w+\."):
        call_command("runserver")


def test_check_explains_a_missing_daphne(settings):
    settings.DEBUG = True

    assert [error.id for error in check_daphne(None)] == ["realtime.E001"]


def test_check_explains_a_moved_daphne(settings):
    settings.DEBUG = True
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "daphne"]

    assert [error.id for error in check_daphne(None)] == ["realtime.E001"]


@pytest.mark.parametrize("path", ["nowhere.application", "realtime.checks.nothing"])
def test_check_explains_a_wrong_asgi_application(settings, path):
    settings.ASGI_APPLICATION = path

    assert [error.id for error in check_asgi_application(None)] == ["realtime.E002"]


def test_check_explains_the_in_memory_layer():
    assert [warning.id for warning in check_channel_layer(None)] == ["realtime.W001"]


@pytest.fixture
def login(transactional_db):
    """Return a user and the session key of its login."""
    user = User.objects.create_user("ann")
    client = Client()
    client.force_login(user)
    return user, client.cookies[settings.SESSION_COOKIE_NAME].value


async def scope_of(key=None):
    """Return the scope that an application inside of SessionAndUser sees."""
    seen = {}

    async def application(scope, receive, send):
        seen.update(scope)

    cookie = f"{settings.SESSION_COOKIE_NAME}={key}".encode()
    headers = [(b"cookie", cookie)] if key else []
    await SessionAndUser(application)({"type": "websocket", "headers": headers}, None, None)
    return seen


async def test_user_and_session(login):
    user, key = login

    scope = await scope_of(key)

    assert scope["user"] == user
    assert scope["session"].session_key == key


@pytest.mark.parametrize("key", [None, "", "unknown"])
async def test_nobody(transactional_db, key):
    scope = await scope_of(key)

    assert isinstance(scope["user"], AnonymousUser)


async def test_a_database_that_is_away(open_socket, monkeypatch, caplog):
    def get_users(sessions):
        raise OperationalError("connection refused")

    monkeypatch.setattr("realtime.sessions.get_users", get_users)
    monkeypatch.setattr("realtime.health.PATIENCE", 0.05)
    cookie = f"{settings.SESSION_COOKIE_NAME}=key".encode()

    for _ in range(2):
        socket = await open_socket(PATH, application=APPLICATION, headers=[(b"cookie", cookie)])
        assert await socket.receive_output() == {"type": "websocket.close", "code": 4000}

    assert caplog.messages == ["The database does not answer: connection refused"]


async def test_a_missing_table_is_waited_for_once(open_socket, monkeypatch, caplog):
    def get_users(sessions):
        raise OperationalError("no such table")

    monkeypatch.setattr("realtime.sessions.get_users", get_users)
    monkeypatch.setattr("realtime.health.RETRY_EVERY", 0.01)
    cookie = f"{settings.SESSION_COOKIE_NAME}=key".encode()

    socket = await open_socket(PATH, application=APPLICATION, headers=[(b"cookie", cookie)])

    assert await socket.receive_output() == {"type": "websocket.close", "code": 4000}
    assert caplog.text.count("no such table") == 2


def test_one_query_each(login):
    session = import_module(settings.SESSION_ENGINE).SessionStore(login[1])
    with CaptureQueriesContext(connections["default"]) as queries:
        get_users([session])

    assert len(queries) == 2


def test_two_queries_for_many(transactional_db):
    """Each session gets its own user, also when two are the same."""
    keys, users = [], [User.objects.create_user(name) for name in ("ann", "ben", "ann2")]
    for user in [*users, users[0]]:
        client = Client()
        client.force_login(user)
        keys.append(client.cookies[settings.SESSION_COOKIE_NAME].value)
    users[2].is_active = False
    users[2].save()
    sessions = [import_module(settings.SESSION_ENGINE).SessionStore(key) for key in [*keys, keys[0], "x" * 32, None]]

    with CaptureQueriesContext(connections["default"]) as queries:
        found = get_users(sessions)

    assert len(queries) == 2
    assert [user.get_username() for user in found] == ["ann", "ben", "", "ann", "ann", "", ""]
    assert found[0] is not found[4]
    assert sessions[5].session_key is None


async def test_those_who_come_at_once_are_read_together(login, monkeypatch):
    batches = []

    def counting(sessions):
        batches.append(len(sessions))
        return get_users(sessions)

    monkeypatch.setattr("realtime.sessions.get_users", counting)

    scopes = await asyncio.gather(*[scope_of(login[1]) for _ in range(20)])

    assert [scope["user"] for scope in scopes] == [login[0]] * 20
    assert sum(batches) == 20
    assert len(batches) <= 2


class OtherBackend(ModelBackend):
    """It may look elsewhere, so it is asked."""

    def get_user(self, user_id):
        return User.objects.get(pk=user_id)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSION_ENGINE", "django.contrib.sessions.backends.cached_db"),
        ("SESSION_ENGINE", "django.contrib.sessions.backends.signed_cookies"),
        ("AUTHENTICATION_BACKENDS", [f"{__name__}.OtherBackend"]),
    ],
)
def test_other_engines_and_backends(transactional_db, settings, name, value):
    setattr(settings, name, value)
    user = User.objects.create_user("ann")
    client = Client()
    client.force_login(user)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value

    assert get_users([import_module(settings.SESSION_ENGINE).SessionStore(key)]) == [user]


async def test_a_changed_password_logs_out(login):
    user, key = login
    user.set_password("new")
    await user.asave()

    assert isinstance((await scope_of(key))["user"], AnonymousUser)


async def test_a_changed_key_keeps_session_and_user(login, settings):
    user, key = login
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new key"

    assert (await scope_of(key))["user"] == user
    assert await Session.objects.acount() == 1


@pytest.mark.parametrize(("trusted", "address"), [(False, "10.0.0.1"), (True, "192.0.2.7")])
def test_client_address(settings, trusted, address):
    settings.TRUST_PROXY = trusted
    headers = [(b"x-forwarded-for", b"203.0.113.5, 192.0.2.7")]

    assert client_address({"client": ("10.0.0.1", 1234), "headers": headers}) == address


@pytest.fixture
async def sockets(login, connect):
    """Two sockets of one session, one of another session of the same user, one of nobody."""
    other = Client()
    await sync_to_async(other.force_login)(login[0])
    keys = [login[1], login[1], other.cookies[settings.SESSION_COOKIE_NAME].value, "none"]
    sockets = []
    for key in keys:
        cookie = f"{settings.SESSION_COOKIE_NAME}={key}".encode()
        sockets.append(await connect(headers=[(b"cookie", cookie)]))
    return sockets


async def assert_closed(*sockets):
    for socket in sockets:
        assert await socket.receive_output() == {"type": "websocket.close", "code": 4401}


async def assert_open(*sockets):
    for socket in sockets:
        await socket.send_json_to({"type": "ping"})
        await socket.receive_type("pong")


async def test_logout_closes_the_sockets_of_the_session(login, sockets, async_client):
    async_client.cookies[settings.SESSION_COOKIE_NAME] = login[1]

    await sync_to_async(async_client.logout)()

    await assert_closed(*sockets[:2])
    await assert_open(*sockets[2:])


async def test_a_changed_password_closes_the_sockets_of_the_user(login, sockets):
    login[0].set_password("new")
    await login[0].asave()

    await assert_closed(*sockets[:3])
    await assert_open(sockets[3])


async def test_any_other_change_closes_nothing(login, sockets):
    login[0].first_name = "Ann"
    await login[0].asave()

    await assert_open(*sockets)


async def test_notify_sends_on_commit(connect):
    socket = await connect()

    def commit():
        with transaction.atomic():
            notify("group", {"type": "committed"})
            assert async_to_sync(socket.receive_nothing)()

    def roll_back():
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            notify("group", {"type": "rolled_back"})
            raise ZeroDivisionError

    await sync_to_async(roll_back)()
    await sync_to_async(commit)()

    await socket.receive_type("committed")
    assert await socket.receive_nothing()


async def test_handlers_without_queries_make_no_hop_to_a_thread(connect, monkeypatch, until):
    closed = []
    monkeypatch.setattr("realtime.database.close_old_connections", lambda: closed.append("closed"))
    monkeypatch.setattr("realtime.database.IDLE", 0.05)
    socket = await connect()

    await socket.send_json_to({"type": "broadcast"})
    await socket.receive_type("news")
    assert not closed

    await socket.send_json_to({"type": "count"})
    await socket.receive_type("count")
    await until(lambda: closed == ["closed"])
