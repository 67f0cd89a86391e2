"""A WebSocket client for the tests, which speaks the frames of the contract."""

import json
import re
import socket
from contextlib import contextmanager

import httpx
from servers import run_probe
from websockets.sync.client import connect

# Every greeting has "max_size" and "crowd", too.
GREETING = {"type": "connection_established", "message": "You are now connected!"}


def is_greeting(frame):
    return GREETING.items() <= frame.items()


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
            while (frame := client.receive())["type"] == "wait":
                pass
            client.greeting = frame
            assert is_greeting(client.greeting)
        yield client


async def receive_first(socket):
    """Return the first frame, a dict, on a connection of websockets; in a crowd `wait` may come before it."""
    while (frame := json.loads(await socket.recv()))["type"] == "wait":
        pass
    return frame


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


def log_in_all(project, names, env=None):
    """Make users with these names in the project's database, and return the Cookie header of each, a dict by name."""
    output = run_probe(project, "log_in.py", *names, env=env)
    # Beside log lines.
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))


def open_stuck_reader(server, path="ws/socket-server/"):
    """Return a socket that has made the handshake, with a small receive buffer, and reads nothing more."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    reader.sendall(
        f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.url.rstrip('/')}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b" 101 " in reader.recv(100)
    return reader
