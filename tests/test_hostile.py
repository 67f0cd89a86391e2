"""
Hostile clients against a production server, one attack each, and beside it an honest client whose pings are measured.

The figures are printed. On a machine that is busy with something else pings take long, too: the time for which server
and client have waited for a processor does not count.
"""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from operator import sub
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from clients import log_in_all, open_client, open_stuck_reader
from servers import (
    LOCAL_PRODUCTION,
    PROBES,
    WINDOWS,
    Server,
    append_settings,
    collect_static,
    run,
    slug_of,
    wait_until,
)
from websockets.exceptions import ConnectionClosed

if WINDOWS:
    pytest.skip("the memory of a process and its files are read from /proc", allow_module_level=True)

SECONDS = 6
MEGABYTE = 2**20


WAITING = """

async def waits(request):
    import asyncio

    await asyncio.sleep(60)


urlpatterns.insert(0, path("waits/", waits))
"""


@pytest.fixture(scope="module")
def site(bake, tmp_path_factory):
    """A minimal project with static files, and the Cookie headers of three users."""
    project = shutil.copytree(bake(), tmp_path_factory.mktemp("hostile") / "project")
    with (project / slug_of(project) / "urls.py").open("a", encoding="utf-8") as urls:
        urls.write(WAITING)
    run(project, "manage.py", "migrate")
    collect_static(project)
    return SimpleNamespace(
        project=project, cookies=log_in_all(project, ["honest", "mallory", "eve"], LOCAL_PRODUCTION)
    )


@pytest.fixture
def server(site):
    with Server(site.project, "production", env=LOCAL_PRODUCTION) as server:
        yield server
        # Whatever a client does is worth a line at most.
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def calm(site):
    """One server for what needs none of its own."""
    with Server(site.project, "production", env=LOCAL_PRODUCTION) as server:
        yield server
        assert "Traceback" not in server.log


def kinds(*names, long=()):
    """Return the parametrization by kinds of attack; each takes 7 s, and those of `long` are like another one."""
    return pytest.mark.parametrize("kind", [*names, *(pytest.param(name, marks=pytest.mark.long) for name in long)])


def cookie(site, name):
    return {"additional_headers": {"Cookie": site.cookies[name]}}


def p95(times):
    return statistics.quantiles(times, n=20)[-1]


class Honest:
    """
    A client that pings within the limit, as a context manager.

    pings: in seconds; queued: how much of each was a wait for a processor. grown: the server's memory, in bytes.
    threads: its most.
    """

    def __init__(self, server, site):
        self.server, self.cookie = server, cookie(site, "honest")
        self.pings, self.queued, self.grown, self.threads = [], [], 0, 0

    def __enter__(self):
        self.stack = ExitStack()
        self.client = self.stack.enter_context(open_client(self.server, ping_timeout=60, **self.cookie))
        self.client.ping()
        self.before = self.server.memory
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        # 16 a second.
        while not self.stopped.wait(0.06):
            started, queued = time.perf_counter(), self.server.queued
            self.client.send({"type": "ping"})
            while self.client.receive(timeout=30)["type"] != "pong":
                pass
            self.pings.append(time.perf_counter() - started)
            self.queued.append(self.server.queued - queued)
            self.grown = max(self.grown, self.server.memory - self.before)
            self.threads = max(self.threads, len([*Path(f"/proc/{self.server.process.pid}/task").iterdir()]))

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join()
        self.stack.close()

    @property
    def is_unharmed(self):
        """Whether 95 of 100 pings took less than 100 ms, without the waits for a processor."""
        return p95(list(map(sub, self.pings, self.queued))) < 0.1

    def __str__(self):
        return (
            f"honest pings: {len(self.pings)}, p50 {statistics.median(self.pings) * 1000:.0f} ms,"
            f" p95 {p95(self.pings) * 1000:.0f} ms, {p95(self.queued) * 1000:.0f} ms queued;"
            f" memory {self.grown / MEGABYTE:+.1f} MB, {self.threads} threads"
        )


def attack(server, kind, cookie=""):
    """Run an attack of attack.py, and return what became of it."""
    command = [sys.executable, PROBES / "attack.py", kind, str(server.port), str(SECONDS), cookie]
    return json.loads(subprocess.check_output(command, timeout=SECONDS * 10))


def withstand(server, site, kind, cookie=""):
    """Yield what became of an attack and the honest client, until that is unharmed, three times at most."""
    for _ in range(3):
        with Honest(server, site) as honest:
            result = attack(server, kind, cookie)
            # Those that wait for their turn now count, too.
            time.sleep(0.5)
        print(f"{kind}: {result}; {honest}")
        yield result, honest
        if honest.is_unharmed:
            return
    pytest.fail(f"an honest client was held up: {honest}")


@kinds("headers", long=["header", "path", "trailers", "pipelined"])
def test_requests_without_an_end(server, site, kind):
    """They would be 500 MB in a few seconds, and a path would be copied with each part of it."""
    for result, honest in withstand(server, site, kind):
        assert result["ends"].get("reset", 0) > 10, result
        assert honest.grown < 20 * MEGABYTE


@kinds("pages", long=["pages-given-up"])
def test_pages_without_end(server, site, kind):
    """Each would have a thread: 300 at a time held up the pings of others for 200 to 400 ms."""
    for result, honest in withstand(server, site, kind):
        assert result["asked"] > 300, result
        assert honest.threads < 40
        assert honest.grown < 20 * MEGABYTE


@pytest.mark.parametrize("request_line", ["POST /admin/login/", "GET /waits/"], ids=["body", "asynchronous view"])
def test_what_is_slow_keeps_no_page_waiting(server, request_line):
    """The body of a request, or an asynchronous view that waits for another service: neither has a thread."""
    request = f"{request_line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {5 * (request_line[0] == 'P')}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(request.encode())
        for path in ("", "healthz"):
            answer = None
            with suppress(httpx.ReadTimeout):
                answer = httpx.get(server.url + path, timeout=10)
            assert answer is not None, f"/{path} waits for them"
            assert answer.status_code == 200


@kinds("cookies", long=["protocols"])
def test_handshakes_with_long_lists(server, site, kind):
    """One with 6 MB of either would block the event loop for seconds."""
    for result, honest in withstand(server, site, kind):
        assert set(result["answers"]) <= {"HTTP/1.1 400", "reset"}, result
        assert honest.grown < 20 * MEGABYTE


def shake_hands(server, *headers, before="", space=""):
    """
    Send a handshake with further `headers`, after `before`, another request; return a context manager, its client.

    space: what follows each value of a header.
    """
    own = [
        f"Host: 127.0.0.1:{server.port}",
        f"Origin: {server.url.rstrip('/')}",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    lines = ["GET /ws/socket-server/ HTTP/1.1", "Upgrade: websocket", *[f"{line}{space}" for line in (*own, *headers)]]
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall("\r\n".join([*([before] if before else []), *lines, "", ""]).encode())
    return client


@pytest.mark.parametrize(("name", "sign"), [("Cookie", ";"), ("Sec-WebSocket-Protocol", ",")])
@pytest.mark.parametrize(("count", "status"), [(900, 101), (1100, 400)])
def test_lists_of_a_handshake_have_a_thousand_items(calm, name, sign, count, status):
    """What fits into a header of 64 KiB would be tens of thousands."""
    items = sign.join(f"a{number}=" if sign == ";" else f"a{number}" for number in range(count))
    with shake_hands(calm, f"{name}: {items}") as client:
        assert client.recv(2**16).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("header", ["Content-Length: 5", "Transfer-Encoding: chunked", "X: 1\r\n" * 1000 + "X: 1"])
def test_handshakes_that_cannot_be_read_are_answered(calm, header):
    """Their connections would stay open for ever."""
    with shake_hands(calm, header) as client:
        assert client.recv(2**16).startswith(b"HTTP/1.1 400 ")
        assert client.recv(2**16) == b""


@pytest.mark.long
def test_a_request_without_an_answer_does_not_hold_a_server_up(site):
    """Without timeout_graceful_shutdown, uvicorn waits for the answer however long it takes."""
    with (
        Server(site.project, "production", env=LOCAL_PRODUCTION) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"GET /waits/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        # When this is answered, the other one has been read.
        assert httpx.get(f"{server.url}healthz").status_code == 200

        server.process.terminate()

        server.process.wait(15)


def test_a_handshake_does_not_follow_a_request_without_an_answer(calm):
    """Its answer would come in the middle of frames."""
    with shake_hands(calm, before="GET /waits/ HTTP/1.1\r\nHost: 127.0.0.1\r\n") as client:
        assert client.recv(2**16).startswith(b"HTTP/1.1 400 ")
        assert client.recv(2**16) == b""


def test_spaces_after_a_header_belong_to_no_value(calm):
    """RFC 9110 §5.5; httptools leaves them, and the key and the Origin would be wrong."""
    with shake_hands(calm, "Content-Length: 0", space=" \t ") as client:
        assert client.recv(2**16).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b"no boundary"),
        ("application/x-www-form-urlencoded", b"a=1&" * 2000),
    ],
)
def test_bodies_that_cannot_be_read_are_worth_one_line(server, kind, content):
    headers = {"Content-Type": kind, "Cookie": f"csrftoken={'a' * 32}"}
    response = httpx.post(f"{server.url}admin/login/", content=content, headers=headers)

    assert response.status_code == 400
    lines = [line for line in server.log.splitlines() if " ERROR django" in line or " WARNING django" in line]
    assert len(lines) == 1
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("path", "cookie"), [("%00", "a=b"), ("?next=%00", "a=b"), ("", 'sessionid="\\000\\000seven"')]
)
def test_a_request_with_nul_is_refused(calm, path, cookie):
    """PostgreSQL fails at it: each would be a page with 500, and a traceback."""
    response = httpx.get(f"{calm.url}admin/login/{path}", headers={"Cookie": cookie})

    assert response.status_code == 400


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_without_an_end_is_cut_off(calm, is_chunked):
    """Django would write it to the disk, until that is full."""
    sent, part = 0, b"x" * 2**16
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {2**40}"
    with socket.create_connection(("127.0.0.1", calm.port)) as client:
        client.settimeout(10)
        client.sendall(f"POST /admin/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n\r\n".encode())
        with suppress(OSError):
            while sent < 100 * MEGABYTE:
                client.sendall(b"10000\r\n%b\r\n" % part if is_chunked else part)
                sent += len(part)
    assert sent < 20 * MEGABYTE

    response = httpx.post(f"{calm.url}admin/login/", content=b"x" * (MEGABYTE + 1))
    assert response.status_code == 413
    assert httpx.post(f"{calm.url}realtime/ticket/", content=b"x" * MEGABYTE).status_code == 403
    assert "Traceback" not in calm.log


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Windows has no such limit")
def test_more_sockets_than_the_limit_of_a_shell(site, tmp_path):
    """`ulimit -n` says 1024 in many; started there, the server raises it."""
    script = tmp_path / "limited"
    script.write_text('#!/bin/sh\nulimit -S -n 64\nexec "$@"\n')
    script.chmod(0o755)
    server = Server(site.project, "production", env=LOCAL_PRODUCTION)
    server.command.insert(0, script)
    with server, ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(open_client(server)).ping()
        assert "Too many open files" not in server.log


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nested-64", "4429"),
        pytest.param("objects-64", "4429", marks=pytest.mark.long),
        pytest.param("nested-1024", "1009", marks=pytest.mark.long),
    ],
)
def test_nested_brackets(server, site, kind, code):
    """64 KiB are taken until there are too many; 1 MiB are not even read."""
    for result, honest in withstand(server, site, kind):
        assert code in result["ends"], result
        assert honest.grown < 20 * MEGABYTE


def test_protocol_pings_of_a_client_that_reads_nothing(server, site):
    """Each is answered: without a bound the answers fill the memory."""
    for result, honest in withstand(server, site, "pings-unread"):
        assert "reset" in result["ends"], result
        assert honest.grown < 20 * MEGABYTE


@kinds("pings", long=["pongs"])
def test_control_frames_of_a_client_that_reads(server, site, kind):
    for result, honest in withstand(server, site, kind):
        assert "reset" in result["ends"], result
        assert honest.grown < 20 * MEGABYTE


@kinds("fragments", long=["empty-fragments", "binary-fragments"])
def test_fragments(server, site, kind):
    """One byte or none in each: 7 MB on the wire would be 36 MB in memory, and empty ones have no bound of bytes."""
    for result, honest in withstand(server, site, kind):
        assert "1009" in result["ends"], result
        assert honest.grown < 20 * MEGABYTE


def test_200_sockets_of_a_user_at_full_rate(server, site):
    """50 stay, which share what one socket may send; the others are closed, however often they come back."""
    for result, honest in withstand(server, site, "sockets-200", site.cookies["mallory"]):
        assert set(result["closed"]) == {"4429"}, result
        assert honest.grown < 60 * MEGABYTE


@pytest.mark.long
def test_200_sockets_of_an_address_at_full_rate(server, site):
    """Nobody is logged in, and each message goes to all of them: their broadcasts have one turn at a time."""
    for result, honest in withstand(server, site, "sockets-200"):
        assert result["received"] > MEGABYTE
        assert honest.grown < 60 * MEGABYTE


def test_the_51st_socket_of_a_user_is_refused(server, site):
    with ExitStack() as stack:
        clients = [stack.enter_context(open_client(server, **cookie(site, "eve"))) for _ in range(50)]
        with open_client(server, greeting=False, **cookie(site, "eve")) as one_too_many:
            with pytest.raises(ConnectionClosed) as closed:
                one_too_many.receive()
            assert closed.value.rcvd.code == 4429
        wait_until(lambda: "too many sockets" in server.log, "a log line")
        # Others are not concerned, and a place that is left is free.
        with open_client(server, **cookie(site, "honest")) as other, open_client(server) as nobody:
            other.ping()
            nobody.ping()
        clients[0].connection.close()
        wait_until(lambda: server.log.count("closed with 1000") == 3, "it is gone")
        with open_client(server, **cookie(site, "eve")) as again:
            again.ping()
            clients[-1].ping()


def test_sockets_of_an_address_are_a_setting(site, tmp_path):
    project = shutil.copytree(site.project, tmp_path / "project")
    append_settings(project, "REALTIME_SOCKETS_PER_ADDRESS = 2")
    with (
        Server(project, "production", env=LOCAL_PRODUCTION) as server,
        open_client(server) as one,
        open_client(server) as two,
        open_client(server, greeting=False) as three,
        open_client(server, **cookie(site, "honest")) as user,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            three.receive()
        assert closed.value.rcvd.code == 4429
        for client in (one, two, user):
            client.ping()


def test_stuck_readers_are_gone_within_10_seconds(site, tmp_path):
    """On uvicorn alone: those that are closed with 4000 and read not even that would keep their file for ever."""
    project = shutil.copytree(site.project, tmp_path / "project")
    append_settings(project, "REALTIME_FRAMES_PER_SECOND = None")
    with (
        Server(project, "production", env=LOCAL_PRODUCTION) as server,
        open_client(server, **cookie(site, "mallory")) as client,
    ):
        files = Path(f"/proc/{server.process.pid}/fd")
        before = len([*files.iterdir()])
        stuck = [open_stuck_reader(server) for _ in range(20)]
        for _ in range(5000):
            client.send({"type": "message", "text": "x" * 2000})
            client.receive()
            if server.log.count("reads too slowly") == 20:
                break
        started = time.monotonic()
        wait_until(lambda: len([*files.iterdir()]) <= before, "the files of stuck readers are gone", timeout=10)
        print(f"gone {time.monotonic() - started:.1f} s after the last was closed")
        for reader in stuck:
            reader.close()


@pytest.mark.long
def test_300_health_checks_at_a_time(server, site):
    """They ask the services once a second, not 300 times: no check opens a connection that the pages need."""
    # In a process of its own: in this one it would hold up the honest client itself.
    command = [sys.executable, PROBES / "ask_healthz.py", server.url]
    with Honest(server, site) as honest:
        statuses = json.loads(subprocess.check_output(command, timeout=120))

    print(f"{len(statuses)} health checks; {honest}")
    assert set(statuses) == {200}
