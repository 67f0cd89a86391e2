"""
Measure the chat starter: `python benchmarks/chat.py` prints a table.

How long a message takes to all who see it, at a fixed rate, and how many are stored in a second. Linux,
two cores, PostgreSQL and Redis. Nothing is asserted. docs/performance.md says how it is measured.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import time
import uuid
from contextlib import AsyncExitStack, ExitStack

import machine
import subjects

# Importing `machine` has put the tests on the path.
from clients import log_in_all
from servers import LOCAL_PRODUCTION, Server, append_settings, run
from services import Postgres, Redis
from websockets.asyncio.client import connect

MEMBERS = 50
RATE = 20  # messages a second, from all members together
SENDERS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="whose medians are printed (default: %(default)s)")
    options = parser.parse_args()
    try:
        rows = measure(bake(), options)
    finally:
        shutil.rmtree(machine.RUN, ignore_errors=True)
    print(f"| {MEMBERS} members | p50, ms | p99, ms | messages stored in a second |")
    print("| --- | ---: | ---: | ---: |")
    for name, figures in rows.items():
        p50, p99, stored = (statistics.median(values) for values in zip(*figures, strict=True))
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {stored:.0f} |")


def bake():
    """Bake a chat without a limit on frames, and return its folder."""
    project, _ = subjects.bake("starter=chat")
    append_settings(project, "REALTIME_FRAMES_PER_SECOND = None")
    run(project, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    return project


def measure(project, options):
    """Return the figures of each round, lists of (p50, p99, stored), by the name of what is measured."""
    rows = {}
    with Redis() as redis, Postgres() as postgres:
        for _ in range(options.rounds):
            sqlite = project.parent / f"{uuid.uuid4()}.sqlite3"
            database = postgres.create_database()
            for name, processes, env in (
                ("SQLite, one process", 1, {"DATABASE_URL": f"sqlite:///{sqlite}"}),
                ("PostgreSQL, one process", 1, {"DATABASE_URL": database}),
                ("PostgreSQL and Redis, two processes", 2, {"DATABASE_URL": database, "REDIS_URL": redis.url}),
            ):
                print(f"{name} …", flush=True)
                env = LOCAL_PRODUCTION | env
                run(project, "manage.py", "migrate", env=env)
                prefix = uuid.uuid4().hex
                cookies = log_in_all(project, [f"{prefix}-{number}" for number in range(MEMBERS)], env)
                with ExitStack() as stack:
                    servers = [stack.enter_context(Server(project, "production", env=env)) for _ in range(processes)]
                    for server, core in zip(servers, (machine.SERVER_CORE, machine.SECOND_SERVER_CORE), strict=False):
                        os.sched_setaffinity(server.process.pid, {core})
                    os.sched_setaffinity(0, {machine.CLIENT_CORE})
                    latencies = asyncio.run(measure_latency(servers, cookies, options.seconds))
                    stored = asyncio.run(measure_stored(servers, cookies, options.seconds))
                    os.sched_setaffinity(0, machine.CORES)
                cuts = statistics.quantiles(latencies, n=100)
                rows.setdefault(name, []).append((cuts[49] * 1000, cuts[98] * 1000, stored))
    return rows


async def open_all(stack, servers, cookies):
    """Return a socket for each cookie, on the servers in turn, once it has the greeting."""
    sockets = []
    for cookie, server in zip(cookies.values(), itertools.cycle(servers), strict=False):
        options = {
            "additional_headers": {"Cookie": cookie},
            "origin": server.url.rstrip("/"),
            "compression": None,
            "max_queue": None,
        }
        url = f"{server.socket_url}lobby/?after={10**9}"
        socket = await stack.enter_async_context(connect(url, **options))
        assert json.loads(await socket.recv())["type"] == "connection_established"
        sockets.append(socket)
    return sockets


async def measure_latency(servers, cookies, seconds):
    """Return the seconds from each message, sent when it is due, to its arrival at each member."""
    due, latencies = {}, []

    async def read(socket):
        async for text in socket:
            if '"message"' in text[:20]:
                latencies.append(time.monotonic() - due[json.loads(text)["id"]])

    async with AsyncExitStack() as stack:
        sockets = await open_all(stack, servers, cookies)
        readers = [asyncio.create_task(read(socket)) for socket in sockets]
        count = int(seconds * RATE)
        begin = time.monotonic() + 1
        for number, socket in zip(range(count), itertools.cycle(sockets), strict=False):
            at = begin + number / RATE
            await asyncio.sleep(at - time.monotonic())
            id = str(uuid.uuid4())
            due[id] = at
            await socket.send(json.dumps({"type": "message", "id": id, "text": "x" * 64}))
        while len(latencies) < count * len(sockets):
            await asyncio.sleep(0.01)
        for reader in readers:
            reader.cancel()
    return latencies


async def measure_stored(servers, cookies, seconds):
    """Return how many messages are stored in a second by members of whom each waits for its last one."""

    async def talk(socket):
        stored = 0
        while time.monotonic() < end:
            id = str(uuid.uuid4())
            await socket.send(json.dumps({"type": "message", "id": id, "text": "x" * 64}))
            while id not in await socket.recv():
                pass
            stored += 1
        return stored

    async with AsyncExitStack() as stack:
        sockets = await open_all(stack, servers, dict(itertools.islice(cookies.items(), SENDERS)))
        end = time.monotonic() + seconds
        return sum(await asyncio.gather(*map(talk, sockets))) / seconds


if __name__ == "__main__":
    main()
