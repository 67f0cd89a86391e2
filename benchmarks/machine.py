"""The machine: which core does what, processes pinned to it, what they use. Linux only, because of /proc and epoll."""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build" / "benchmarks"
RUN = BUILD / f"run-{os.getpid()}"  # what this run bakes and logs; removed at its end

# How the tests make an environment for a baked project, and keep our variables from it.
sys.path.insert(0, str(REPOSITORY / "tests"))
from servers import append_settings, clean_environ, free_port, project_python, slug_of  # noqa: E402, F401

# What the figures depend on.
PACKAGES = [
    *("django", "channels", "channels-redis", "redis", "uvicorn", "uvloop", "httptools", "websockets"),
    *("starlette", "daphne"),
]

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORE = CORES[0]
CLIENT_CORE = CORES[-1]
# On two cores, the second server works beside the first, and Redis beside the client.
SECOND_SERVER_CORE = CORES[1] if len(CORES) >= 4 else SERVER_CORE
REDIS_CORE = CORES[-2] if len(CORES) >= 3 else CLIENT_CORE


class Process:
    """
    A server process on one core, as a context manager: it listens once it is entered, and is ended by its id.

    start_seconds: from the start of the process until it listened.
    """

    def __init__(self, command, port, core, cwd=None, env=None):
        self.command = [str(part) for part in command]
        self.port = port
        self.core = core
        self.cwd = cwd
        self.env = env if env is not None else clean_environ()

    def __enter__(self):
        self.log = RUN / "logs" / f"{Path(self.command[0]).name}-{self.port}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, {self.core}),
            )
        self.pid = self._process.pid
        try:
            while not listens(self.port):
                if self._process.poll() is not None or time.monotonic() > self.started + 30:
                    raise RuntimeError(f"{' '.join(self.command)} does not listen:\n{self.log.read_text()[-2000:]}")
                time.sleep(0.002)
        except BaseException:
            self.__exit__()
            raise
        self.start_seconds = time.monotonic() - self.started
        return self

    def __exit__(self, *error):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def memory(self):
        """Return the resident memory (RSS) of the process, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


@contextmanager
def pinned(command, core, cwd, env):
    """Yield a Popen of `command` on the core, which is ended on the way out."""
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def processor_seconds(pid):
    """Return the processor time that the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listens(port):
    """Tell whether something listens on the TCP port, without a connection to it."""
    wanted = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[1].endswith(wanted):
            return True
    return False


@contextmanager
def redis():
    """Yield a Process that is an empty Redis (or Valkey) without files."""
    port = free_port()
    command = [redis_server(), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with Process(command, port, REDIS_CORE) as process:
        yield process


def redis_server():
    """Return the path of redis-server or valkey-server, or None."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def group_members(port):
    """Return how many members all sorted sets of the Redis have (channels_redis keeps groups in them), or None."""
    client = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if not client:
        return None
    script = "local n = 0 for _, k in ipairs(redis.call('keys', '*')) do "
    script += "if redis.call('type', k).ok == 'zset' then n = n + redis.call('zcard', k) end end return n"
    output = subprocess.run([client, "-p", str(port), "eval", script, "0"], capture_output=True, text=True, timeout=20)
    return int(output.stdout.split()[-1])


def environment(python):
    """Return what the figures depend on, for the JSON and the heading: machine, versions, load."""
    script = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {PACKAGES}}}))"
    versions = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "processor": model[1] if model else platform.machine(),
        "cores": len(CORES),
        "core_of_server": SERVER_CORE,
        "core_of_second_server": SECOND_SERVER_CORE,
        "core_of_redis": REDIS_CORE,
        "core_of_client": CLIENT_CORE,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": first_line("node", "--version").lstrip("v"),
        "redis": next(iter(re.findall(r"v=([\d.]+)", first_line(redis_server(), "--version"))), ""),
        "packages": json.loads(versions),
        "load_before": os.getloadavg()[0],
    }


def first_line(program, *arguments):
    """Return the first line that the program prints, or "" where it is not installed."""
    if not program or not shutil.which(program):
        return ""
    return subprocess.run([program, *arguments], capture_output=True, text=True).stdout.partition("\n")[0]
