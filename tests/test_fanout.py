"""The fan-out under load and through the loss of its services, over real sockets."""

import asyncio
import json
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clients import GREETING, open_client
from servers import LOCAL_PRODUCTION, Server, append_settings, run, wait_until
from services import Postgres
from websockets.asyncio.client import connect

# A consumer that broadcasts many times in one go, and one that asks the database.
CONSUMERS = """
import asyncio

from django.contrib.auth.models import User

from realtime.consumers import RealtimeConsumer


class Burst(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.join("burst")
        await self.send_json({"type": "joined"})

    async def receive_json(self, content):
        frames = [{"type": "frame", "number": number} for number in range(content["count"])]
        await asyncio.gather(*[self.broadcast("burst", frame) for frame in frames])


class Counting(RealtimeConsumer):
    async def connect(self):
        await self.accept()

    async def receive_json(self, content):
        await self.send_json({"type": "users", "count": await User.objects.acount()})
"""


@pytest.fixture(scope="module")
def probes(with_consumers):
    """A project with the consumers above, whose sockets may send as fast as they can."""
    project = with_consumers(CONSUMERS, burst="Burst", counting="Counting")
    append_settings(project, "REALTIME_FRAMES_PER_SECOND = None")
    run(project, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    return project


@pytest.mark.parametrize("layer", ["memory", "redis"])
def test_a_burst_of_2000_broadcasts_loses_none(probes, layer, request):
    redis_url = request.getfixturevalue("redis").url if layer == "redis" else ""
    with (
        Server(probes, "production", env=LOCAL_PRODUCTION | {"REDIS_URL": redis_url}) as server,
        open_client(server, path="ws/burst/", greeting=False) as sender,
        open_client(server, path="ws/burst/", greeting=False) as receiver,
    ):
        for client in (sender, receiver):
            assert client.receive() == {"type": "joined"}
        sender.send({"type": "burst", "count": 2000})
        for client in (sender, receiver):
            assert sorted(client.receive()["number"] for _ in range(2000)) == list(range(2000))


def test_the_subscription_survives_a_restart_of_redis(project, redis):
    env = {"REDIS_URL": redis.url}
    with (
        Server(project, "uvicorn", env) as one,
        Server(project, "uvicorn", env) as other,
        open_client(one) as first,
        open_client(one) as second,
        open_client(other) as third,
    ):
        redis.kill()
        for server in (one, other):
            wait_until(lambda server=server: "The channel layer is lost" in server.log, "a log line")
        redis.start()
        for server in (one, other):
            wait_until(lambda server=server: "The channel layer is back" in server.log, "a log line")

        first.send({"type": "message", "text": "still there?"})

        for client in (first, second, third):
            assert client.receive()["text"] == "still there?"
        for server in (one, other):
            assert server.log.count("The channel layer is lost") == 1


def test_1000_simultaneous_connects_over_redis(project, redis):
    """Row 24: none fails, and Redis holds one member for the process, whatever the number of its sockets."""

    async def greet(server):
        async with connect(server.socket_url, origin=server.url.rstrip("/"), open_timeout=60) as client:
            assert json.loads(await client.recv()) == GREETING
            greeted.append(client)
            await everybody.wait()

    async def storm(server):
        async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
            for _ in range(1000):
                tasks.create_task(greet(server))
            while len(greeted) < 1000:
                await asyncio.sleep(0.05)
            members.append(redis.execute("zcard", "my_realtime_site:group:lobby").strip())
            everybody.set()

    greeted, members, everybody = [], [], asyncio.Event()
    with Server(project, "uvicorn", env={"REDIS_URL": redis.url}) as server:
        # In a thread, since a browser test may have left an event loop in this one.
        with ThreadPoolExecutor() as threads:
            threads.submit(asyncio.run, storm(server)).result()
        assert members == ["1"]
        wait_until(lambda: redis.execute("zcard", "my_realtime_site:group:lobby").strip() == "0", "all have left")
        assert "Traceback" not in server.log


def test_stuck_readers_cost_bounded_memory(probes):
    """Row 26: 50 readers that read nothing during 100 MB of broadcast, on uvicorn; the others get everything."""
    count, text = 4200, "😀" * 2000  # 24 kB as JSON, 100 MB in all
    with Server(probes, "production", env=LOCAL_PRODUCTION) as server, open_client(server) as client:
        stuck = [open_stuck_reader(server) for _ in range(50)]
        before = memory(server.process.pid)
        for number in range(count):
            client.send({"type": "message", "text": text, "id": str(number)})
            assert client.receive()["id"] == str(number)
        grown = memory(server.process.pid) - before
        wait_until(lambda: server.log.count("reads too slowly") == 50, "all stuck readers are given up")
        for reader in stuck:
            reader.close()

    print(f"memory {grown / 2**20:+.1f} MB")
    assert grown < 20 * 2**20


def open_stuck_reader(server):
    """Return a socket that has made the handshake, with a small receive buffer, and reads nothing more."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    reader.sendall(
        f"GET /ws/socket-server/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.url.rstrip('/')}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b" 101 " in reader.recv(100)
    return reader


def memory(pid):
    """Return the resident memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells the memory of a process in /proc")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) * 1024


def test_no_stale_connection_after_a_restart_of_postgresql(probes):
    """A handler that queries keeps Django's care for its connection, although others make no hop to a thread."""
    with Postgres() as postgres:
        env = LOCAL_PRODUCTION | {"DATABASE_URL": postgres.url}
        run(probes, "manage.py", "migrate", env=env)
        with Server(probes, "production", env=env) as server:
            with open_client(server, path="ws/counting/", greeting=False) as client:
                for _ in range(3):
                    client.send({"type": "count"})
                    assert client.receive() == {"type": "users", "count": 0}
                wait_until(lambda: connections(postgres) == 0, "no connection is left open", timeout=5)

                postgres.kill()
                postgres.start()

                client.send({"type": "count"})
                assert client.receive() == {"type": "users", "count": 0}
            assert "Traceback" not in server.log


def connections(postgres):
    """Return how many clients PostgreSQL has, besides the one that asks."""
    query = "select count(*) - 1 from pg_stat_activity where backend_type = 'client backend'"
    psql = [postgres.bin / "psql", postgres.url.replace("postgres:", "postgresql:", 1), "-Atc", query]
    return int(subprocess.check_output(psql, text=True))
