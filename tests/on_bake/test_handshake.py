"""The tables of `manage.py handshake`, which knows nothing of realtime, say what realtime says."""

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings as project_settings
from django.core.management import call_command
from django.urls import path, re_path

from realtime import Close
from realtime.asgi import AllowedOrigins, Authentication, Sockets, remedy_for, unknown_path
from realtime.checks import check_asgi_application, check_daphne, check_routing
from realtime.management.commands.handshake import ELSEWHERE, TEXTS, Command, find_routes, shown

CONSUMER = AsyncWebsocketConsumer.as_asgi()


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
    command = Command()
    command.read_options(url=url, user="", token="", origin=origin, timeout="", idle="")
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
        paths = [path for path, _, is_socket in find_routes(each) if is_socket]
        assert paths == ["/ws/<int:room>/", "/ws/by-name/<name>/", "/ws/by-number/<int:pk>/", "/other/"]
    assert list(find_routes(None)) == list(find_routes(lambda scope, receive, send: None)) == []


def test_what_servers_send_is_shown_on_one_line():
    assert shown("a\x1b[2J\r\n\x9b\u202eb\ud800 ✓") == r"a\x1b[2J \x9b\u202eb\ud800 ✓"
    assert len(shown("x" * 5000)) == 600


def test_it_can_be_called_from_code(db, capsys):
    with pytest.raises(SystemExit) as end:
        call_command("handshake", "127.0.0.1:1", timeout=2)

    assert end.value.code == 1
    assert "✗ TCP: ConnectionRefusedError" in capsys.readouterr().out
