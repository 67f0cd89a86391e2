"""
The doctor: walks from INSTALLED_APPS to an answered ping, and names the remedy of what is broken.

It needs Django, Channels and the package websockets, and nothing of this project: copied into management/commands/ of
one of its apps, this file serves any other project, too.
"""

import asyncio
import inspect
import json
import logging
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
from django.contrib.auth import get_user, get_user_model
from django.core.management import BaseCommand, CommandError, get_commands, load_command_class
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.http.request import validate_host
from django.test import Client
from django.urls.resolvers import RoutePattern

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

# The key of a remedy, by what is answered instead of 101: "ws 301 from nginx to … b'<html>…'". The first one counts.
ANSWERS = read_table(r"""
(?i)wss? \d+ from [^'"]*(wsgi|gunicorn|waitress|werkzeug|cheroot): WSGI
(?i)wss? 30[12378] .* to itself: loop
(?i)wss? 30[12378] .* to [^ ]*(login|signin|sign_in|oauth): sign in
ws 30[12378] .* to https: https
wss? 30[12378]: redirect
(?i)wss? 2.*type=.?password: sign in
wss? 40[34] .*<center>nginx: nginx
(?i)wss? 4.*ssl certificate: certificate
wss? 400 .*(DisallowedHost|Bad Request \(400\)): no host
wss? (413|414|431): 431
wss? (407|511): 407
wss? (405|501): 405
wss? (408|499|598|599|522|524): 504
wss? 52[0137]|wss? 530: 502
wss? 52[56]: TLS behind
wss? 5(?!0[0234]): 5xx
wss? 4(?!0[01349]|2[69]): 4xx
""")

# What is wrong and the remedy, or only that. The key is a name, the step and the class of an exception, or OpenSSL's
# verify_code, an HTTP status, or a close code.
TEXTS = read_table("""
daphne moved: daphne is not the first of INSTALLED_APPS: runserver would speak no WebSocket, and every socket would
    get a 404 | Move it to the top, so that its runserver is the one that Django finds.
websockets: the package websockets, or its newest release, is missing | pip install -U websockets
options ValueError: With an option that is not understood: manage.py handshake --help. URLs are such as
    example.com:8000, [::1]:8000, https://example.com/ws/chat/, /ws/chat/.
options InvalidURI: URLs are such as example.com:8000, [::1]:8000, https://example.com/ws/chat/, /ws/chat/.
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
no router: {} holds {}, which is no ASGI application, and every WebSocket would get a 500 | In asgi.py:
    URLRouter(websocket_urlpatterns), inside of the middleware, as the "websocket" of the ProtocolTypeRouter.
regular: {} is never found: {} is a regular expression in path() | In its routing.py, write re_path().
converter: {} is never found: {} has a converter in re_path() | In its routing.py, write path().
hidden: {} is never found: a route above takes its path, too | In routing.py, end that one with $, or move it below;
    unknown_path comes last.
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
channel layer OutOfMemoryError: Redis is full: raise its maxmemory.
channel layer ReadOnlyError: That is a replica: name the primary in REDIS_URL, or use Sentinel.
channel layer ResponseError: Is the number of its database right? It needs Redis 5 or newer, or Valkey, no cluster,
    and a user that may run all commands.
channel layer TimeoutError: no answer | Redis is frozen, speaks no TLS where rediss:// asks for it, or a firewall drops
    what is sent to it.
no layer: CHANNEL_LAYERS has no default | Set it in settings.py; for one process, its BACKEND is
    "channels.layers.InMemoryChannelLayer".
channel layer ConnectionError: Start Redis, or correct REDIS_URL: rediss:// where Redis speaks TLS.
channel layer ValueError: its address is not understood | REDIS_URL is not understood. In a password write @ / : # %
    as %40 %2F %3A %23 %25.
channel layer Exception: See CHANNEL_LAYERS in settings.py.
database Exception: Start the database, or correct DATABASE_URL.
database OperationalError: Start the database, or correct DATABASE_URL. What is locked is so by another process.
database TimeoutError: no answer | Start the database, or correct DATABASE_URL. A firewall may drop what is sent to it,
    or another process locks it.
database InconsistentMigrationHistory: Its tables come from other migrations than those of this project.
login Exception: The user and the session of --user are in the database: see above.
login TimeoutError: no answer | The user and the session of --user are in the database: see above.
login DoesNotExist: --user takes a name that is in the database of this command.
anonymous: {} would be anonymous | Is this user active (is_active), and does AUTHENTICATION_BACKENDS know such users?

TCP gaierror: DNS does not know the host {at.host}: {} | Is the name right, and does this machine resolve names?
TCP TimeoutError: no answer, of DNS or of the host | Are name and port right, and is the server up? A firewall may drop
    what is sent to it.
TCP ConnectionRefusedError: Start the server (manage.py runserver), or correct the port.
TCP UnicodeError: no host has the name {at.host} | Correct the URL.
TCP OSError: Are host and port right, and is the server up? A firewall may drop what is sent to it.
TLS TLSV1_ALERT_PROTOCOL_VERSION: It speaks an old TLS only, which browsers refuse, too: TLS 1.2 or newer is needed.
TLS UNSUPPORTED_PROTOCOL: It speaks an old TLS only, which browsers refuse, too: TLS 1.2 or newer is needed.
TLS SSLV3_ALERT_HANDSHAKE_FAILURE: It speaks TLS, but wants other ciphers or a certificate of the client.
TLS TLSV1_UNRECOGNIZED_NAME: It has no site, and no certificate, of this name.
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
HTTP TimeoutError: no whole answer in time | The server is blocked (a slow call in asynchronous code), connect() waits
    for a service or does neither accept() nor close() (a forgotten await), the answer never ends, or it is no web
    server.
HTTP ConnectionClosed: The server, or a proxy without a server, has hung up: see its log. With https:// it may want a
    certificate of the client.
HTTP NegotiationError: The server has chosen a subprotocol or an extension that was not offered, which browsers refuse,
    too. accept() takes one of scope["subprotocols"], or none.
HTTP ValueError: It redirects to what is no URL.
HTTP OSError: The server has hung up: see its log.
HTTP InvalidMessage: Is it the port of a web server that speaks HTTP/1.1? One that speaks TLS has https:// or wss://,
    and may want a certificate of the client.
HTTP InvalidHandshake: A proxy in between changes the headers of the answer.
crowd: told to wait again and again | The server has no room: ask again later, or add servers.
mute: no pong of the server | The server is blocked, or a proxy holds frames back.
busy: no pong of its consumer | Its consumer is busy: a slow call, in it or in another one, or a service
    that does not answer.

400: A proxy passes on a part of the handshake only (nginx: both Upgrade and Connection), or TLS is missing
    (https://).
4xx: The server or a proxy refuses the handshake: see its log.
5xx: The server or a proxy fails: see its log.
no host: Django was asked over plain HTTP for a host that it does not know. Add the host to DJANGO_ALLOWED_HOSTS; a
    proxy has to pass on Host and Upgrade (nginx: proxy_set_header Host $http_host;).
certificate: A proxy wants a certificate of the client: let the path of the socket pass without one.
TLS behind: A proxy, such as Cloudflare, finds no good certificate at the server behind it: renew it.
407: A proxy or this network wants a login: ask from elsewhere.
405: What answers takes no WebSocket: is it the host, port and path of the server?
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
consumer: Its consumer refuses in connect(), perhaps because nobody is logged in: try --token TOKEN, or --user NAME
    if the server has the database, cache and SECRET_KEY of this command. Or connect() ends without accept(), as by a
    forgotten await: see the server's log.
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
1003: {}: it does not take such frames | See the log of the server: this command sends text and pings only.
1010: {}: an extension is missing | No browser has one that is not offered: see the server.
1014: {}: a proxy reaches no server | Does the server run, at the address and port that the proxy has?
3000: {}: not logged in | Log in with --token TOKEN or --user NAME.
3003: {}: not allowed | Its consumer refuses this user: try --user NAME.
3008: {}: the server has waited in vain | The consumer wants a frame that this command does not send.
1000: {}: its consumer has closed it | See connect() of the consumer.
1001: {}: the server stops | Ask again when it is back.
1002: {}: what came is no WebSocket | Something in between changes the bytes, or the server speaks another protocol.
1005: closed without a code: its consumer has closed it | See connect() of the consumer.
ConnectionClosedError: {}: the connection was cut | Its consumer has raised an exception (its traceback is in the
    server's log), the server was killed, or the read time-out of a proxy is shorter than the pause between heartbeats.
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
    import_seconds = 60

    def add_arguments(self, parser):
        for name, text in OPTIONS.items():
            kind = {"--json": {"action": "store_true"}, "url": {"nargs": "?", "default": ""}}.get(name, {})
            parser.add_argument(name, help=text, **kind)

    def handle(self, **options):
        self.given, self.lines = options, []
        self.shown_url = self.uri = self.ws = None
        # It would write tracebacks about what is explained here.
        logging.getLogger("websockets").setLevel(logging.CRITICAL + 1)
        try:
            with ExitStack() as self.stack:
                if is_asked := self.step("options"):
                    for name in ("INSTALLED_APPS", "ASGI_APPLICATION", "routes", "channel layer", "database"):
                        self.step(name)
                    # Up to the first that fails.
                    all(map(self.step, ("login", "TCP", "TLS", "HTTP", "greeting", "ping", "idle")))
        except KeyboardInterrupt:
            raise CommandError("interrupted", returncode=130) from None
        is_well = all(line["ok"] for line in self.lines)
        if options["json"]:
            self.stdout.write(json.dumps({"ok": is_well, "url": self.shown_url, "steps": self.lines}, indent=2))
        if not is_well:
            sys.exit(1 if is_asked else 2)

    def step(self, name):
        """Take a step and report it, if there is something to say. Return whether all is well."""
        key, ours = None, apps.is_installed("realtime")
        try:
            values = [getattr(self, name.lower().replace(" ", "_"))()]
        except Failed as failed:
            key, *values = failed.args
        except Exception as error:
            close = getattr(error, "rcvd", None) or getattr(error, "sent", None)
            details = [getattr(error, name, "") for name in ("verify_code", "reason") if isinstance(error, OSError)]
            values = [f"{type(error).__name__}: {' '.join({str(error): 0, str(error.__cause__ or ''): 0})}"]
            values = [f"closed with {close.code} {close.reason}".strip()] if close else values
            kinds = [*details, *[cls.__name__ for cls in type(error).__mro__]]
            # Elsewhere, these two mean something else.
            code = str(close.code) if close and (ours or close.code not in (4000, 4429)) else ""
            keys = [code, "code"] if close else [*[f"{name} {kind}" for kind in kinds], *kinds]
            key = next((key for key in keys if key in TEXTS), "unknown")
        *what, remedy = [text.format(*values, at=self.uri) for text in TEXTS.get(key, "").split(" | ")]
        for word, elsewhere in () if ours else ELSEWHERE.items():
            remedy = remedy.replace(word, elsewhere)
        # Passwords and tokens in URLs are shown to nobody.
        text = re.sub(r"(?<=//)[^/\s]+@|(?<=[\w/])\?[^\s.]+", "…", (what or values)[0] or "")
        line = {"step": name, "ok": key is None, "text": shown(text), "remedy": shown(remedy)}
        if values != [None]:
            self.lines.append(line)
            if not self.given["json"]:
                encoding = getattr(self.stdout, "encoding", None) or "utf-8"
                mark = ("✗✓" if "✗✓".encode(encoding, "ignore") else ("FAILED", "ok"))[key is None]
                text = f"{mark} {name}: {line['text']}".rstrip(".") + f". {line['remedy']}" * bool(remedy)
                self.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return key is None

    # This project

    def options(self):
        """Return None. Raise ValueError. Import ASGI_APPLICATION, too: its routes give the URL that is asked."""
        if websockets is None:
            raise Failed("websockets")
        url, user, token, origin = (self.given[name] for name in ("url", "user", "token", "origin"))
        self.timeout, self.seconds = float(self.given["timeout"] or 10), float(self.given["idle"] or 0)
        if not 0 < self.timeout < 1e6 > self.seconds >= 0:
            raise ValueError("no number of seconds")
        if "" in (user, token, origin) or not re.fullmatch(r"(?i)null|[a-z][a-z0-9+.-]*://[^/?#]+", origin or "null"):
            raise ValueError("--user and --token are not empty, --origin is scheme and host")
        if re.search("[^!-~]", f"{url}{token or ''}{origin or ''}"):
            raise ValueError("only ASCII: a host as xn--…, other letters as %C3%BC")
        self.reason = self.import_application()
        self.layers, self.found = [], []
        if not self.reason or "AppRegistry" in self.reason:
            with suppress(Exception):
                self.layers = list(layers_of(get_default_application()))
                self.found = list(find_routes(self.layers[-1]))
        self.paths = [path for path, _, is_socket, _ in self.found if is_socket]
        # Best a path without a parameter; one becomes a number or a word.
        first = min(self.paths, key=lambda path: "<" in path, default="/")
        first = re.sub("<(int:)?.*?>", lambda match: "1" if match[1] else "lobby", first)
        url = url if "://" in url else f"ws://{'' if url[:1] not in ('', *'/?#') else '127.0.0.1:8000'}{url}"
        parts = urlsplit(re.sub("(?i)^http", "ws", url.partition("#")[0]))
        self.url = parts._replace(path=parts.path if parts.path.strip("/") else first).geturl()
        self.uri = websockets.uri.parse_uri(self.url)
        host = websockets.headers.build_host(self.uri.host, self.uri.port, self.uri.secure)
        self.own_origin = f"http{'s' * self.uri.secure}://{host}"
        self.origin, self.shown_url = origin or self.own_origin, f"ws{'s' * self.uri.secure}://{host}{self.uri.path}"
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def import_application(self):
        """Return why uvicorn and daphne cannot import it, or "". Here, manage.py has loaded the apps already."""
        self.asgi = str(getattr(settings, "ASGI_APPLICATION", None) or "")
        code = "import {0}; {0}.{2}".format(*self.asgi.rpartition("."))
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONNODEBUGRANGES": "1", "PYTHONUTF8": "1"}
        pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "encoding": "utf-8", "errors": "replace"}
        try:
            alone = subprocess.run([sys.executable, "-c", code], env=env, timeout=self.import_seconds, **pipes)
        except subprocess.TimeoutExpired:
            return f"it takes longer than {self.import_seconds:g} s"
        # The first traceback is the innermost, and its last place.
        error = re.split(r"\n\n(?:During|The above)", alone.stderr.strip())[0].rpartition("  File ")[2]
        return alone.returncode and (error or "it ends the process")

    def installed_apps(self):
        owner = get_commands()["runserver"]
        modules = {cls.__module__.partition(".")[0] for cls in type(load_command_class(owner, "runserver")).__mro__}
        if settings.DEBUG and modules <= {"builtins", "django", "realtime", "whitenoise", "servestatic"}:
            if self.is_answered():
                return "runserver would speak no WebSocket, but another server answers"
            raise Failed("daphne moved" if apps.is_installed("daphne") else "daphne missing")
        return f"runserver is that of {owner}" if settings.DEBUG else "DEBUG is off, and runserver is not used"

    def is_answered(self):
        """Return whether what answers at the URL speaks WebSocket."""
        with suppress(Exception):
            response = self.within(self.open, self.url)
            if response is None:
                self.ws.close()
            return response is None or response.status_code in (403, 500)

    def asgi_application(self):
        if self.reason:
            order = "order" if "AppRegistry" in self.reason else "application" if self.asgi else "unset"
            raise Failed(order, self.asgi, self.reason)
        application = get_default_application()
        mapping = getattr(application, "application_mapping", {"websocket": None})
        # Django's own has this method.
        if not callable(application) or hasattr(application, "load_middleware") or "websocket" not in mapping:
            raise Failed("HTTP only", self.asgi)
        if self.layers and not callable(self.layers[-1]):
            raise Failed("no router", self.asgi, type(self.layers[-1]).__name__)
        return f"{self.asgi} can be imported"

    def routes(self):
        for path, route, _, is_hidden in self.found:
            pattern, is_path = str(route.pattern), isinstance(route.pattern, RoutePattern)
            mistakes = {
                "class": isinstance(route.callback, type) or getattr(route.callback, "__name__", "") == "as_asgi",
                "slash": pattern.lstrip("^").startswith("/"),
                "regular": is_path and re.search(r"\(\?P<|^\^|\$$", pattern),
                "converter": not is_path and re.search(r"(?<!\?P)<\w*:?\w+>", pattern),
                "hidden": is_hidden,
            }
            for key in filter(mistakes.get, mistakes):
                raise Failed(key, path, pattern)
        used = {id(route) for _, route, *_ in self.found}
        for config in () if self.reason else apps.get_app_configs():
            if "site-packages" not in config.path and os.path.exists(os.path.join(config.path, "routing.py")):
                values = vars(sys.modules.get(f"{config.name}.routing", object)).values()
                items = {id(item) for value in values if isinstance(value, list) for item in value}
                if f"{config.name}.routing" not in sys.modules or (used and items and not items & used):
                    raise Failed("routing", config.name, self.asgi)
        return ", ".join(self.paths) or "none is found. Give the URL of a socket"

    def channel_layer(self):
        layer = get_channel_layer()
        if layer is None:
            if apps.is_installed("realtime") or getattr(settings, "CHANNEL_LAYERS", None):
                raise Failed("no layer")
            return "none: consumers cannot reach each other"
        # That of Redis pub/sub has no attributes outside of its loop.
        for index in range(layer.ring_size if hasattr(type(layer), "brpop_timeout") else 0):
            # channels_redis waits for so many seconds. https://github.com/django/channels_redis/issues/422
            limit = layer.create_pool(index).make_connection().socket_timeout
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
        return self.within(self.log_in, self.given["user"]) if self.given["user"] else None

    def log_in(self, name):
        user, client = get_user_model()._default_manager.get_by_natural_key(name), Client()
        client.force_login(user)
        self.stack.callback(client.logout)
        # As the server sees this session.
        if get_user(client).is_anonymous:
            raise Failed("anonymous", user)
        self.headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}"
        return f"as {user}"

    def within(self, function, *arguments):
        """Return what the function does. Raise a TimeoutError when it takes too long, and leave its thread behind."""
        with ThreadPool(1) as pool:
            return pool.apply_async(and_disconnect, (function, *arguments)).get(self.timeout)

    def dial(self):
        return socket.create_connection((self.uri.host, self.uri.port), self.timeout)

    def tcp(self):
        self.within(self.dial).close()
        return f"{self.uri.host} takes connections at port {self.uri.port}"

    def tls(self):
        if self.uri.secure:
            context = ssl.create_default_context()
            # As of browsers. The Python of a system may allow older ones, and fail later in the handshake.
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            with context.wrap_socket(self.dial(), server_hostname=self.uri.host) as sock:
                return f"{sock.version()}, with a certificate until {sock.getpeercert()['notAfter']}"

    def open(self, url):
        """Open a socket, self.ws, and return None; or return the response with which the server refuses."""
        sock = self.dial()
        sock.settimeout(None)
        how = {"origin": self.origin, "additional_headers": self.headers, "open_timeout": self.timeout}
        connect = websockets.sync.client.connect
        if "ping_interval" in inspect.signature(connect).parameters:
            # Browsers send no pings, which keep a proxy from its time-out.
            how["ping_interval"] = None
        try:
            self.ws = self.stack.enter_context(connect(url, sock=sock, close_timeout=1, **how))
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
        names = [type(layer).__name__ for layer in self.layers]
        is_ours = apps.is_installed("realtime") and "OriginValidator" not in names
        # AllowedHostsOriginValidator compares the host of the Origin.
        host = re.sub(r":\d+$", "", urlsplit(self.own_origin if is_ours else self.origin).netloc)
        local = [".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else []
        if host and not validate_host(host, settings.ALLOWED_HOSTS or local):
            return ["host", host]
        if self.origin != self.own_origin:
            return ["null"] if self.origin == "null" else ["origin", self.origin]
        return ["proxy" if is_ours and self.uri.secure and not settings.SECURE_PROXY_SSL_HEADER else "allowed"]

    def greeting(self):
        self.is_ours, end = False, time.monotonic() + 6 * self.timeout
        with suppress(TimeoutError):
            while type_of(frame := self.ws.recv(self.timeout)) == "wait":
                if time.monotonic() > end:
                    raise Failed("crowd")
            self.is_ours = '"max_size"' in str(frame) and '"crowd"' in str(frame)
            return type_of(frame)
        return f"none within {self.timeout:g} s, as of a consumer that sends nothing by itself"

    def ping(self):
        started = time.perf_counter()
        if self.is_ours:
            self.ws.send('{"type": "ping"}')
            if "pong" not in map(type_of, self.frames(self.timeout)):
                raise Failed("busy")
        else:
            pong = self.ws.ping()
            # A server may send much before its pong.
            if not any(pong.is_set() for _ in self.frames(self.timeout, 0.001)):
                raise Failed("mute")
        return f"a round trip takes {(time.perf_counter() - started) * 1000:.1f} ms"

    def idle(self):
        for _ in self.frames(self.seconds):
            pass
        return f"open for {self.seconds:g} s more" if self.seconds else None

    def frames(self, seconds, step=1e6):
        """Yield what comes within `seconds`, and None after each `step` seconds. Raise ConnectionClosed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            frame = None
            with suppress(TimeoutError):
                frame = self.ws.recv(min(left, step))
            yield frame
        # Raises it where the server has closed, and not hung up.
        self.ws.ping()


def shown(text):
    """Return `text`, which a server may have sent, for a terminal: on one line, without controls, not too long."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split())[:600])


def layers_of(application):
    """Yield what is around the sockets of an ASGI application, from the outside in, and at last what is inside."""
    yield application
    mapping = getattr(application, "application_mapping", {})
    names = [name for name in ("application", "inner", "app") if hasattr(application, name)]
    if not isinstance(application, URLRouter) and (names or "websocket" in mapping):
        yield from layers_of(mapping["websocket"] if mapping else getattr(application, names[0]))


def find_routes(application, path="/"):
    """
    Yield what is routed in an ASGI application.

    Each is a path such as "/ws/<int:room>/", the route, whether it leads to a socket, and whether another hides it.
    """
    *_, router = layers_of(application)
    before = []
    for route in getattr(router, "routes", ()):
        text = re.sub(r"\(\?P<(\w+)>(?:\\d|\[0-9\])\+\)", r"<int:\1>", str(route.pattern))
        text = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", r"<\1>", text).strip("^$")
        inner = list(find_routes(route.callback, path + text))
        # A word that no pattern means.
        sample = re.sub("<(int:)?.*?>", lambda match: "7" if match[1] else "9Sample9", text)
        # What takes every path is no socket, but refuses those that there are not.
        yield path + text, route, bool(text and not inner), any(pattern.match(sample) for pattern in before)
        yield from inner
        # Where a router has no route for a path, the next one is asked.
        before += [] if inner else [route.pattern]


def and_disconnect(function, *arguments):
    """Return what the function does in a thread, whose connections to databases nobody else would close."""
    try:
        return function(*arguments)
    finally:
        connections.close_all()


async def round_trip(layer):
    # Each of its servers, of which a message takes one.
    for index in range(getattr(layer, "ring_size", 0)):
        await layer.connection(index).ping()
    # Of several, send() may take another than receive(). https://github.com/django/channels/issues/1492
    if getattr(layer, "ring_size", 1) == 1:
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "handshake"})
        await layer.receive(channel)


def unapplied():
    """Connect to each database, and return the names of the default's migrations that are not applied."""
    for connection in connections.all():
        connection.ensure_connection()
    executor = MigrationExecutor(connections["default"])
    executor.loader.check_consistent_history(executor.connection)
    return [str(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]


def type_of(frame):
    """Return the "type" of a frame, a str or bytes, or else its beginning."""
    with suppress(Exception):
        return json.loads(frame)["type"][:60]
    return str(frame)[:60] or "an empty frame"
