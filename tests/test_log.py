"""Nothing that a client sends is logged raw: each call that logs is read, and a real server's log is searched."""

import ast
import base64
import contextlib
import re
import shutil
import socket

import httpx
import pytest
from clients import log_in_all, open_client
from servers import LOCAL_PRODUCTION, Server, collect_static, run, wait_until
from websockets.exceptions import WebSocketException

METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

# What is logged without shown(), by file, and why it cannot be a client's text. Numbers and %r need no entry.
OURS = {
    "realtime/activity.py": {"counts": "names and numbers of Activity"},
    "realtime/broadcasts.py": {"message['group']": "the layer takes a few characters of ASCII only"},
    "realtime/fanout.py": {
        "name": "the layer takes a few characters of ASCII only",
        "message['group']": "of a group that this process has joined, by such a name",
    },
    "realtime/outage.py": {
        "self._lost": "a constant of ours",
        "self._back": "a constant of ours",
        "text": "what the driver of a service says, on one line",
    },
    "realtime/asgi.py": {"remedy": "a sentence of remedy_for(), whose parts are read below"},
    "realtime/socket.py": {
        "self.path": "shown() in Socket.__init__()",
        "self.address": "shown() in client_address(), or of the kernel",
        "self.code": "a number",
        "text": "of the callers of Socket.log(), which are read here",
        "arguments": "of the callers of Socket.log(), which are read here",
    },
    "realtime/consumers.py": {"self._limit.rate": "a number"},
}
# Functions that make sentences for the log.
SENTENCES = {"remedy_for"}


def strings(format):
    """Return the conversions of a format string for the log, such as ["%s", "%.1f"]."""
    return re.findall(r"%[-+ #0-9.]*([a-zA-Z])", format)


def raw_arguments(call):
    """Yield what a call of the log gives it as text, as source, unless it is a constant or passes through shown()."""
    positional = call.args[1:] if call.func.attr == "log" else call.args
    format, *arguments = positional
    if isinstance(format, ast.JoinedStr):
        yield from parts(format)
        conversions = strings("".join(part.value for part in format.values if isinstance(part, ast.Constant)))
    else:
        assert isinstance(format, ast.Constant), f"the text is no constant: {ast.unparse(call)}"
        conversions = strings(format.value)
    for number, argument in enumerate(arguments):
        # What follows a *argument cannot be told apart.
        conversion = conversions[number] if number < len(conversions) else "s"
        if conversion == "s" and not is_shown(argument):
            yield ast.unparse(argument.value if isinstance(argument, ast.Starred) else argument)


def parts(string):
    """Yield the parts of an f-string that are neither constants nor pass through shown(), as source."""
    for part in string.values:
        if isinstance(part, ast.FormattedValue) and part.conversion != ord("r") and not is_shown(part.value):
            yield ast.unparse(part.value)


def is_shown(node):
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "shown"
    )


def assigned_by_shown(function):
    """Return the names that a function assigns from `(shown(…) for …)`."""
    return {
        name.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.GeneratorExp) and is_shown(node.value.elt)
        for target in node.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }


def logged(source):
    """Return the set of what the Python `source` logs raw, as source."""
    found = set()
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in [tree, *functions]:
        inner = {id(node) for each in functions if each is not scope for node in ast.walk(each)}
        for node in ast.walk(scope):
            if id(node) in inner and scope is tree:
                continue
            if is_log_call(node):
                found.update(set(raw_arguments(node)) - assigned_by_shown(scope))
        if getattr(scope, "name", None) in SENTENCES:
            for node in ast.walk(scope):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):
                    found.update(parts(node.value))
                elif isinstance(node, ast.Return):
                    assert isinstance(node.value, ast.Constant), ast.unparse(node)
    return found


def is_log_call(node):
    """Tell whether `node` is `logger.error(…)`, `logging.error(…)`, `socket.log(…)` and the like."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
        return False
    name = ast.unparse(node.func.value)
    return name in ("logger", "logging") or (node.func.attr == "log" and name.endswith(("self", "socket")))


@pytest.mark.parametrize("starter", ["minimal", "chat"])
def test_each_call_that_logs_shows_what_clients_send(bake, starter):
    project = bake(starter=starter)
    found = {}
    for path in project.rglob("*.py"):
        if "tests" not in path.name and "tests" not in path.parts:
            found[path.relative_to(project).as_posix()] = logged(path.read_text(encoding="utf-8"))

    assert sum(map(len, found.values())) > 10
    # No entry stays that nothing needs.
    assert {name: raw for name, raw in found.items() if raw} == {name: {*entry} for name, entry in OURS.items()}


@pytest.mark.parametrize(
    ("line", "raw"),
    [
        ('logger.error("%s", scope["path"])', {"scope['path']"}),
        ('logger.error("%d of %s", 1, frame.text)', {"frame.text"}),
        ('socket.log(logging.INFO, "from %s", origin)', {"origin"}),
        ('self.socket.log(logging.INFO, f"from {origin}")', {"origin"}),
        ('logger.exception(f"{one} and {shown(two)}")', {"one"}),
        ('logger.info("%s", *names)', {"names"}),
        ('logger.info("%s", shown(origin))', set()),
        ('logger.info("%r, %d", origin, count)', set()),
        ('logger.info(f"{origin!r}")', set()),
        ('def f():\n    a, b = (shown(c) for c in d)\n    logger.info("%s", a)', set()),
        ('def f():\n    a, b = (g(c) for c in d)\n    logger.info("%s", a)', {"a"}),
        ('def remedy_for(a):\n    return f"Add {a}"', {"a"}),
        ('def remedy_for(a):\n    return f"Add {shown(a)}"', set()),
    ],
)
def test_the_reader_of_calls_finds_what_is_raw(line, raw):
    assert logged(line) == raw


# A real server

# A line of the log that is forged, a colour, a line separator, the end of a string of C, a next line of 8 bits.
FORGED = "\n2026-01-01 00:00:00,000 ERROR forged: line"
SIGNS = {"newline": FORGED, "return": "\r" + FORGED[1:], "escape": "\x1b[31m", "separator": "\u2028", "nul": "\0"}
SIGNS["next line"] = "\x85"
ALL = "marker" + "".join(SIGNS.values())


def quoted(text):
    return "".join(f"%{byte:02x}" for byte in text.encode())


def exchange(server, head):
    """Send a request, and read the head of the answer, if there is one."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(2)
        answer = b""
        with contextlib.suppress(OSError):
            client.sendall(head.encode() + b"\r\n\r\n")
            while b"\r\n\r\n" not in answer and (data := client.recv(2**16)):
                answer += data


def handshake(server, path="/ws/socket-server/", *headers, origin=None, host=None):
    host = host or f"127.0.0.1:{server.port}"
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"Origin: {origin or server.url.rstrip('/')}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    )
    exchange(server, "\r\n".join(lines))


def send_frames(server, *frames, **options):
    """Send each of `frames` on a socket of its own, and read what comes."""
    for frame in frames:
        with contextlib.suppress(WebSocketException), open_client(server, greeting=False, **options) as client:
            client.send(frame)
            client.send({"type": "ping"})
            while client.receive()["type"] != "pong":
                pass


def frames_with(sign):
    """Yield frames that have `sign` in each of the places where a name or a text may be."""
    escaped = "".join(f"\\u{ord(c):04x}" for c in sign)
    for text in (escaped, sign):
        yield f'{{"type": "{text}"}}'
        yield f'{{"type": "message", "text": "{text}", "id": "{text}"}}'
        yield f'{{"type": "message", "text": "x", "{text}": 1}}'
        yield f'{{"type": "resume", "after": "{text}"}}'
    yield sign
    yield sign.encode()
    yield b"\x1b\xff"


def post(browser, path, **form):
    page = browser.get(path, follow_redirects=True)
    token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', page.text)
    return browser.post(path, data=form | {"csrfmiddlewaretoken": token[1] if token else ""})


def provoke(server, project, starter, env):
    """Send signs wherever a client can send text."""
    # With NUL the production server refuses all of it, so that the others need to come without.
    for signs in (ALL, ALL.replace("\0", "")):
        encoded = quoted(signs)
        for path in (encoded, f"ws/{encoded}/", f"ws/socket-server/{encoded}/", f"?after={encoded}", signs):
            handshake(server, f"/{path}")
            exchange(server, f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close")
    for sign in SIGNS.values():
        name = f"marker{sign}"
        token = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
        handshake(server, origin=f"http://{name}.example")
        handshake(server, host=f"{name}.example")
        handshake(server, "/ws/socket-server/", f"Cookie: sessionid={name}; csrftoken={name}")
        handshake(server, "/ws/socket-server/", f"Authorization: Bearer {name}")
        handshake(server, "/ws/socket-server/", f"Sec-WebSocket-Protocol: realtime, bearer64.{token}")
        handshake(server, "/ws/socket-server/", f"Sec-WebSocket-Protocol: {name}")
        handshake(server, "/ws/nowhere/", f"X-Forwarded-For: {name}, {name}")
        exchange(server, f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close")
        exchange(server, f"{name} / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close")
        exchange(server, f"POST /realtime/ticket/ HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {name}\r\nConnection: close")
        with httpx.Client(base_url=server.url) as browser:
            post(browser, "admin/login/", username=name, password=name, next=name)
    cookies = log_in_all(project, ["ann"], env)
    send_frames(server, *(frame for sign in SIGNS.values() for frame in frames_with(sign)))
    if starter == "chat":
        options = {"path": "ws/socket-server/lobby/", "additional_headers": {"Cookie": cookies["ann"]}}
        send_frames(server, *frames_with(ALL), **options)
        with httpx.Client(base_url=server.url, headers={"Cookie": cookies["ann"]}) as browser:
            for sign in SIGNS.values():
                post(browser, "/", name=f"marker{sign}", slug=f"marker{sign}")
                browser.get(f"/?q={quoted(sign)}")
        with httpx.Client(base_url=server.url) as browser:
            for sign in SIGNS.values():
                name = f"marker{sign}"
                post(browser, "accounts/signup/", username=name, password1=name, password2=name)
                post(browser, "accounts/login/", username=name, password=name)
                browser.cookies.clear()


@pytest.mark.parametrize(
    ("starter", "kind", "env"),
    [
        pytest.param("minimal", "production", {"DJANGO_TRUST_PROXY": "true"}, marks=pytest.mark.long),
        ("minimal", "daphne", {}),
        ("chat", "production", {}),
        pytest.param("chat", "runserver", None, marks=pytest.mark.long),
    ],
)
def test_no_sign_of_a_client_reaches_the_log(bake, tmp_path, starter, kind, env):
    project = shutil.copytree(bake(starter=starter), tmp_path / "project")
    env = {"DJANGO_DEBUG": "true"} if env is None else LOCAL_PRODUCTION | env
    run(project, "manage.py", "migrate", env=env)
    collect_static(project, env)
    with Server(project, kind, env=env) as server:
        provoke(server, project, starter, env)
        with open_client(server, path="ws/last/", greeting=False) as client, contextlib.suppress(WebSocketException):
            client.receive()
        wait_until(lambda: "/ws/last/" in server.log, "all is logged")
        log = server.log

    lines = log.splitlines(keepends=True)
    # str.splitlines() splits at whatever a terminal or a reader of logs may take for the end of a line.
    assert [line for line in lines if not line.endswith("\n") or line.endswith("\r\n")] == []
    assert [line for line in lines if not line.rstrip("\n").isprintable()] == []
    assert [line for line in lines if line.startswith("2026-01-01 00:00:00")] == []
    # What was sent is there, escaped.
    assert log.count("marker") > 5
    assert "\\n2026-01-01" in log
