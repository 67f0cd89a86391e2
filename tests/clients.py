"""A WebSocket client for the tests, which speaks the frames of the contract."""

import json
import re
from contextlib import contextmanager

import httpx
from servers import run
from websockets.sync.client import connect

GREETING = {"type": "connection_established", "message": "You are now connected!"}


class Client:
    """One open socket: frames in and out as dicts."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, frame):
        self.connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def receive(self, timeout=10):
        return json.loads(self.connection.recv(timeout))

    def ping(self):
        self.send({"type": "ping"})
        assert self.receive()["type"] == "pong"


@contextmanager
def open_client(server, *, path=None, origin=None, greeting=True, **options):
    """
    Open a socket to `server` and yield a Client, whose greeting has been read.

    origin: as a page of the server's host unless given. options: of websockets' `connect()`.
    """
    url = server.socket_url if path is None else server.url.replace("http", "ws") + path
    origin = origin or server.url.rstrip("/")
    with connect(url, origin=origin, open_timeout=20, max_size=2**21, **options) as connection:
        client = Client(connection)
        if greeting:
            # With the limits of the server beside it.
            assert client.receive().items() >= GREETING.items()
        yield client


def sign_up(server, name):
    """Make an account on the page of the chat starter, as a visitor would, and return the Cookie header."""
    with httpx.Client(base_url=server.url, follow_redirects=True) as browser:
        page = browser.get("accounts/signup/")
        token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', page.text)[1]
        password = "a long one, for the test"
        form = {"csrfmiddlewaretoken": token, "username": name, "password1": password, "password2": password}
        response = browser.post("accounts/signup/", data=form)
        assert response.status_code == 200, response.text
        return f"sessionid={browser.cookies['sessionid']}"


LOG_IN_ALL = """
import json
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
cookies = {}
for name in names:
    client = Client()
    client.force_login(get_user_model().objects.create_user(name))
    cookies[name] = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
print(json.dumps(cookies))
"""


def log_in_all(project, names, env=None):
    """Make users with these names in the project's database, and return the Cookie header of each, a dict by name."""
    script = f"names = {names!r}\n{LOG_IN_ALL}"
    output = run(project, "manage.py", "shell", "--no-imports", "-c", script, env=env).stdout
    # Beside log lines.
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))
