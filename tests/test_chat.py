"""
The chat starter's promise, over real sockets, with PostgreSQL and Redis: nothing lost, nothing doubled, one order.

CHAOS_KILLS is how many times servers and Redis are killed, with SIGKILL, while clients talk.
"""

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import time
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from clients import log_in_all, open_client
from combinations import CHAT
from servers import LOCAL_PRODUCTION, SERVERS, Server, collect_static, run
from services import Postgres, Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
MESSAGES_PER_KILL = 120
CLIENTS = 12
LOBBY = "ws/socket-server/lobby/"
# Seconds for all pages to have all messages, from the return of the last server that was killed.
RECOVERY = 30
# In the project: how many messages are unread in the lobby, by user.
COUNT_UNREAD = """
import json
from accounts.models import User
from chat.models import list_rooms
print(json.dumps({user.username: list_rooms(user).get(slug="lobby").unread for user in User.objects.all()}))
"""


class Page:
    """
    A client that does what the page does, by the contract in chat/README.md.

    It comes back to one of the servers, asks for what it has missed, and sends a message again until it sees it.
    It starts anew when it has missed too much. Every second it says how far it has read, unless its user is not
    looking, who has opened the room and no more.
    """

    def __init__(self, servers, name, cookie, room="lobby"):
        self.servers = servers
        self.name = name
        self.cookie = cookie
        self.room = room
        self.present = []
        self.messages = []
        self.start = 0
        self.outbox = {}
        self.sent_again = set()
        self.counts = Counter()
        self.socket = None
        self.is_looking = True

    @property
    def seq(self):
        """The number of its last message; 0 before there is one, and None when it starts anew."""
        return self.messages[-1]["seq"] if self.messages else self.start

    async def send(self, text):
        id = str(uuid.uuid4())
        self.outbox[id] = {"type": "message", "id": id, "text": text}
        await self.send_now(self.outbox[id])

    async def send_now(self, frame):
        try:
            if self.socket:
                await self.socket.send(json.dumps(frame))
        except (OSError, WebSocketException):
            self.socket = None

    async def stay(self):
        while True:
            server = random.choice(self.servers)
            headers = {"Cookie": self.cookie}
            url = f"{server.socket_url}{self.room}/" + ("" if self.seq is None else f"?after={self.seq}")
            try:
                options = {"additional_headers": headers, "origin": server.url.rstrip("/"), "open_timeout": 10}
                async with connect(url, **options) as socket:
                    await self.talk(socket)
            except (OSError, WebSocketException, TimeoutError):
                self.counts["lost connections"] += 1
            self.socket = None
            await asyncio.sleep(random.uniform(0, 0.3))

    async def talk(self, socket):
        pings = asyncio.create_task(self.ping(socket))
        try:
            async for text in socket:
                await self.receive(json.loads(text), socket)
        finally:
            pings.cancel()

    async def ping(self, socket):
        while True:
            await asyncio.sleep(1)
            await socket.send('{"type": "ping"}')
            await socket.send(json.dumps({"type": "read", "seq": (self.is_looking and self.seq) or 0}))

    async def receive(self, frame, socket):
        match frame["type"]:
            case "connection_established" if frame["last_seq"] < (self.seq or 0):
                self.counts["started anew"] += 1
                self.messages, self.start = [], None
                await socket.close()
            case "connection_established":
                assert frame["user"] == self.name
                self.socket = socket
                self.sent_again.update(self.outbox)
                for waiting in list(self.outbox.values()):
                    await self.send_now(waiting)
            case "presence":
                self.present = frame["users"]
            case "presence_change":
                self.present = sorted({*self.present, *frame["came"]} - {*frame["left"]})
            case "message" if self.seq is None or frame["seq"] == self.seq + 1:
                self.messages.append(frame)
                self.outbox.pop(frame["id"], None)
            case "message" if frame["seq"] <= self.seq:
                # Only the answer to a message that was sent again.
                assert frame == self.messages[frame["seq"] - self.messages[0]["seq"]]
                self.counts["repeated"] += frame["id"] not in self.sent_again
                self.outbox.pop(frame["id"], None)
            case "message":
                self.counts["gaps"] += 1
                await self.send_now({"type": "resume", "after": self.seq})
            case "pong" if frame["last_seq"] > (self.seq or 0):
                self.counts["behind"] += 1
                await self.send_now({"type": "resume", "after": self.seq})
            case "error":
                pytest.fail(f"{frame}")


@asynccontextmanager
async def staying(pages):
    """Keep the pages connected; the block begins when all have been greeted."""
    async with asyncio.TaskGroup() as tasks:
        staying = [tasks.create_task(page.stay()) for page in pages]
        await until(lambda: all(page.socket for page in pages))
        yield
        for task in staying:
            task.cancel()


async def until(condition, timeout=RECOVERY):
    """Wait for the condition, and return the seconds that it took."""
    started = time.monotonic()
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)
    return time.monotonic() - started


async def write(page, count, pause):
    """Write `count` messages, `pause` seconds apart on average."""
    for number in range(count):
        await page.send(f"{page.name} {number} 😀")
        await asyncio.sleep(random.uniform(0, 2 * pause))


def have_all(pages, count):
    return lambda: all(page.seq == count and not page.outbox for page in pages)


def check_messages(pages, count):
    """All have the same messages, each once, in order; no server sent one twice or left one out."""
    for page in pages:
        assert [frame["seq"] for frame in page.messages] == list(range(1, count + 1))
        assert len({frame["id"] for frame in page.messages}) == count
        assert page.messages == pages[0].messages
        assert page.counts["repeated"] == page.counts["gaps"] == 0


@pytest.fixture(scope="module")
def services():
    with Redis() as redis, Postgres() as postgres:
        yield SimpleNamespace(redis=redis, postgres=postgres)


@pytest.fixture
def site(bake, services, tmp_path):
    """
    Return a function that copies the project and makes an empty database: `site(changes, pages=3)`.

    changes: texts of settings.py, and what stands there instead. The result has `servers`, two that are not started
    yet, `pages`, a Page for each of as many users, and `count_unread()`, a dict of numbers by user.
    """

    def site(changes=None, pages=CLIENTS):
        project = shutil.copytree(bake(starter="chat"), tmp_path / "project")
        settings = project / "my_realtime_site" / "settings.py"
        text = settings.read_text(encoding="utf-8")
        for old, new in (changes or {}).items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        settings.write_text(text, encoding="utf-8")
        env = LOCAL_PRODUCTION | {"REDIS_URL": services.redis.url, "DATABASE_URL": services.postgres.create_database()}
        run(project, "manage.py", "migrate", env=env)
        collect_static(project, env)
        cookies = log_in_all(project, [f"user{number}" for number in range(pages)], env)
        servers = [Server(project, "production", env=env) for _ in range(2)]

        def count_unread():
            return json.loads(run(project, "manage.py", "shell", "--no-imports", "-c", COUNT_UNREAD, env=env).stdout)

        pages = [Page(servers, *names) for names in cookies.items()]
        return SimpleNamespace(servers=servers, pages=pages, count_unread=count_unread)

    return site


def test_chaos(site, services):
    """Servers and Redis are killed at random while everybody writes. What is unread is exact, too, in the end."""
    site = site()
    count = KILLS * MESSAGES_PER_KILL // CLIENTS
    seed = random.randrange(10**6)
    random.seed(seed)

    async def kill():
        victims = random.sample([*site.servers, services.redis], 3)
        for victim in itertools.islice(itertools.cycle(victims), KILLS):
            await asyncio.sleep(random.uniform(0.5, 1.5))
            victim.process.kill()
            await asyncio.to_thread(victim.process.wait)
            await asyncio.sleep(random.uniform(0, 2))
            await asyncio.to_thread(victim.start)

    sleeper, *readers = site.pages
    sleeper.is_looking = False
    unread = {page.name: 0 for page in readers} | {sleeper.name: count * len(readers)}

    async def chaos():
        async with staying(site.pages):
            await asyncio.gather(kill(), *[write(page, count, pause=3 * KILLS / count) for page in site.pages])
            seconds = await until(have_all(site.pages, count * CLIENTS))
            async with asyncio.timeout(RECOVERY):
                while (counted := await asyncio.to_thread(site.count_unread)) != unread:
                    print(f"unread: {counted}")
            return seconds

    with site.servers[0], site.servers[1]:
        seconds = asyncio.run(chaos())
        late = Page(site.servers, readers[0].name, readers[0].cookie)
        asyncio.run(read_all(late, count * CLIENTS))

    counts = sum((page.counts for page in site.pages), Counter())
    print(f"seed {seed}: {count * CLIENTS} messages, {KILLS} kills, {dict(counts)}, all there after {seconds:.2f} s")
    check_messages([*site.pages, late], count * CLIENTS)
    assert "Traceback" not in "".join(server.log for server in site.servers)


async def read_all(page, count):
    async with staying([page]):
        await until(have_all([page], count))


@pytest.fixture(scope="module", params=CHAT)
def alone(bake, request):
    """A project with SQLite, in memory, with a room for each kind of server."""
    project = bake(**request.param)
    run(project, "manage.py", "migrate")
    collect_static(project)
    rooms = f"from chat.models import Room; [Room.objects.create(name=kind, slug=kind) for kind in {[*SERVERS]}]"
    run(project, "manage.py", "shell", "--no-imports", "-c", rooms)
    return project


@pytest.mark.parametrize(("kind", "env"), SERVERS.items(), ids=[*SERVERS])
def test_handshake(alone, kind, env):
    """On each server. A visitor who is not logged in is told so."""
    cookies = log_in_all(alone, [f"{name} on {kind}" for name in ("ann", "ben")], env)
    with Server(alone, kind, env=env) as server:
        with pytest.raises(ConnectionClosed) as closed, open_client(server, path=LOBBY, greeting=False) as client:
            client.receive()
        assert closed.value.rcvd.code == 4401

        pages = [Page([server], *item, room=kind) for item in cookies.items()]
        asyncio.run(talk_at_once(pages, 5))
    check_messages(pages, 10)
    assert "Traceback" not in server.log


async def talk_at_once(pages, count):
    """Let each page write `count` messages as fast as it can, until all have all."""
    async with staying(pages):
        await asyncio.gather(*[write(page, count, pause=0) for page in pages])
        await until(have_all(pages, count * len(pages)))


def test_20_concurrent_senders(site):
    """In two processes, as fast as they can."""
    site = site(pages=20)
    with site.servers[0], site.servers[1]:
        asyncio.run(talk_at_once(site.pages, 20))
    check_messages(site.pages, 400)


def test_a_channel_layer_that_drops_on_purpose(site):
    """It keeps one message for each process, and one process stands still: the log says how many it has dropped."""
    site = site({"CHANNEL_CAPACITY = 10_000": "CHANNEL_CAPACITY = 1"}, pages=4)
    going, still = site.servers
    for page, server in zip(site.pages, (going, going, still, still), strict=True):
        page.servers = [server]

    async def talk():
        async with staying(site.pages):
            await until(lambda: all(page.present == [f"user{n}" for n in range(4)] for page in site.pages))
            still.process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.gather(*[write(page, 50, pause=0) for page in site.pages[:2]])
                await until(have_all(site.pages[:2], 100))
            finally:
                still.process.send_signal(signal.SIGCONT)
            await asyncio.gather(*[write(page, 50, pause=0) for page in site.pages[2:]])
            await until(have_all(site.pages, 200))

    with going, still:
        asyncio.run(talk())
        assert "over capacity" in going.log
    check_messages(site.pages, 200)


def test_who_is_present_after_a_kill(site):
    """A user whose process was killed, and who does not come back, is gone within a minute."""
    site = site(pages=3)
    killed, staying_server = site.servers
    for page, server in zip(site.pages, (killed, killed, staying_server), strict=True):
        page.servers = [server]

    async def talk():
        others = site.pages[1:]
        async with staying(site.pages):
            await until(lambda: all(page.present == ["user0", "user1", "user2"] for page in site.pages))
            killed.process.kill()
            others[0].servers = [staying_server]
            return await until(lambda: all(page.present == ["user1", "user2"] for page in others), timeout=60)

    with killed, staying_server:
        seconds = asyncio.run(talk())
    print(f"gone after {seconds:.1f} s")
