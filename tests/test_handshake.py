"""`manage.py handshake`, the doctor: each of its ✗ on a project or a server that is broken in just that way."""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import warnings
from contextlib import ExitStack, suppress
from functools import partial
from types import SimpleNamespace

import pytest
from servers import (
    LOCAL_PRODUCTION,
    PROBES,
    Server,
    append_settings,
    collect_static,
    free_port,
    require,
    run,
    run_probe,
)
from services import Redis, Service

GREETING = '{"type": "connection_established", "max_size": 65536, "crowd": 5}'


def handshake(project, *arguments, env=None):
    """Run the command, and return its exit code and the lines that it prints, a dict by step."""
    result = run(project, "manage.py", "handshake", *arguments, env=env, check=False)
    lines = [line.split(": ", 1) for line in result.stdout.splitlines() if line.startswith(("✓ ", "✗ "))]
    assert lines or result.returncode == 2, result.stdout
    return result.returncode, dict(lines) if lines else result.stdout


# The servers that are asked here, each broken in one way


def only_old(context):
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1


def only_known_clients(context):
    context.verify_mode = ssl.CERT_REQUIRED


def no_name(context):
    context.sni_callback = lambda *arguments: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


TLS_KINDS = {"old": only_old, "mutual": only_known_clients, "unnamed": no_name}


class Fake:
    """
    A server of raw bytes in this process: reads a request, and does what `answer` says.

    answer: the bytes of an answer, or a function that is called with the connection and the request.
    tls: the Paths of a certificate and a key. kind: a key of TLS_KINDS.
    """

    def __init__(self, answer, tls=None, kind=None):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
            TLS_KINDS.get(kind, lambda context: None)(self.context)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        # A client that hangs up is none of this test's concern.
        with suppress(OSError):
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                data = connection.recv(2**16)
                if not data:
                    return
                request += data
            if callable(self.answer):
                self.answer(connection, request)
            else:
                connection.sendall(self.answer)
        connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        # Wakes the accept() of the thread, which close() alone does not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def upgrade(request):
    """Return the head of a good answer to a handshake."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def text_frame(text):
    payload = text.encode()
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2)
    return b"\x81" + length + payload


def opened(*data):
    """Return an answer that opens the socket, sends `data` and then reads without a word until the client leaves."""

    def answer(connection, request):
        connection.sendall(upgrade(request) + b"".join(data))
        while connection.recv(2**16):
            pass

    return answer


def closed(code, reason=""):
    """Return an answer that opens the socket and closes it. code: None for a close frame without one."""
    payload = b"" if code is None else code.to_bytes(2) + reason.encode()

    def answer(connection, request):
        connection.sendall(upgrade(request) + b"\x88" + bytes([len(payload)]) + payload)
        connection.recv(2**16)

    return answer


def cut(connection, request):
    connection.sendall(upgrade(request))


def no_frame(connection, request):
    connection.sendall(upgrade(request) + b"HTTP/1.1 200 OK\r\n" * 10)
    connection.recv(2**16)


def pongs(connection, request, *data):
    """A tutorial's consumer: sends nothing by itself, or `data`; its server answers pings."""
    connection.sendall(upgrade(request) + b"".join(data))
    while frame := connection.recv(2**16):
        if frame[0] == 0x89:
            size, mask = frame[1] & 0x7F, frame[2:6]
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(frame[6 : 6 + size]))
            connection.sendall(b"\x8a" + bytes([size]) + payload)


def send_and_pong(data, connection, request):
    pongs(connection, request, data)


# What consumers that are not ours may send first, by name, and what of it is shown.
WELL = {
    "nothing": b"",
    "a ticker": text_frame("tick") * 500,
    "bytes": b"\x82\x02\x00\xff",
    "an empty text": b"\x81\x00",
    "a size": text_frame('{"type": "hello", "max_size": 5}'),
    "a list": text_frame("[1, 2]"),
    "two types": text_frame('{"data": {"type": "inner"}, "type": "outer"}'),
    "told to wait": text_frame('{"type": "wait", "seconds": 1}') * 3 + text_frame('{"type": "hello"}'),
}
GREETINGS = {
    "nothing": "none within 0.7 s, as of a consumer that sends nothing by itself",
    "a ticker": "tick",
    "bytes": r"b'\x00\xff'",
    "an empty text": "an empty frame",
    "a size": "hello",
    "a list": "[1, 2]",
    "two types": "outer",
    "told to wait": "hello",
}


def hang_up(connection, request):
    pass


def silence(connection, request):
    while connection.recv(2**16):
        pass


def plain(status, body="", **headers):
    """Return the bytes of an answer other than 101."""
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def then(*parts, pause=0.0):
    """Return an answer that opens the socket and sends `parts`, bytes, again and again until the client leaves."""

    def answer(connection, request):
        connection.sendall(upgrade(request))
        while True:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)

    return answer


def endless(head):
    """Return an answer with a body that has no end."""

    def answer(connection, request):
        connection.sendall(head)
        while True:
            connection.sendall(b"x" * 4096)

    return answer


def with_header(line):
    """Return an answer that opens the socket with a further line in its head."""

    def answer(connection, request):
        connection.sendall(upgrade(request)[:-2] + line + b"\r\n\r\n")
        connection.recv(2**16)

    return answer


def closed_but_not_hung_up(code):
    """Return an answer that greets, closes at the first ping, and leaves the end of the connection to the client."""

    def answer(connection, request):
        connection.sendall(upgrade(request) + text_frame("tick"))
        connection.recv(2**16)
        connection.sendall(b"\x88\x02" + code.to_bytes(2))
        time.sleep(2)

    return answer


NGINX = "<hr><center>nginx</center>"
# By name: what the server does, the step that fails, what it says, and a part of the remedy.
FAULTS = {
    "a page": (plain(200, "<html>", Server="nginx"), "HTTP", "200 from nginx", "proxy_set_header Upgrade"),
    "no page": (plain(404, "Not Found", Server="uvicorn"), "HTTP", "404 from uvicorn", "pip install websockets"),
    "WSGI": (
        plain(404, Server="WSGIServer/0.2 CPython/3.11"),
        "HTTP",
        "404 from WSGIServer",
        "first of INSTALLED_APPS",
    ),
    "gunicorn": (plain(404, Server="gunicorn"), "HTTP", "404 from gunicorn", "speaks no WebSocket"),
    "a location": (plain(404, NGINX, Server="nginx"), "HTTP", "404 from nginx", "none of its locations"),
    "a rule": (plain(403, NGINX, Server="nginx"), "HTTP", "403 from nginx", "a rule refuses"),
    "to https": (
        plain(301, Location="https://example.com/ws/x/?token=1"),
        "HTTP",
        "to https://example.com/ws/x/.",
        "wants TLS",
    ),
    "to the login": (plain(302, Location="/accounts/login/?next=/ws/"), "HTTP", "to /accounts/login/.", "--user NAME"),
    "elsewhere": (plain(302, Location="/other/"), "HTTP", "302 from a server to /other/", "follows a redirect"),
    "half a handshake": (plain(400), "HTTP", "400", "both Upgrade and Connection"),
    "a password": (plain(401, **{"WWW-Authenticate": "Basic"}), "HTTP", "401", "https://user:password@host"),
    "HTTP/1.0 behind": (plain(426), "HTTP", "426", "proxy_http_version 1.1"),
    "too many": (plain(429), "HTTP", "429", "raise the limit"),
    "cookies": (plain(431), "HTTP", "431", "too long"),
    "an exception": (plain(500), "HTTP", "500", "the server's log"),
    "nothing behind": (plain(502, NGINX, Server="nginx"), "HTTP", "502 from nginx", "proxy_pass"),
    "overloaded": (plain(503), "HTTP", "503", "overloaded"),
    "late": (plain(504), "HTTP", "504", "does not answer"),
    "a teapot": (plain(418), "HTTP", "418", "refuses the handshake"),
    "a page that is kept": (plain(304), "HTTP", "304", "plain HTTP"),
    "a form": (plain(200, '<input type="password">'), "HTTP", "200", "--user NAME"),
    "cookies at nginx": (plain(413), "HTTP", "413", "too long"),
    "no such method": (plain(405), "HTTP", "405", "takes no WebSocket"),
    "a hotel": (plain(511), "HTTP", "511", "this network wants a login"),
    "no certificate": (
        plain(400, "<center>No required SSL certificate was sent</center>", Server="nginx"),
        "HTTP",
        "400",
        "a certificate of the client",
    ),
    "an unknown host": (plain(400, "<h1>Bad Request (400)</h1>"), "HTTP", "400", "DJANGO_ALLOWED_HOSTS"),
    "gone": (plain(410), "HTTP", "410", "refuses the handshake"),
    "a proxy that fails": (plain(508), "HTTP", "508", "fails"),
    "Cloudflare without a server": (plain(521, Server="cloudflare"), "HTTP", "521 from cloudflare", "no server"),
    "Cloudflare that waits": (plain(524, Server="cloudflare"), "HTTP", "524", "does not answer"),
    "Cloudflare and TLS": (plain(526, Server="cloudflare"), "HTTP", "526", "no good certificate"),
    "to nowhere": (plain(302, Location="http://[::1"), "HTTP", "ValueError", "no URL"),
    "an endless page": (endless(plain(200)[:-24] + b"\r\n\r\n"), "HTTP", "no whole answer", "never ends"),
    "a subprotocol": (
        with_header(b"Sec-WebSocket-Protocol: graphql-ws"),
        "HTTP",
        "NegotiationError",
        'one of scope["subprotocols"]',
    ),
    "an extension": (with_header(b"Sec-WebSocket-Extensions: x-webkit"), "HTTP", "NegotiationError", "not offered"),
    "Upgrade is taken off": (
        b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\n\r\n",
        "HTTP",
        "InvalidUpgrade",
        "changes the headers",
    ),
    "HTTP/1.0": (b"HTTP/1.0 404 Not Found\r\n\r\n", "HTTP", "HTTP/1.0", "speaks HTTP/1.1"),
    "garbage": (b"\x1b[31m\x00\xff garbage\r\n\r\n", "HTTP", "InvalidMessage", "port of a web server"),
    "hangs up": (hang_up, "HTTP", "InvalidMessage", "port of a web server"),
    "silence": (silence, "HTTP", "no whole answer", "is blocked"),
    "1003": (closed(1003), "greeting", "closed with 1003", "text and pings only"),
    "1010": (closed(1010), "greeting", "closed with 1010", "see the server"),
    "1014": (closed(1014), "greeting", "closed with 1014", "Does the server run"),
    "3000": (closed(3000), "greeting", "closed with 3000: not logged in", "--user NAME"),
    "3003": (closed(3003), "greeting", "closed with 3003", "refuses this user"),
    "3008": (closed(3008), "greeting", "closed with 3008", "wants a frame"),
    "waits for ever": (then(text_frame('{"type": "wait"}'), pause=0.1), "greeting", "again and again", "no room"),
    "no text": (opened(b"\x81\x02\xff\xfe"), "greeting", "closed with 1007", "binary frames"),
    "closed at the ping": (closed_but_not_hung_up(1013), "ping", "closed with 1013", "later"),
    "a flood": (then(text_frame(GREETING) * 50), "ping", "no pong of its consumer", "is busy"),
    "1000": (closed(1000), "greeting", "closed with 1000: its consumer", "connect()"),
    "1001": (closed(1001), "greeting", "closed with 1001", "when it is back"),
    "1005": (closed(None), "greeting", "closed without a code", "connect()"),
    "1006": (cut, "greeting", "the connection was cut", "was killed"),
    "1002": (no_frame, "greeting", "closed with 1002", "changes the bytes"),
    "1008": (closed(1008), "greeting", "closed with 1008", "log of the server"),
    "1011": (closed(1011), "greeting", "closed with 1011", '"socket_timeout": None'),
    "1012": (closed(1012), "greeting", "closed with 1012", "when it is back"),
    "1013": (closed(1013), "greeting", "closed with 1013", "later"),
    "4000": (closed(4000), "greeting", "closed with 4000", "/healthz"),
    "4401": (closed(4401), "greeting", "closed with 4401", "--token TOKEN"),
    "4403": (closed(4403), "greeting", "closed with 4403", "refuses this user"),
    "4404": (closed(4404), "greeting", "closed with 4404", "socket that exists"),
    "4429": (closed(4429), "greeting", "closed with 4429", "REALTIME_SOCKETS_PER_USER"),
    "1007": (closed(1007), "greeting", "closed with 1007", "binary frames"),
    "1009": (closed(1009), "greeting", "closed with 1009: a frame was too large", "1 MiB"),
    "4999": (closed(4999, "\x1b[2J bye"), "greeting", r"closed with 4999 \x1b[2J bye", "of the consumer's own"),
    "mute": (opened(), "ping", "no pong", "holds frames back"),
    "a consumer that hangs": (opened(text_frame(GREETING)), "ping", "no pong of its consumer", "is busy"),
}


# The same for https:// URLs: first the certificate of the server, and whether its authority is trusted.
TLS_FAULTS = {
    "self-signed": ("own", False, plain(200), "TLS", "self-signed certificate", "get one of an authority"),
    "an authority": ("good", False, plain(200), "TLS", "unable to get local issuer", "fullchain.pem"),
    "expired": ("expired", True, plain(200), "TLS", "certificate has expired", "reload the proxy"),
    "another host": ("elsewhere", True, plain(200), "TLS", "IP address mismatch", "a name that the certificate has"),
    "no TLS": (None, True, plain(400), "TLS", "Error: ", "http:// or ws:// in the URL"),
    "an old TLS": ("old", True, plain(200), "TLS", "PROTOCOL_VERSION", "TLS 1.2 or newer"),
    "an unknown name": ("unnamed", True, plain(200), "TLS", "UNRECOGNIZED_NAME", "no site"),
    "a client's certificate": (
        "mutual",
        True,
        plain(200),
        "HTTP",
        # ConnectionClosedError, or InvalidMessage where it hangs up before the command reads.
        "",
        "certificate of the client",
    ),
    "a loop": ("good", True, None, "HTTP", "301 from a server to itself", "set DJANGO_TRUST_PROXY=true"),
    "a good one": ("good", True, plain(502), "HTTP", "502", "proxy_pass"),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with ca.pem, and for each server a certificate <name>.pem and a key <name>.key."""
    require(shutil.which("openssl"), "openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new, "-subj", "/CN=Authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, san, days in (
        ("good", "IP:127.0.0.1", 1),
        ("expired", "IP:127.0.0.1", -1),
        ("elsewhere", "IP:127.0.0.9", 1),
    ):
        subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={san}"]
        openssl("req", *new, *subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy"]
        openssl(*sign, "-days", str(days), "-out", f"{name}.pem")
    openssl(
        "req",
        "-x509",
        *new,
        *["-subj", "/CN=own"],
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        "own.key",
        "-out",
        "own.pem",
    )
    return folder


def redirect_to_itself(connection, request):
    path, host = request.split()[1].decode(), re.search(rb"Host: (\S+)", request)[1].decode()
    connection.sendall(plain(301, Location=f"https://{host}{path}"))


def ask_all(project, urls, env=None):
    """Return what `handshake` prints with --json for each URL, or list of arguments, asked in one process, by name."""
    runs = [["--timeout", "0.7", *([url] if isinstance(url, str) else url)] for url in urls.values()]
    results = run_probe(project, "handshakes.py", json.dumps(runs), env=env).splitlines()[-1]
    return dict(zip(urls, json.loads(results), strict=True))


@pytest.fixture(scope="module")
def asked(project, certificates):
    """What the command says about all that is broken: its JSON, by name."""
    with ExitStack() as stack:
        urls = {
            name: f"http://127.0.0.1:{stack.enter_context(Fake(answer)).port}/ws/"
            for name, (answer, *_) in FAULTS.items()
        }
        trusted = {}
        for name, (certificate, is_trusted, answer, *_) in TLS_FAULTS.items():
            file = "good" if certificate in TLS_KINDS else certificate
            tls = file and [certificates / f"{file}.pem", certificates / f"{file}.key"]
            fake = stack.enter_context(Fake(answer or redirect_to_itself, tls, certificate))
            (trusted if is_trusted else urls)[name] = f"https://127.0.0.1:{fake.port}/ws/"
            if name == "a good one":
                urls["TLS is missing"] = f"http://127.0.0.1:{fake.port}/ws/"
        urls |= {
            "closed": f"ws://127.0.0.1:{free_port()}",
            "unknown": "https://nowhere.invalid/ws/",
            "no name": "https://a..b/ws/",
        } | {
            name: f"ws://127.0.0.1:{stack.enter_context(Fake(partial(send_and_pong, data))).port}/ws/"
            for name, data in WELL.items()
        }
        return ask_all(project, urls) | ask_all(project, trusted, {"SSL_CERT_FILE": str(certificates / "ca.pem")})


OTHERS = {
    "TLS is missing": ("HTTP", "InvalidMessage", "https:// or wss://"),
    "closed": ("TCP", "refused", "manage.py runserver"),
    "unknown": ("TCP", "DNS does not know the host nowhere.invalid", "right, and"),
    "no name": ("TCP", "no host has the name a..b", "Correct the URL"),
}


@pytest.mark.parametrize(
    ("name", "step", "says", "remedy"),
    [(name, *fault[-3:]) for name, fault in [*FAULTS.items(), *TLS_FAULTS.items(), *OTHERS.items()]],
    ids=[*FAULTS, *TLS_FAULTS, *OTHERS],
)
def test_a_broken_server_is_explained(asked, name, step, says, remedy):
    *well, failed = asked[name]["steps"]

    assert not asked[name]["ok"]
    assert [line["step"] for line in well if not line["ok"]] == []
    assert (failed["step"], failed["ok"]) == (step, False), failed
    assert says in f"{failed['text']}. {failed['remedy']}"
    assert remedy in failed["remedy"]
    # Nothing that a server sends is printed raw.
    assert failed["text"].isprintable()


@pytest.mark.parametrize("name", WELL)
def test_a_consumer_that_is_not_ours_is_well(asked, name):
    *_, greeting, ping = asked[name]["steps"]

    assert asked[name]["ok"]
    assert greeting["text"] == GREETINGS[name]
    # The pong ends it, and not the time that it has.
    assert float(re.fullmatch(r"a round trip takes ([\d.]+) ms", ping["text"])[1]) < 600


# A project that is broken in one way


@pytest.fixture
def copy(project, tmp_path):
    """A migrated project, which a test may change."""
    return shutil.copytree(project, tmp_path / "project")


@pytest.fixture(scope="module")
def server(project):
    with Server(project) as server:
        yield server


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_all_is_well(project, server):
    code, lines = handshake(project, f"127.0.0.1:{server.port}")

    assert [line[0] for line in lines] == ["✓"] * len(lines), lines
    assert code == 0
    assert list(lines) == [
        f"✓ {step}"
        for step in "INSTALLED_APPS,ASGI_APPLICATION,routes,channel layer,database,TCP,HTTP,greeting,ping".split(",")
    ]
    assert lines["✓ routes"] == "/ws/socket-server/"
    assert lines["✓ greeting"] == "connection_established"


PROJECT_FAULTS = {
    "daphne is removed": (
        "settings.py",
        '    INSTALLED_APPS.insert(0, "daphne")',
        "    pass",
        "INSTALLED_APPS",
        "daphne is not in INSTALLED_APPS",
        "Put it first",
    ),
    "daphne is moved": (
        "settings.py",
        "INSTALLED_APPS.insert(0,",
        "INSTALLED_APPS.insert(1,",
        "INSTALLED_APPS",
        "daphne is not the first of INSTALLED_APPS",
        "Move it to the top",
    ),
    "an import fails": (
        "../chat/consumers.py",
        "from realtime.frames import Frame, Text",
        "from realtime.frames import Frame, Tekst",
        "ASGI_APPLICATION",
        "ImportError: cannot import name 'Tekst'",
        "ProtocolTypeRouter",
    ),
    "a wrong path": (
        "settings.py",
        '"my_realtime_site.asgi.application"',
        '"my_realtime_site.nowhere.application"',
        "ASGI_APPLICATION",
        "No module named 'my_realtime_site.nowhere'",
        "ProtocolTypeRouter",
    ),
    "not set": (
        "settings.py",
        'ASGI_APPLICATION = "my_realtime_site.asgi.application"',
        "",
        "ASGI_APPLICATION",
        "ASGI_APPLICATION is not set",
        "In settings.py",
    ),
    "no such name": (
        "settings.py",
        '"my_realtime_site.asgi.application"',
        '"my_realtime_site.asgi.app"',
        "ASGI_APPLICATION",
        "has no attribute 'app'",
        "ProtocolTypeRouter",
    ),
    "HTTP only": (
        "settings.py",
        '"my_realtime_site.asgi.application"',
        '"my_realtime_site.asgi.django_asgi_app"',
        "ASGI_APPLICATION",
        "takes HTTP only",
        "ProtocolTypeRouter",
    ),
    "the order": (
        "asgi.py",
        "django_asgi_app = get",
        "from accounts.models import User  # noqa\n\ndjango_asgi_app = get",
        "ASGI_APPLICATION",
        "AppRegistryNotReady",
        "get_asgi_application() comes before",
    ),
    "an unused routing.py": (
        "asgi.py",
        "*websocket_urlpatterns, ",
        "",
        "routes",
        "chat.routing is not used by my_realtime_site.asgi.application",
        "URLRouter([",
    ),
    "redis-py 8": (
        "channel_layer.py",
        '{"socket_timeout": READ_TIMEOUT, ',
        "{",
        "channel layer",
        "after 5 idle seconds every socket is closed with 1011",
        '"socket_timeout": None',
    ),
    "no backend": (
        "settings.py",
        "CHANNEL_LAYERS = {",
        'layer = {"BACKEND": "channels_rabbitmq.core.Layer"}\nCHANNEL_LAYERS = {',
        "channel layer",
        "InvalidChannelLayerError",
        "pip install channels-redis",
    ),
    "a bad URL": (
        "channel_layer.py",
        '    return {"address": url, **options}',
        '    return {"address": "redis://:pass#word@host:6379", **options}',
        "channel layer",
        "its address is not understood",
        "REDIS_URL",
    ),
    "no migration": (
        "settings.py",
        '"sqlite:///db.sqlite3"',
        '"sqlite:///another.sqlite3"',
        "database",
        "migrations are not applied, first contenttypes.0001_initial",
        "Run manage.py migrate",
    ),
}


# Each of these is found although the others are there, in one run.
TOGETHER = [
    ["daphne is removed", "an import fails", "redis-py 8", "no migration"],
    ["daphne is moved", "a wrong path", "no backend"],
    ["not set", "a bad URL"],
    ["no such name"],
    ["HTTP only"],
    ["the order"],
    ["an unused routing.py"],
]


def test_each_fault_is_in_a_project():
    assert sorted(name for names in TOGETHER for name in names) == sorted(PROJECT_FAULTS)


@pytest.mark.parametrize("names", TOGETHER, ids=", ".join)
def test_a_broken_project_is_explained(copy, names):
    faults = [PROJECT_FAULTS[name] for name in names]
    for file, old, new, *_ in faults:
        edit(copy / "my_realtime_site" / file, old, new)
    env = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"} if {"redis-py 8", "a bad URL"} & set(names) else {}

    code, lines = handshake(copy, f"127.0.0.1:{free_port()}", env=env)

    assert code == 1
    for *_, step, says, remedy in faults:
        assert says in lines[f"✗ {step}"]
        assert remedy in lines[f"✗ {step}"]
    # Nothing else, but that no server runs.
    steps = [step for *_, step, _, _ in faults]
    assert [line for line in lines if line[0] == "✗"] == [f"✗ {step}" for step in [*steps, "TCP"]]


@pytest.fixture
def silent_port():
    """Of a service that takes connections, and says nothing: frozen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_services_that_are_away(project, silent_port):
    gone = free_port()
    with Redis() as redis:
        redis.execute("config", "set", "requirepass", "p@ss/word")
        wrong = f"redis://:hush@127.0.0.1:{redis.port}/0"
        answers = [
            handshake(project, f"127.0.0.1:{gone}", "--timeout", "2", env=env)[1]
            for env in (
                {
                    "REDIS_URL": f"redis://127.0.0.1:{gone}/0",
                    "DATABASE_URL": f"postgres://ann:hush@127.0.0.1:{gone}/x",
                },
                {
                    "REDIS_URL": f"redis://127.0.0.1:{silent_port}/0",
                    "DATABASE_URL": f"postgres://ann:hush@127.0.0.1:{silent_port}/x",
                },
                {"REDIS_URL": wrong},
                {"REDIS_URL": redis.url},
            )
        ]
    down, frozen, denied, nobody = answers

    assert re.search(r"ConnectionError: .* Start Redis, or correct REDIS_URL", down["✗ channel layer"])
    assert re.search(r"OperationalError: .* Start the database, or correct DATABASE_URL", down["✗ database"])
    assert "no answer. Redis is frozen" in frozen["✗ channel layer"]
    assert "no answer. Start the database" in frozen["✗ database"]
    for lines in (denied, nobody):
        assert re.search("AuthenticationError: .* Correct the password in REDIS_URL", lines["✗ channel layer"])
    assert "hush" not in str(answers)


def test_a_database_that_belongs_to_other_migrations(copy):
    delete = "from django.db import connection; connection.cursor().execute("
    delete += "\"delete from django_migrations where app='contenttypes'\")"
    run(copy, "manage.py", "shell", "--no-imports", "-c", delete)

    _, lines = handshake(copy, f"127.0.0.1:{free_port()}")

    assert "InconsistentMigrationHistory" in lines["✗ database"]
    assert "from other migrations than those of this project" in lines["✗ database"]


# Real servers


def test_runserver_without_daphne(project):
    server = Server(project)
    server.command = [
        server.command[0],
        "manage.py",
        "runserver",
        "--noreload",
        "--noasgi",
        f"127.0.0.1:{server.port}",
    ]
    with server:
        code, lines = handshake(project, f"http://127.0.0.1:{server.port}/")

    assert code == 1
    assert re.search(r"404 from WSGIServer.* daphne as the first of INSTALLED_APPS", lines["✗ HTTP"])


def test_the_origin_is_refused_and_a_path_unknown(project, server):
    """The setting that helps is that of the log line of the server."""
    url = f"127.0.0.1:{server.port}"
    arguments = [url, "--origin", "https://app.example.com", "--timeout", "9"]
    answers = ask_all(project, {"origin": arguments, "path": [f"{url}/ws/nowhere/", "--timeout", "9"]})

    remedy = "If the page is yours, add https://app.example.com to DJANGO_ALLOWED_ORIGINS."
    assert remedy in answers["origin"]["steps"][-1]["remedy"]
    assert remedy in server.log
    assert "closed with 4404: no such path" in answers["path"]["steps"][-1]["text"]


NGINX_HEAD = """
worker_processes 1;
error_log stderr;
pid pid;
events {}
http {
    access_log off;
    ssl_certificate FOLDER/good.pem;
    ssl_certificate_key FOLDER/good.key;
    proxy_http_version 1.1;
"""
PASSED_ON = {"Upgrade": "$http_upgrade", "Connection": "upgrade", "Host": "$http_host", "X-Forwarded-Proto": "$scheme"}


class Nginx(Service):
    """nginx with a port for each of `sites`, a dict of (scheme, port of the server behind, headers) by name."""

    def __init__(self, certificates, sites):
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
        require(nginx, "nginx is not installed")
        super().__init__()
        self.urls, blocks = {}, []
        for name, (scheme, behind, headers) in sites.items():
            port = self.port if not blocks else free_port()
            lines = "".join(f" proxy_set_header {key} {value};" for key, value in headers.items())
            tls = " ssl" if scheme == "https" else ""
            location = f"location / {{ proxy_pass http://127.0.0.1:{behind}; }}"
            blocks.append(f"server {{ listen 127.0.0.1:{port}{tls};{lines} {location} }}")
            self.urls[name] = f"{scheme}://127.0.0.1:{port}/"
        file = self.directory / "nginx.conf"
        file.write_text(
            NGINX_HEAD.replace("FOLDER", str(certificates)) + "\n".join(blocks) + "\n}\n", encoding="utf-8"
        )
        self.command = [nginx, "-e", "stderr", "-p", self.directory, "-c", file, "-g", "daemon off;"]

    def kill(self):
        """Not SIGKILL, which would leave the workers behind."""
        self.process.terminate()
        self.process.wait(10)


def test_staging_behind_nginx(copy, certificates):
    """A real nginx, with and without each of the lines that it needs, in front of a production server."""
    env = LOCAL_PRODUCTION | {"DJANGO_HTTPS": "true"}
    trusting = env | {"DJANGO_TRUST_PROXY": "true"}

    collect_static(copy, env)

    def without(*names):
        return {name: value for name, value in PASSED_ON.items() if name not in names}

    with Server(copy, "production", env=env) as server, Server(copy, "production", env=trusting) as trusted:
        sites = {
            "well": ("https", trusted.port, PASSED_ON),
            "no Upgrade": ("https", trusted.port, without("Upgrade", "Connection")),
            "no trust": ("https", server.port, PASSED_ON),
            "no trust, no Upgrade": ("https", server.port, without("Upgrade", "Connection")),
            "no Host": ("https", trusted.port, without("Host")),
            "no server": ("https", free_port(), PASSED_ON),
        }
        with Nginx(certificates, sites) as nginx:
            trust = {"SSL_CERT_FILE": str(certificates / "ca.pem")}
            answers = ask_all(copy, nginx.urls, env | trust)
            answers["with trust here"] = ask_all(copy, {"": nginx.urls["no Host"]}, trusting | trust)[""]

    assert answers["well"]["ok"], answers["well"]
    assert answers["well"]["url"].startswith("wss://127.0.0.1:")
    failed = {name: "{text}. {remedy}".format(**answer["steps"][-1]) for name, answer in answers.items()}
    assert "proxy_set_header Upgrade" in failed["no Upgrade"]
    assert re.search(
        r"403 from nginx\S* If a proxy in front ends TLS, set DJANGO_TRUST_PROXY=true\.", failed["no trust"]
    )
    assert re.search(r"301 from nginx\S* to itself\. Django takes it for http://", failed["no trust, no Upgrade"])
    assert "proxy_set_header Host $http_host" in failed["with trust here"]
    assert re.search(r"502 from nginx\S* The proxy reaches no server", failed["no server"])


def test_logging_in(bake, tmp_path):
    project = shutil.copytree(bake(starter="chat"), tmp_path / "project")
    run(project, "manage.py", "migrate")
    make = "from accounts.models import User; ann = User.objects.create_user('ann')"
    make += "; from realtime.tickets import ticket_of; print('ticket', ticket_of(ann))"
    with Server(project) as server:
        url = f"127.0.0.1:{server.port}"
        made = run(project, "manage.py", "shell", "--no-imports", "-c", make).stdout
        ticket = re.search(r"ticket (\S+)", made)[1]
        logins = {"nobody": [], "ann": ["--user", "ann"], "ticket": ["--token", ticket], "wrong": ["--token", "x"]}
        logins["unknown"] = ["--user", "bob"]
        asked = {name: [url, "--timeout", "9", *login] for name, login in logins.items()}
        answers = ask_all(project, asked)
        count = "from django.contrib.sessions.models import Session; print('sessions', Session.objects.count())"
        assert "sessions 0" in run(project, "manage.py", "shell", "--no-imports", "-c", count).stdout
    last = {name: answer["steps"][-1] for name, answer in answers.items()}

    assert "closed with 4401" in last["nobody"]["text"]
    assert "--user NAME" in last["nobody"]["remedy"]
    # So says the README.
    assert "\n    uv run manage.py handshake --user NAME\n" in (project / "README.md").read_text(encoding="utf-8")
    assert answers["ann"]["ok"], answers["ann"]
    assert answers["ticket"]["ok"], answers["ticket"]
    assert answers["ann"]["steps"][0]["text"] == "as ann"
    # Of its paths, the one without a parameter.
    assert "/ws/socket-server/ opens" in json.dumps(answers["ann"])
    assert "closed with 4401" in last["wrong"]["text"]
    assert last["unknown"]["step"] == "login"
    assert "User matching query does not exist" in last["unknown"]["text"]


def test_a_console_without_the_signs(project):
    result = run(
        project, "manage.py", "handshake", f"127.0.0.1:{free_port()}", env={"PYTHONIOENCODING": "cp1252"}, check=False
    )

    assert result.returncode == 1
    assert "ok routes: /ws/socket-server/" in result.stdout
    assert "FAILED TCP: ConnectionRefusedError" in result.stdout


def test_without_the_package_websockets(project):
    block = "import sys; sys.modules['websockets'] = None; sys.argv = ['manage.py', 'handshake']; import runpy"
    result = run(project, "-c", f"{block}; runpy.run_path('manage.py', run_name='__main__')", check=False)

    assert result.returncode == 2
    assert result.stdout.splitlines()[-1].endswith("pip install -U websockets")
    assert "Traceback" not in result.stdout


# Another project, with this one file


FOREIGN_FILES = {
    "chat/__init__.py": "",
    "chat/routing.py": r"""
from django.urls import re_path

from . import consumers_async

websocket_urlpatterns = [
    re_path(r"ws/chat/(?P<room_name>\w+)/$", consumers_async.ChatConsumer.as_asgi()),
]
""",
    "mysite/asgi.py": """
import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_asgi_app = get_asgi_application()

from chat.routing import websocket_urlpatterns

application = ProtocolTypeRouter({
    "http": django_asgi_app,
    "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
})
""",
}
FOREIGN_SETTINGS = """
import os

INSTALLED_APPS = ["chat", *INSTALLED_APPS]
if "NO_DAPHNE" not in os.environ:
    INSTALLED_APPS.insert(0, "daphne")
ASGI_APPLICATION = "mysite.asgi.application"
options = {"socket_timeout": None} if "SOCKET_TIMEOUT" in os.environ else {}
host = {"address": os.environ["MY_REDIS"]} | options
CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [host]}}}
"""


@pytest.fixture(scope="module")
def foreign(bake, tmp_path_factory):
    """What `startproject` makes, with the consumer of Channels' tutorial and a Redis as its documentation has it."""
    folder = tmp_path_factory.mktemp("foreign") / "site"
    shutil.copytree(PROBES / "tutorial", folder / "chat")
    # For the packages.
    shutil.copy(bake() / "pyproject.toml", folder)
    run(folder, "-m", "django", "startproject", "mysite", ".")
    commands = folder / "chat" / "management" / "commands"
    commands.mkdir(parents=True)
    shutil.copy(bake() / "realtime" / "management" / "commands" / "handshake.py", commands)
    for name, text in FOREIGN_FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    append_settings(folder, FOREIGN_SETTINGS)
    with Redis() as redis:
        env = {"MY_REDIS": redis.url}
        run(folder, "manage.py", "migrate", env=env)
        yield SimpleNamespace(folder=folder, env=env)


def test_another_project_with_redis_8(foreign):
    """Both ways: the setting that is missing, and the socket that closes after five idle seconds."""
    with Server(foreign.folder, env=foreign.env) as server:
        url = f"127.0.0.1:{server.port}"
        code, lines = handshake(foreign.folder, url, "--timeout", "2", "--idle", "9", env=foreign.env)

    assert code == 1
    assert "after 5 idle seconds every socket is closed with 1011" in lines["✗ channel layer"]
    assert lines["✓ routes"] == "/ws/chat/<room_name>/"
    assert "/ws/chat/lobby/ opens" in lines["✓ HTTP"]
    assert lines["✓ greeting"] == "none within 2 s, as of a consumer that sends nothing by itself"
    assert "closed with 1011: its consumer has raised an exception" in lines["✗ idle"]
    assert '"socket_timeout": None' in lines["✗ idle"]


def test_another_project(foreign):
    """It develops with uvicorn, and has no use for daphne."""
    env = foreign.env | {"SOCKET_TIMEOUT": "none", "NO_DAPHNE": "yes"}
    with Server(foreign.folder, "uvicorn", env=env) as server:
        url = f"127.0.0.1:{server.port}"
        code, lines = handshake(foreign.folder, url, "--timeout", "8", env=env)
        _, origin = handshake(foreign.folder, f"{url}/nowhere/", "--origin", "https://evil.example", env=env)

    assert code == 0, lines
    assert "another server answers" in lines["✓ INSTALLED_APPS"]
    assert lines["✓ channel layer"] == "RedisChannelLayer passes messages on"
    # Not the variables of a bake.
    assert "add evil.example to ALLOWED_HOSTS." in origin["✗ HTTP"]
