"""Many pages at once on a real server: who waits, who has left, and how a server that is stopped lets them go."""

import asyncio
import json
import shutil
import signal
import socket
from contextlib import AsyncExitStack

import pytest
from clients import is_greeting, log_in_all, open_client
from servers import LOCAL_PRODUCTION, Server, run, run_probe, slug_of, wait_until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PAGES = 50


@pytest.fixture(scope="module")
def narrow(bake, tmp_path_factory):
    """A chat that greets two sockets at a time, and closes ten in a second when it is stopped."""
    project = shutil.copytree(bake(starter="chat"), tmp_path_factory.mktemp("herd") / "project")
    for name, line in {
        "realtime/limits.py": "AT_A_TIME = 2",
        f"{slug_of(project)}/protocols.py": "CLOSED_PER_SECOND = 10",
    }.items():
        path = project / name
        constant = line.partition(" = ")[0]
        lines = path.read_text(encoding="utf-8").splitlines()
        (number,) = [number for number, text in enumerate(lines) if text.startswith(f"{constant} = ")]
        lines[number] = line
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def cookies(narrow):
    run(narrow, "manage.py", "migrate", env=LOCAL_PRODUCTION)
    run_probe(narrow, "make_rooms.py", "room", env=LOCAL_PRODUCTION)
    return [*log_in_all(narrow, [f"person-{number}" for number in range(10)], LOCAL_PRODUCTION).values()]


@pytest.fixture
def server(narrow, cookies):
    with Server(narrow, "production", env=LOCAL_PRODUCTION) as server:
        yield server


class Crowd:
    """Pages of a room that come at once. waits: the frames `wait` that they had before their greetings."""

    def __init__(self, server, cookies):
        self.server, self.cookies, self.waits = server, cookies, 0

    async def come(self, stack):
        """Return the sockets of PAGES pages, which are greeted."""
        return await asyncio.gather(*[self.open(stack, number) for number in range(PAGES)])

    async def open(self, stack, number):
        headers = {"Cookie": self.cookies[number % len(self.cookies)]}
        url, origin = f"{self.server.socket_url}room/", self.server.url.rstrip("/")
        connection = connect(url, origin=origin, additional_headers=headers, open_timeout=20)
        socket = await stack.enter_async_context(connection)
        while not is_greeting(frame := json.loads(await asyncio.wait_for(socket.recv(), 20))):
            assert frame["type"] == "wait"
            self.waits += 1
        return socket


async def has_pong(socket):
    """Tell whether a ping is answered, and the socket not closed."""
    try:
        await socket.send('{"type": "ping"}')
        while json.loads(await asyncio.wait_for(socket.recv(), 20))["type"] != "pong":
            pass
    except ConnectionClosed:
        return False
    return True


def test_all_of_a_crowd_are_greeted_and_who_waits_is_told(server, cookies):
    async def come_and_ping():
        async with AsyncExitStack() as stack:
            return [await has_pong(socket) for socket in await crowd.come(stack)]

    crowd = Crowd(server, cookies)
    assert asyncio.run(come_and_ping()) == [True] * PAGES
    assert crowd.waits


def test_sigterm_closes_one_after_the_other(server, cookies):
    """When the first is closed, others are still served; and all are closed before the 10 s are over."""

    async def come_and_go():
        async with AsyncExitStack() as stack:
            sockets = await crowd.come(stack)
            closing = [asyncio.create_task(socket.wait_closed()) for socket in sockets]
            server.process.send_signal(signal.SIGTERM)
            await asyncio.wait(closing, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert any([await has_pong(socket) for socket in sockets])
            await asyncio.wait_for(asyncio.gather(*closing), 10)
            return {socket.close_code for socket in sockets}

    crowd = Crowd(server, cookies)
    assert asyncio.run(come_and_go()) == {1012}
    assert server.process.wait(10) == -signal.SIGTERM


def test_a_client_that_has_left_before_it_is_accepted_costs_no_handshake(server):
    """It sends the request of a handshake, and is gone before the server has looked."""
    server.process.send_signal(signal.SIGSTOP)
    request = f"GET /ws/socket-server/gone/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
    request += f"Origin: {server.url.rstrip('/')}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    request += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request.encode())
    server.process.send_signal(signal.SIGCONT)

    # The same path, so that the log shows that it would have been there.
    path = "ws/socket-server/gone/"
    with open_client(server, path=path, greeting=False) as client, pytest.raises(ConnectionClosed):
        client.receive()
    wait_until(lambda: "/gone/" in server.log, "the last one is logged")
    assert server.log.count("/ws/socket-server/gone/ of") <= 2


def test_the_garbage_collector_leaves_alone_what_is_loaded(narrow):
    # Otherwise it goes through all of Django again with every thousand sockets: a fifth of a handshake.
    load = f"import gc; from {slug_of(narrow)}.__main__ import load; load(); print(gc.get_freeze_count())"

    assert int(run(narrow, "-c", load, env=LOCAL_PRODUCTION).stdout) > 50_000
