"""The fan-out under load and through the loss of its services, over real sockets."""

import asyncio
import contextlib
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import is_greeting, open_client, open_stuck_reader, receive_first
from servers import LOCAL_PRODUCTION, Server, collect_static, run, run_probe, wait_until
from services import Postgres, Redis
from websockets.asyncio.client import connect


@pytest.fixture(scope="module")
def probes(with_probe):
    """A project with the consumers of bursts.py, whose sockets may send as fast as they can."""
    project = with_probe("bursts.py", "REALTIME_FRAMES_PER_SECOND = None")
    collect_static(project)
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
            frames = [client.receive() for _ in range(2000 + (client is sender))]
            # Over Redis this may come first.
            frames = [frame for frame in frames if frame["type"] != "sent"]
            assert sorted(frame["number"] for frame in frames) == list(range(2000))


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
    """None fails, and Redis holds one member for the process, whatever the number of its sockets."""

    async def greet(server):
        async with connect(server.socket_url, origin=server.url.rstrip("/"), open_timeout=60) as client:
            assert is_greeting(await receive_first(client))
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
    """50 readers that read nothing during 100 MB of broadcast, on uvicorn; the others get everything."""
    count, text = 4200, "😀" * 2000  # 24 kB as JSON, 100 MB in all
    with Server(probes, "production", env=LOCAL_PRODUCTION) as server, open_client(server) as client:
        stuck = [open_stuck_reader(server) for _ in range(50)]
        before = server.memory
        for number in range(count):
            client.send({"type": "message", "text": text, "id": str(number)})
            assert client.receive()["id"] == str(number)
        grown = server.memory - before
        wait_until(lambda: server.log.count("reads too slowly") == 50, "all stuck readers are given up")
        for reader in stuck:
            reader.close()

    print(f"memory {grown / 2**20:+.1f} MB")
    assert grown < 20 * 2**20


def test_no_stale_connection_after_a_restart_of_postgresql(probes):
    """A handler that queries keeps Django's care for its connection, although others make no hop to a thread."""
    with Postgres() as postgres:
        env = LOCAL_PRODUCTION | {"DATABASE_URL": postgres.url}
        run(probes, "manage.py", "migrate", env=env)
        with Server(probes, "production", env=env) as server:
            with open_client(server, path="ws/counting/") as client:
                for _ in range(3):
                    client.send({"type": "count"})
                    assert client.receive() == {"type": "users", "count": 0}
                wait_until(lambda: postgres.connections() == 0, "no connection is left open", timeout=5)

                postgres.kill()
                postgres.start()

                client.send({"type": "count"})
                assert client.receive() == {"type": "users", "count": 0}
            assert "Traceback" not in server.log


@pytest.mark.parametrize("servers", [1, 3])
def test_many_messages_are_few_calls_to_redis(project, servers):
    """All arrive in order, on whichever of the servers their groups are, and no more wait than may."""
    with contextlib.ExitStack() as stack:
        redis = [stack.enter_context(Redis()) for _ in range(servers)]
        urls = ",".join(each.url for each in redis)

        printed = run_probe(project, "shards.py", env=LOCAL_PRODUCTION | {"REDIS_URL": urls})

        result = json.loads(printed.splitlines()[-1])
        assert result["complete"]
        assert result["plain"] == ["a", "b"]
        assert result["trimmed"]
        # The one that was just being received may have been taken.
        assert result["dropped"] in (4, 5)
        for each in redis:
            calls = re.search(r"cmdstat_zrange:calls=(\d+)", each.execute("info", "commandstats"))
            assert int(calls[1]) > 0
