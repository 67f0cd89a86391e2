"""
The doctor: walks from INSTALLED_APPS to an answered ping, and names the remedy of what is broken.

It needs Django, Channels and the package websockets, and nothing of this project: copied into management/commands/ of
one of its apps, this file serves any other project, too.
"""

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from multiprocessing.pool import ThreadPool
from urllib.parse import urljoin, urlsplit

from channels.layers import get_channel_layer
from channels.routing import URLRouter, get_default_application
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, get_commands, load_command_class
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.http.request import validate_host
from django.test import Client

try:
    import websockets.sync.client
except ImportError:
    websockets = None  # type: ignore[assignment]


def read_table(text):
    """Return a dict of the entries of `text`: each is a key, a colon and a text, which may go on in indented lines."""
    return dict(" ".join(entry.split()).split(": ", 1) for entry in re.split(r"\n+(?=\S)", text.strip()))


OPTIONS = read_table("""
url: of a socket or a site, http(s):// or ws(s)://, or a path; default: the first socket of runserver, 127.0.0.1:8000
--user: log in as this user, and out at the end
--token: log in with this bearer token
--origin: of the page, such as https://app.example.com; default: that of the URL
--timeout: seconds for each step; default: 10
--idle: seconds that the socket must stay open at the end
--json: print one JSON object
""")

# What remedies name, and what it is in a project without realtime.
ELSEWHERE = read_table("""
DJANGO_ALLOWED_HOSTS: ALLOWED_HOSTS
DJANGO_ALLOWED_ORIGINS: the list of an OriginValidator in asgi.py
DJANGO_TRUST_PROXY=true: SECURE_PROXY_SSL_HEADER
REDIS_URL: CHANNEL_LAYERS
DATABASE_URL: DATABASES
See /healthz and: See
, in the dev group of pyproject.toml: : pip install daphne
""")

# The key of a remedy, by what is answered instead of 101: "ws 301 from nginx to … b'<html>…'". The first pattern counts.
ANSWERS = read_table(r"""
(?i)wss? \d+ from [^'"]*(wsgi|gunicorn|waitress|werkzeug|cheroot): WSGI
wss? 3.* to itself: loop
(?i)wss? 3.* to [^ ]*(login|signin|sign_in|oauth): sign in
ws 3.* to https: https
wss? 3: redirect
wss? 40[34] .*<center>nginx: nginx
""")

# What is wrong and the remedy, or only that. The key is a name, the step and the class of an exception, or OpenSSL's
# verify_code, an HTTP status, or a close code.
TEXTS = read_table("""
daphne moved: daphne is not the first of INSTALLED_APPS: runserver would speak no WebSocket, and every socket would
    get a 404 | Move it to the top, so that its runserver is the one that Django finds.
daphne missing: daphne is not in INSTALLED_APPS: runserver would speak no WebSocket, and every socket would get a 404
    | Put it first. Since Channels 4 it is a package of its own, in the dev group of pyproject.toml.
application: {} cannot be imported: {} | It must be the path of the ProtocolTypeRouter in asgi.py, such as
    "mysite.asgi.application".
unset: ASGI_APPLICATION is not set | In settings.py: ASGI_APPLICATION = "mysite.asgi.application", with your package.
order: {} cannot be imported by uvicorn and daphne: {} | In asgi.py, get_asgi_application() comes before the imports
    that use models.
HTTP only: {} takes HTTP only, and every WebSocket would get a 500 | It must be the path of the ProtocolTypeRouter in
    asgi.py, such as "mysite.asgi.application".
class: {} leads to a class | In its routing.py, put .as_asgi() behind the name of the consumer.
slash: {} begins with two slashes, and is never found | In its routing.py, take the first slash off: Channels takes it
    off the path.
routing: {}.routing is not used by {}: its sockets would be refused | In asgi.py: import its websocket_urlpatterns and
    put them into URLRouter([…]).
redis 8: after {:g} idle seconds every socket is closed with 1011 | redis-py 8 gives up that soon. Put
    "socket_timeout": None beside the address of each host in CHANNEL_LAYERS.
migrations: {} migrations are not applied, first {} | Run manage.py migrate.

channel layer InvalidChannelLayerError: Correct BACKEND in CHANNEL_LAYERS; for Redis: pip install channels-redis.
channel layer MasterNotFoundError: The Sentinels do not know this service, or do not answer.
channel layer AuthenticationError: Correct the password in REDIS_URL. In it write @ / : # % as %40 %2F %3A %23 %25.
channel layer BusyLoadingError: Redis is still reading its data: ask again later.
channel layer ReadOnlyError: That is a replica: name the primary in REDIS_URL, or use Sentinel.
channel layer ResponseError: It needs Redis 5 or newer, or Valkey, no cluster, and a user that may run all commands.
channel layer TimeoutError: no answer | Redis is frozen, or a firewall drops what is sent to it.
channel layer ConnectionError: Start Redis, or correct REDIS_URL: rediss:// where Redis speaks TLS.
channel layer ValueError: its address is not understood | REDIS_URL is not understood. In a password write @ / : # %
    as %40 %2F %3A %23 %25.
channel layer Exception: See CHANNEL_LAYERS in settings.py.
database Exception: Start the database, or correct DATABASE_URL.
database TimeoutError: no answer | Start the database, or correct DATABASE_URL; a firewall may drop what is sent to it.
database InconsistentMigrationHistory: Its tables come from other migrations than those of this project.
login Exception: The session of --user is stored by the database: see above.

TCP gaierror: DNS does not know the host: {} | Is the name right, and does this machine resolve names?
TCP TimeoutError: no answer, of DNS or of the host | Are name and port right, and is the server up? A firewall may drop
    what is sent to it.
TCP ConnectionRefusedError: Start the server (manage.py runserver), or correct the port.
TCP OSError: Are host and port right, and is the server up? A firewall may drop what is sent to it.
TLS OSError: If the server speaks no TLS: http:// or ws:// in the URL.
TLS 9: Is the clock right?
TLS 10: Renew the certificate, and reload the proxy.
TLS 18: Browsers refuse it, too: get one of an authority. To trust your own: SSL_CERT_FILE=/path/to/it.pem
TLS 19: Its authority is not known here. To trust it: SSL_CERT_FILE=/path/to/ca.pem
TLS 20: The server leaves out the chain (fullchain.pem), or its authority is not known here:
    SSL_CERT_FILE=/path/ca.pem
TLS 62: Use a name that the certificate has, or get one for this name.
TLS 64: Use a name that the certificate has.
TLS SSLCertVerificationError: Browsers refuse it, too: get another certificate.
HTTP TimeoutError: The server is blocked (a slow call in asynchronous code), connect() waits for a service, or it is
    no web server.
HTTP OSError: The server has hung up: see its log.
HTTP InvalidMessage: Is it the port of a web server that speaks HTTP/1.1? One that speaks TLS has https:// or wss://.
HTTP InvalidHandshake: A proxy in between changes the headers of the answer.
mute: no pong of the server | The server is blocked, or a proxy holds frames back.
ping TimeoutError: no pong of its consumer | Its consumer is busy: a slow call, in it or in another one, or a service
    that does not answer.

400: A proxy passes on a part of the handshake only (nginx: both Upgrade and Connection), or TLS is missing
    (https://).
401: A proxy asks for a password: https://user:password@host/…
426: A proxy speaks HTTP/1.0 to the server (nginx: proxy_http_version 1.1;), or passes no Upgrade on.
429: Too many handshakes from this address: wait, or raise the limit of the proxy.
431: Its header is too long, which cookies can be.
500: An exception, whose traceback is in the server's log: often a path that no route has. See manage.py check, too.
502: The proxy reaches no server: does it run, at the address and port that the proxy has (nginx: proxy_pass)?
503: The server is overloaded, starting, or closed for maintenance.
504: The server behind the proxy does not answer: something blocks it, or connect() waits for a service.
WSGI: That server speaks no WebSocket. In development use runserver, with daphne as the first of INSTALLED_APPS; in
    production uvicorn or daphne, with ASGI_APPLICATION.
plain: It was taken for plain HTTP. A proxy has to pass the handshake on (nginx: proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";); the server must speak ASGI, and
    uvicorn needs a library (pip install websockets).
nginx: nginx answers itself: none of its locations passes this path on, or a rule refuses this client.
consumer: Its consumer refuses in connect(), perhaps because nobody is logged in: try --user NAME or --token TOKEN.
    Or connect() ends without accept(), as by a forgotten await: see the server's log.
host: If the site has this host, add {1} to DJANGO_ALLOWED_HOSTS.
null: A page from a file or in a sandboxed frame has none: serve the page from a host, or offer a token.
proxy: If a proxy in front ends TLS, set DJANGO_TRUST_PROXY=true.
origin: If the page is yours, add {1} to DJANGO_ALLOWED_ORIGINS.
allowed: The settings of this command allow it. Does the server have them, too, and does the proxy pass on Host and
    scheme (nginx: proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;)?
loop: Django takes it for http://. If a proxy in front ends TLS, set DJANGO_TRUST_PROXY=true; it has to pass Upgrade
    on, too, since Django redirects no WebSocket.
https: The site wants TLS: https:// or wss:// in the URL.
sign in: The site wants a login: --user NAME. If a proxy asks for it, let the path of the socket pass.
redirect: No WebSocket follows a redirect: give the target as the URL, or let the path of the socket pass.

code: It is a code of the consumer's own: look for it there.
1000: {}: its consumer has closed it | See connect() of the consumer.
1001: {}: the server stops | Ask again when it is back.
1002: {}: what came is no WebSocket | Something in between changes the bytes, or the server speaks another protocol.
1005: closed without a code: its consumer has closed it | See connect() of the consumer.
ConnectionClosedError: {}: the connection was cut | The server was killed, or the read time-out of a proxy is shorter than the pause
    between heartbeats.
1008: {}: it breaks a rule of the server or of a proxy | See the log of the server or the proxy.
1007: {}: a text was not UTF-8 | Bytes that are no text go into binary frames.
1009: {}: a frame was too large | This command takes 1 MiB; a server or a proxy may take less.
1011: {}: its consumer has raised an exception | The traceback is in the server's log. If idle sockets end so after
    five seconds, it is redis-py 8: put "socket_timeout": None beside the address of each host in CHANNEL_LAYERS.
1012: {}: the server restarts | Ask again when it is back.
1013: {}: the server has no room | Ask again later.
4000: {}: it reads too slowly, or Redis or the database does not answer | See /healthz and the server's log.
4401: {}: not logged in, or not any more | Log in with --token TOKEN, or with --user NAME if the server has the
    database that this command has.
4403: {}: not allowed | Its consumer refuses this user: try --user NAME.
4404: {}: no such path | Give the path of a socket that exists.
4429: {}: it sends on though it is told to wait, or its user has too many sockets | Wait, close others, or raise
    REALTIME_SOCKETS_PER_USER or REALTIME_SOCKETS_PER_ADDRESS.
""")


class Failed(Exception):
    """The end of a step. Its arguments: the key of a remedy, and what the texts with this key name."""


class Command(BaseCommand):
    """Each step is a method: it returns what is well, or None, or raises Failed or what REMEDIES has by its class."""

    help = "Says why a socket does not connect. Exit codes: 0 all is well, 1 something is not, 2 it cannot be asked."
    requires_system_checks = ()

    def add_arguments(self, parser):
        for name, text in OPTIONS.items():
            kind = {"action": "store_true"} if name == "--json" else {"nargs": "?", "default": ""}
            parser.add_argument(name, help=text, **kind)

    def handle(self, **options):
        self.options, self.lines = options, []
        try:
            self.read_options(**options)
        except Exception as error:
            needs = "pip install websockets" if websockets is None else f"{type(error).__name__}: {error}"
            raise CommandError(f"{shown(options['url'])} cannot be asked: {needs}", returncode=2) from None
        with ExitStack() as self.stack:
            for name in ("INSTALLED_APPS", "ASGI_APPLICATION", "routes", "channel layer", "database"):
                self.step(name)
            # Up to the first that fails.
            all(map(self.step, ("login", "TCP", "TLS", "HTTP", "greeting", "ping", "idle")))
        is_well = all(line["ok"] for line in self.lines)
        if options["json"]:
            self.stdout.write(json.dumps({"ok": is_well, "url": self.shown_url, "steps": self.lines}, indent=2))
        if not is_well:
            sys.exit(1)

    def read_options(self, url, user, token, origin, timeout, idle, **options):
        self.found = []
        with suppress(Exception):
            self.found = list(find_routes(get_default_application()))
        self.paths = [path for path, _, is_socket in self.found if is_socket]
        # Best a path without a parameter; one becomes a number or a word.
        first = min(self.paths, key=lambda path: "<" in path, default="/")
        first = re.sub("<(int:)?.*?>", lambda match: "1" if match[1] else "lobby", first)
        url = url if "://" in url else f"ws://{'' if url and url[0] != '/' else '127.0.0.1:8000'}{url}"
        parts = urlsplit(re.sub("(?i)^http", "ws", url.partition("#")[0]))
        self.url = parts._replace(path=parts.path if parts.path.strip("/") else first).geturl()
        self.uri = websockets.uri.parse_uri(self.url)
        self.timeout, self.seconds = float(timeout or 10), float(idle or 0)
        if re.search("[^!-~]", url + token + origin) or not 0 < self.timeout < 1e6 > self.seconds >= 0:
            raise ValueError("not ASCII, or no number of seconds")
        host = websockets.headers.build_host(self.uri.host, self.uri.port, self.uri.secure)
        self.own_origin = f"http{'s' * self.uri.secure}://{host}"
        self.origin, self.shown_url = origin or self.own_origin, f"ws{'s' * self.uri.secure}://{host}{self.uri.path}"
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.user = user and get_user_model()._default_manager.get_by_natural_key(user)

    def step(self, name):
        """Take a step and report it, if there is something to say. Return whether all is well."""
        key = None
        try:
            values = [getattr(self, name.lower().replace(" ", "_"))()]
        except Failed as failed:
            key, *values = failed.args
        except Exception as error:
            close = getattr(error, "rcvd", None) or getattr(error, "sent", None)
            values = [f"{type(error).__name__}: {' '.join({str(error): 0, str(error.__cause__ or ''): 0})}"]
            values = [f"closed with {close.code} {close.reason}".strip()] if close else values
            kinds = [getattr(error, "verify_code", ""), *[cls.__name__ for cls in type(error).__mro__]]
            keys = [str(close.code), "code"] if close else [*[f"{name} {kind}" for kind in kinds], *kinds]
            key = next((key for key in keys if key in TEXTS), "unknown")
        *what, remedy = [text.format(*values) for text in TEXTS.get(key, "").split(" | ")]
        for ours, theirs in () if apps.is_installed("realtime") else ELSEWHERE.items():
            remedy = remedy.replace(ours, theirs)
        line = {"step": name, "ok": key is None, "text": shown((what or values)[0] or ""), "remedy": shown(remedy)}
        if values != [None]:
            self.lines.append(line)
            if not self.options["json"]:
                encoding = getattr(self.stdout, "encoding", None) or "utf-8"
                marks = "✗✓" if "✗✓".encode(encoding, "ignore") else ("FAILED", "ok")
                text = f"{name}: {line['text']}".rstrip(".") + f". {line['remedy']}" * bool(remedy)
                line = f"{marks[key is None]} {text}"
                self.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding))
        return key is None

    # This project

    def installed_apps(self):
        owner = get_commands()["runserver"]
        modules = {cls.__module__.partition(".")[0] for cls in type(load_command_class(owner, "runserver")).__mro__}
        if settings.DEBUG and modules <= {"builtins", "django", "realtime", "whitenoise", "servestatic"}:
            raise Failed("daphne moved" if apps.is_installed("daphne") else "daphne missing")
        return f"runserver is that of {owner}" if settings.DEBUG else "DEBUG is off, and runserver is not used"

    def asgi_application(self):
        path = getattr(settings, "ASGI_APPLICATION", None) or ""
        # As uvicorn and daphne import it: manage.py has loaded the apps already.
        code = "from {0} import {2}".format(*path.rpartition("."))
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONNODEBUGRANGES": "1", "PYTHONUTF8": "1"}
        alone = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=env)
        if alone.returncode:
            # The first traceback is the innermost, and its last place.
            error = re.split(r"\n\n(?:During|The above)", alone.stderr.strip())[0].rpartition("  File ")[2]
            raise Failed("order" if "AppRegistry" in error else "application" if path else "unset", path, error)
        application = get_default_application()
        mapping = getattr(application, "application_mapping", {"websocket": None})
        # Django's own has this method.
        if not callable(application) or hasattr(application, "load_middleware") or "websocket" not in mapping:
            raise Failed("HTTP only", path)
        return f"{path} can be imported"

    def routes(self):
        for path, route, _ in self.found:
            if isinstance(route.callback, type) or str(route.pattern).lstrip("^").startswith("/"):
                raise Failed("class" if isinstance(route.callback, type) else "slash", path)
        used = {id(route) for _, route, _ in self.found}
        for config in apps.get_app_configs():
            if "site-packages" not in config.path and os.path.exists(os.path.join(config.path, "routing.py")):
                values = vars(sys.modules.get(f"{config.name}.routing", object)).values()
                items = {id(item) for value in values if isinstance(value, list) for item in value}
                if used and (f"{config.name}.routing" not in sys.modules or (items and not items & used)):
                    raise Failed("routing", config.name, settings.ASGI_APPLICATION)
        return ", ".join(self.paths) or "none is found. Give the URL of a socket"

    def channel_layer(self):
        layer = get_channel_layer()
        if layer is None:
            return "none: consumers cannot reach each other"
        if hasattr(layer, "brpop_timeout"):
            # channels_redis waits for so many seconds. https://github.com/django/channels_redis/issues/422
            limit = layer.create_pool(0).make_connection().socket_timeout
            if limit is not None and limit <= layer.brpop_timeout:
                raise Failed("redis 8", limit)
        self.within(asyncio.run, round_trip(layer))
        return f"{type(layer).__name__} passes messages on"

    def database(self):
        if names := self.within(unapplied):
            raise Failed("migrations", len(names), names[0])
        return "it answers, and all migrations are applied"

    # The server

    def login(self):
        if self.user:
            client = Client()
            client.force_login(self.user)
            self.stack.callback(client.logout)
            self.headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}"
            return f"as {self.user}"

    def within(self, function, *arguments):
        """Return what the function does. Raise a TimeoutError when it takes too long, and leave its thread behind."""
        with ThreadPool(1) as pool:
            return pool.apply_async(function, arguments).get(self.timeout)

    def dial(self):
        return socket.create_connection((self.uri.host, self.uri.port), self.timeout)

    def tcp(self):
        self.within(self.dial).close()
        return f"{self.uri.host} takes connections at port {self.uri.port}"

    def tls(self):
        if self.uri.secure:
            with ssl.create_default_context().wrap_socket(self.dial(), server_hostname=self.uri.host) as sock:
                return f"{sock.version()}, with a certificate until {sock.getpeercert()['notAfter']}"

    def open(self, url):
        """Open a socket, self.ws, and return None; or return the response with which the server refuses."""
        sock = self.dial()
        sock.settimeout(None)
        how = {"origin": self.origin, "additional_headers": self.headers, "open_timeout": self.timeout}
        try:
            self.ws = self.stack.enter_context(websockets.sync.client.connect(url, sock=sock, close_timeout=1, **how))
        except Exception as error:
            # Of a redirect websockets makes another exception.
            while error is not None and not hasattr(error, "response"):
                error = error.__cause__ or error.__context__
            if error is None:
                raise
            return error.response

    def http(self):
        response = self.open(self.url)
        if response is None:
            return f"{self.shown_url} opens"
        here, server = re.sub("^ws", "http", self.url), ", ".join(response.headers.get_all("Server")) or "a server"
        target = "".join(response.headers.get_all("Location")[:1])
        place = f" to {'itself' if urljoin(here, target) == here else target.partition('?')[0]}" if target else ""
        answer = f"{response.status_code} from {server}{place}"
        text, names = f"{self.shown_url.partition(':')[0]} {answer} {response.body!r}", []
        key = next((key for pattern, key in ANSWERS.items() if re.match(pattern, text)), str(response.status_code))
        if key == "403":
            # A path that there is not: is it refused, too? Then it is not by a consumer.
            other = self.open(urlsplit(self.url)._replace(path="/no-such-socket").geturl())
            key, *names = self.why_origin() if other and other.status_code == 403 else ["consumer"]
        raise Failed(key if key in TEXTS else "plain", answer, *names)

    def why_origin(self):
        """Return the key of the remedy, as realtime.asgi.remedy_for(), by the settings of this command; and a name."""
        is_ours = apps.is_installed("realtime")
        # AllowedHostsOriginValidator compares the host of the Origin.
        host = re.sub(r":\d+$", "", urlsplit(self.own_origin if is_ours else self.origin).netloc)
        if not validate_host(host, settings.ALLOWED_HOSTS or [".localhost", "127.0.0.1", "[::1]"]):
            return ["host", host]
        if self.origin == "null":
            return ["null"]
        if self.origin != self.own_origin:
            return ["origin", self.origin]
        return ["proxy" if is_ours and self.uri.secure and not settings.SECURE_PROXY_SSL_HEADER else "allowed"]

    def greeting(self):
        self.is_ours = False
        with suppress(TimeoutError):
            while type_of(frame := self.ws.recv(self.timeout)) == "wait":
                pass
            self.is_ours = '"max_size"' in str(frame)
            return type_of(frame)
        return f"none within {self.timeout:g} s, as of a consumer that sends nothing by itself"

    def ping(self):
        started = time.monotonic()
        if self.is_ours:
            self.ws.send('{"type": "ping"}')
            while type_of(self.ws.recv(max(0, started + self.timeout - time.monotonic()))) != "pong":
                pass
        elif not self.ws.ping().wait(self.timeout):
            raise Failed("mute", "")
        return f"a round trip takes {(time.monotonic() - started) * 1000:.1f} ms"

    def idle(self):
        started = time.monotonic()
        with suppress(TimeoutError):
            while (left := started + self.seconds - time.monotonic()) > 0:
                self.ws.recv(left)
        return f"open for {self.seconds:g} s more" if self.seconds else None


def shown(text):
    """Return `text`, which a server may have sent, for a terminal: on one line, without controls, not too long."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split())[:600])


def find_routes(application, path="/"):
    """Yield (path, route, whether it leads to a socket) of what is routed in an ASGI application: "/ws/<int:room>/"."""
    while application is not None and not isinstance(application, URLRouter):
        # A middleware, or a ProtocolTypeRouter.
        inner = [getattr(application, name, None) for name in ("application", "inner", "app")]
        inner.append(getattr(application, "application_mapping", {}).get("websocket"))
        application = next(filter(None, inner), None)
    for route in application.routes if application else ():
        text = re.sub(r"\(\?P<(\w+)>(?:\\d|\[0-9\])\+\)", r"<int:\1>", str(route.pattern))
        text = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", r"<\1>", text).strip("^$")
        inner = list(find_routes(route.callback, path + text))
        # What takes every path is no socket, but refuses those that there are not.
        yield path + text, route, bool(text and not inner)
        yield from inner


async def round_trip(layer):
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "handshake"})
    await layer.receive(channel)


def unapplied():
    """Connect to each database, and return the names of the default's migrations that are not applied."""
    for connection in connections.all():
        connection.ensure_connection()
    executor = MigrationExecutor(connections["default"])
    executor.loader.check_consistent_history(executor.connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def type_of(frame):
    """Return the "type" of a frame, a str or bytes, or else its beginning."""
    return (re.findall(r'"type": ?"(\w+)"', str(frame)) or [str(frame)[:60]])[0]
