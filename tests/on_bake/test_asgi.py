"""The middleware around the consumers (Sockets, the Origin check), unknown paths, /healthz, system checks."""

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Annotated
from unittest import mock

import msgspec
import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter, get_default_application
from channels.testing import WebsocketCommunicator
from django.apps import AppConfig
from django.contrib.auth import get_user_model
from django.core.checks.registry import registry
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError, ProgrammingError, connection
from django.urls import path, re_path

from realtime import Close, checks, health
from realtime import socket as socket_module
from realtime.activity import Activity
from realtime.asgi import AllowedOrigins, Authentication, Sockets, remedy_for, unknown_path
from realtime.checks import (
    check_allowed_hosts,
    check_allowed_origins,
    check_asgi_application,
    check_channel_layer,
    check_channel_layers,
    check_consumers,
    check_daphne,
    check_routes,
    check_routing,
    check_sessions,
    check_token_user,
)
from realtime.consumers import RealtimeConsumer
from realtime.database import DatabaseOutage, DatabaseUse, IdleCloser, is_outage, note_use, query, watch
from realtime.frames import Frame, Text
from realtime.management.commands.frames import find_routes
from realtime.outage import ask_database
from realtime.process import process, server_loop
from realtime.socket import client_address, shown, take_token

PATH = "/ws/test/"
User = get_user_model()


class Do(Frame):
    what: str


class Consumer(RealtimeConsumer):
    receives = [Do]

    async def connect(self):
        await self.accept()
        await self.join("group")

    async def receive_frame(self, frame):
        match frame.what:
            case "broadcast":
                await self.broadcast("group", {"type": "news"})
            case "count":
                await self.send({"type": "count", "count": await User.objects.acount()})


def around(consumer):
    return Sockets(AllowedOrigins(Authentication(URLRouter([path("ws/test/", consumer.as_asgi())]))))


@pytest.fixture
def connect(open_socket):
    """Return a coroutine function that opens a socket to the Consumer above."""

    async def connect(**options):
        return await open_socket(PATH, application=around(Consumer), **options)

    return connect


@pytest.mark.parametrize(
    ("origin", "remedy"),
    [
        (None, "offers a token"),
        ("null", "serve the page from a host"),
        ("http://evil.example", "add http://evil.example to DJANGO_ALLOWED_ORIGINS"),
        ("http://testserver:8001", "add http://testserver:8001 to DJANGO_ALLOWED_ORIGINS"),
        ("https://testserver", "DJANGO_TRUST_PROXY"),
        ("http://[", "DJANGO_ALLOWED_ORIGINS"),
    ],
)
async def test_a_foreign_origin_is_refused_and_the_line_names_what_helps(caplog, origin, remedy):
    headers = [(b"host", b"testserver")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))

    accepted, _ = await WebsocketCommunicator(get_default_application(), PATH, headers).connect()

    assert not accepted
    (line,) = [message for message in caplog.messages if "refused" in message]
    assert str(origin or "missing") in line
    assert "testserver" in line
    assert remedy in line


def remedy_of(scope, origin):
    scope["headers"] += [(b"origin", origin.encode())] if origin else []
    return remedy_for(scope)


def scope_of(host, scheme="ws", **headers):
    pairs = [(b"host", host.encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "websocket", "scheme": scheme, "headers": pairs}


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("a.example", "ws", "http://a.example"),
        ("A.example:80", "ws", "http://a.example"),
        ("a.example", "ws", "http://A.example"),
        ("a.example:8000", "ws", "http://a.example:8000"),
        ("a.example", "wss", "https://a.example"),
        ("a.example:443", "wss", "https://a.example"),
        ("[::1]:8000", "ws", "http://[::1]:8000"),
        ("a.example", "ws", "https://app.example:8443"),
    ],
)
def test_own_origins_and_those_of_the_setting_are_allowed(settings, host, scheme, origin):
    settings.ALLOWED_HOSTS = ["a.example", "[::1]"]
    settings.REALTIME_ALLOWED_ORIGINS = ["https://app.example:8443"]

    assert remedy_of(scope_of(host, scheme), origin) is None


def test_headers_that_nobody_asks_for_are_not_decoded(settings):
    """There may be hundreds, in each handshake."""

    class Unread(bytes):
        def decode(self, *arguments):
            raise AssertionError

    settings.ALLOWED_HOSTS = ["a.example"]
    scope = scope_of("a.example")
    scope["headers"].append((b"cookie", Unread(b"a=b")))

    assert remedy_of(scope, "http://a.example") is None


def test_a_host_that_is_not_the_sites_is_refused(settings):
    settings.ALLOWED_HOSTS = ["a.example"]

    assert "add b.example to DJANGO_ALLOWED_HOSTS" in remedy_of(scope_of("b.example:80"), "http://b.example")


def test_any_host_is_not_any_origin(settings):
    settings.ALLOWED_HOSTS = ["*"]

    for origin in (None, "null", "http://evil.example"):
        assert remedy_of(scope_of("a.example"), origin)


def test_any_port_of_localhost_in_development(settings):
    settings.DEBUG, settings.ALLOWED_HOSTS = True, []

    assert remedy_of(scope_of("127.0.0.1:8000"), "http://localhost:5173") is None
    assert remedy_of(scope_of("127.0.0.1:8000"), "http://evil.example:5173")
    assert remedy_of(scope_of("127.0.0.1:8000"), "http://[")
    # A name of somebody else's that leads here.
    assert remedy_of(scope_of("evil.example:8000"), "http://evil.example:8000")

    settings.ALLOWED_HOSTS = ["dev.example"]
    assert remedy_of(scope_of("127.0.0.1:8000"), "http://127.0.0.1:8000")


def test_hosts_that_are_addresses_of_ipv6(settings):
    settings.ALLOWED_HOSTS = ["[2001:db8::1]"]

    for host in ("[2001:db8::1]", "[2001:db8::1]:8000"):
        assert remedy_of(scope_of(host), f"http://{host}") is None


@pytest.mark.parametrize(
    ("hosts", "origin"), [([], "http://127.0.0.1:8000"), (["127.0.0.1"], "http://localhost:5173")]
)
def test_localhost_is_like_any_other_host_in_production(settings, hosts, origin):
    settings.DEBUG, settings.ALLOWED_HOSTS = False, hosts

    assert remedy_of(scope_of("127.0.0.1:8000"), origin)


def test_a_proxy_that_ends_tls(settings):
    settings.ALLOWED_HOSTS = ["a.example"]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

    assert remedy_of(scope_of("a.example", x_forwarded_proto="https"), "https://a.example") is None
    # The first of two proxies saw the page.
    assert remedy_of(scope_of("a.example", x_forwarded_proto="https, http"), "https://a.example") is None
    assert remedy_of(scope_of("a.example", "wss", x_forwarded_proto="http"), "https://a.example")
    # As Django has it where the header is missing.
    assert remedy_of(scope_of("a.example", "wss"), "https://a.example") is None


def test_a_proxy_that_names_the_host(settings):
    settings.ALLOWED_HOSTS = ["a.example", "web"]
    scope = scope_of("web", x_forwarded_host="a.example")
    assert remedy_of(scope, "http://a.example")

    settings.USE_X_FORWARDED_HOST = True

    assert remedy_of(scope, "http://a.example") is None


@pytest.mark.parametrize(
    ("protocols", "headers", "token", "others"),
    [
        (["chat"], [], None, ["chat"]),
        (["bearer.abc", "chat"], [], "abc", ["chat"]),
        (["chat", "bearer64.w6Q"], [], "ä", ["chat"]),
        (["chat", "bearer64.w6!!Q"], [], "", ["chat"]),
        (["chat", "bearer64.AGE"], [], "", ["chat"]),
        (["bearer.abc"], [], "abc", []),
        (["bearer.abc", "chat", "bearer64.w6Q"], [], "abc", ["chat"]),
        ([], [(b"authorization", b"Bearer abc")], "abc", None),
        ([], [(b"authorization", b"bearer  abc")], "abc", None),
        ([], [(b"authorization", b"Basic abc")], None, None),
        (["bearer.abc", "chat"], [(b"authorization", b"Bearer other")], "abc", ["chat"]),
    ],
)
def test_a_token_is_taken_out_of_the_scope(protocols, headers, token, others):
    cookie = (b"cookie", b"sessionid=x")
    scope = {"headers": [*headers, cookie, (b"x", b"y")], "subprotocols": protocols}

    assert take_token(scope) == (token, others)

    if token is None:
        assert cookie in scope["headers"]
    else:
        assert scope["headers"] == [(b"x", b"y")]
        assert scope["subprotocols"] == (others or [])


async def test_a_token_alone_is_refused_with_a_line(caplog):
    communicator = WebsocketCommunicator(around(Consumer), PATH, subprotocols=["bearer.abc"])

    assert await communicator.connect() == (False, 1000)
    assert "must offer another protocol" in caplog.text
    assert "abc" not in caplog.text


@pytest.mark.parametrize("by", ["subprotocol", "header"])
async def test_a_token_that_nobody_reads_is_no_way_in(by, caplog):
    """A page of another origin could offer one, and asgi.py may have Channels' AuthMiddlewareStack."""

    class Own(AsyncWebsocketConsumer):
        pass

    headers = [(b"authorization", b"Bearer abc")] if by == "header" else []
    protocols = ["chat", "bearer.abc"] if by == "subprotocol" else None
    application = Sockets(AllowedOrigins(URLRouter([path("ws/test/", Own.as_asgi())])))
    communicator = WebsocketCommunicator(application, PATH, headers, subprotocols=protocols)

    await communicator.connect()

    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4401}
    assert "no realtime.asgi.Authentication" in caplog.text


async def test_a_code_reaches_a_client_that_offered_protocols():
    class Closing(AsyncWebsocketConsumer):
        async def connect(self):
            await self.close(4403)

    communicator = WebsocketCommunicator(Sockets(Closing.as_asgi()), PATH, subprotocols=["chat", "other"])

    assert await communicator.connect() == (True, "chat")
    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4403}


@pytest.mark.parametrize(("offered", "picked"), [([], None), (["chat", "other"], "chat")])
async def test_a_protocol_that_was_not_offered_is_not_picked(offered, picked, caplog, transactional_db):
    """Browsers fail such a handshake, and daphne breaks it off."""

    class Picking(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept(subprotocol="v2")

    communicator = WebsocketCommunicator(Sockets(Picking.as_asgi()), PATH, subprotocols=offered)

    assert await communicator.connect() == (True, picked)
    assert "is accepted with the subprotocol 'v2', which its client has not offered" in caplog.text
    await communicator.disconnect()


class Greeting(RealtimeConsumer):
    greeting = None

    async def connect(self):
        await self.accept()
        await self.send(self.greeting)


@pytest.mark.parametrize(
    ("sent", "greeting"), [("<p>", "<p>"), (b"\0", b"\0"), ("[1]", "[1]"), ({"type": "hi"}, {"type": "hi"})]
)
async def test_open_socket_takes_any_greeting(open_socket, sent, greeting, monkeypatch):
    monkeypatch.setattr(Greeting, "greeting", sent)

    socket = await open_socket(PATH, application=around(Greeting))

    assert socket.greeting == greeting


async def test_open_socket_says_what_came_in_place_of_a_greeting(open_socket):
    class Closing(RealtimeConsumer):
        async def connect(self):
            await self.close(Close.NOT_ALLOWED)

    class Silent(AsyncWebsocketConsumer):
        pass

    with pytest.raises(AssertionError, match="closed with 4403 before a greeting"):
        await open_socket(PATH, application=around(Closing))
    socket = await open_socket(PATH, application=around(Silent), greeting=False)
    with pytest.raises(AssertionError, match="opened with greeting=False"):
        await socket.receive_greeting(seconds=0.05)


@pytest.mark.parametrize("kind", ["asynchronous", "synchronous", "ours", "ours, in a task"])
async def test_a_connect_that_neither_accepts_nor_closes_is_one_error(kind, caplog, monkeypatch, transactional_db):
    monkeypatch.setattr(socket_module, "ANSWER_TIMEOUT", 0.05)

    class Asynchronous(AsyncWebsocketConsumer):
        async def connect(self):
            pass

    class Synchronous(WebsocketConsumer):
        def connect(self):
            pass

    class Ours(RealtimeConsumer):
        async def connect(self):
            pass

    class OursInATask(RealtimeConsumer):
        async def connect(self):
            # Too late for a greeting that comes before all broadcasts.
            self.start_task(self.accept_later())

        async def accept_later(self):
            await asyncio.sleep(0.01)
            await self.accept()

    kinds = {"asynchronous": Asynchronous, "synchronous": Synchronous, "ours": Ours, "ours, in a task": OursInATask}
    consumer = kinds[kind]
    communicator = WebsocketCommunicator(Sockets(consumer.as_asgi()), PATH)

    accepted, _ = await communicator.connect(timeout=5)

    assert not accepted
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "neither accepted nor closed" in line
    await communicator.send_input({"type": "websocket.disconnect", "code": 1006})
    await communicator.wait()


async def test_a_socket_whose_server_is_stopped_is_logged_with_a_code(caplog):
    caplog.set_level("INFO", "realtime")

    class Accepting(AsyncWebsocketConsumer):
        pass

    communicator = WebsocketCommunicator(Sockets(Accepting.as_asgi()), PATH)
    await communicator.connect()
    communicator.future.cancel()
    await asyncio.wait([communicator.future])

    assert " closed with 1006 after 0." in caplog.messages[-1]


async def test_nothing_is_sent_after_a_close():
    class Late(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await self.close(4403)
            await self.send("too late")
            await self.close(4000)

    communicator = WebsocketCommunicator(Sockets(Late.as_asgi()), PATH)
    await communicator.connect()

    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4403}
    assert await communicator.receive_nothing()


async def test_nothing_is_sent_after_a_refusal():
    class Late(AsyncWebsocketConsumer):
        async def connect(self):
            await self.close()
            await self.accept()
            await self.send("too late")

    communicator = WebsocketCommunicator(Sockets(Late.as_asgi()), PATH)

    assert await communicator.connect() == (False, 1000)
    assert await communicator.receive_nothing()
    assert process()[Activity]["opened"] == 0


async def test_asgi_without_sockets_says_so():
    communicator = WebsocketCommunicator(AllowedOrigins(Consumer.as_asgi()), PATH)

    with pytest.raises(Exception, match=r"realtime\.asgi\.Sockets must be the outermost"):
        await communicator.connect()


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a\u2028b", "a\x85b", "\ud800"])
def test_what_a_client_sends_is_shown_on_one_line(text):
    assert shown(text).isprintable()
    assert len(shown("x" * 10_000)) < 210


async def test_an_unknown_path_is_closed_and_logged(caplog, open_socket):
    socket = await open_socket("/ws/no\x1bwhere/", greeting=False)

    assert (await socket.receive_output())["code"] == 4404
    assert caplog.messages[0] == r"WebSocket /ws/no\x1bwhere/ of unknown refused: no such path in routing.py"


async def test_healthz(async_client, transactional_db):
    response = await async_client.get("/healthz", headers={"host": "10.0.0.7"})

    assert (response.status_code, response.json()) == (200, {"database": "ok", "channel_layer": "ok"})
    # A server that has no socket yet: notify() finds its loop.
    assert server_loop() is asyncio.get_running_loop()


async def test_healthz_tells_no_more_than_the_name_of_an_error(monkeypatch):
    async def fail(layer):
        raise ConnectionError("no answer from 10.0.0.8 with the password x")

    monkeypatch.setattr(health.layers, "ask", fail)
    monkeypatch.setattr(health, "ask_database", lambda: None)

    assert await health.ask_services() == {"database": "ok", "channel_layer": "ConnectionError"}


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


async def test_healthz_asks_once_a_second_whoever_asks(async_client, transactional_db, monkeypatch):
    asked = []

    async def ask():
        asked.append(1)
        return {"database": "ok", "channel_layer": "ok"}

    monkeypatch.setattr(health, "ask_services", ask)

    responses = await asyncio.gather(*[async_client.get("/healthz") for _ in range(20)])

    assert {response.status_code for response in responses} == {200}
    assert len(asked) == 1

    await async_client.get("/healthz")
    assert len(asked) == 1
    process()[health.Health]._asked_at -= health.VALID
    await async_client.get("/healthz")
    assert len(asked) == 2


async def test_healthz_does_not_wait_for_a_service_that_hangs(async_client, transactional_db, monkeypatch):
    ended = asyncio.Event()

    async def hang(layer):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(health.layers, "ask", hang)
    monkeypatch.setattr(health, "TIMEOUT", 0.05)

    response = await asyncio.wait_for(async_client.get("/healthz"), 5)

    assert (response.status_code, response.json()["channel_layer"]) == (503, "timeout")
    # One more would hang each second.
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_health_check_that_is_given_up_ends_no_other(monkeypatch):
    answered = asyncio.Event()

    async def ask():
        await answered.wait()
        return {"database": "ok"}

    monkeypatch.setattr(health, "ask_services", ask)
    asking = health.Health()
    gone, stays = [asyncio.create_task(asking.ask()) for _ in range(2)]
    await asyncio.sleep(0)

    gone.cancel()
    await asyncio.wait([gone])
    answered.set()

    assert await stays == {"database": "ok"}


async def test_healthz_waits_for_no_query_of_a_socket(transactional_db):
    """All sockets share a thread of the ORM: a slow query there is no reason to take the process out."""
    ends = threading.Event()
    slow = asyncio.create_task(query(ends.wait))
    await asyncio.sleep(0)
    try:
        assert (await health.ask_services())["database"] == "ok"
    finally:
        ends.set()
        await slow


@pytest.mark.parametrize("path", ["nowhere.application", "realtime.checks.nothing"])
def test_check_explains_a_wrong_asgi_application(settings, path):
    settings.ASGI_APPLICATION = path

    assert [error.id for error in check_asgi_application(None)] == ["realtime.E002"]


def test_check_explains_that_asgi_application_is_not_set(settings):
    del settings.ASGI_APPLICATION

    (error,) = check_asgi_application(None)
    assert (error.id, error.msg) == ("realtime.E002", "ASGI_APPLICATION is not set.")


def test_check_shows_what_an_import_fails_of(settings, tmp_path, monkeypatch):
    (tmp_path / "broken_asgi.py").write_text("import nope\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "broken_asgi.application"

    (error,) = check_asgi_application(None)

    assert "ModuleNotFoundError: No module named 'nope'" in error.msg
    assert "broken_asgi.py, line 1" in error.msg


@pytest.mark.parametrize("application", [ProtocolTypeRouter({"http": Consumer}), "no application"])
def test_check_explains_what_takes_no_websocket(monkeypatch, application):
    monkeypatch.setattr("realtime.checks.get_default_application", lambda: application)

    (error,) = check_asgi_application(None)

    assert error.id == "realtime.E002"
    assert "takes HTTP only" in error.msg


def test_check_explains_a_missing_sockets(settings, monkeypatch):
    monkeypatch.setattr("realtime.checks.get_default_application", lambda: ProtocolTypeRouter({"websocket": Consumer}))

    assert [error.id for error in check_asgi_application(None)] == ["realtime.E003"]


def test_check_explains_a_routing_that_asgi_does_not_use(monkeypatch):
    assert check_routing(None) == []

    monkeypatch.delitem(sys.modules, "chat.routing")

    assert [warning.id for warning in check_routing(None)] == ["realtime.W002"]


@pytest.mark.parametrize(("folder", "found"), [("src", ["packaged.routing"]), ("site-packages", [])])
def test_check_explains_a_routing_that_is_a_package(monkeypatch, tmp_path, folder, found):
    """Of an app of the project; that of one that is installed is nobody's mistake."""
    package = tmp_path / folder / "packaged" / "routing"
    package.mkdir(parents=True)
    for path_of_module in (package, package.parent):
        (path_of_module / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / folder)
    # One of another folder may have been imported.
    monkeypatch.delitem(sys.modules, "packaged", raising=False)
    config = AppConfig.create("packaged")

    monkeypatch.setattr("realtime.checks.apps.get_app_configs", lambda: [config])

    assert [warning.msg.partition(" is not used")[0] for warning in check_routing(None)] == found


def test_no_routing_is_missed_where_a_middleware_hides_the_routes(monkeypatch):
    async def middleware(scope, receive, send):
        """Has its application in a closure."""

    monkeypatch.setattr("realtime.checks.get_default_application", lambda: Sockets(middleware))

    assert check_routing(None) == []


@pytest.mark.parametrize("kind", [list, tuple])
def test_check_explains_a_routing_that_only_a_view_imports(monkeypatch, kind):
    routing = sys.modules["chat.routing"]
    application = Sockets(URLRouter([path("ws/other/", Consumer.as_asgi())]))
    monkeypatch.setattr("realtime.checks.get_default_application", lambda: application)
    monkeypatch.setattr(routing, "websocket_urlpatterns", kind(routing.websocket_urlpatterns))
    assert [warning.id for warning in check_routing(None)] == ["realtime.W002"]

    application.application = AllowedOrigins(URLRouter([path("", URLRouter(routing.websocket_urlpatterns))]))
    assert check_routing(None) == []


ROUTE = path("ws/test/", Consumer.as_asgi())


@pytest.mark.parametrize(
    ("routes", "ids", "words"),
    [
        ([path("ws/test/", Consumer)], ["realtime.E009"], "Write Consumer.as_asgi()"),
        ([path("ws/test/", Consumer())], ["realtime.E009"], "Write Consumer.as_asgi()"),
        ([path("ws/test/", Consumer.as_asgi)], ["realtime.E009"], "Write Consumer.as_asgi()"),
        ([path("ws/test/", WebsocketConsumer)], ["realtime.E009"], "Write WebsocketConsumer.as_asgi()"),
        ([path("/ws/test/", Consumer.as_asgi())], ["realtime.W005"], "Remove it"),
        ([re_path("^/ws/test/$", Consumer.as_asgi())], ["realtime.W005"], "Remove it"),
        ([ROUTE, path("ws/test/", WebsocketConsumer.as_asgi())], ["realtime.W005"], "its own path"),
        ([unknown_path, ROUTE], ["realtime.W005"], "unknown_path last"),
        ([ROUTE, unknown_path], [], ""),
        ([path("a", URLRouter([path("/x/", Consumer.as_asgi())])), path("b/", URLRouter([ROUTE])), ROUTE], [], ""),
    ],
)
def test_check_explains_a_route_that_does_not_work(monkeypatch, routes, ids, words):
    application = Sockets(AllowedOrigins(URLRouter(routes)))
    monkeypatch.setattr("realtime.checks.get_default_application", lambda: application)

    found = check_routes(None)

    assert [message.id for message in found] == ids
    assert all("ws/test/" in message.msg and words in message.hint for message in found)


def test_an_import_that_fails_is_one_message(settings):
    settings.ASGI_APPLICATION = "nowhere.application"

    assert [*check_routes(None), *check_routing(None), *check_consumers(None)] == []


def synchronous(self, frame=None):
    """What overrides a method that is awaited."""


async def asynchronous(self, frame):
    """What overrides a method that is awaited, or is not."""


def decorated(method):
    """A decorator that is no coroutine function, and returns what one does."""

    @functools.wraps(method)
    def wrapper(*arguments):
        return method(*arguments)

    return wrapper


class Callable:
    """What overrides a method, and cannot be looked into."""

    async def __call__(self, frame=None):
        pass


class Mistaken(Frame):
    text: Annotated[str, Text] | None = None
    numbers: list[Annotated[int, msgspec.Meta]] = []
    name: Annotated[str, Text(max_length=9), "A word for people."] = ""


@pytest.mark.parametrize(
    ("overrides", "ids", "words"),
    [
        *(
            ({name: synchronous}, ["realtime.E006"], f"async def {name}")
            for name in ("connect", "receive_bytes", "pong", "disconnect")
        ),
        ({"receive_frame": synchronous, "receives": [Do]}, ["realtime.E006"], "async def receive_frame"),
        ({"connect": decorated(asynchronous)}, [], ""),
        ({"connect": Callable()}, [], ""),
        ({"deliver": asynchronous}, ["realtime.E006"], "`def deliver"),
        ({"receive_frame": asynchronous}, ["realtime.W004"], "`receives`"),
        ({"receives": [Do]}, ["realtime.W004"], "receive_frame"),
        ({"receives": [Do], "receive_frame": asynchronous}, [], ""),
        ({"receives": [Mistaken], "receive_frame": asynchronous}, ["realtime.E010"] * 2, "max_length"),
        ({"sends": Do}, ["realtime.E011"], "[Message]"),
        ({"sends": [Do, "Do"]}, ["realtime.E011"], "[Message]"),
        ({"sends": (Do,)}, [], ""),
        ({}, [], ""),
    ],
)
def test_check_explains_what_a_consumer_overrides(monkeypatch, overrides, ids, words):
    consumer = type("Mistaken", (RealtimeConsumer,), overrides)
    consumers = consumer, AsyncWebsocketConsumer
    application = Sockets(URLRouter([path("ws/test/", consumer.as_asgi()) for consumer in consumers]))
    monkeypatch.setattr("realtime.checks.get_default_application", lambda: application)

    found = check_consumers(None)

    assert [message.id for message in found] == ids
    assert all("Mistaken" in message.msg and words in message.hint for message in found)


@pytest.mark.parametrize("name", ["application", "inner", "app"])
def test_consumers_are_found_behind_a_middleware(monkeypatch, name):
    """By `manage.py check` and by `manage.py frames`, whatever it calls what is inside."""
    consumer = type("Mistaken", (RealtimeConsumer,), {"connect": synchronous})
    middleware = SimpleNamespace(**{name: URLRouter([path("ws/test/", consumer.as_asgi())])})
    application = Sockets(middleware)
    monkeypatch.setattr("realtime.checks.get_default_application", lambda: application)

    assert [message.id for message in check_consumers(None)] == ["realtime.E006"]
    assert list(find_routes(application)) == [("/ws/test/", consumer)]


@pytest.mark.parametrize(
    ("origin", "is_one"),
    [
        ("https://app.example.com", True),
        ("http://localhost:5173", True),
        ("http://[::1]:5173", True),
        ("capacitor://localhost", True),
        ("localhost:5173", False),
        ("app.example.com", False),
        ("https://app.example.com/", False),
        ("https://App.example.com", False),
        ("https://app.example.com:443", False),
        ("http://app.example.com:80", False),
        ("http://app.example.com:8080", True),
        ("https://app.example.com?a", False),
        ("https://*.example.com", False),
        ("*", False),
    ],
)
def test_check_explains_what_is_no_origin(settings, origin, is_one):
    settings.REALTIME_ALLOWED_ORIGINS = [origin]

    assert [error.id for error in check_allowed_origins(None)] == ([] if is_one else ["realtime.E007"])


def test_every_check_is_run_by_the_command():
    """That of the channel layer with --deploy: in memory is right for development."""
    ours = {value for name, value in vars(checks).items() if name.startswith("check_")}

    assert len(ours) > 9
    assert {check.__name__ for check in ours - registry.registered_checks} == {"check_channel_layer"}
    assert ours <= registry.registered_checks | registry.deployment_checks
    assert ours & registry.deployment_checks == {checks.check_channel_layer}


def test_check_of_routings_imports_asgi_itself():
    """Django runs checks in any order."""
    code = "import django; django.setup(); from realtime.checks import check_routing; assert check_routing(None) == []"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_check_refuses_any_host_with_debug_off(settings):
    settings.ALLOWED_HOSTS = ["*"]
    assert [error.id for error in check_allowed_hosts(None)] == ["realtime.E004"]

    settings.DEBUG = True
    assert check_allowed_hosts(None) == []


@pytest.mark.parametrize("debug", [False, True])
def test_check_refuses_what_no_request_has_as_its_host(settings, debug):
    settings.DEBUG = debug
    wrong = ["https://example.com", "example.com:8000", "example.com/", "*.example.com", "::1"]
    settings.ALLOWED_HOSTS = ["example.com", ".example.com", "192.0.2.7", "[::1]", *wrong]

    assert [error.msg.split('"')[1] for error in check_allowed_hosts(None)] == wrong


@pytest.mark.parametrize("name", ["realtime.tickets.nothing", "realtime.nowhere.nothing", "nothing", ""])
def test_check_explains_a_wrong_path_of_tokens(settings, name):
    assert check_token_user(None) == []

    settings.REALTIME_TOKEN_USER = name

    assert [error.id for error in check_token_user(None)] == ["realtime.E005"]


def user_of_token(token, scope):
    """A token's user, without `async`."""


class UserOfToken:
    async def __call__(self, token, scope):
        """As a class may be."""


asynchronous = UserOfToken()


def test_check_asks_for_an_asynchronous_function_of_tokens(settings):
    settings.REALTIME_TOKEN_USER = f"{__name__}.user_of_token"
    assert [error.msg for error in check_token_user(None)] == ["REALTIME_TOKEN_USER is not asynchronous."]

    settings.REALTIME_TOKEN_USER = f"{__name__}.asynchronous"
    assert check_token_user(None) == []


def test_check_explains_signed_cookies(settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

    assert [warning.id for warning in check_sessions(None)] == ["realtime.W003"]


def test_check_explains_the_in_memory_layer():
    assert [warning.id for warning in check_channel_layer(None)] == ["realtime.W001"]
    assert check_channel_layers(None) == []


@pytest.mark.parametrize("layers", [{}, {"other": {}}, None])
def test_check_asks_for_a_channel_layer(settings, layers):
    if layers is None:
        del settings.CHANNEL_LAYERS
    else:
        settings.CHANNEL_LAYERS = layers

    assert [error.id for error in check_channel_layers(None)] == ["realtime.E008"]
    assert check_channel_layer(None) == []


@pytest.mark.parametrize(("trusted", "address"), [(False, "10.0.0.1"), (True, "192.0.2.7")])
def test_client_address(settings, trusted, address):
    settings.REALTIME_TRUST_PROXY = trusted
    # A client may have sent a header of its own, which is another line.
    headers = [(b"x-forwarded-for", b"203.0.113.5"), (b"x-forwarded-for", b"203.0.113.5, 192.0.2.7")]

    assert client_address({"client": ("10.0.0.1", 1234), "headers": headers}) == address


async def test_handlers_without_queries_make_no_hop_to_a_thread(connect, monkeypatch, until):
    closed = []
    monkeypatch.setattr("realtime.database.close_old_connections", lambda: closed.append("closed"))
    monkeypatch.setattr("realtime.database.IDLE", 0.05)
    socket = await connect()

    await socket.send_json_to({"type": "do", "what": "broadcast"})
    await socket.receive_type("news")
    assert not closed

    await socket.send_json_to({"type": "do", "what": "count"})
    await socket.receive_type("count")
    await until(lambda: closed == ["closed"])


async def test_a_connection_is_closed_at_once_after_an_error(monkeypatch, transactional_db):
    """Which may be the connection's own: the next handler would meet it again."""
    closed = []
    monkeypatch.setattr("realtime.database.close_old_connections", lambda: closed.append("closed"))
    monkeypatch.setattr("realtime.database.IDLE", 60)

    await query(User.objects.count)
    assert closed == []

    with pytest.raises(OperationalError):
        await query(lambda: connection.cursor().execute("SELECT nothing"))
    assert closed == ["closed"]


async def test_a_use_of_the_database_ends_and_is_counted_once(transactional_db, monkeypatch):
    touched = []
    monkeypatch.setattr(IdleCloser, "touch", lambda closer: touched.append(closer))
    use = DatabaseUse().begin()

    await query(User.objects.count)
    assert (len(touched), use.used) == (1, False)
    # What a handler asks without query() is that of its own.
    await sync_to_async(User.objects.count)()
    assert use.used
    for _ in range(2):
        await use.settle()
        assert not use.used


@pytest.mark.parametrize(
    ("error", "code", "is_one"),
    [
        # SQLITE_BUSY, and two of SQLITE_ERROR and SQLITE_MISUSE, of which each has codes above 255.
        (OperationalError(), 5, True),
        (OperationalError(), 257, False),
        (OperationalError(), 21, False),
        # PostgreSQL's have no number; psycopg has both classes for a connection that is closed.
        (OperationalError(), None, True),
        (InterfaceError(), None, True),
        (ProgrammingError(), None, False),
    ],
)
def test_what_is_an_outage_and_what_a_mistake(error, code, is_one):
    error.__cause__ = Exception()
    if code is not None:
        error.__cause__.sqlite_errorcode = code

    assert is_outage(error) == is_one


def test_a_question_to_the_database_leaves_no_connection(monkeypatch):
    """Each thread that asks would keep one."""
    connection = mock.MagicMock()
    monkeypatch.setattr("realtime.outage.connection", connection)
    for outcome in (None, OperationalError()):
        connection.cursor.side_effect = outcome
        with contextlib.suppress(OperationalError):
            ask_database()

    assert connection.close.call_count == 2


async def test_an_error_without_words_is_named(caplog):
    process()[DatabaseOutage].begin(OperationalError())

    assert caplog.messages == ["The database does not answer: OperationalError()"]


async def test_a_connection_is_idle_a_while_after_the_last_use(monkeypatch, until):
    closed = []
    monkeypatch.setattr("realtime.database.close_old_connections", lambda: closed.append("closed"))
    monkeypatch.setattr("realtime.database.IDLE", 10)
    now = 1000.0
    monkeypatch.setattr("realtime.database.time", SimpleNamespace(monotonic=lambda: now))
    waits = []

    async def sleep(seconds):
        nonlocal now
        waits.append(seconds)
        if len(waits) == 1:
            now += 6
            closer.touch()
            now += 4
        else:
            now += seconds

    monkeypatch.setattr("realtime.database.asyncio.sleep", sleep)
    closer = IdleCloser()
    closer.touch()
    await closer._task

    assert (waits, closed) == ([10, 6], ["closed"])


def test_a_connection_that_is_made_anew_is_watched_once():
    """Its wrappers outlive it: one more for each time would make queries slower and slower."""
    for _ in range(3):
        watch(connection)

    assert connection.execute_wrappers.count(note_use) == 1
