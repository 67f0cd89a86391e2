"""More than one Redis, a master that fails over, and Valkey: REDIS_URL as the contract has it, over real servers."""

import asyncio
import re
import shutil
import signal
import subprocess
from contextlib import ExitStack

import httpx
import pytest
from clients import log_in_all, open_client
from servers import LOCAL_PRODUCTION, Server, run, wait_until
from services import Redis, Sentinel
from test_chat import Page, check_messages, have_all, staying, until
from test_deploy import make_certificate
from websockets.exceptions import ConnectionClosed

PASSWORD = "s3cret"
HOW = pytest.mark.parametrize("how", ["killed", pytest.param("vanished", marks=pytest.mark.weekly)])
GROUPS = 20

TALK = """
from typing import Annotated

from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame, Text


class Talk(Frame):
    text: Annotated[str, Text(max_length=100)]


class Talker(RealtimeConsumer):
    receives = [Talk]
    sends = [Talk]

    async def connect(self):
        self.group = self.scope["query_string"].decode()
        await self.accept()
        await self.join(self.group)

    async def receive_frame(self, frame):
        await self.broadcast(self.group, frame)
"""


@pytest.fixture(scope="module")
def talking(with_consumers):
    """The minimal project, with a socket that joins the group of its query."""
    return with_consumers(TALK, talk="Talker")


def start(stack, project, url, count=2):
    env = LOCAL_PRODUCTION | {"REDIS_URL": url}
    return [stack.enter_context(Server(project, "production", env=env)) for _ in range(count)]


def hear(one, other, text):
    """Say `text` to one Client, and return when the other has heard it."""
    one.send({"type": "talk", "text": text})
    while (frame := other.receive())["type"] != "talk" or frame["text"] != text:
        pass


def waiting(redis):
    """Return how many processes wait for messages of this Redis."""
    return redis.execute("client", "list").count(" flags=b ")


def test_each_of_three_redis_serves_its_share(talking):
    """Groups are spread over them, each process receives from all, and without one it is an outage."""
    with Redis() as one, Redis() as two, Redis() as three, ExitStack() as stack:
        all_three = [one, two, three]
        url = f"{one.url}, {two.url},{three.url}"
        servers = start(stack, talking, url)
        for number in range(GROUPS):
            path = f"ws/talk/?group.{number}"
            with open_client(servers[0], path=path) as ann, open_client(servers[1], path=path) as ben:
                hear(ann, ben, f"to group {number}")
                hear(ben, ann, f"from group {number}")
        wait_until(lambda: [waiting(redis) for redis in all_three] == [2, 2, 2], "both processes receive from all")
        served = [count_commands(redis) for redis in all_three]
        assert min(served) >= 0.1 * sum(served), served
        assert [health(server) for server in servers] == [200, 200]
        told = run(talking, "manage.py", "handshake", servers[0].socket_url, env=LOCAL_PRODUCTION | {"REDIS_URL": url})
        assert "✓ channel layer" in told.stdout

        with open_client(servers[0], path="ws/talk/?nobody"):
            # A process that has no group there.
            gone = next(redis for redis in all_three if "nobody" not in redis.execute("keys", "*:group:*"))
            gone.kill()
            for server in servers:
                wait_until(lambda server=server: health(server) == 503, "it is unhealthy")
                with pytest.raises(AssertionError, match="in vain"):
                    wait_until(lambda server=server: "is back" in server.log, "it is not", timeout=2)


def health(server):
    return httpx.get(f"{server.url}healthz").status_code


def count_commands(redis):
    """Return how many commands this Redis was sent."""
    return int(re.search(r"total_commands_processed:(\d+)", redis.execute("info", "stats"))[1])


def test_the_groups_of_both_are_back_after_one_was_away(talking):
    with Redis() as one, Redis() as two, ExitStack() as stack:
        servers = start(stack, talking, f"{one.url},{two.url}")
        paths = [f"ws/talk/?group.{number}" for number in range(GROUPS)]
        pairs = [[stack.enter_context(open_client(server, path=path)) for server in servers] for path in paths]
        for pair in pairs:
            hear(*pair, "before")
        two.kill()
        pairs[0][0].send({"type": "talk", "text": "meanwhile"})
        pairs[1][0].send({"type": "talk", "text": "meanwhile"})
        wait_until(lambda: "The channel layer is lost" in servers[0].log, "the loss is noticed")
        two.start()
        for path in paths:
            wait_until(lambda path=path: is_heard(servers, path), "both serve their groups again")


@pytest.mark.skipif(not shutil.which("valkey-server"), reason="no valkey-server, which Debian has from 13 on")
def test_valkey(talking):
    with Redis(program="valkey-server") as valkey, ExitStack() as stack:
        servers = start(stack, talking, valkey.url)
        with open_client(servers[0], path="ws/talk/?a") as ann, open_client(servers[1], path="ws/talk/?a") as ben:
            hear(ann, ben, "Hello")


class Watched:
    """A master, its replica and three sentinels, as a context manager. url: for REDIS_URL."""

    def __enter__(self):
        self.stack = ExitStack()
        login = {"requirepass": PASSWORD, "masterauth": PASSWORD}
        self.master = self.stack.enter_context(Redis(**login))
        self.replica = self.stack.enter_context(Redis(replicaof=f"127.0.0.1 {self.master.port}", **login))
        self.sentinels = [self.stack.enter_context(Sentinel(self.master, PASSWORD)) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://:{PASSWORD}@{hosts}/master/0?sentinel_password={PASSWORD}"
        wait_until(self.is_complete, "the sentinels know each other and the replica")
        return self

    def __exit__(self, *error):
        self.stack.close()

    def ask(self, sentinel, *words):
        command = ["redis-cli", "-p", str(sentinel.port), "-a", PASSWORD, "--no-auth-warning", *words]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def is_complete(self):
        return all(
            "num-other-sentinels\n2\n" in (told := self.ask(sentinel, "sentinel", "master", "master"))
            and "num-slaves\n1\n" in told
            for sentinel in self.sentinels
        )

    def lose_a_machine(self, how):
        """That of the master and of the first sentinel: "killed", or "vanished", where no connection is closed."""
        for gone in (self.master, self.sentinels[0]):
            gone.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)

    def has_failed_over(self):
        told = self.ask(self.sentinels[-1], "sentinel", "get-master-addr-by-name", "master")
        return str(self.replica.port) in told.split()


@HOW
def test_minimal_goes_on_after_a_failover(talking, how):
    with Watched() as redis, ExitStack() as stack:
        servers = start(stack, talking, redis.url)
        with open_client(servers[0], path="ws/talk/?a") as ann, open_client(servers[1], path="ws/talk/?a") as ben:
            hear(ann, ben, "before")
        redis.lose_a_machine(how)
        wait_until(redis.has_failed_over, "the sentinels have made the replica the master", timeout=30)
        wait_until(lambda: is_heard(servers), "the processes meet on the new master", timeout=30)
        for server in servers:
            assert "Traceback" not in server.log


def test_sentinel_over_tls(talking, tmp_path):
    """With certificates that nobody can check, of another name, of the sentinel and of Redis."""
    certificate = make_certificate(tmp_path)
    with (
        Redis(tls=certificate, requirepass=PASSWORD) as master,
        Sentinel(master, PASSWORD, quorum=1, tls=certificate) as sentinel,
        ExitStack() as stack,
    ):
        hosts = f"localhost:{sentinel.port}"
        url = f"rediss+sentinel://:{PASSWORD}@{hosts}/master/0?sentinel_password={PASSWORD}&ssl_cert_reqs=none"
        servers = start(stack, talking, url)
        with open_client(servers[0], path="ws/talk/?a") as ann, open_client(servers[1], path="ws/talk/?a") as ben:
            hear(ann, ben, "encrypted")


def is_heard(servers, path="ws/talk/?a"):
    try:
        with open_client(servers[0], path=path) as ann, open_client(servers[1], path=path) as ben:
            hear(ann, ben, "after")
    except (ConnectionClosed, TimeoutError):
        return False
    return True


@HOW
def test_the_chat_loses_nothing_in_a_failover(bake, tmp_path, how):
    """Four people on two processes write all the time; each of their messages is there, once and in order."""
    project = shutil.copytree(bake(starter="chat"), tmp_path / "project")
    with Watched() as redis, ExitStack() as stack:
        env = LOCAL_PRODUCTION | {"REDIS_URL": redis.url}
        run(project, "manage.py", "migrate", env=env)
        cookies = log_in_all(project, ["ann", "ben", "cem", "dora"], env)
        servers = start(stack, project, redis.url)
        pages = [Page(servers, *names) for names in cookies.items()]

        async def write_all_the_time(page):
            count = 0
            while not over.is_set():
                await page.send(f"{page.name} {count}")
                count += 1
                await asyncio.sleep(0.2)
            return count

        async def fail_over():
            async with staying(pages):
                writing = [asyncio.create_task(write_all_the_time(page)) for page in pages]
                await until(lambda: all(page.seq > 10 for page in pages))
                redis.lose_a_machine(how)
                await asyncio.to_thread(wait_until, redis.has_failed_over, "the replica is the master", 30)
                await asyncio.sleep(3)
                over.set()
                count = sum(await asyncio.gather(*writing))
                await until(have_all(pages, count))
                return count

        over = asyncio.Event()
        check_messages(pages, asyncio.run(fail_over()))
        assert "Traceback" not in "".join(server.log for server in servers)
