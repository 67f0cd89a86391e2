"""Real server processes for baked projects, and the environment that they run in."""

import functools
import hashlib
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock, ReadWriteLock

REPOSITORY = Path(__file__).resolve().parent.parent
PROBES = REPOSITORY / "tests" / "probes"
WINDOWS = sys.platform == "win32"

# What a production server needs to be reached from this machine, over plain HTTP.
LOCAL_PRODUCTION = {
    "DJANGO_SECRET_KEY": "a long random key of production 0123456789 0123456789",
    "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
    "DJANGO_HTTPS": "false",
}
# The kinds of server, and the variables for each.
SERVERS = {"runserver": {}, "daphne": {}, "uvicorn": {}, "production": LOCAL_PRODUCTION}


def machines_network():
    """
    Return the lock of this machine's network: browsers hold it to read, tests that add networks to it, to write.

    Chromium fails what it loads while an address comes or goes (net::ERR_NETWORK_CHANGED).
    """
    (REPOSITORY / "build").mkdir(exist_ok=True)
    return ReadWriteLock(REPOSITORY / "build" / "network.lock")


def require(condition, reason):
    """Skip the test with `reason` unless `condition`; with REQUIRE_ALL=1, as in CI, fail it."""
    if not condition:
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def _ports():
    """
    Yield ports for ever, those of this worker of a run: another's would be taken between its search and its server.

    They are below those that systems give to clients, from 32768 on, one of which might come in between as well.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(20_000 + worker % 16, 32_000, 16)
    start = random.randrange(len(ports))
    yield from itertools.cycle([*ports[start:], *ports[:start]])


_of_this_worker = _ports()


def free_port():
    """Return a port of this machine that nobody listens to, and that nobody else is told."""
    while True:
        port = next(_of_this_worker)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(condition, what, timeout=20):
    """Return the first true result of `condition()`, asked again and again for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"in vain for {timeout} s: {what}"
        time.sleep(0.02)
    return result


def clean_environ(**variables):
    """
    Return the variables for a child process, without those of ours that a baked project reads.

    A Python that keeps no bytecode, as in many containers, compiles all of Django at each of some thousand starts.
    """
    ours = ("DJANGO_", "DATABASE_URL", "REDIS_URL", "PYTEST_", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return environ | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"} | variables


@functools.cache
def project_python(pyproject):
    """
    Return the Python of an environment with the dependencies of `pyproject`, the text of a baked pyproject.toml.

    The tests share one environment for each set of dependencies, also from run to run: `make clean` removes them.
    """
    version = "{}.{}".format(*sys.version_info)
    dependencies = "".join(line for line in pyproject.splitlines() if line.startswith("  "))
    key = hashlib.sha256(dependencies.encode()).hexdigest()[:8]
    directory = REPOSITORY / "build" / f"environment-{version}-{key}"
    python = directory / ("Scripts/python.exe" if WINDOWS else "bin/python")
    directory.parent.mkdir(exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            source = directory.parent / f"{directory.name}.pyproject" / "pyproject.toml"
            source.parent.mkdir(exist_ok=True)
            source.write_text(pyproject, encoding="utf-8")
            uv = [sys.executable, "-m", "uv", "--quiet"]
            subprocess.run([*uv, "venv", "--python", sys.executable, directory], check=True)
            install = ["pip", "install", "--python", python, "-r", source, "--group", f"{source}:dev"]
            subprocess.run([*uv, *install, "--extra", "postgres"], check=True)
            (directory / "complete").touch()
    return python


def python_of(project):
    return project_python((project / "pyproject.toml").read_text(encoding="utf-8"))


def run(project, *command, env=None, check=True, timeout=300):
    """Run `python *command` in the project, and return the CompletedProcess, whose stdout has stderr in it."""
    result = subprocess.run(
        [python_of(project), *command],
        cwd=project,
        env=clean_environ(**(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=timeout,
    )
    assert not check or result.returncode == 0, result.stdout
    return result


def collect_static(project, env=LOCAL_PRODUCTION):
    """Run collectstatic, or copy what it made of the same files in another project: it compresses 200 for seconds."""
    files = sorted(path for path in project.glob("*/static/**/*") if path.is_file())
    contents = b"".join(f"{path.relative_to(project)}\0".encode() + path.read_bytes() for path in files)
    key = (python_of(project), hashlib.sha256(contents).digest())
    collected = project / "staticfiles"
    if key not in _collected or not _collected[key].is_dir():
        run(project, "manage.py", "collectstatic", "--no-input", env=env)
        _collected[key] = collected
    elif _collected[key] != collected:
        shutil.copytree(_collected[key], collected, dirs_exist_ok=True)


# By Python and static files.
_collected = {}


def run_probe(project, name, *arguments, env=None):
    """Run tests/probes/<name> in the project, where Django is set up, and return what it printed."""
    setup = "import django, runpy, sys; sys.argv.pop(0); django.setup(); "
    setup += "runpy.run_path(sys.argv[0], run_name='__main__')"
    settings = {"DJANGO_SETTINGS_MODULE": f"{slug_of(project)}.settings"}
    return run(project, "-c", setup, str(PROBES / name), *arguments, env=settings | (env or {})).stdout


class Process:
    """
    A process that listens on a port of this machine, as a context manager.

    Subclasses set `command` (list), `port`, `directory` and `log_file` (Path), and may set `env` (dict).
    """

    env = None

    @property
    def log(self):
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def memory(self):
        """Its resident memory, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status")
        require(status.exists(), "only Linux tells the memory of a process in /proc")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) * 1024

    @property
    def queued(self):
        """How long its event loop, and the threads of this process, have waited for a processor so far, in seconds."""
        ours = [path.name for path in Path("/proc/self/task").glob("*")]
        return sum(map(queued, [self.process.pid, *ours]))

    def start(self):
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_up, f"{self.command} listens", timeout=60)

    def _is_up(self):
        assert self.process.poll() is None, f"{self.command} ended: {self.log}"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        """End the process; one that does not end by itself in 10 s is killed."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self.stop()


class Server(Process):
    """
    A server process of a baked project.

    kind: "runserver", "daphne", "uvicorn" (their command lines) or "production" (`python -m <project>`).
    env: variables of the contract. python: the words that run another Python than the shared one of the tests.
    After `stop()`, `start()` brings it back on the same port.
    """

    def __init__(self, project, kind="runserver", env=None, python=None):
        self.kind = kind
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.socket_url = f"ws://127.0.0.1:{self.port}/ws/socket-server/"
        self.env = clean_environ(**(env or {}))
        application = f"{slug_of(project)}.asgi:application"
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        arguments = {
            "runserver": ["manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"],
            "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", str(self.port), application],
            "uvicorn": ["-m", "uvicorn", application, "--lifespan", "off", *address],
            "production": ["-m", slug_of(project), *address],
        }[kind]
        self.command = [*(python or [python_of(project)]), *arguments]
        self.directory = project
        self.log_file = project.parent / f"{kind}-{self.port}.log"


def queued(thread):
    """Return how long the thread of this id, or the main one of a process, has waited for a processor, in seconds."""
    try:
        # https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat
        return int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        # It has ended, or this is no Linux.
        return 0


def append_settings(project, *lines):
    """Add lines to the end of the project's settings.py."""
    with (project / slug_of(project) / "settings.py").open("a", encoding="utf-8") as settings:
        settings.write("\n".join(["", *lines, ""]))


def with_packages(project, *packages):
    """Add `packages` to the dependencies of the project, whose Python has them then; skip the test if it cannot be."""
    path = project / "pyproject.toml"
    lines = "".join(f'\n  "{package}",' for package in packages)
    text = path.read_text(encoding="utf-8").replace("\ndependencies = [", f"\ndependencies = [{lines}", 1)
    path.write_text(text, encoding="utf-8")
    try:
        python_of(project)
    except subprocess.CalledProcessError:
        require(False, f"cannot be installed: {', '.join(packages)}")


def slug_of(project):
    """Return the name of the package of settings."""
    return next(project.glob("*/settings.py")).parent.name
