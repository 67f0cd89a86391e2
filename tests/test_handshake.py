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
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import pytest
from servers import LOCAL_PRODUCTION, PROBES, Server, append_settings, free_port, require, run, run_probe
from services import Redis, Service

GREETING = '{"type": "connection_established", "max_size": 65536, "crowd": 5}'


def handshake(project, *arguments, env=None):
    """Run the command, and return its exit code and the lines that it prints, a dict by step."""
    result = run(project, "manage.py", "handshake", *arguments, env=env, check=False)
    lines = [line.split(": ", 1) for line in result.stdout.splitlines() if line.startswith(("✓ ", "✗ "))]
    assert lines or result.returncode == 2, result.stdout
    return result.returncode, dict(lines) if lines else result.stdout


# The servers that are asked here, each broken in one way


class Fake:
    """
    A server of raw bytes in this process: reads a request, and does what `answer` says.

    answer: the bytes of an answer, or a function that is called with the connection and the request.
    tls: the Paths of a certificate and a key.
    """

    def __init__(self, answer, tls=None):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
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


def pongs(connection, request):
    """A tutorial's consumer: sends nothing by itself; its server answers pings."""
    connection.sendall(upgrade(request))
    while frame := connection.recv(2**16):
        if frame[0] == 0x89:
            size, mask = frame[1] & 0x7F, frame[2:6]
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(frame[6 : 6 + size]))
            connection.sendall(b"\x8a" + bytes([size]) + payload)


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
    "a teapot": (plain(418), "HTTP", "418", "plain HTTP"),
    "Upgrade is taken off": (
        b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\n\r\n",
        "HTTP",
        "InvalidUpgrade",
        "changes the headers",
    ),
    "HTTP/1.0": (b"HTTP/1.0 404 Not Found\r\n\r\n", "HTTP", "HTTP/1.0", "speaks HTTP/1.1"),
    "garbage": (b"\x1b[31m\x00\xff garbage\r\n\r\n", "HTTP", "InvalidMessage", "port of a web server"),
    "hangs up": (hang_up, "HTTP", "InvalidMessage", "port of a web server"),
    "silence": (silence, "HTTP", "TimeoutError", "is blocked"),
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
    """Return what `handshake` prints with --json for each URL, asked in one process, by name."""
    runs = [[url, "--timeout", "0.7"] for url in urls.values()]
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
            tls = certificate and [certificates / f"{certificate}.pem", certificates / f"{certificate}.key"]
            fake = stack.enter_context(Fake(answer or redirect_to_itself, tls))
            (trusted if is_trusted else urls)[name] = f"https://127.0.0.1:{fake.port}/ws/"
            if name == "a good one":
                urls["TLS is missing"] = f"http://127.0.0.1:{fake.port}/ws/"
        urls |= {
            "closed": f"ws://127.0.0.1:{free_port()}",
            "unknown": "https://nowhere.invalid/ws/",
            "tutorial": f"ws://127.0.0.1:{stack.enter_context(Fake(pongs)).port}/ws/",
        }
        return ask_all(project, urls) | ask_all(project, trusted, {"SSL_CERT_FILE": str(certificates / "ca.pem")})


OTHERS = {
    "TLS is missing": ("HTTP", "InvalidMessage", "https:// or wss://"),
    "closed": ("TCP", "refused", "manage.py runserver"),
    "unknown": ("TCP", "DNS", "right, and"),
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


def test_a_consumer_that_sends_nothing_by_itself_is_well(asked):
    assert asked["tutorial"]["ok"]
    assert "sends nothing by itself" in json.dumps(asked["tutorial"])


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
        "cannot import name 'app'",
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
    "a class": (
        "../chat/routing.py",
        "ChatConsumer.as_asgi()",
        "ChatConsumer",
        "routes",
        "/ws/socket-server/ leads to a class",
        ".as_asgi()",
    ),
    "a slash": (
        "../chat/routing.py",
        '"ws/socket-server/"',
        '"/ws/socket-server/"',
        "routes",
        "//ws/socket-server/ begins with two slashes",
        "take the first slash off",
    ),
    "redis-py 8": (
        "channel_layer.py",
        '{"socket_timeout": None, ',
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


@pytest.mark.parametrize("name", PROJECT_FAULTS)
def test_a_broken_project_is_explained(copy, name):
    file, old, new, step, says, remedy = PROJECT_FAULTS[name]
    edit(copy / "my_realtime_site" / file, old, new)
    env = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"} if name in ("redis-py 8", "a bad URL") else {}

    code, lines = handshake(copy, f"127.0.0.1:{free_port()}", env=env)

    assert code == 1
    assert says in lines[f"✗ {step}"]
    assert remedy in lines[f"✗ {step}"]
    # Nothing else, but that no server runs.
    assert [line for line in lines if line[0] == "✗"] == [f"✗ {step}", "✗ TCP"]


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


def test_the_origin_is_refused(project, server):
    """The setting that helps is that of the log line of the server."""
    code, lines = handshake(project, f"127.0.0.1:{server.port}", "--origin", "https://app.example.com")

    assert code == 1
    remedy = "If the page is yours, add https://app.example.com to DJANGO_ALLOWED_ORIGINS."
    assert remedy in lines["✗ HTTP"]
    assert remedy in server.log


def test_another_path(project, server):
    code, lines = handshake(project, f"127.0.0.1:{server.port}/ws/nowhere/")

    assert code == 1
    assert "closed with 4404: no such path" in lines["✗ greeting"]


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

    run(copy, "manage.py", "collectstatic", "--no-input", env=env)

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
        answers = [
            handshake(project, url, *login) for login in ((), ("--user", "ann"), ("--token", ticket), ("--token", "x"))
        ]
        count = "from django.contrib.sessions.models import Session; print('sessions', Session.objects.count())"
        assert "sessions 0" in run(project, "manage.py", "shell", "--no-imports", "-c", count).stdout
        unknown = handshake(project, url, "--user", "bob")
    anonymous, user, token, wrong = answers

    assert "closed with 4401" in anonymous[1]["✗ greeting"]
    assert "--user NAME" in anonymous[1]["✗ greeting"]
    assert user[0] == token[0] == 0, answers
    assert user[1]["✓ login"] == "as ann"
    # Of its paths, the one without a parameter.
    assert "/ws/socket-server/ opens" in user[1]["✓ HTTP"]
    assert "closed with 4401" in wrong[1]["✗ greeting"]
    assert unknown[0] == 2
    assert "User matching query does not exist" in unknown[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://127.0.0.1/"],
        ["http://127.0.0.1:99999/"],
        ["http://not a host/"],
        ["--user", "nobody"],
        ["--token", "two\nlines"],
        ["--timeout", "soon"],
        ["--timeout", "nan"],
        ["--idle", "-1"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked(project, arguments):
    code, output = handshake(project, *arguments)

    assert code == 2
    assert "Traceback" not in output
    assert "✗" not in output


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
    assert result.stdout.splitlines()[-1].endswith("pip install websockets")
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

INSTALLED_APPS = ["daphne", "chat", *INSTALLED_APPS]
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
    env = foreign.env | {"SOCKET_TIMEOUT": "none"}
    with Server(foreign.folder, env=env) as server:
        url = f"127.0.0.1:{server.port}"
        well = handshake(foreign.folder, url, "--timeout", "2", env=env)
        origin = handshake(foreign.folder, url, "--origin", "https://evil.example", env=env)
        path = handshake(foreign.folder, f"{url}/nowhere/", env=env)

    assert well[0] == 0, well
    assert well[1]["✓ channel layer"] == "RedisChannelLayer passes messages on"
    # Not the variables of a bake.
    assert "add evil.example to ALLOWED_HOSTS." in origin[1]["✗ HTTP"]
    assert "500 from" in path[1]["✗ HTTP"]
    assert "often a path that no route has" in path[1]["✗ HTTP"]
