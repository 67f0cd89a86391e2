"""
The measures. Each is a function of a Bench, and returns a dict: its "value", and what shows that it can be believed.

Shares of a core: "server_cpu" (near 1 where the server is the bottleneck, as it should be), "client_cpu", "redis_cpu".
"""

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import client
from machine import (
    CLIENT_CORE,
    SECOND_SERVER_CORE,
    SERVER_CORE,
    Process,
    clean_environ,
    free_port,
    group_members,
    pinned,
    redis,
)


@dataclass(frozen=True)
class Plan:
    """
    The amounts of a run.

    seconds, warmup, latency_seconds: of each window. idle, storm: sockets. stuck_broadcasts: of 2,000 characters.
    """

    rounds: int
    seconds: float
    warmup: float
    latency_seconds: float
    idle: int
    storm: int
    stuck_broadcasts: int


FULL = Plan(3, 1.6, 0.4, 2.5, 5000, 1000, 1000)
QUICK = Plan(1, 0.4, 0.2, 1.0, 500, 200, 100)

STUCK, OTHERS, STUCK_RATE, STUCK_SIZE = 50, 20, 80, 2000


@dataclass
class Bench:
    """One subject with its server running, in one round."""

    subject: object
    plan: Plan
    server: Process
    redis: Process | None = None
    second: Process | None = None
    env: dict = field(default_factory=dict)
    listening_bytes: int = 0
    handshake_seconds: float = 0

    def options(self, kind=None, **options):
        """Return the client's options: the subject's address, and its frames for `kind`, "echo" or "message"."""
        frames = self.subject.frames
        servers = [self.server] + ([self.second] if self.second else [])
        watched = servers + ([self.redis] if self.redis else [])
        result = {
            "ports": [server.port for server in servers],
            "watch": [process.pid for process in watched],
            "path": frames["path"],
            "greeting": frames["greeting"],
            "seconds": self.plan.seconds,
            "warmup": self.plan.warmup,
        }
        if "hello" in frames:
            result |= {"hello": frames["hello"], "engineio": 1}
        return result | frames.get(kind, {}) | options

    def run(self, mode, kind=None, meanwhile=None, **options):
        """Run the client; return its figures, with "value" for what it counted per second."""
        output = client.run(mode, self.options(kind, **options), meanwhile)
        shares = output.pop("watched_cpu")
        output["redis_cpu"] = shares.pop() if self.redis else 0
        output["server_cpu"] = sum(shares)
        output["value"] = output["per_second"]
        return output


@contextmanager
def serving(subject, plan, over_redis=False, two=False):
    """Yield a Bench: the subject is started, over an empty Redis and twice if asked, and has shaken hands once."""
    with ExitStack() as stack:
        env = clean_environ(**subject.env)
        store = None
        if over_redis:
            store = stack.enter_context(redis())
            env["REDIS_URL"] = f"redis://127.0.0.1:{store.port}/0"

        def start(core):
            port = free_port()
            return stack.enter_context(Process(subject.command_for(port), port, core, subject.cwd, env))

        server = start(SERVER_CORE)
        bench = Bench(subject, plan, server, store, env=env, listening_bytes=server.memory())
        hello = client.run("hold", bench.options(members=1, timeout=10))
        if not hello["connected"]:
            raise RuntimeError(
                f"{subject.name} does not shake hands: {hello['errors']}\n{server.log.read_text()[-2000:]}"
            )
        bench.handshake_seconds = time.monotonic() - server.started
        if two:
            bench.second = start(SECOND_SERVER_CORE)
        yield bench


# In memory, each round


def startup(bench):
    """Seconds from the start of the process to the end of the first handshake."""
    return {"value": bench.handshake_seconds}


def worker_memory(bench):
    """MB of resident memory when the server listens, before the first connection."""
    return {"value": bench.listening_bytes / 1e6}


def echo(bench):
    """Frames a second: 16 sockets, each with 8 frames on their way, each answered by one frame."""
    return bench.run("echo", "echo", members=16, window=8)


def room_of_one(bench):
    """Messages a second: one socket sends to the room in which it is alone, 8 on their way."""
    return bench.run("broadcast", "message", members=1, window=8)


def rooms_of_5(bench):
    """Deliveries a second in 200 rooms of 5: one of each sends when its message has come back, 4 on their way."""
    if "rooms" not in bench.subject.frames:
        return None
    return bench.run("echo", "message", members=1000, room=5, window=4, path=bench.subject.frames["rooms"])


def broadcast_200(bench):
    """Deliveries a second to 200 members: 64-byte texts from the members in turn, 4 broadcasts on their way."""
    return bench.run("broadcast", "message", members=200, window=4)


def broadcast_1000(bench):
    """Deliveries a second to 1,000 members, as to 200."""
    return bench.run("broadcast", "message", members=1000, window=4)


def latency_200(bench):
    """
    Milliseconds from the moment a broadcast is due to each delivery, the 99th percentile.

    200 members, 20 broadcasts a second whatever comes back (open loop).
    """
    output = bench.run("latency", "message", members=200, rate=20, seconds=bench.plan.latency_seconds)
    return output | {"value": output.get("latency_ms", {}).get("p99")}


def handshake(bench):
    """Sockets a second that are opened, greeted and closed again, 16 at a time."""
    return bench.run("handshake", lanes=16, timeout=10)


def handshake_session(bench):
    """As `handshake`, with the session cookie of a user."""
    if not bench.subject.cookie:
        return None
    return bench.run("handshake", lanes=16, timeout=10, cookie=bench.subject.cookie)


# Over Redis, each round


def two_processes(bench):
    """Deliveries a second to 1,000 members, half of them in each of two processes."""
    return bench.run("broadcast", "message", members=1000, window=4)


def notify_1000(bench):
    """
    Milliseconds from the moment a notify_user() is due to its delivery, the 99th percentile.

    1,000 users, each told 10 things a second by another process, which shares a core with the client and Redis.
    """
    if bench.subject.users is None:
        return None
    python, users = bench.subject.command[0], bench.subject.users
    command = [python, Path(__file__).parent / "peers" / "notifier.py", users.with_name("primary-keys")]
    with pinned(command, CLIENT_CORE, bench.subject.cwd, bench.env) as notifier:
        options = bench.options("message", members=1000, cookies=users)
        options["watch"] = [*options["watch"], notifier.pid]
        output = client.run("listen", options)
    *servers, output["redis_cpu"], output["notifier_cpu"] = output.pop("watched_cpu")
    return output | {"server_cpu": sum(servers), "value": output.get("latency_ms", {}).get("p99")}


def storm(bench):
    """Sockets of 1,000 opened all at once that fail. "left": members that stay in Redis when all are closed."""
    before = group_members(bench.redis.port)
    output = bench.run("hold", members=bench.plan.storm, lanes=bench.plan.storm, timeout=30)
    output["value"] = output["failed"]
    left = group_members(bench.redis.port)
    changed = time.monotonic()
    while left and left > before and time.monotonic() < changed + 2:
        time.sleep(0.1)
        if (now := group_members(bench.redis.port)) != left:
            left, changed = now, time.monotonic()
    return output | {"left": None if left is None else max(left - before, 0)}


# Once, each with a server of its own


def idle_memory(bench):
    """KB of resident memory for each of 5,000 idle sockets."""
    client.run("hold", bench.options(members=50))
    time.sleep(0.5)
    before = bench.server.memory()
    with client.started("hold", bench.options(members=bench.plan.idle, lanes=64)) as process:
        opened = client.read(process)
        time.sleep(1)
        growth = bench.server.memory() - before
        process.kill()  # it need not close them one by one, since the server ends too
    return opened | {"value": growth / max(opened["connected"], 1) / 1e3}


def stuck_readers(bench):
    """
    MB of resident memory that 50 sockets cost which stop reading while 2 MB are sent to each.

    "p99_before" and "p99": milliseconds of the 20 others, without and with the stuck ones.
    """
    options = {"members": OTHERS, "rate": STUCK_RATE, "size": STUCK_SIZE}
    usual = bench.run("latency", "message", seconds=bench.plan.latency_seconds, **options)
    before = peak = bench.server.memory()

    def sample():
        nonlocal peak
        peak = max(peak, bench.server.memory())

    seconds = bench.plan.stuck_broadcasts / STUCK_RATE
    output = bench.run("latency", "message", sample, stuck=STUCK, seconds=seconds, **options, warmup=0)
    return output | {
        "value": (peak - before) / 1e6,
        "p99_before": usual.get("latency_ms", {}).get("p99"),
        "p99": output.get("latency_ms", {}).get("p99"),
    }


@dataclass(frozen=True)
class Measure:
    """title, unit: for the tables. more: more is better. digits: after the decimal point."""

    function: object
    title: str
    unit: str
    more: bool
    digits: int = 0

    @property
    def name(self):
        return self.function.__name__


@dataclass(frozen=True)
class Group:
    """
    Measures that share a server, started afresh for each subject and round.

    prefix: of the names of its measures. subjects: their names, or None for all. once: after the rounds.
    """

    measures: tuple
    prefix: str = ""
    subjects: tuple | None = None
    once: bool = False
    over_redis: bool = False
    two: bool = False


CHANNELS = ("tutorial", "project", "before")

GROUPS = (
    Group(
        (
            Measure(startup, "start-up to the first handshake", "s", False, 2),
            Measure(worker_memory, "worker before the first connection", "MB", False),
            Measure(echo, "echo", "frames/s", True),
            Measure(room_of_one, "message to a room of one", "messages/s", True),
            Measure(rooms_of_5, "200 rooms of 5", "deliveries/s", True),
            Measure(broadcast_200, "broadcast to 200", "deliveries/s", True),
            Measure(broadcast_1000, "broadcast to 1,000", "deliveries/s", True),
            Measure(latency_200, "latency p99, 20 broadcasts/s to 200", "ms", False, 1),
            Measure(handshake, "handshakes, anonymous", "sockets/s", True),
            Measure(handshake_session, "handshakes with a session cookie", "sockets/s", True),
        ),
    ),
    Group(
        (
            Measure(room_of_one, "message to a room of one, Redis", "messages/s", True),
            Measure(rooms_of_5, "200 rooms of 5, Redis", "deliveries/s", True),
            Measure(notify_1000, "latency p99, 10 notify_user()/s to each of 1,000, Redis", "ms", False, 1),
            Measure(broadcast_200, "broadcast to 200, Redis", "deliveries/s", True),
            Measure(broadcast_1000, "broadcast to 1,000, Redis", "deliveries/s", True),
            Measure(latency_200, "latency p99, 20 broadcasts/s to 200, Redis", "ms", False, 1),
            Measure(storm, "simultaneous connects, Redis: failed", "sockets", False),
        ),
        prefix="redis_",
        subjects=CHANNELS,
        over_redis=True,
    ),
    Group(
        (Measure(two_processes, "broadcast to 1,000, Redis, two processes", "deliveries/s", True),),
        prefix="redis_",
        subjects=CHANNELS,
        over_redis=True,
        two=True,
    ),
    Group((Measure(idle_memory, "memory per idle socket", "KB", False, 1),), once=True),
    Group((Measure(stuck_readers, "50 stuck readers, 100 MB: memory", "MB", False),), once=True, subjects=CHANNELS),
)
