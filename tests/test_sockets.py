"""The main job: real sockets to every combination of options on every server; test_chat.py has those of the chat."""

import contextlib
import json
import re
import sys

import httpx
import pytest
from clients import is_greeting, open_client
from combinations import MINIMAL
from servers import LOCAL_PRODUCTION, SERVERS, Server, collect_static, run, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

PATH = "WebSocket /ws/socket-server/"

BAD_FRAMES = {
    "not JSON": ("hello", "not_json"),
    "empty": ("", "not_json"),
    "binary": (b"\x00\xff", "not_text"),
    "empty binary": (b"", "not_text"),
    "a list": ("[]", "not_an_object"),
    "a number": ("1", "not_an_object"),
    "null": ("null", "not_an_object"),
    "no type": ("{}", "no_type"),
    "type is a list": ('{"type": ["x"]}', "no_type"),
    "type is null": ('{"type": null}', "no_type"),
    "unknown type": ('{"type": "receive_json"}', "unknown_type"),
    "private type": ('{"type": "__init__"}', "unknown_type"),
    "of the channel layer": ('{"type": "realtime.broadcast", "text": "x"}', "unknown_type"),
    "of ASGI": ('{"type": "websocket.disconnect", "code": 1000}', "unknown_type"),
    "no text": ('{"type": "message"}', "no_text"),
    "text is a number": ('{"type": "message", "text": 1}', "no_text"),
    "empty text": ('{"type": "message", "text": ""}', "text_empty"),
    "long text": (json.dumps({"type": "message", "text": "x" * 2001}), "text_too_long"),
    "nearly 64 KiB": (json.dumps({"type": "message", "text": "x" * 65_000}), "text_too_long"),
    "NUL": ('{"type": "message", "text": "\\u0000"}', "text_has_nul"),
    "lone surrogate": ('{"type": "message", "text": "\\ud800"}', "not_unicode"),
    "lone surrogate in a key": ('{"type": "message", "text": "x", "\\udfff": 1}', "not_unicode"),
    "NaN": ('{"type": "message", "text": "x", "n": NaN}', "not_json"),
    "Infinity": ('{"type": "message", "text": "x", "n": -Infinity}', "not_json"),
    "20,000 deep": ("[" * 20_000 + "]" * 20_000, "not_an_object"),
    "id is a number": ('{"type": "message", "text": "x", "id": 1}', "bad_id"),
    "long id": (json.dumps({"type": "message", "text": "x", "id": "x" * 101}), "bad_id"),
}
# What a frame of 64 KiB may hold is not too deep for Python 3.14 and newer.
if sys.version_info < (3, 14):
    DEEP = "[" * 20_000 + "]" * 20_000
    BAD_FRAMES |= {
        "12,000 deep objects": ('{"a":' * 12_000, "too_deep"),
        "20,000 deep in a field": ('{"type": "message", "text": ' + DEEP + "}", "too_deep"),
        "20,000 deep in no field": ('{"type": "message", "text": "x", "n": ' + DEEP + "}", "too_deep"),
    }


def parameters():
    for combination in MINIMAL:
        for kind in SERVERS:
            yield pytest.param((*combination.values, kind), id=f"{kind}-{combination.id}", marks=combination.marks)


@pytest.fixture(scope="module", params=parameters())
def server(request, bake):
    combination, kind = request.param
    project = bake(**combination)
    run(project, "manage.py", "migrate")
    if SERVERS[kind] is LOCAL_PRODUCTION:
        collect_static(project)
    with Server(project, kind, env=SERVERS[kind]) as server:
        yield server
        # Nothing that a client may do is worth a traceback; uvicorn alone writes one for bytes that are not UTF-8.
        of_uvicorn = 0 if kind == "production" else server.log.count("UnicodeDecodeError: ")
        assert server.log.count("Traceback") == of_uvicorn
        assert "Warning" not in server.log


def test_handshake(server):
    with connect(server.socket_url, origin=server.url.rstrip("/")) as connection:
        assert connection.response.status_code == 101
        greeting = json.loads(connection.recv(10))
        assert is_greeting(greeting)
        assert greeting["max_size"] == 65536
        assert 0 <= greeting["crowd"] < 1


def test_a_ping_is_answered_with_what_a_greeting_says(server):
    with open_client(server) as client:
        client.send({"type": "ping"})

        pong = client.receive()

        assert (pong["frames_per_second"], pong["frame_burst"]) == (20, 200)
        assert pong == {
            **{name: value for name, value in client.greeting.items() if name != "message"},
            "type": "pong",
            "crowd": pong["crowd"],
        }


def test_a_message_goes_there_and_back(server):
    with open_client(server) as first, open_client(server) as second:
        for sender, text in ((first, "Grüße, 世界 👋 <b>"), (second, "x" * 2000)):
            for frame in ({"type": "message", "text": text, "id": "an id"}, {"type": "message", "text": text}):
                sender.send(frame)
                for client in (first, second):
                    assert client.receive() == frame


def test_many_messages_keep_their_order(server):
    with open_client(server) as sender, open_client(server) as receiver:
        for number in range(50):
            sender.send({"type": "message", "text": str(number)})
        for client in (sender, receiver):
            assert [client.receive()["text"] for _ in range(50)] == [str(number) for number in range(50)]


@pytest.mark.parametrize(
    ("origin", "remedy"),
    [
        ("https://evil.example", "add https://evil.example to DJANGO_ALLOWED_ORIGINS."),
        ("http://127.0.0.1.evil.example", "add http://127.0.0.1.evil.example to DJANGO_ALLOWED_ORIGINS."),
        ("null", "serve the page from a host, or offer a token."),
        (None, "a client that is no page of a browser offers a token instead."),
    ],
)
def test_a_foreign_origin_is_refused(server, origin, remedy):
    with pytest.raises(InvalidStatus) as refusal, connect(server.socket_url, origin=origin):
        pass

    assert refusal.value.response.status_code == 403
    line = rf"Origin is {origin or 'missing'}, the Host is 127\.0\.0\.1:{server.port}\. .*{re.escape(remedy)}\n"
    wait_until(lambda: re.search(line, server.log), "a log line")


@pytest.mark.parametrize("path", ["ws/nowhere/", "ws/socket-server", "", "%f0%9f%a6%8a", "%0aforged%1b[31m"])
def test_an_unknown_path_is_closed_with_4404(server, path):
    with open_client(server, path=path, greeting=False) as client, pytest.raises(ConnectionClosed) as closed:
        client.receive()

    assert closed.value.rcvd.code == 4404
    wait_until(lambda: "no such path in routing.py" in server.log, "a log line")
    assert "\nforged" not in server.log
    assert "\x1b[31m" not in server.log


def test_a_path_with_nul(server):
    """In production it reaches no code of the project: PostgreSQL fails at it."""
    options = {"path": "%00", "greeting": False}
    if server.kind == "production":
        with pytest.raises(InvalidStatus) as refusal, open_client(server, **options):
            pass
        assert refusal.value.response.status_code == 400
    else:
        with open_client(server, **options) as client, pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd.code == 4404


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_bad_frame_is_answered(server, frame, code):
    with open_client(server) as client:
        client.send(frame)

        error = client.receive()

        assert (error["type"], error["code"]) == ("error", code)
        assert error["message"]
        client.ping()


@pytest.mark.parametrize("more", ['"n": ' + "9" * 5000, '"n": ' + "[" * 32 + "]" * 32, '"n": {"type": "ping"}'])
def test_what_no_field_asks_for_is_skipped(server, more):
    with open_client(server) as client:
        client.send('{"type": "message", "text": "x", ' + more + "}")

        assert client.receive() == {"type": "message", "text": "x"}


def test_an_error_names_the_refused_message(server):
    with open_client(server) as client:
        client.send({"type": "message", "text": "", "id": "7"})

        assert client.receive()["id"] == "7"


def test_bytes_that_are_not_utf_8_close_the_socket(server):
    with open_client(server) as client:
        client.connection.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()

    # daphne drops the connection, which is 1006 in a browser.
    code = closed.value.rcvd and closed.value.rcvd.code
    assert code == (1007 if server.kind in ("uvicorn", "production") else None)


def test_a_frame_over_64_kib_is_refused(server):
    """By production before it is read as a whole; the other servers' own limits are 1 MiB and more."""
    with open_client(server) as client:
        client.send('"' + "x" * (2**16 - 2) + '"')
        assert client.receive()["code"] == "not_an_object"

        with contextlib.suppress(ConnectionClosed):
            client.send('"' + "x" * 2**16 + '"')
        if server.kind == "production":
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd.code == 1009
        else:
            assert client.receive()["code"] == "too_large"
            client.ping()


def test_opening_and_closing_are_logged(server):
    with open_client(server):
        wait_until(lambda: f"{PATH} of 127.0.0.1 opened" in server.log, "a log line")
    wait_until(lambda: f"{PATH} of 127.0.0.1 closed with 1000 after 0." in server.log, "a log line")


def test_a_vanished_client_leaves_its_groups(server):
    """A connection that breaks off: the others go on, and nothing is left in the log (see the fixture)."""
    with open_client(server) as other:
        with contextlib.suppress(ConnectionClosed), open_client(server) as client:
            client.connection.socket.close()
        for _ in range(3):
            other.send({"type": "message", "text": "still here"})
            assert other.receive()["text"] == "still here"


def test_page_and_script(server):
    with httpx.Client(base_url=server.url) as browser:
        page = browser.get("/")
        assert page.status_code == 200
        assert "/ws/socket-server/" in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]

        path = page.text.partition('type="module" src="')[2].partition('"')[0]
        script = browser.get(path)
        assert script.status_code == 200
        assert "javascript" in script.headers["Content-Type"]


def test_admin_and_health(server):
    with httpx.Client(base_url=server.url, follow_redirects=True) as browser:
        assert "Log in" in browser.get("/admin/").text
        health = browser.get("/healthz")
        assert (health.status_code, health.json()) == (200, {"database": "ok", "channel_layer": "ok"})
