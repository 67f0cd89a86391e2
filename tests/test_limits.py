"""What a socket may send, what happens to one that sends more, and what the log says of it, over real sockets."""

import contextlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx
import pytest
from clients import open_client
from servers import LOCAL_PRODUCTION, PROBES, Server, append_settings, collect_static, wait_until
from services import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture(scope="module")
def collected(project, tmp_path_factory):
    """A copy of the project with its static files collected."""
    copy = shutil.copytree(project, tmp_path_factory.mktemp("limits") / "project")
    collect_static(copy)
    return copy


@pytest.fixture(scope="module")
def with_settings(collected, tmp_path_factory):
    """Return a function that copies the project and adds lines to its settings."""

    def with_settings(*lines, project=collected):
        copy = shutil.copytree(project, tmp_path_factory.mktemp("settings") / "project")
        append_settings(copy, *lines)
        return copy

    return with_settings


@pytest.fixture(scope="module")
def server(collected):
    with Server(collected, "production", env=LOCAL_PRODUCTION) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.mark.parametrize("count", [10, 50, 200])
def test_nobody_is_cut_off_who_sends_much_at_once(server, count):
    """A person who pastes ten lines, or a page that sends what has waited for the network."""
    with open_client(server) as client:
        for number in range(count):
            client.send({"type": "message", "text": "line", "id": str(number)})

        assert [client.receive()["id"] for _ in range(count)] == [str(number) for number in range(count)]


def test_cookies_that_a_page_takes_open_a_socket_too(server):
    """Of 20 kB: by default the websockets package takes lines of 8 KiB, and the handshake hangs."""
    cookie = {"Cookie": "; ".join(f"cookie{number}={'x' * 2000}" for number in range(10))}

    assert httpx.get(server.url, headers=cookie).status_code == 200
    with open_client(server, additional_headers=cookie):
        pass


@pytest.mark.parametrize("kind", ["production", "daphne"])
def test_a_thousand_at_once_are_refused_then_cut_off(collected, kind):
    frames, code = [], None
    with Server(collected, kind, env=LOCAL_PRODUCTION) as server, open_client(server) as client:
        with contextlib.suppress(ConnectionClosed):
            for number in range(1000):
                client.send({"type": "message", "text": "line", "id": str(number)})
        try:
            while True:
                frames.append(client.receive())
        except ConnectionClosed as closed:
            code = closed.rcvd.code
        line = "WebSocket /ws/socket-server/ of 127.0.0.1 sends too many frames"
        wait_until(lambda: "closed with 4429" in server.log, "a log line")
        assert server.log.count(line) == 1

    answered = [frame for frame in frames if frame["type"] == "message"]
    refused = [frame for frame in frames if frame["type"] == "error"]
    assert code == 4429
    assert 200 <= len(answered) < 300
    assert len(refused) == 200
    assert {frame["code"] for frame in refused} == {"rate_limited"}
    assert all(frame["retry_after"] > 0 for frame in refused)
    # Each frame has one answer, which names it, up to the end.
    assert sorted(int(frame["id"]) for frame in frames) == list(range(len(frames)))


def test_the_limits_are_settings(with_settings):
    project = with_settings(
        "REALTIME_FRAMES_PER_SECOND = 4",
        "REALTIME_FRAME_BURST = 3",
        "REALTIME_MAX_FRAME_SIZE = 1000",
        "CHAT_MAX_TEXT_LENGTH = 5",
    )
    with Server(project, "production", env=LOCAL_PRODUCTION) as server:
        with open_client(server) as client:
            client.send({"type": "message", "text": "x" * 6})
            assert client.receive()["code"] == "text_too_long"
            client.send({"type": "message", "text": "x" * 5})
            assert client.receive()["type"] == "message"
            client.ping()
            for frame in ('{"type": "ping", "id": "7"}', b"binary"):
                client.send(frame)
                error = client.receive()
                assert error["code"] == "rate_limited"
                assert ("id" in error) == isinstance(frame, str)
            # Waiting as long as told is enough.
            time.sleep(error["retry_after"])
            client.ping()
        with open_client(server) as client:
            client.send("x" * 1001)
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd.code == 1009


# Floods


def flood(server, count=200_000):
    """
    Flood the server, and return what the flood got, what its memory grew by, and the seconds of others' pings.

    The time for which server and client have waited for a processor is not in them.
    """
    seen = SimpleNamespace(grown=0, pings=[])
    with open_client(server) as client:
        client.ping()
        before = server.memory
        command = [sys.executable, PROBES / "flood.py", str(server.port), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None or len(seen.pings) < 20:
                started, queued = time.perf_counter(), server.queued
                client.ping()
                seen.pings.append(time.perf_counter() - started - (server.queued - queued))
                seen.grown = max(seen.grown, server.memory - before)
                time.sleep(0.06)  # below the limit
            seen.pongs, seen.code = process.stdout.read().split()
    quantiles = statistics.quantiles(seen.pings, n=100)
    print(
        f"{seen.pongs} of {count} answered, closed with {seen.code}; memory {seen.grown / 2**20:+.1f} MB;"
        f" {len(seen.pings)} pings of the others: p50 {quantiles[49] * 1000:.0f} ms, p99 {quantiles[98] * 1000:.0f} ms"
    )
    return seen


def floods(server):
    """Flood the server until 95 of 100 pings of the others take less than 100 ms, three times at most."""
    slowest = []
    for _ in range(3):
        seen = flood(server)
        yield seen
        slowest.append(statistics.quantiles(seen.pings, n=20)[-1])
        if slowest[-1] < 0.1:
            return
    pytest.fail(f"{slowest} seconds")


def test_a_flood_is_cut_off(server):
    """The megabytes that it has sent already block nobody while uvicorn throws them away."""
    for seen in floods(server):
        assert int(seen.pongs) < 300
        assert seen.code == "4429"
        assert seen.grown < 20 * 2**20


@pytest.mark.long
def test_a_flood_without_a_limit(with_settings):
    """uvicorn takes no more than is handled, and the others have their turn between 200,000 frames."""
    project = with_settings("REALTIME_FRAMES_PER_SECOND = None")
    with Server(project, "production", env=LOCAL_PRODUCTION) as server:
        for seen in floods(server):
            assert int(seen.pongs) == 200_000
            assert seen.grown < 20 * 2**20


# The log


@pytest.fixture(scope="module")
def probes(with_probe):
    """A project with the consumers of bursts.py, which has a line in the log each second."""
    project = with_probe("bursts.py")
    collect_static(project)
    return project


def report(server, *words):
    """Wait for a line of the log about what sockets did that has these words."""

    def find():
        lines = re.findall("INFO realtime.activity: In 1 s: (.*)", server.log)
        return [line for line in lines if set(words) <= set(line.split())]

    return wait_until(find, f"{words} in the log")[0]


def total(server, name):
    """Return the sum of a number in all lines of the log."""
    return sum(int(number) for number in re.findall(rf" {name}=(\d+)", server.log))


def test_a_line_a_minute_tells_what_sockets_did(probes):
    with Server(probes, "production", env=LOCAL_PRODUCTION) as server:
        with pytest.raises(InvalidStatus), open_client(server, origin="https://evil.example"):
            pass
        line = report(server, "refused_origins=1")
        assert line.startswith("sockets=0 opened=0 frames_in=0 frames_out=0 ")
        with open_client(server) as one, open_client(server) as other:
            wait_until(lambda: total(server, "opened") == 2, "both in the log")
            report(server, "sockets=2", "frames_in=0", "frames_out=0")
            greetings = total(server, "frames_out")
            one.send({"type": "message", "text": "hello"})
            for client in (one, other):
                client.receive()
            # In one line or in two.
            wait_until(lambda: total(server, "frames_out") - greetings == 2, "both answers in the log")
            assert total(server, "frames_in") == 1
        with open_client(server, path="ws/nowhere/", greeting=False) as client, pytest.raises(ConnectionClosed):
            client.receive()
        wait_until(lambda: total(server, "closed_1000") == 2, "both are closed")
        wait_until(lambda: total(server, "closed_4404") == 1, "an unknown path")
        lines = server.log.count("In 1 s")
        time.sleep(2.5)
        # Nothing has happened, and nothing is logged.
        assert server.log.count("In 1 s") == lines


def test_messages_that_redis_drops_are_logged_and_counted(with_settings, probes):
    project = with_settings('CHANNEL_LAYERS["default"]["CONFIG"]["capacity"] = 5', project=probes)
    with (
        Redis() as redis,
        Server(project, "production", env=LOCAL_PRODUCTION | {"REDIS_URL": redis.url}) as server,
        Server(project, "production", env=LOCAL_PRODUCTION | {"REDIS_URL": redis.url}) as still,
        open_client(server, path="ws/burst/", greeting=False) as client,
        open_client(still, path="ws/burst/", greeting=False) as other,
    ):
        assert client.receive() == other.receive() == {"type": "joined"}
        still.process.send_signal(signal.SIGSTOP)
        try:
            client.send({"type": "burst", "count": 500})
            while client.receive()["type"] == "frame":
                pass
        finally:
            still.process.send_signal(signal.SIGCONT)
        # Of 500 the other process misses all but some batches. A line for each call would fill the disk of a crashed
        # site.
        wait_until(lambda: total(server, "dropped") > 100, "dropped messages in the log")
        lines = re.findall(r"WARNING realtime.layers: (\d+) messages are dropped: 1 processes are over", server.log)
        assert 1 <= len(lines) <= len(re.findall(r"dropped=[1-9]", server.log))
