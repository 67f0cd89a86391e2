"""Clients that are no page of the site: a React app on another origin, Python, Node, a phone; and their tokens."""

import base64
import json
import re
import shutil
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import httpx
import npm
import pytest
from browser import expect, expect_state, open_browser, visits
from clients import Client, log_in_all
from servers import (
    LOCAL_PRODUCTION,
    REPOSITORY,
    Process,
    Server,
    clean_environ,
    collect_static,
    free_port,
    python_of,
    require,
    run,
    wait_until,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

RECIPES = REPOSITORY / "docs" / "recipes"
SCRIPT = "realtime/static/realtime/socket.js"
PACKAGES = ["vite@8.3.8", "@vitejs/plugin-react@6.3.0", "react@19.3.1", "react-dom@19.3.1"]
INDEX = """<!DOCTYPE html>
<html lang="en">
  <head>
    <title>App</title>
    <link rel="icon" href="data:,">
  </head>
  <body>
    <div id="root"></div>
    <script type="module" src="/main.jsx"></script>
  </body>
</html>
"""
MAIN = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App.jsx";

const root = createRoot(document.getElementById("root"));
root.render(<StrictMode><App /></StrictMode>);
window.unmount = () => root.unmount();
"""
CONFIG = """
import react from "@vitejs/plugin-react";

export default { plugins: [react()] };
"""

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


@pytest.fixture(scope="module")
def site(with_probe):
    """A project with the consumer of who.py at ws/who/, and its function for tokens."""
    site = with_probe("who.py", 'REALTIME_TOKEN_USER = "chat.probes.user_of_token"', "REALTIME_RECHECK_SECONDS = 1")
    collect_static(site)
    return site


@pytest.fixture(scope="module")
def cookies(site):
    return log_in_all(site, ["ann", "ben", "cai"], LOCAL_PRODUCTION)


@pytest.fixture(scope="module")
def page_port():
    return free_port()


@pytest.fixture(scope="module", params=["production", "runserver"])
def server(request, site, cookies, page_port):
    env = LOCAL_PRODUCTION | {"DJANGO_ALLOWED_ORIGINS": f"http://127.0.0.1:{page_port}"}
    if request.param == "runserver":
        env["DJANGO_DEBUG"] = "true"
    with Server(site, request.param, env) as server:
        yield server
        assert "Traceback" not in server.log


def shell(site, code):
    """Run `code`, which may use User, in a process that is no server, and return the last line that it prints."""
    imports = "from django.contrib.auth import get_user_model; User = get_user_model()\n"
    command = ["manage.py", "shell", "--no-imports", "-c", imports + code]
    return run(site, *command, env=LOCAL_PRODUCTION).stdout.rpartition("\n")[0].rpartition("\n")[2]


def fetch_ticket(server, cookie):
    """Return a ticket, as an app fetches it that has logged in over HTTP. It sends no Origin."""
    token = "a" * 32
    headers = {"Cookie": f"{cookie}; csrftoken={token}", "X-CSRFToken": token}
    response = httpx.post(f"{server.url}realtime/ticket/", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()["ticket"]


@contextmanager
def open_bare(server, path="ws/who/", origin=None, **headers):
    """Open a socket with no more than these headers, and yield the Client. protocols: those to offer."""
    protocols = headers.pop("protocols", None)
    url = f"ws://127.0.0.1:{server.port}/{path}"
    with connect(url, origin=origin, subprotocols=protocols, additional_headers=headers) as socket:
        yield Client(socket)


def who(server, **options):
    """Return who somebody is with these headers and whether there is a session, or the code that closes the socket."""
    with open_bare(server, **options) as client:
        try:
            frame = client.receive()
        except ConnectionClosed as closed:
            return closed.rcvd.code
        return frame["name"], frame["has_session"]


# What a token may be, and what may be beside it


@pytest.fixture(scope="module")
def tokens(site, cookies):
    """Tickets of ann, by what is wrong with them."""
    code = """
import json
import time
from unittest import mock
from realtime.tickets import TICKET_SECONDS, ticket_of
ann, cai = (User.objects.get(username=name) for name in ("ann", "cai"))
good = ticket_of(ann)
with mock.patch("time.time", return_value=time.time() - TICKET_SECONDS - 1):
    expired = ticket_of(ann)
with mock.patch("django.conf.settings.SECRET_KEY", "the key of another site"):
    foreign = ticket_of(ann)
altered = ticket_of(cai).split(".")[0] + good[good.index("."):]
print(json.dumps({"expired": expired, "foreign": foreign, "altered": altered}))
"""
    return json.loads(shell(site, code))


def ways(token):
    """Return the headers of each way to offer `token`."""
    base64url = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return [
        {"Authorization": f"Bearer {token}"},
        {"protocols": ["realtime", f"bearer.{token}"]},
        {"protocols": [f"bearer64.{base64url}", "realtime"]},
    ]


def test_a_good_token_decides_whatever_is_beside_it(server, cookies):
    """A page of any origin may offer one, and the cookie of whoever sits there does not count."""
    ticket = fetch_ticket(server, cookies["ann"])
    for way in ways(ticket):
        assert who(server, **way) == ("ann", False)
        assert who(server, origin="https://evil.example", Cookie=cookies["ben"], **way) == ("ann", False)
    assert ticket not in server.log


def test_a_bad_token_is_refused_whatever_is_beside_it(server, cookies, tokens):
    for name in ("expired", "foreign", "altered"):
        for way in ways(tokens[name]):
            assert who(server, Cookie=cookies["ben"], origin=server.url[:-1], **way) == 4401, name
        assert tokens[name] not in server.log


def test_any_character_may_be_in_a_token(server):
    token = 'é, "世界" /+= ann'
    *_, base64url = ways(token)
    assert who(server, **base64url) == ("ann", False)
    assert token not in server.log
    assert base64url["protocols"][0] not in server.log


def test_a_token_in_the_query_string_is_not_taken(server, cookies):
    ticket = fetch_ticket(server, cookies["ann"])
    for name in ("token", "ticket", "access_token", "bearer"):
        path = f"ws/who/?{name}={ticket}"
        assert who(server, path=path, origin=server.url[:-1]) == ("", False)
        with pytest.raises(InvalidStatus) as refused:
            who(server, path=path)
        assert refused.value.response.status_code == 403
    assert "Origin is missing" in server.log
    assert "offers a token instead" in server.log
    assert ticket not in server.log


def test_a_new_password_ends_tickets_and_their_sockets(site, server):
    name = f"dan-{server.kind}"
    (cookie,) = log_in_all(site, [name], LOCAL_PRODUCTION).values()
    way, *_ = ways(fetch_ticket(server, cookie))
    with open_bare(server, **way) as client:
        assert client.receive()["name"] == name
        shell(site, f"user = User.objects.get(username={name!r}); user.set_password('new'); user.save()")
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd.code == 4401
    assert who(server, **way) == 4401


# React, Python, Node and a phone


@pytest.fixture(scope="module")
def node():
    node = shutil.which("node")
    require(node, "node is not installed")
    return node


in_production = pytest.mark.parametrize("server", ["production"], indirect=True)


class PageHandler(SimpleHTTPRequestHandler):
    """Serves a built page with a strict Content-Security-Policy. site: the host and port that it may connect to."""

    def __init__(self, *arguments, site, **options):
        self.site = site
        super().__init__(*arguments, **options)

    def end_headers(self):
        connect = f"connect-src http://{self.site} ws://{self.site}"
        self.send_header("Content-Security-Policy", f"default-src 'none'; script-src 'self'; img-src data:; {connect}")
        super().end_headers()

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def built_page(request, node, site, server, page_port, tmp_path):
    """
    Return a function that builds the React app of the recipe, and returns the URL of its page, on another origin.

    mode: "development", in which StrictMode mounts everything twice, or "production".
    """
    app = tmp_path / "app"
    app.mkdir()
    for name, text in {"index.html": INDEX, "main.jsx": MAIN, "vite.config.js": CONFIG}.items():
        (app / name).write_text(text, encoding="utf-8")
    for path in (RECIPES / "react" / "App.jsx", RECIPES / "react" / "useSocket.js", site / SCRIPT):
        shutil.copy(path, app)
    (app / "node_modules").symlink_to(npm.install(*PACKAGES) / "node_modules", target_is_directory=True)
    (app / "package.json").write_text('{"type": "module"}', encoding="utf-8")

    def build(mode):
        env = clean_environ(NODE_ENV=mode, VITE_SITE=server.url.rstrip("/"))
        command = [node, "node_modules/vite/bin/vite.js", "build", "--mode", mode]
        built = subprocess.run(command, cwd=app, env=env, capture_output=True, encoding="utf-8", timeout=120)
        assert built.returncode == 0, built.stdout + built.stderr
        handler = partial(PageHandler, directory=app / "dist", site=f"127.0.0.1:{server.port}")
        pages = ThreadingHTTPServer(("127.0.0.1", page_port), handler)
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        request.addfinalizer(pages.server_close)
        request.addfinalizer(pages.shutdown)
        return f"http://127.0.0.1:{page_port}/"

    return build


def visit_as(visit, url, cookie, **options):
    """Open the page at `url` in a browser in which somebody is logged in, and return it and its WebSockets."""
    name, _, value = cookie.partition("=")
    sockets = []

    def prepare(page):
        page.context.add_cookies([{"name": name, "value": value, "url": url}])
        page.on("websocket", lambda socket: sockets.append(socket))

    return visit(url, state="open", prepare=prepare, **options), sockets


def count_open(server):
    """Return how many sockets of the starter's consumer are open."""
    line = "WebSocket /ws/socket-server/ of 127.0.0.1"
    return server.log.count(f"{line} opened") - server.log.count(f"{line} closed with ")


@in_production
@pytest.mark.parametrize("mode", ["development", "production"])
def test_react_on_another_origin(server, cookies, built_page, visit, mode):
    wait_until(lambda: count_open(server) == 0, "those of the test before are closed")
    url = built_page(mode)
    page, sockets = visit_as(visit, url, cookies["ann"])
    other, _ = visit_as(visit, url, cookies["ben"])
    page.get_by_label("Message").fill("Hello")
    page.keyboard.press("Enter")
    for each in (page, other):
        expect(each.get_by_role("listitem")).to_have_text(["Hello"])

    assert [socket.is_closed() for socket in sockets].count(False) == 1
    wait_until(lambda: count_open(server) == 2, "one socket for each page")
    page.evaluate("unmount()")
    wait_until(lambda: count_open(server) == 1, "its socket is closed")
    # Playwright hears of it when it is asked something.
    wait_until(lambda: page.evaluate("true") and all(socket.is_closed() for socket in sockets), "none is left over")


class Listener(Process):
    """A client of the recipes, a process that listens on no port."""

    def __init__(self, directory, *command):
        self.command, self.directory, self.env = command, directory, clean_environ()
        self.log_file = directory / f"listener-{len(list(directory.glob('listener-*')))}.log"

    def _is_up(self):
        assert self.process.poll() is None, self.log
        return "connection_established" in self.log


def node_command(node):
    """Return the beginning of the command of a node with WebSocket, which needs a flag up to version 21."""
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return [node] if int(re.match(r"v(\d+)", version)[1]) >= 22 else [node, "--experimental-websocket"]


@in_production
def test_clients_of_a_user_who_is_deactivated_are_out(site, server, cookies, node, built_page, visit, tmp_path):
    tickets = [fetch_ticket(server, cookies[name]) for name in ("ann", "ben")]
    url, (of_ann, of_ben) = server.socket_url, tickets
    python, script = [python_of(site), RECIPES / "clients" / "listen.py"], RECIPES / "clients" / "listen.mjs"
    wanted = ["Failed to load resource: the server responded with a status of 401"]
    page, _ = visit_as(visit, built_page("production"), cookies["ann"], wanted=wanted)
    with ExitStack() as stack:
        programs = (python, [*node_command(node), script])
        commands = [[*program, url, ticket] for ticket in tickets for program in programs]
        listeners = [stack.enter_context(Listener(tmp_path, *command)) for command in commands]
        phone, other = (
            stack.enter_context(open_bare(server, "ws/socket-server/", Authorization=f"Bearer {ticket}"))
            for ticket in tickets
        )
        for client in (phone, other):
            assert client.receive()["type"] == "connection_established"
        page.get_by_label("Message").fill("Hello")
        page.keyboard.press("Enter")
        for client in (phone, other):
            assert client.receive()["text"] == "Hello"
        wait_until(lambda: all("Hello" in listener.log for listener in listeners), "each has the message")
        try:
            shell(site, "User.objects.filter(username='ann').update(is_active=False)")

            with pytest.raises(ConnectionClosed) as closed:
                phone.receive()
            assert closed.value.rcvd.code == 4401
            for listener in listeners[:2]:
                assert listener.process.wait(10) == 1
                assert "The server says no: 4401" in listener.log
            expect_state(page, "closed")
            other.ping()
            assert [listener.process.poll() for listener in listeners[2:]] == [None, None]
        finally:
            shell(site, "User.objects.update(is_active=True)")
    assert of_ann not in server.log
    assert of_ben not in server.log
