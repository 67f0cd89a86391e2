"""notify() and its relatives from everywhere, over Redis to two processes, and while Redis is away."""

import os
import re
import shutil
import signal
import time
from contextlib import contextmanager

import httpx
import pytest
from clients import log_in_all, open_client
from servers import (
    LOCAL_PRODUCTION,
    Process,
    Server,
    clean_environ,
    collect_static,
    python_of,
    run,
    run_probe,
    slug_of,
    wait_until,
    with_packages,
)


@pytest.fixture(scope="module")
def site(with_probe):
    """A project with the views of notifying.py, and users ann and bob."""
    project = with_probe("notifying.py")
    with (project / "chat" / "urls.py").open("a", encoding="utf-8") as urls:
        urls.write("\nfrom .probes import urlpatterns as probes\n\nurlpatterns += probes\n")
    collect_static(project)
    return project


@pytest.fixture(scope="module")
def cookies(site):
    return log_in_all(site, ["ann", "bob"], LOCAL_PRODUCTION)


@pytest.fixture
def env(redis):
    return LOCAL_PRODUCTION | {"REDIS_URL": redis.url}


@pytest.fixture
def servers(site, env):
    """Two processes, as it were of two machines."""
    with Server(site, "production", env) as one, Server(site, "production", env) as two:
        yield one, two
        assert "Traceback" not in one.log + two.log


def logged_in(cookies, name):
    return {"additional_headers": {"Cookie": cookies[name]}}


def get(server, path, **parameters):
    """Ask a view that notifies, and return its answer and the seconds it took."""
    started = time.perf_counter()
    response = httpx.get(server.url + path, params=parameters, timeout=30)
    assert response.status_code == 200, response.text
    return response.json(), time.perf_counter() - started


def notified(text, number=0):
    return {"type": "notified", "text": text, "number": number}


@contextmanager
def frozen(redis):
    """Let Redis answer nobody, with its connections open."""
    redis.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        redis.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("path", ["notify/", "anotify/"])
def test_a_view_reaches_the_sockets_of_both_processes_in_order(servers, path):
    one, two = servers
    with open_client(one) as near, open_client(two) as far:
        get(one, path, text="hello", count=50)
        for client in (near, far):
            assert [client.receive() for _ in range(50)] == [notified("hello", number) for number in range(50)]


@pytest.mark.parametrize("path", ["notify-user/", "anotify-user/"])
def test_a_user_is_reached_on_every_device_and_nobody_else(servers, cookies, path):
    one, two = servers
    with (
        open_client(one, **logged_in(cookies, "ann")) as near,
        open_client(two, **logged_in(cookies, "ann")) as far,
        open_client(two, **logged_in(cookies, "bob")) as bob,
        open_client(one) as nobody,
    ):
        get(one, path, name="ann", text="for you")
        assert near.receive() == far.receive() == notified("for you")
        # What comes next is for all: the others have got nothing before it.
        get(one, "notify/", text="for all")
        assert bob.receive() == nobody.receive() == notified("for all")


def test_nothing_is_sent_after_a_rollback_and_mistakes_are_errors_at_once(servers):
    one, _ = servers
    with open_client(one) as client:
        get(one, "rolled-back/", text="never")
        answer, _ = get(one, "wrong/")
        assert [bool(error) for error in answer["errors"]] == [True, True, True]
        get(one, "notify/", text="next")
        assert client.receive() == notified("next")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_processes_that_end_at_once_find_redis_by_name(site, redis, env, servers):
    """Those of multiprocessing, and of queues such as RQ, end without atexit."""
    one, _ = servers
    with open_client(one) as client:
        named = env | {"REDIS_URL": redis.url.replace("127.0.0.1", "localhost")}
        run_probe(site, "ends.py", "lobby", env=named)
        for text in ("fork", "forkserver", "spawn", "pool", "first", "second", "third", "last"):
            assert client.receive() == notified(text)


def test_a_command_reaches_both_processes_in_order(site, env, servers):
    one, two = servers
    with open_client(one) as first, open_client(two) as second:
        output = run_probe(site, "notifying.py", "lobby", "1000", env=env)
        assert "lost" not in output
        for client in (first, second):
            assert [client.receive()["number"] for _ in range(1000)] == list(range(1000))
    seconds = float(re.search(r"(\S+) seconds\n", output)[1])
    print(f"1,000 notifications in one transaction of a command: {seconds:.3f} s for the caller")
    assert seconds < 5


def test_a_thousand_in_one_transaction_of_a_request(servers):
    one, two = servers
    with open_client(two) as client:
        answer, _ = get(one, "notify/", text="many", count=1000)
        assert [client.receive()["number"] for _ in range(1000)] == list(range(1000))
    print(f"1,000 notifications in one transaction of a request: {answer['seconds']:.3f} s for the caller")
    assert answer["seconds"] < 5


def test_a_command_without_redis_says_that_nobody_hears_it(site):
    output = run_probe(site, "notifying.py", "lobby", "3", env=LOCAL_PRODUCTION)

    warnings = [line for line in output.splitlines() if " WARNING " in line]
    assert len(warnings) == 1
    assert "notify() reaches nobody" in warnings[0]
    assert "REDIS_URL" in warnings[0]


def test_a_frozen_redis_holds_no_request_up(redis, servers):
    """SIGSTOP: its connections stay open and nothing answers. Logged within 5 s, 1 s for a request at most."""
    one, two = servers
    with open_client(one) as near, open_client(two) as far:
        get(one, "anotify/", text="before")
        assert near.receive() == far.receive() == notified("before")
        with frozen(redis):
            started = time.monotonic()
            waits = {}
            for number, path in enumerate(["notify/", "anotify/", "anotify/", "notify/", "anotify/"]):
                queued = one.queued
                answer, seconds = get(one, path, text="lost")
                # A busy machine adds to it.
                waits[f"{number + 1}. {path}"] = answer["seconds"] - (one.queued - queued)
                assert seconds < 5
            line = r"ERROR realtime\.broadcasts: \d+ messages of notify\(\) are lost: Redis does not answer"
            wait_until(lambda: re.search(line, one.log), "an error in the log", timeout=5)
            print(f"logged after {time.monotonic() - started:.1f} s; the calls took", waits)
            first, *others = (seconds for name, seconds in waits.items() if "anotify" in name)
            assert first < 1.5
            assert max(others) < 0.5
            assert max(seconds for name, seconds in waits.items() if "anotify" not in name) < 0.5
        wait_until(lambda: "The channel layer is back" in one.log, "Redis is back for the sender")
        get(one, "anotify/", text="after")
        get(one, "notify/", text="after")
        for client in (near, far):
            # Of what was sent meanwhile some may have got through: the socket's buffer took it.
            while (frame := client.receive())["text"] == "lost":
                pass
            assert frame == client.receive() == notified("after")


def test_a_command_ends_while_redis_is_frozen(site, env, redis):
    with frozen(redis):
        started = time.monotonic()
        output = run_probe(site, "notifying.py", "lobby", "3", env=env)
        seconds = time.monotonic() - started

    print(f"the command took {seconds:.1f} s")
    assert seconds < 20
    assert re.search(r"ERROR realtime\.\w+: .*messages of notify\(\) are lost", output)


# Celery


class Celery(Process):
    """A worker of Celery, which listens on no port."""

    def __init__(self, project, pool, env):
        options = ["--pool", pool, "--concurrency", "2", "--loglevel", "INFO", "--without-mingle", "--without-gossip"]
        if pool == "prefork":
            # A task is the last of its process.
            options += ["--max-tasks-per-child", "1"]
        self.command = [python_of(project), "-m", "celery", "-A", "chat.probes", "worker", *options]
        self.directory, self.env = project, clean_environ(**env)
        self.log_file = project / f"celery-{pool}.log"

    def _is_up(self):
        assert self.process.poll() is None, self.log
        return " ready." in self.log


@pytest.fixture(scope="module")
def with_celery(with_probe):
    project = with_probe("celery_tasks.py")
    with_packages(project, "celery[redis]")
    collect_static(project)
    return project


@pytest.mark.long
@pytest.mark.parametrize(
    "pool", ["prefork", *(pytest.param(pool, marks=pytest.mark.weekly) for pool in ("threads", "solo"))]
)
def test_a_task_of_celery_notifies(with_celery, tmp_path, redis, pool):
    project = shutil.copytree(with_celery, tmp_path / "project")
    env = LOCAL_PRODUCTION | {
        "REDIS_URL": redis.url,
        "DJANGO_SETTINGS_MODULE": f"{slug_of(project)}.settings",
    }
    cookies = log_in_all(project, ["ann"], env)
    start = (
        "import django; django.setup(); from chat import probes;"
        " [probes.tell_group.delay(f'task {number}', 20) for number in range(5)]; probes.tell_user.delay('ann')"
    )
    with (
        Server(project, "production", env) as server,
        Celery(project, pool, env) as worker,
        open_client(server, **logged_in(cookies, "ann")) as ann,
        open_client(server) as nobody,
    ):
        for _ in range(2):
            run(project, "-c", start, env=env)
            for client, count in ((ann, 101), (nobody, 100)):
                frames = [client.receive(timeout=30) for _ in range(count)]
                assert len([frame for frame in frames if frame["text"] == "for you"]) == count - 100
                for number in range(5):
                    numbers = [frame["number"] for frame in frames if frame["text"] == f"task {number}"]
                    # Of each task, in its order.
                    assert numbers == list(range(20))
        assert "Traceback" not in worker.log + server.log
