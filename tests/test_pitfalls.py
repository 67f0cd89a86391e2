"""
Rows of the table "What a baked project never meets" that need a project with a mistake, or a consumer of its own.

The rows that every socket meets are in test_sockets.py, those of variables in test_settings.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import httpx
import pytest
from clients import open_client
from servers import LOCAL_PRODUCTION, WINDOWS, Server, clean_environ, free_port, python_of, run, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

# Consumers with which a project would meet the pitfalls.
CONSUMERS = '''
import asyncio
import threading

from channels.db import database_sync_to_async
from django.contrib.auth.models import User

from realtime.consumers import RealtimeConsumer
from realtime.fanout import get_fanout


class Closing(RealtimeConsumer):
    """Row 6: not logged in."""

    async def connect(self):
        await self.close(4401)


class Refusing(RealtimeConsumer):
    """Row 18: refused, before anything is set."""

    async def connect(self):
        await self.close()


class Failing(RealtimeConsumer):
    """Row 7: an error in a handler."""

    async def connect(self):
        await self.accept()
        await self.join("failing")
        await self.send_json({"type": "members", "count": len(get_fanout().groups["failing"].members)})

    async def receive_json(self, content):
        raise ZeroDivisionError


class Slow(RealtimeConsumer):
    """Row 10: work that takes long."""

    async def connect(self):
        await self.accept()
        self.start_task(self.work())

    async def work(self):
        try:
            await self.send_json({"type": "working"})
            await asyncio.sleep(600)
        finally:
            print("work cancelled", flush=True)

    async def disconnect(self, code):
        print("disconnect called", flush=True)


class Threads(RealtimeConsumer):
    """Row 4: a slow call, which ends when another socket's query has been answered."""

    answered = threading.Event()

    async def connect(self):
        await self.accept()

    async def receive_json(self, content):
        if content["type"] == "wait":
            await self.send_json({"type": "waiting"})
            wait = database_sync_to_async(self.answered.wait, thread_sensitive=False)
            await self.send_json({"type": "waited", "in vain": not await wait(15)})
        else:
            await self.send_json({"type": "users", "count": await User.objects.acount()})
            self.answered.set()
'''


@pytest.fixture
def copy(project, tmp_path):
    """A migrated project, which a test may change."""
    return shutil.copytree(project, tmp_path / "project")


@pytest.fixture(scope="module", params=["runserver", "uvicorn"])
def probes(request, with_consumers):
    """A server of a project that has the consumers above."""
    project = with_consumers(
        CONSUMERS,
        closing="Closing",
        refusing="Refusing",
        failing="Failing",
        slow="Slow",
        threads="Threads",
    )
    with Server(project, request.param) as server:
        yield server


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_row_1_an_idle_socket_on_redis_stays_open(project, redis):
    with Server(project, "uvicorn", env={"REDIS_URL": redis.url}) as server:
        wait_until(lambda: httpx.get(server.url + "healthz").status_code == 200, "Redis answers")
        with open_client(server) as client, open_client(server) as other:
            with pytest.raises(TimeoutError):
                client.receive(timeout=12)
            other.send({"type": "message", "text": "still there?"})
            assert client.receive()["text"] == "still there?"
        assert "is lost" not in server.log


def test_redis_reaches_the_other_process(project, redis):
    env = {"REDIS_URL": redis.url}
    with (
        Server(project, "uvicorn", env) as one,
        Server(project, "daphne", env) as other,
        open_client(one) as first,
        open_client(other) as second,
    ):
        for sender in (first, second):
            sender.send({"type": "message", "text": "hello"})
            assert first.receive() == second.receive() == {"type": "message", "text": "hello", "id": None}


def test_healthz_says_which_part_does_not_answer(project):
    with Server(project, "uvicorn", env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}) as server:
        health = httpx.get(server.url + "healthz", timeout=10)

    assert health.status_code == 503
    assert health.json() == {"database": "ok", "channel_layer": "ConnectionError"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('    INSTALLED_APPS.insert(0, "daphne")', "    pass", "daphne is not in INSTALLED_APPS"),
        ("INSTALLED_APPS.insert(0,", "INSTALLED_APPS.insert(1,", "daphne is not the first of INSTALLED_APPS"),
    ],
    ids=["removed", "moved"],
)
def test_row_2_without_daphne_runserver_says_why(copy, old, new, says):
    replace(copy / "my_realtime_site" / "settings.py", old, new)

    check = run(copy, "manage.py", "check", check=False)
    assert check.returncode == 1
    assert "realtime.E001" in check.stdout
    assert says in check.stdout
    assert "404" in check.stdout
    runserver = run(copy, "manage.py", "runserver", str(free_port()), "--noreload", check=False)
    assert runserver.returncode == 1
    assert "daphne" in runserver.stdout


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("my_realtime_site.asgi.app", "Cannot find 'app'"),
        ("my_realtime_site.nowhere.application", "Cannot import"),
        ("my_realtime_site.asgi.django_asgi_app", "takes HTTP only"),
        ("application", "Cannot find ASGI_APPLICATION"),
    ],
)
def test_a_wrong_asgi_application_is_explained(copy, path, says):
    settings = copy / "my_realtime_site" / "settings.py"
    replace(settings, '"my_realtime_site.asgi.application"', f'"{path}"')

    check = run(copy, "manage.py", "check", check=False)

    assert check.returncode == 1
    assert "realtime.E002" in check.stdout
    assert says in check.stdout


def test_row_3_import_sorters_keep_the_order(copy):
    """Every server start in test_sockets.py proves the order itself."""
    asgi = copy / "my_realtime_site" / "asgi.py"
    before = asgi.read_text(encoding="utf-8")

    command = [sys.executable, "-m", "ruff", "check", "--select", "I,E402,F401", "--fix", "--unsafe-fixes", asgi]
    subprocess.run(command, check=True, capture_output=True)

    assert asgi.read_text(encoding="utf-8") == before


def test_row_4_a_slow_call_in_a_thread_of_its_own_stalls_nobody(probes):
    with (
        open_client(probes, path="ws/threads/", greeting=False) as slow,
        open_client(probes, path="ws/threads/", greeting=False) as other,
    ):
        slow.send({"type": "wait"})
        assert slow.receive() == {"type": "waiting"}
        other.send({"type": "count"})
        assert other.receive(timeout=20) == {"type": "users", "count": 0}
        assert slow.receive(timeout=20) == {"type": "waited", "in vain": False}


def test_row_6_a_code_before_accept_reaches_the_client(probes):
    with open_client(probes, path="ws/closing/", greeting=False) as client, pytest.raises(ConnectionClosed) as closed:
        client.receive()

    assert closed.value.rcvd.code == 4401


def test_row_7_a_failing_socket_leaves_its_groups(probes):
    for _ in range(3):
        with open_client(probes, path="ws/failing/", greeting=False) as client:
            assert client.receive() == {"type": "members", "count": 1}
            client.send({"type": "anything"})
            with pytest.raises(ConnectionClosed):
                client.receive()
    wait_until(lambda: "WebSocket /ws/failing/ of 127.0.0.1 closed with 1011" in probes.log, "a log line")


def test_the_log_of_production(with_consumers):
    """A line when a socket opens and one when it closes, with errors, and without uvicorn's own lines."""
    project = with_consumers(CONSUMERS, failing="Failing", refusing="Refusing")
    run(project, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    with Server(project, "production", env=LOCAL_PRODUCTION) as server:
        with open_client(server):
            pass
        with pytest.raises(InvalidStatus), open_client(server, path="ws/refusing/", greeting=False):
            pass
        wait_until(lambda: "closed with 1000" in server.log and "not accepted" in server.log, "the log lines")
        lines = [line for line in server.log.splitlines() if "ebSocket" in line or "connection" in line]
        assert {re.sub(".*: | after .*", "", line) for line in lines} == {
            "WebSocket /ws/socket-server/ of 127.0.0.1 opened",
            "WebSocket /ws/socket-server/ of 127.0.0.1 closed with 1000",
            "WebSocket /ws/refusing/ of 127.0.0.1 not accepted",
        }
        assert len(lines) == 3
        with open_client(server, path="ws/failing/", greeting=False) as client:
            client.receive()
            client.send({"type": "anything"})
            wait_until(lambda: "ZeroDivisionError" in server.log, "a traceback")


def test_row_10_slow_work_is_cancelled_when_the_socket_closes(probes):
    with open_client(probes, path="ws/slow/", greeting=False) as client:
        assert client.receive() == {"type": "working"}
        client.ping()
        assert "work cancelled" not in probes.log

    wait_until(lambda: "work cancelled" in probes.log, "the task ends", timeout=5)
    wait_until(lambda: "disconnect called" in probes.log, "disconnect() runs", timeout=5)


def test_row_13_the_fixtures_of_the_tests_neither_leak_nor_lock(copy):
    tests = """
import asyncio

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User

from realtime.consumers import RealtimeConsumer


class Writing(RealtimeConsumer):
    async def receive_json(self, content):
        await User.objects.acreate(username=content["type"])
        await self.send_json({"type": "names", "names": [user.username async for user in User.objects.order_by("pk")]})


@pytest.fixture(autouse=True)
def route(monkeypatch):
    monkeypatch.setattr("chat.consumers.ChatConsumer.receive_json", Writing.receive_json)


@pytest.mark.parametrize("attempt", range(3))
async def test_a_consumer_sees_and_writes_rows(open_socket, attempt):
    await User.objects.acreate(username="by the test")
    sockets = [await open_socket("/ws/socket-server/") for _ in range(5)]
    for number, socket in enumerate(sockets):
        await socket.receive_type("connection_established")
        await socket.send_json_to({"type": f"by socket {number}"})
        names = (await socket.receive_type("names"))["names"]
        assert names[0] == "by the test"
        assert len(names) == number + 2


def test_nothing_is_left(db):
    assert not User.objects.exists()
"""
    (copy / "chat" / "test_rows.py").write_text(tests, encoding="utf-8")

    result = run(copy, "-m", "pytest", "chat/test_rows.py")

    assert "4 passed" in result.stdout


def test_row_18_disconnect_after_a_refused_connect(probes):
    with pytest.raises(InvalidStatus) as refusal, open_client(probes, path="ws/refusing/", greeting=False):
        pass
    assert refusal.value.response.status_code == 403

    # What the refused consumer has to complain about stands in the log before the end of a later one.
    with open_client(probes):
        pass
    wait_until(lambda: "/ws/socket-server/ of 127.0.0.1 closed" in probes.log, "a log line")
    assert "AttributeError" not in probes.log


def test_row_20_static_files_under_the_daphne_command(copy):
    run(copy, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    with Server(copy, "daphne", env=LOCAL_PRODUCTION) as server, httpx.Client(base_url=server.url) as browser:
        script = browser.get("static/chat/chat.js")
        page = browser.get("/").text

        # Row 28: what a script imports has a hash, too, and may be cached for ever.
        path = page.partition('type="module" src="')[2].partition('"')[0]
        assert re.fullmatch(r"/static/chat/chat\.[0-9a-f]{12}\.js", path)
        imported = re.search(r'from "\.\./(realtime/socket\.[0-9a-f]{12}\.js)"', browser.get(path).text)[1]
        response = browser.get(f"static/{imported}")

    assert script.status_code == response.status_code == 200
    assert "immutable" in response.headers["Cache-Control"]


def test_row_29_static_files_without_warnings(copy):
    """ASGI and WhiteNoise warn of synchronous iterators; here warnings would be errors."""
    with Server(copy, "uvicorn", env={"PYTHONWARNINGS": "error"}) as server:
        assert httpx.get(server.url + "static/chat/chat.js").status_code == 200
        assert "Warning" not in server.log


def test_runserver_reloads(copy):
    """runserver as people start it, with the process that watches the files: a saved file is served."""
    if WINDOWS:
        pytest.skip("the reloader's processes are ended by their group, which Windows has not")
    port = free_port()
    command = [python_of(copy), "manage.py", "runserver", str(port)]
    log = (copy / "log").open("wb")
    process = subprocess.Popen(command, cwd=copy, env=clean_environ(), stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until(lambda: answers(url, "My Realtime Site"), "the first page")
        time.sleep(1.1)  # The reloader compares times of whole seconds.
        replace(copy / "my_realtime_site" / "settings.py", '"My Realtime Site"', '"Another name"')
        wait_until(lambda: answers(url, "Another name"), "the changed page")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def answers(url, text):
    try:
        return text in httpx.get(url).text
    except httpx.TransportError:
        return False
