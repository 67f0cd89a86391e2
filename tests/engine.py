"""A baked project's site on a Docker engine, and clients that use it while it changes."""

import asyncio
import ctypes
import functools
import json
import os
import resource
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from clients import sign_up
from servers import clean_environ, free_port, machines_network, require, slug_of
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

# Where .ci/run has found that no engine can run, it says why here.
NO_ENGINE = os.environ.get("NO_ENGINE")
NOFILE = 65536


@functools.cache
def engine_answers():
    commands = (["docker", "info"], ["docker", "compose", "version"])
    return all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)


def require_engine():
    """Skip the test unless a Docker engine answers; with REQUIRE_ALL=1 that fails it, unless none can run here."""
    if NO_ENGINE:
        pytest.skip(f"no Docker engine can run here: {NO_ENGINE}")
    require(shutil.which("docker") and engine_answers(), "no Docker engine answers; `.ci/engine up` starts one")


@contextmanager
def engines_network():
    """
    Be where the ports of containers are: in the network of the engine, which that of .ci/engine has for itself.

    Any other engine changes the network of this machine, which is locked meanwhile.
    """
    path = os.environ.get("ENGINE_NETWORK")
    if not path:
        with machines_network().write_lock():
            yield
        return
    with Path("/proc/thread-self/ns/net").open() as own, Path(path).open() as engines:
        enter_network(engines)
        try:
            yield
        finally:
            enter_network(own)


def enter_network(namespace):
    """Let this thread, and what it starts, be in a network: os.setns(), which Python has from 3.12 on."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


class Site:
    """
    The services of compose.yaml on a port of this machine, as the README starts them.

    project: a Path, which the tests may change. starter: its answer. Commands run there as in an owner's shell.
    """

    # With all that means something in a URL, in a shell and in a file of variables.
    password = "p@s/s#w%rd:?&$$"

    def __init__(self, project, starter):
        self.project = project
        self.starter = starter
        self.port = free_port()
        self.url = f"http://localhost:{self.port}/"
        path = "ws/socket-server/lobby/" if starter == "chat" else "ws/socket-server/"
        self.socket_url = self.url.replace("http", "ws") + path
        self.environ = clean_environ(
            COMPOSE_FILE="compose.yaml",
            COMPOSE_PROJECT_NAME=f"test-{starter}",
            DJANGO_SECRET_KEY="signs-nothing-but-this-test-0123456789-abcdefghijklmnopqrstuvwxyz",
            HTTP_PORT=str(self.port),
            POSTGRES_PASSWORD=self.password,
        )
        self._allow_fewer_files()
        self.cookie = None

    def _allow_fewer_files(self):
        """Let the containers have what this machine has, where that is less than compose.yaml asks for."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit < NOFILE:
            services = {name: {"ulimits": {"nofile": limit}} for name in ("web", "nginx")}
            (self.project / "compose.machine.yaml").write_text(yaml.safe_dump({"services": services}))
            self.environ["COMPOSE_FILE"] += f"{os.pathsep}compose.machine.yaml"

    def run(self, command, check=True, **environ):
        """Run a command line of the documentation, and return the CompletedProcess, whose stdout has stderr in it."""
        result = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self.project,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=300,
        )
        assert not check or result.returncode == 0, result.stdout
        return result

    def commands(self, first):
        """Return the block of commands of the project's README that begins with `first`, a str."""
        blocks = (self.project / "README.md").read_text(encoding="utf-8").split("\n\n")
        (block,) = [block for block in blocks if block.lstrip().startswith(first)]
        return "\n".join(line.strip() for line in block.splitlines())

    def containers(self, service="web"):
        """Return the ids of the running containers of a service."""
        return set(self.run(f"docker compose ps --quiet {service}").stdout.split())

    def inspect(self, what, template):
        return json.loads(self.run(f"docker inspect {what} --format '{{{{json {template}}}}}'").stdout)

    def log_in(self):
        """Return the headers with which a page opens its socket."""
        if self.starter == "chat" and not self.cookie:
            self.cookie = sign_up(self, "member")
        return {"Cookie": self.cookie} if self.cookie else {}

    def down(self):
        """Stop the services, and remove what was made for them, also the images of former builds."""
        self.run("docker compose down --volumes --timeout 1", check=False)
        self.run(f"docker image rm {slug_of(self.project)}", check=False)
        label = f"label=com.docker.compose.project=test-{self.starter}"
        self.run(f"docker image prune --force --filter {label}", check=False)


class Load:
    """
    Visitors of a site: pages are asked for and forms are sent, sockets come back when they are closed.

    failures: what went wrong, a list of str. slowest: seconds of the slowest page. frames: how many sockets received.
    """

    def __init__(self, site):
        self.site = site
        self.failures = []
        self.pages = self.frames = self.slowest = 0

    async def during(self, step):
        """Run `step()` in a thread while the visitors are there, and return what it returns."""
        headers = self.site.log_in()
        visitors = [self._visit("GET") for _ in range(5)] + [self._visit("POST")]
        visitors += [self._stay_connected(headers) for _ in range(20)]
        tasks = [asyncio.create_task(visitor) for visitor in visitors]
        try:
            return await asyncio.to_thread(step)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _visit(self, method):
        # A connection for each request, which is the hardest case: each may meet a server that has gone.
        async with httpx.AsyncClient(timeout=15, trust_env=False, headers={"Connection": "close"}) as browser:
            while True:
                started = time.monotonic()
                try:
                    status = (await browser.request(method, self.site.url)).status_code
                    if status >= 500:
                        self.failures.append(f"{method}: {status}")
                except httpx.HTTPError as error:
                    self.failures.append(f"{method}: {error!r}")
                self.pages += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
                await asyncio.sleep(0.05)

    async def _stay_connected(self, headers):
        options = {"origin": self.site.url.rstrip("/"), "additional_headers": headers, "proxy": None}
        while True:
            try:
                async with connect(self.site.socket_url, open_timeout=20, **options) as socket:
                    async for _ in socket:
                        self.frames += 1
            except ConnectionClosed:
                pass
            except (OSError, TimeoutError, WebSocketException) as error:
                self.failures.append(f"handshake: {error!r}"[:200])
            await asyncio.sleep(0.3)
