"""Accounts under real servers: many who log in at once, and guesses that reach several processes."""

import asyncio
import random
import time
from collections import Counter

import httpx
import pytest
from clients import log_in_all
from servers import LOCAL_PRODUCTION, Server, collect_static, run
from services import Postgres

# A browser may choose its own.
TOKEN = "a" * 32
# Seconds
ATTACK = 5


@pytest.fixture(scope="module", params=["chat", "minimal"])
def starter(request):
    return request.param


@pytest.fixture(scope="module")
def env(starter):
    with Postgres() as postgres:
        yield LOCAL_PRODUCTION | {"DATABASE_URL": postgres.create_database(), "DJANGO_TRUST_PROXY": "true"}


@pytest.fixture(scope="module")
def project(bake, env, starter):
    project = bake(starter=starter)
    run(project, "manage.py", "migrate", env=env)
    collect_static(project, env)
    return project


@pytest.fixture(scope="module")
def servers(project, env):
    """Two processes with one PostgreSQL, which has 100 connections."""
    with Server(project, "production", env=env) as first, Server(project, "production", env=env) as second:
        yield first, second


async def guess(client, server, name, address):
    headers = {"X-Forwarded-For": address, "Cookie": f"csrftoken={TOKEN}", "Origin": server.url.rstrip("/")}
    form = {"csrfmiddlewaretoken": TOKEN, "username": name, "password": "a guess"}
    try:
        return (await client.post(f"{server.url}admin/login/", data=form, headers=headers)).status_code
    except httpx.TimeoutException as error:
        return repr(error)


def test_100_guesses_at_a_time_leave_the_pages_alone(project, servers, env):
    """Each is for another account and from another address, so that only the caps on connections and hashes help."""
    cookie = log_in_all(project, ["ada"], env)["ada"]
    guesses, pages = Counter(), Counter()
    times = []

    async def attack(client, number, until):
        while time.monotonic() < until:
            address = ".".join(str(random.randrange(1, 250)) for _ in range(4))
            guesses[await guess(client, servers[number % 2], f"user{random.random()}", address)] += 1

    async def read(client, until):
        while time.monotonic() < until or not times:
            for server in servers:
                started = time.monotonic()
                try:
                    response = await client.get(server.url, headers={"Cookie": cookie})
                    pages[response.status_code] += 1
                except httpx.TimeoutException as error:
                    pages[repr(error)] += 1
                times.append(time.monotonic() - started)

    async def both():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=100, limits=limits) as attacker, httpx.AsyncClient(timeout=100) as reader:
            until = time.monotonic() + ATTACK
            await asyncio.gather(read(reader, until), *[attack(attacker, number, until) for number in range(100)])

    asyncio.run(both())

    times.sort()
    print(f"{dict(guesses)}; {dict(pages)} in {times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s (longest)")
    assert set(pages) == {200}
    assert set(guesses) <= {200, 503}
    assert "too many clients" not in "".join(server.log for server in servers)


def test_guesses_at_the_same_moment_are_counted(servers, starter):
    """In `chat` in all processes together, in `minimal` in each."""

    async def guesses(name):
        async with httpx.AsyncClient(timeout=100) as client:
            some = servers if starter == "chat" else servers[:1]
            tasks = [guess(client, some[number % len(some)], name, f"192.0.2.{number}") for number in range(16)]
            return Counter(await asyncio.gather(*tasks))

    codes = asyncio.run(guesses("grace"))
    # On a slow machine some wait too long for their turn: 503.
    assert codes[200] <= 10
    assert codes[429] >= 6
