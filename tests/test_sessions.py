"""Logins over real sockets and between processes: sessions that end, tickets, and a change of the secret key."""

import re
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from clients import open_client
from servers import LOCAL_PRODUCTION, Server, append_settings, collect_static, run
from services import Redis
from websockets.exceptions import ConnectionClosed

# Consumers that say who is there, ours and Channels' own.
CONSUMERS = """
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from realtime.consumers import RealtimeConsumer


class Who(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.send({"type": "you", "name": self.scope["user"].get_username()})


class Plain(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json({"type": "you", "name": self.scope["user"].get_username()})

    async def receive_json(self, content):
        await self.send_json({"type": "pong"})
"""
PATHS = ["ws/who/", "ws/plain/"]
# Notifies again and again from threads and event loops of their own, as tasks and commands do.
NOTIFY = """
from threading import Thread
from django.db import transaction
from realtime import notify

def work(name):
    for number in range(20):
        with transaction.atomic():
            notify("lobby", {"type": "notified", "name": name, "number": number})

work("command")
for number in range(3):
    thread = Thread(target=work, args=[f"thread {number}"])
    thread.start()
    thread.join()
"""


# Seconds, in the tests of the re-check. Elsewhere it is a minute, so that it is not what closes a socket.
RECHECK = 2


@pytest.fixture(scope="module")
def site(with_consumers):
    """A project with the consumers above and two users, ann and ben."""
    site = with_consumers(CONSUMERS, who="Who", plain="Plain")
    append_settings(site, 'REALTIME_RECHECK_SECONDS = int(os.environ.get("RECHECK", 60))')
    shell(site, "for name in ('ann', 'ben'): User.objects.create_superuser(name, password='secret')")
    return site


def shell(site, code, env=None):
    """Run `code`, which may use User and Session, in a process that is no server."""
    imports = """
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
User = get_user_model()
"""
    return run(site, "manage.py", "shell", "--no-imports", "-c", imports + code, env=env).stdout


@contextmanager
def two_servers(site, **env):
    """Start two processes that share a Redis, and yield them and their variables."""
    with Redis() as redis:
        env["REDIS_URL"] = redis.url
        with Server(site, "uvicorn", env) as one, Server(site, "daphne", env) as two:
            yield one, two, env


@pytest.fixture(scope="module")
def servers(site):
    with two_servers(site) as servers:
        yield servers


def log_in(server, name="ann"):
    """Return an httpx.Client in which the user of this name is logged in."""
    browser = httpx.Client(base_url=server.url, follow_redirects=True)
    post(browser, "admin/login/", username=name, password="secret", next="/admin/")
    assert "sessionid" in browser.cookies
    return browser


def post(browser, path, **fields):
    """Send the form of the admin's page."""
    token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', browser.get("admin/").text)[1]
    response = browser.post(path, data=fields | {"csrfmiddlewaretoken": token})
    assert response.status_code == 200


@contextmanager
def open_who(server, path, browser=None, **options):
    """Open a socket with the cookies of `browser`, and yield the Client and the name of its user."""
    if browser is not None:
        options["additional_headers"] = {"Cookie": f"sessionid={browser.cookies['sessionid']}"}
    with open_client(server, path=path, greeting=False, **options) as client:
        client.name = client.receive()["name"]
        yield client


def assert_out(*clients):
    for client in clients:
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd.code == 4401


def assert_in(*clients):
    for client in clients:
        client.send({"type": "ping"})
        assert client.receive()["type"] == "pong"


@pytest.mark.parametrize("end", ["logout", "deleted session", "login as somebody else"])
def test_the_end_of_a_session_closes_its_sockets_in_every_process(site, servers, end):
    one, two, env = servers
    browser, elsewhere = log_in(one), log_in(two)
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_who(server, path, browser)) for server in (one, two) for path in PATHS]
        others = [stack.enter_context(open_who(server, path, elsewhere)) for server in (one, two) for path in PATHS]
        nobody = stack.enter_context(open_who(two, PATHS[0]))
        if end == "logout":
            post(browser, "admin/logout/")
        elif end == "deleted session":
            shell(site, f"Session.objects.filter(pk={browser.cookies['sessionid']!r}).delete()", env)
        else:
            post(browser, "admin/login/", username="ben", password="secret", next="/admin/")

        assert_out(*sockets)
        assert_in(*others, nobody)


def test_a_user_who_is_deactivated_without_a_signal_is_out_after_the_re_check(site):
    with two_servers(site, RECHECK=str(RECHECK)) as (one, two, env), ExitStack() as stack:
        browser, other = log_in(one), log_in(two, "ben")
        sockets = [stack.enter_context(open_who(server, path, browser)) for server in (one, two) for path in PATHS]
        sockets.append(stack.enter_context(open_with(one, fetch_ticket(browser), "header")))
        others = [stack.enter_context(open_who(server, path, other)) for server in (one, two) for path in PATHS]
        try:
            shell(site, "User.objects.filter(username='ann').update(is_active=False)", env)
            started, queued = time.monotonic(), one.queued + two.queued

            assert_out(*sockets)
            # A busy machine adds to it.
            assert time.monotonic() - started - (one.queued + two.queued - queued) < RECHECK + 1
            assert_in(*others)
        finally:
            shell(site, "User.objects.update(is_active=True)")


def fetch_ticket(browser):
    """Return a ticket, as the page of a site of ours fetches it."""
    token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', browser.get("admin/").text)[1]
    response = browser.post("realtime/ticket/", headers={"X-CSRFToken": token})
    assert response.status_code == 200, response.text
    return response.json()["ticket"]


def open_with(server, token, way):
    """Open a socket with `token` and without a cookie, as an app (header) or a page (subprotocol) does."""
    if way == "header":
        # No Origin, as no app sends one.
        return open_who(server, PATHS[0], additional_headers={"Authorization": f"Bearer {token}"})
    return open_who(server, PATHS[0], subprotocols=[f"bearer.{token}", "chat"], origin="https://elsewhere.example.com")


@pytest.mark.parametrize("way", ["header", "subprotocol"])
def test_a_ticket_opens_a_socket_in_every_process(servers, way):
    one, two, _ = servers
    ticket = fetch_ticket(log_in(one))

    for server in (one, two):
        with open_with(server, ticket, way) as client:
            assert client.name == "ann"
            assert client.connection.subprotocol == (None if way == "header" else "chat")
            assert_in(client)
        assert ticket not in server.log


@pytest.mark.parametrize("way", ["header", "subprotocol"])
def test_a_bad_ticket_is_4401_in_every_process(servers, way):
    for server in servers[:2]:
        with pytest.raises(ConnectionClosed) as closed, open_with(server, "bad", way):
            pass
        assert closed.value.rcvd.code == 4401
        assert "Traceback" not in server.log


def test_a_new_secret_key_keeps_sessions_and_users(site):
    old, new = (LOCAL_PRODUCTION["DJANGO_SECRET_KEY"] + number for number in "12")
    collect_static(site)
    with Server(site, "production", LOCAL_PRODUCTION | {"DJANGO_SECRET_KEY": old}) as server:
        browser = log_in(server)
    rotated = LOCAL_PRODUCTION | {"DJANGO_SECRET_KEY": new, "DJANGO_SECRET_KEY_FALLBACKS": old}
    with Server(site, "production", rotated) as server:
        for _ in range(2):
            with open_who(server, PATHS[0], browser) as client:
                assert client.name == "ann"


def test_notify_from_commands_and_threads(site, servers):
    one, _, env = servers
    with open_client(one) as client:
        output = run(site, "manage.py", "shell", "--no-imports", "-c", NOTIFY, env=env).stdout

        for name in ("command", "thread 0", "thread 1", "thread 2"):
            for number in range(20):
                assert client.receive() == {"type": "notified", "name": name, "number": number}
        assert "Error" not in output
