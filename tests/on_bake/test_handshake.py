"""The tables of `manage.py handshake`, which knows nothing of realtime, say what realtime says."""

import asyncio
import importlib
import json
import sys
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from unittest import mock

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings as project_settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.urls import path, re_path
from websockets import frames
from websockets.exceptions import ConnectionClosedError

from realtime import Close
from realtime.asgi import AllowedOrigins, Authentication, Sockets, remedy_for, unknown_path
from realtime.checks import check_asgi_application, check_daphne, check_routing
from realtime.management.commands import handshake
from realtime.management.commands.handshake import ELSEWHERE, TEXTS, Command, Failed, find_routes, shown

CONSUMER = AsyncWebsocketConsumer.as_asgi()


def asked(**options):
    """Return a Command that has read its options."""
    command = Command()
    command.import_application, command.asgi, command.uri = lambda: "", project_settings.ASGI_APPLICATION, None
    command.given = dict.fromkeys(("user", "token", "origin", "timeout", "idle", "json")) | {"url": ""} | options
    command.options()
    return command


def texts(key, *values):
    """Return what is wrong and the remedy, two strs."""
    return [text.format(*values) for text in TEXTS[key].split(" | ")]


def test_every_close_code_is_explained_as_in_the_readme():
    readme = (project_settings.BASE_DIR / "README.md").read_text(encoding="utf-8")
    for code in Close:
        what, remedy = texts(str(int(code)), "closed")
        assert what.startswith("closed: ")
        assert remedy
        if code >= 4000:
            assert what.removeprefix("closed: ") in readme, code


@pytest.mark.parametrize(("key", "apps"), [("daphne missing", ["realtime"]), ("daphne moved", ["realtime", "daphne"])])
def test_daphne_is_explained_as_in_the_check(settings, key, apps):
    settings.DEBUG, settings.INSTALLED_APPS = True, apps
    (error,) = check_daphne(None)

    assert [error.msg.removesuffix("."), error.hint] == texts(key)


def test_asgi_application_is_explained_as_in_the_check(settings):
    for name, key in (("asgi.django_asgi_app", "HTTP only"), ("nowhere.application", "application")):
        settings.ASGI_APPLICATION = f"{settings.ROOT_URLCONF.partition('.')[0]}.{name}"
        (error,) = check_asgi_application(None)
        what, hint = texts(key, settings.ASGI_APPLICATION, "")

        assert error.msg.startswith(what.removesuffix(": "))
        assert error.hint == hint


def test_an_unused_routing_is_explained_as_in_the_check(monkeypatch, settings):
    monkeypatch.setattr("realtime.checks.default_routes", lambda: [path("other/", CONSUMER)])
    (warning,) = check_routing(None)
    what, hint = texts("routing", "chat", settings.ASGI_APPLICATION)

    assert warning.msg.partition(":")[0] == what.partition(":")[0]
    assert warning.hint == hint


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://other.example/", ""),
        ("http://other.example:8000/", "https://app.example.com"),
        ("https://example.com/", "https://app.example.com"),
        ("https://example.com/", "https://example.com:8443"),
        ("https://example.com/", "null"),
        ("https://example.com/", ""),
        ("https://example.com:8443/", ""),
    ],
)
def test_an_origin_is_explained_as_in_the_log(settings, url, origin):
    """Of a server behind a proxy that ends TLS."""
    settings.DEBUG, settings.ALLOWED_HOSTS, settings.SECURE_PROXY_SSL_HEADER = False, ["example.com"], None
    command = asked(url=url, origin=origin or None)
    host = command.own_origin.partition("://")[2].encode()
    headers = [(b"host", host), (b"origin", command.origin.encode())]

    key, *names = command.why_origin()

    assert texts(key, "", *names)[-1] == remedy_for({"scheme": "ws", "headers": headers})


def test_what_is_called_otherwise_elsewhere_is_named():
    for ours in ELSEWHERE:
        assert any(ours in text for text in TEXTS.values()), ours


def test_routes_are_found_in_whatever_is_around_them():
    nested = [
        path("<int:room>/", CONSUMER),
        re_path(r"^by-name/(?P<name>[a-z]+(?:-[a-z]+)*)/$", CONSUMER),
        re_path(r"^by-number/(?P<pk>\d+)/$", CONSUMER),
        unknown_path,
    ]
    router = URLRouter([path("ws/", URLRouter(nested)), path("other/", CONSUMER), unknown_path])
    application = ProtocolTypeRouter({"http": None, "websocket": Sockets(AllowedOrigins(Authentication(router)))})
    channels = ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(router)})

    for each in (application, channels):
        found = list(find_routes(each))
        paths = [path for path, _, is_socket, _ in found if is_socket]
        assert paths == ["/ws/<int:room>/", "/ws/by-name/<name>/", "/ws/by-number/<int:pk>/", "/other/"]
        assert not any(is_hidden for *_, is_hidden in found)
    assert list(find_routes(None)) == list(find_routes(lambda scope, receive, send: None)) == []


def regular(route):
    return re_path(route, CONSUMER)


# By the key of its remedy: a router with a mistake, and the path that is named.
MISTAKES = {
    "class": ([path("ws/", AsyncWebsocketConsumer)], "/ws/"),
    "class without a call": ([path("ws/", AsyncWebsocketConsumer.as_asgi)], "/ws/"),
    "slash": ([regular("^/ws/$")], "//ws/"),
    "regular": ([path(r"^ws/(?P<room>\w+)/$", CONSUMER)], "/ws/<room>/"),
    "converter": ([regular("^ws/<str:room>/$")], "/ws/<str:room>/"),
    "hidden by one without $": ([regular("^ws/"), regular(r"^ws/(?P<room>\w+)/$")], "/ws/<room>/"),
    "hidden by unknown_path": ([unknown_path, path("ws/", CONSUMER)], "/ws/"),
    "hidden by its like": ([path("<slug:a>/", CONSUMER), path("<str:b>/", CONSUMER)], "/<str:b>/"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_route_is_explained(name):
    routes, where = MISTAKES[name]
    command = asked()
    command.found = list(find_routes(URLRouter(routes)))
    with pytest.raises(Failed) as failed:
        command.routes()

    key, shown_path, *_ = failed.value.args
    assert (key, shown_path) == (name.partition(" ")[0], where)
    assert "In its routing.py" in texts(key, "", "")[1] or "In routing.py" in texts(key, "", "")[1]


def test_no_mistake_is_seen_in_good_routes():
    # A nested router that has no route for a path passes it on.
    nested = path("ws/", URLRouter([path("a/", CONSUMER)]))
    routes = [path("ws/lobby/", CONSUMER), path("ws/<int:pk>/", CONSUMER), path("ws/<slug:room>/", CONSUMER)]
    command = asked()
    command.found = list(find_routes(URLRouter([nested, *routes, regular(r"(?<!x)other/(?P<y>\d+)$")])))
    command.reason = "not asked for routing.py here"

    assert command.routes()


@pytest.mark.parametrize("inside", [[path("ws/", CONSUMER)], None], ids=["a list", "None"])
def test_what_is_no_application_is_explained(monkeypatch, inside):
    """URLRouter is forgotten."""
    application = ProtocolTypeRouter({"http": None, "websocket": inside})
    monkeypatch.setattr(handshake, "get_default_application", lambda: application)
    with pytest.raises(Failed) as failed:
        asked().asgi_application()

    assert failed.value.args == ("no router", project_settings.ASGI_APPLICATION, type(inside).__name__)


def test_what_cannot_be_looked_into_is_no_mistake(monkeypatch):
    """A middleware around all of it."""
    monkeypatch.setattr(handshake, "get_default_application", lambda: lambda scope, receive, send: None)

    assert asked().asgi_application()


@pytest.mark.parametrize(
    ("url", "routes", "asked_for"),
    [
        ("", ["ws/<int:pk>/", "ws/<slug:room>/"], "ws://127.0.0.1:8000/ws/1/"),
        ("", ["ws/<slug:room>/"], "ws://127.0.0.1:8000/ws/lobby/"),
        ("", ["ws/<slug:room>/", "ws/plain/"], "ws://127.0.0.1:8000/ws/plain/"),
        ("", [], "ws://127.0.0.1:8000/"),
        ("/ws/other/?a=b", ["ws/plain/"], "ws://127.0.0.1:8000/ws/other/?a=b"),
        ("?a=b", ["ws/plain/"], "ws://127.0.0.1:8000/ws/plain/?a=b"),
        ("example.com:81", ["ws/plain/"], "ws://example.com:81/ws/plain/"),
        ("HTTPS://example.com/#top", ["ws/plain/"], "wss://example.com/ws/plain/"),
    ],
)
def test_what_is_asked(monkeypatch, url, routes, asked_for):
    """Of a project's sockets one that needs no name or number, if there is one."""
    application = ProtocolTypeRouter({"websocket": URLRouter([path(route, CONSUMER) for route in routes])})
    monkeypatch.setattr(handshake, "get_default_application", lambda: application)

    assert asked(url=url).url == asked_for


def test_an_unused_routing_is_seen_where_nothing_is_routed(monkeypatch):
    monkeypatch.setattr(handshake, "get_default_application", lambda: ProtocolTypeRouter({"websocket": URLRouter([])}))
    monkeypatch.delitem(sys.modules, "chat.routing", raising=False)
    with pytest.raises(Failed) as failed:
        asked().routes()

    assert failed.value.args[:2] == ("routing", "chat")


def test_a_routing_that_only_a_view_imports_is_seen(monkeypatch):
    """Where nothing is found, it may be behind a middleware that cannot be looked into."""
    importlib.import_module("chat.routing")
    for inside, is_seen in ((URLRouter([path("ws/", CONSUMER)]), True), (lambda scope, receive, send: None, False)):
        application = ProtocolTypeRouter({"websocket": inside})
        monkeypatch.setattr(handshake, "get_default_application", lambda application=application: application)
        with pytest.raises(Failed, match="routing") if is_seen else nullcontext():
            assert asked().routes() == "none is found. Give the URL of a socket"


@pytest.mark.parametrize(("folder", "is_seen"), [("src", True), ("site-packages", False)])
def test_a_routing_of_an_installed_app_is_nobodys_mistake(monkeypatch, tmp_path, folder, is_seen):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "routing.py").touch()
    config = mock.Mock(path=str(tmp_path / folder))
    config.name = "another"
    monkeypatch.setattr(handshake.apps, "get_app_configs", lambda: [config])
    with pytest.raises(Failed, match="routing") if is_seen else nullcontext():
        asked().routes()


def test_runserver_is_no_matter_with_debug_off(settings):
    assert asked().installed_apps() == "DEBUG is off, and runserver is not used"


@pytest.mark.parametrize(("status", "speaks"), [(403, True), (500, True), (404, False), (200, False)])
def test_a_server_that_refuses_the_socket_speaks_websocket(monkeypatch, status, speaks):
    """As uvicorn and daphne answer where the consumer, or nobody, takes it."""
    monkeypatch.setattr(Command, "open", lambda self, url: mock.Mock(status_code=status))

    assert asked().is_answered() is speaks


@pytest.mark.parametrize(("other", "key"), [(403, "origin"), (404, "consumer"), (None, "consumer")])
def test_a_refusal_by_the_consumer_is_told_from_one_of_the_origin(monkeypatch, other, key):
    """Which is asked before the path."""
    here = mock.Mock(status_code=403, body=b"", headers=mock.Mock(get_all=lambda name: []))
    there = other and mock.Mock(status_code=other)
    monkeypatch.setattr(Command, "open", lambda self, url: there if url.endswith("/no-such-socket") else here)
    monkeypatch.setattr(Command, "why_origin", lambda self: ["origin", "https://app.example.com"])
    with pytest.raises(Failed) as failed:
        asked().http()

    assert failed.value.args[0] == key


def test_no_pings_are_sent_that_a_browser_would_not_send(monkeypatch):
    """They would keep a proxy from its time-out, which --idle looks for."""
    asked_for = {}

    @contextmanager
    def connect(url, *, ping_interval=20, **options):
        asked_for.update(options, ping_interval=ping_interval)
        yield

    monkeypatch.setattr(Command, "dial", lambda self: mock.Mock())
    monkeypatch.setattr(handshake.websockets.sync.client, "connect", connect)
    command = asked()
    with ExitStack() as command.stack:
        assert command.open(command.url) is None

    assert asked_for["ping_interval"] is None
    # As its help says.
    assert asked_for["open_timeout"] == command.timeout == 10


def test_a_word_of_the_server_is_shown_and_not_its_speech():
    long = "x" * 5000
    for frame in (long, long.encode(), json.dumps({"type": long})):
        assert len(handshake.type_of(frame)) == 60


def test_an_application_that_ends_the_process_is_explained(monkeypatch, settings, tmp_path):
    (tmp_path / "ending.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "ending.application"

    assert Command().import_application() == "it ends the process"


def test_an_application_that_hangs_is_explained(monkeypatch, settings, tmp_path):
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ASGI_APPLICATION = "hanging.application"
    command = Command()
    command.import_seconds = 0.5

    assert command.import_application() == "it takes longer than 0.5 s"


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://127.0.0.1/"],
        ["http://127.0.0.1:99999/"],
        ["http://not a host/"],
        ["http://bücher.example/"],
        ["::1"],
        ["--token", "two\nlines"],
        ["--token", ""],
        ["--user", ""],
        ["--origin", "app.example.com"],
        ["--origin", "https://app.example.com/"],
        ["--timeout", "soon"],
        ["--timeout", "nan"],
        ["--timeout", "0"],
        ["--idle", "-1"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked(monkeypatch, capsys, arguments):
    monkeypatch.setattr(Command, "import_application", lambda self: "")
    with pytest.raises(SystemExit) as end:
        call_command("handshake", *arguments, "--json")

    assert end.value.code == 2
    (line,) = json.loads(capsys.readouterr().out)["steps"]
    assert (line["step"], line["ok"]) == ("options", False)
    assert "URLs are such as" in line["remedy"]


@pytest.mark.parametrize("url", ["http://ann:hush@127.0.0.1:99999/?token=hush", "http://hush@127.0.0.1/?hush"])
def test_a_password_in_a_url_is_not_shown(monkeypatch, capsys, url):
    monkeypatch.setattr(Command, "import_application", lambda self: "")
    with pytest.raises(SystemExit):
        call_command("handshake", url)

    assert "hush" not in capsys.readouterr().out


@pytest.mark.django_db
def test_a_user_who_would_be_anonymous_is_explained():
    ann = get_user_model().objects.create_user("ann")
    command = asked()
    with ExitStack() as command.stack:
        assert command.log_in("ann") == "as ann"
    ann.is_active = False
    ann.save()
    with ExitStack() as command.stack, pytest.raises(Failed) as failed:
        command.log_in("ann")

    assert failed.value.args == ("anonymous", ann)


def test_an_interrupt_is_no_traceback(monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Command, "import_application", interrupt)
    with pytest.raises(CommandError) as end:
        call_command("handshake")

    assert end.value.returncode == 130


@pytest.mark.parametrize("is_ours", [True, False])
def test_no_channel_layer_is_no_mistake_elsewhere(monkeypatch, settings, is_ours):
    """Of a project without realtime, whose consumers may need none."""
    monkeypatch.setattr(handshake, "get_channel_layer", lambda: None)
    monkeypatch.setattr(handshake.apps, "is_installed", lambda name: is_ours)
    settings.CHANNEL_LAYERS = {}
    with pytest.raises(Failed) if is_ours else nullcontext():
        assert asked().channel_layer() == "none: consumers cannot reach each other"


class Shards:
    """A channel layer of two Redis, of which receive() asks one."""

    ring_size = 2

    def __init__(self):
        self.asked = []

    def connection(self, index):
        self.asked.append(index)
        return mock.AsyncMock()


def test_each_redis_is_asked():
    """And no message sent, which another one than the one that is asked for it may get."""
    layer = Shards()
    asyncio.run(handshake.round_trip(layer))

    assert layer.asked == [0, 1]


def test_each_database_is_asked(monkeypatch, db):
    other = mock.Mock()
    other.ensure_connection.side_effect = OperationalError
    monkeypatch.setattr(handshake.connections, "all", lambda: [connections["default"], other])
    with pytest.raises(OperationalError):
        handshake.unapplied()


def test_a_channel_layer_without_a_default_is_explained(monkeypatch):
    monkeypatch.setattr(handshake, "get_channel_layer", lambda: None)
    with pytest.raises(Failed) as failed:
        asked().channel_layer()

    assert failed.value.args == ("no layer",)


def test_a_validator_of_channels_is_explained_by_the_hosts(settings, monkeypatch):
    """In a project with realtime, too."""
    application = ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(URLRouter([path("ws/", CONSUMER)]))})
    monkeypatch.setattr(handshake, "get_default_application", lambda: application)
    settings.DEBUG, settings.ALLOWED_HOSTS = False, []

    assert asked(origin="https://evil.example").why_origin() == ["host", "evil.example"]
    assert asked(origin="null").why_origin() == ["null"]
    assert asked().why_origin() == ["host", "127.0.0.1"]


@pytest.mark.parametrize(("code", "key"), [(4000, "4000"), (4001, "code"), (4429, "4429"), (1011, "1011")])
def test_codes_of_other_projects_are_their_own(monkeypatch, capsys, code, key):
    """What realtime means by 4000 and 4429 is said of its own sockets only."""
    error = ConnectionClosedError(frames.Close(code, ""), None)
    for is_ours in (True, False):
        monkeypatch.setattr(handshake.apps, "is_installed", lambda name, is_ours=is_ours: is_ours)
        command = asked()
        command.lines, command.ping = [], mock.Mock(side_effect=error)
        assert not command.step("ping")
        is_own = key == "code" or (code >= 4000 and not is_ours)
        assert ("consumer's own" in command.lines[0]["remedy"]) == is_own


def test_what_servers_send_is_shown_on_one_line():
    assert shown("a\x1b[2J\r\n\x9b\u202eb\ud800 ✓") == r"a\x1b[2J \x9b\u202eb\ud800 ✓"
    assert len(shown("x" * 5000)) == 600


def test_it_can_be_called_from_code(db, capsys):
    with pytest.raises(SystemExit) as end:
        call_command("handshake", "127.0.0.1:1", timeout=2)

    assert end.value.code == 1
    assert "✗ TCP: ConnectionRefusedError" in capsys.readouterr().out


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_leaves_no_connection_to_a_database_open(db, fails):
    """Nobody else closes those of its thread."""
    used = []

    def look():
        used.extend(connections.all())
        for connection in used:
            connection.ensure_connection()
        if fails:
            raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        asked().within(look)

    assert [connection.connection for connection in used] == [None]
