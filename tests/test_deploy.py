"""The Docker option: its files pass their linters, and its nginx.conf works in front of two real servers."""

import asyncio
import fnmatch
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from clients import GREETING, open_client
from servers import REPOSITORY, Server, clean_environ, free_port, require, run, wait_until
from services import Redis, Service
from test_fanout import open_stuck_reader
from test_settings import PRODUCTION
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

SECRETS = {"DJANGO_SECRET_KEY": PRODUCTION["DJANGO_SECRET_KEY"], "POSTGRES_PASSWORD": "letters0and0digits"}
READ_TIMEOUT = "proxy_read_timeout 120s;"

# The fixtures with processes are made once.
real = pytest.mark.xdist_group("deploy")


def tool(name):
    """Return the path of a linter of the dev group."""
    path = shutil.which(name, path=Path(sys.executable).parent)
    require(path, f"{name} is not installed")
    return path


def output(*command, **options):
    """Run the command and return what it printed; the test fails with it if the command does."""
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        **options,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


# compose.yaml


@pytest.fixture(scope="module")
def compose(bake):
    return yaml.safe_load((bake() / "compose.yaml").read_text(encoding="utf-8"))


def interpolate(text, variables):
    """Return `text` as Compose reads it: ${NAME:-default} and ${NAME:?message} are replaced."""

    def value(match):
        name, default, message = match.groups()
        assert message is None or name in variables, message
        return variables.get(name, default)

    return re.sub(r"\$\{(\w+):(?:-([^}]*)|\?([^}]*))\}", value, text)


def environment(compose, **variables):
    """Return the variables that compose.yaml gives to the project's containers."""
    variables = SECRETS | variables
    return {name: interpolate(value, variables) for name, value in compose["services"]["web"]["environment"].items()}


def test_compose_file_follows_the_specification(bake):
    output(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", bake() / "compose.yaml")


def test_docker_reads_the_compose_file(bake):
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("the plugin docker compose is not installed")
    command = [docker, "compose", "--env-file", os.devnull, "config", "--quiet"]
    output(*command, cwd=bake(), env=os.environ | SECRETS)

    result = subprocess.run(command, cwd=bake(), env=clean_environ(), capture_output=True, encoding="utf-8")
    assert result.returncode != 0
    assert "is not set" in result.stderr or "see Docker in README.md" in result.stderr


def test_services(compose):
    services = compose["services"]
    assert set(services) == {"nginx", "web", "migrate", "postgres", "valkey"}
    assert services["web"]["deploy"]["replicas"] == 2
    # Only nginx can be reached from outside: the others believe it.
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert services.pop("migrate").get("restart") is None
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["logging"] == {"driver": "local"}
    # That of web is in the Dockerfile.
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["web"]
    assert set(compose["volumes"]) == {"postgres"}


def test_secrets_are_asked_for(bake, compose):
    for name in SECRETS:
        with pytest.raises(AssertionError, match=r"see Docker in README\.md"):
            interpolate(f"{compose['services']}", {key: value for key, value in SECRETS.items() if key != name})
    assert re.search("(?m)^##+ Docker$", (bake() / "README.md").read_text(encoding="utf-8"))


def test_variables_are_those_of_the_contract(bake, compose):
    example = (bake() / ".env.example").read_text(encoding="utf-8")
    known = set(re.findall(r"(?m)^#?(\w+)=", example)) | {"WEB_CONCURRENCY"}
    assert set(environment(compose)) <= known


def test_deploy_check_with_the_variables_of_the_compose_file(bake, compose):
    env = environment(compose, DJANGO_HTTPS="true", DJANGO_ALLOWED_HOSTS="example.com")
    run(bake(), "-W", "error", "manage.py", "check", "--deploy", "--fail-level", "WARNING", env=env)


def test_readme_and_documentation_agree(bake):
    """The commands for a machine without Docker."""
    documentation = (REPOSITORY / "docs" / "production.md").read_text(encoding="utf-8")
    commands = re.search(r"(?m)^    uv sync --no-dev.*\n(    .*\n)+", documentation)[0]
    assert commands in (bake() / "README.md").read_text(encoding="utf-8")


# Dockerfile and .dockerignore


@pytest.fixture(scope="module")
def dockerfile(bake):
    return (bake() / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint(bake):
    output(tool("hadolint"), "--failure-threshold", "style", bake() / "Dockerfile")


def test_image(dockerfile):
    build, image = re.split(r"(?m)^FROM python:\S+$", dockerfile)[-2:]
    assert re.search(r"(?m)^FROM ghcr\.io/astral-sh/uv:\d+\.\d+\.\d+ ", dockerfile)
    assert re.search(r"(?m)^USER \d+$", image)
    # Nothing is kept of the key with which static files are collected.
    assert "SECRET" not in image
    assert not re.search(r"(?m)^(ENV|ARG).*SECRET", build)


def test_collectstatic_of_the_image(bake, dockerfile, tmp_path):
    """Without .env, with the one variable of the RUN line."""
    project = shutil.copytree(bake(), tmp_path / "project", ignore=shutil.ignore_patterns(".env"))
    (line,) = re.findall(r"(?m)^RUN (.*collectstatic.*)$", dockerfile)
    variable, python, *command = shlex.split(line)
    assert python == ".venv/bin/python"
    run(project, *command, env=dict([variable.split("=")]))
    assert list(project.glob("staticfiles/chat/chat.*.js"))


def test_command_of_the_image(bake, dockerfile):
    command = json.loads(re.findall(r"(?m)^CMD (.*)$", dockerfile)[-1])
    assert command[:2] == ["python", "-m"]
    assert "--host" in run(bake(), *command[1:], "--help", env=PRODUCTION).stdout


def test_health_check_of_the_image(served, env, dockerfile):
    """It asks for localhost, which no variable allows, while pages are refused to strangers."""
    command = json.loads(re.search(r"HEALTHCHECK[^[]*(\[.*\])", dockerfile)[1])
    variables = env | {"DJANGO_ALLOWED_HOSTS": "example.com"}
    with Server(served, "production", env=variables) as server:
        run(served, *[word.replace("8000", str(server.port)) for word in command[1:]])
        assert httpx.get(server.url).status_code == 400


def is_ignored(path, patterns):
    parts = path.split("/")
    starts = ["/".join(parts[: length + 1]) for length in range(len(parts))]
    ends = [f"{'/'.join(parts[number : length + 1])}" for length in range(len(parts)) for number in range(length + 1)]
    for pattern in patterns:
        names = ends if pattern.startswith("**/") else starts
        if any(fnmatch.fnmatch(name, pattern.removeprefix("**/").rstrip("/")) for name in names):
            return True
    return False


def test_what_goes_into_the_image(bake):
    lines = (bake() / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    secrets = [".env", ".env.production", "deploy/certificates/privkey.pem", "db.sqlite3", "db.sqlite3-wal"]
    for path in [*secrets, ".git/config", ".venv/bin/python", "chat/__pycache__/x.pyc", "staticfiles/a.js", "media/a"]:
        assert is_ignored(path, patterns), path
    for path in ["manage.py", "pyproject.toml", "uv.lock", "chat/consumers.py", "chat/static/chat/chat.js"]:
        assert not is_ignored(path, patterns), path


# nginx


class Nginx(Service):
    """
    nginx with the project's deploy/nginx.conf, filled in as its image does, in front of the servers.

    changes: texts of the file and what stands there instead.
    """

    def __init__(self, project, servers, changes=None):
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
        require(nginx, "nginx is not installed")
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.socket_url = self.url.replace("http", "ws") + "ws/socket-server/"
        text = (project / "deploy" / "nginx.conf").read_text(encoding="utf-8")
        web = " fail_timeout=2s; server ".join(f"127.0.0.1:{server.port}" for server in servers)
        for old, new in {"${NGINX_PORT}": str(self.port), "${NGINX_WEB}": web, **(changes or {})}.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.file = self.directory / "nginx.conf"
        self.file.write_text(text, encoding="utf-8")
        pid = self.directory / "pid"
        self.command = [nginx, "-e", "stderr", "-p", self.directory, "-c", self.file, "-g", f"pid {pid}; daemon off;"]

    @property
    def log(self):
        return (self.directory / "log").read_text(encoding="utf-8")

    def kill(self):
        """Not SIGKILL, which would leave the workers behind."""
        self.process.terminate()
        self.process.wait(10)


def with_tls(project):
    """Return the changes to deploy/nginx.conf that uncomment its TLS block."""
    text = (project / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?m)^(?: *#(?:listen|http2|ssl_|if ).*\n)+", text)
    uncommented = block.replace("#", "")
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, env=with_sbin()).stderr
    if tuple(map(int, re.search(r"/(\d+)\.(\d+)\.(\d+)", version).groups())) < (1, 25, 1):
        # Older ones know it as a word of `listen`.
        uncommented = uncommented.replace("443 ssl", "443 ssl http2").replace("http2 on;", "")
    return {block: uncommented}


def with_sbin():
    return os.environ | {"PATH": f"{os.environ['PATH']}{os.pathsep}/usr/sbin"}


@pytest.fixture(scope="module")
def env(compose):
    """The variables of the compose file, without its services."""
    return environment(compose, DJANGO_ALLOWED_HOSTS="127.0.0.1") | {"DATABASE_URL": "", "REDIS_URL": ""}


@pytest.fixture(scope="module")
def served(project, env, tmp_path_factory):
    """A copy of the project with its static files collected."""
    copy = shutil.copytree(project, tmp_path_factory.mktemp("deploy") / "project")
    run(copy, "manage.py", "collectstatic", "--no-input", env=env)
    return copy


@pytest.fixture(scope="module")
def site(served, env):
    """nginx in front of two servers with one Redis; and two sockets that are idle from now on."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis())
        with_redis = env | {"REDIS_URL": redis.url}
        servers = [stack.enter_context(Server(served, "production", env=with_redis)) for _ in range(2)]
        nginx = stack.enter_context(Nginx(served, servers))
        quiet = stack.enter_context(Server(served, "production", env=env))
        impatient = stack.enter_context(Nginx(served, [quiet], {READ_TIMEOUT: "proxy_read_timeout 25s;"}))
        patient = stack.enter_context(Nginx(served, [quiet]))
        idle = [stack.enter_context(open_client(proxy, ping_interval=None)) for proxy in (patient, impatient)]
        started = time.monotonic()
        yield SimpleNamespace(nginx=nginx, servers=servers, redis=redis, idle=idle, idle_since=started)
        assert "Traceback" not in "".join(server.log for server in servers)


def test_nginx_file_passes_gixy(bake, tmp_path):
    """host_spoofing: Django compares Host with ALLOWED_HOSTS. hsts_header: Django sends it."""
    path = tmp_path / "nginx.conf"
    text = (bake() / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for content in (text, re.sub(r"(?m)^( *)#(?=\S)", r"\1", text)):
        path.write_text(content, encoding="utf-8")
        found = json.loads(output(tool("gixy"), "--skips", "host_spoofing,hsts_header", "--format", "json", path))
        assert found == []


@real
def test_page_and_script_through_nginx(site):
    with httpx.Client(base_url=site.nginx.url, headers={"Accept-Encoding": "gzip"}) as browser:
        page = browser.get("/")
        assert page.status_code == 200
        assert page.headers["Content-Encoding"] == "gzip"
        assert page.headers["Server"] == "nginx"
        script = browser.get(re.search(r'src="(/static/chat/chat\.\w+\.js)"', page.text)[1])
        assert script.status_code == 200
        assert "max-age=315360000" in script.headers["Cache-Control"]
        health = browser.get("/healthz")
        assert (health.status_code, health.json()) == (200, {"database": "ok", "channel_layer": "ok"})


@real
def test_forms_through_nginx(site):
    """Django compares their Origin with the Host that nginx passes on, port and all."""
    with httpx.Client(base_url=site.nginx.url, headers={"Origin": site.nginx.url.rstrip("/")}) as browser:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get("/admin/login/").text)[1]
        form = {"csrfmiddlewaretoken": token, "username": "nobody", "password": "wrong"}
        answer = browser.post("/admin/login/", data=form)
    assert answer.status_code == 200
    assert "Please enter the correct username" in answer.text


@real
def test_messages_cross_between_the_servers(site):
    """The least busy one is taken, so that two sockets are on two servers."""
    before = [server.log.count("opened") for server in site.servers]
    with open_client(site.nginx) as one, open_client(site.nginx) as other:
        assert [server.log.count("opened") for server in site.servers] == [count + 1 for count in before]
        for sender, text in ((one, "there"), (other, "and back")):
            sender.send({"type": "message", "text": text})
            assert one.receive()["text"] == other.receive()["text"] == text


@real
def test_handshake_of_the_workflow(site, bake):
    """The very command with which the baked project's workflow shakes hands."""
    require(shutil.which("curl"), "curl is not installed")
    workflow = yaml.safe_load((bake() / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (command,) = [step["run"] for step in workflow["jobs"]["docker"]["steps"] if "Handshake" in step.get("name", "")]
    command = command.replace("http://localhost", site.nginx.url.rstrip("/")).replace("--max-time 5", "--max-time 2")
    assert "connection_established" in output("bash", "-e", "-c", command)


@real
def test_foreign_origin_is_refused(site):
    with (
        pytest.raises(InvalidStatus) as refusal,
        open_client(site.nginx, origin="https://evil.example"),
    ):
        pass
    assert refusal.value.response.status_code == 403


@real
def test_other_upgrades_are_not_passed_on(site):
    answer = httpx.get(site.nginx.url, headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"})
    assert answer.status_code == 200
    assert "Unsupported upgrade request" not in "".join(server.log for server in site.servers)


@real
def test_large_frames_and_bodies_are_refused(site):
    with open_client(site.nginx) as client:
        client.send("x" * (2**20 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        # uvicorn hangs up with the rest unread, which may overtake its close frame on the way through nginx.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    assert httpx.post(site.nginx.url, content=b"x" * (2**20 + 1)).status_code == 413


@real
def test_address_of_the_client_is_in_the_log(site):
    """Not nginx's own, and not what the client claims."""
    if sys.platform != "linux":
        pytest.skip("only Linux has more than one loopback address")
    forged = {"X-Forwarded-For": "203.0.113.9"}
    with open_client(site.nginx, source_address=("127.0.0.2", 0), additional_headers=forged):
        log = "".join(server.log for server in site.servers)
    assert " of 127.0.0.2 opened" in log
    assert "203.0.113.9" not in log


@real
def test_floods_of_handshakes_are_refused(served, site):
    """With smaller numbers than the file's. Pages are not counted."""
    changes = {"burst=1000": "burst=3", "rate=100r/s": "rate=1r/s", "limit_conn sockets 2000": "limit_conn sockets 2"}
    with Nginx(served, site.servers, changes) as nginx, ExitStack() as sockets:
        for _ in range(2):
            sockets.enter_context(open_client(nginx))
        for _ in range(3):  # too many at a time, then too many in a second
            with pytest.raises(InvalidStatus) as refusal, open_client(nginx):
                pass
            assert refusal.value.response.status_code == 429
        assert "limiting connections by zone" in nginx.log
        assert "limiting requests" in nginx.log
        assert {httpx.get(nginx.url).status_code for _ in range(10)} == {200}


@real
def test_a_server_stops_under_200_clients(site):
    """
    Those on it are told with 1012 and are back on the other within 5 s; pages are answered all the time.

    A message that came back to its sender has reached the sockets of the other server, too.
    """
    stopping, staying = site.servers
    before = stopping.log.count("opened")

    seen = asyncio.run(stop_under_clients(site.nginx, stopping, staying, count=200))

    on_it = stopping.log.count("opened") - before
    stopping.start()
    print(f"{on_it} of 200 on it, closed with {dict(seen.codes)}, back after {max(seen.back):.2f} s at the latest")
    print(f"exit after {seen.exit:.2f} s; {len(seen.answered)} messages answered")
    assert 80 <= on_it <= 120
    assert seen.codes.total() == len(seen.back) == on_it
    assert set(seen.codes) <= {1012, 1006}
    assert max(seen.back) < 5
    assert seen.exit < 10
    assert seen.pages == {200}
    assert seen.answered
    assert seen.answered <= seen.observed


async def stop_under_clients(nginx, stopping, staying, count):
    """Stop a server while clients of nginx send and receive, and return what they saw when all are back."""
    seen = SimpleNamespace(codes=Counter(), back=[], answered=set(), observed=set(), pages=set())
    now = asyncio.get_running_loop().time
    greeted, observing = set(), asyncio.Event()

    async def member(number):
        """A page: it comes back when the socket closes, at once or, if that is refused, a little later."""
        closed = None
        while True:
            try:
                async with connect(nginx.socket_url, origin=nginx.url.rstrip("/"), open_timeout=20) as client:
                    assert json.loads(await client.recv()) == GREETING
                    if closed:
                        seen.back.append(now() - closed)
                    greeted.add(number)
                    sender = tasks.create_task(send(client, number)) if number % 50 == 0 else None
                    async for frame in client:
                        # The others only receive, as fast as they can.
                        if sender and (identity := json.loads(frame)["id"]).startswith(f"{number}-"):
                            seen.answered.add(identity)
            except ConnectionClosed as error:
                seen.codes[error.rcvd.code if error.rcvd else 1006] += 1
                closed = now()
                greeted.discard(number)
            except (OSError, WebSocketException):
                await asyncio.sleep(0.2)

    async def send(client, number):
        with suppress(ConnectionClosed):
            for message in itertools.count():
                text = {"type": "message", "text": "hello", "id": f"{number}-{now():.3f}-{message}"}
                await client.send(json.dumps(text))
                await asyncio.sleep(0.25)

    async def observer():
        async with connect(staying.socket_url, origin=nginx.url.rstrip("/")) as client:
            await client.recv()
            observing.set()
            async for frame in client:
                seen.observed.add(json.loads(frame)["id"])

    async def browser():
        async with httpx.AsyncClient() as browser:
            while True:
                seen.pages.add((await browser.get(nginx.url)).status_code)
                await asyncio.sleep(0.1)

    async def everybody():
        while len(greeted) < count:
            await asyncio.sleep(0.02)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(observer()), tasks.create_task(browser())]
        await observing.wait()
        started += [tasks.create_task(member(number)) for number in range(count)]
        await everybody()
        await asyncio.sleep(0.5)  # some messages
        stopping.process.terminate()
        terminated = now()
        await asyncio.to_thread(stopping.process.wait, 20)
        seen.exit = now() - terminated
        await everybody()
        await asyncio.sleep(0.5)  # some more
        answered = set(seen.answered)
        while not answered <= seen.observed and now() - terminated < 15:
            await asyncio.sleep(0.02)
        seen.answered = answered
        for task in started:
            task.cancel()
    return seen


@real
def test_a_stuck_reader_does_not_hold_a_server_up(served, env):
    """Without timeout_graceful_shutdown, uvicorn waits for it until it is killed."""
    with Server(served, "production", env=env) as server, open_client(server) as client:
        stuck = open_stuck_reader(server)
        for number in range(150):  # more than the buffers of the kernel take
            client.send({"type": "message", "text": "😀" * 2000, "id": str(number)})
            assert client.receive()["id"] == str(number)
        server.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            client.receive(2)
        assert closed.value.rcvd.code == 1012
        server.process.wait(15)
        stuck.close()


@real
def test_health_names_what_is_down(served, env, site):
    site.redis.kill()
    answer = httpx.get(f"{site.nginx.url}healthz")
    site.redis.start()
    assert answer.status_code == 503
    assert answer.json()["database"] == "ok"
    assert answer.json()["channel_layer"] != "ok"
    wait_until(lambda: httpx.get(f"{site.nginx.url}healthz").status_code == 200, "the channel layer is back")

    without = env | {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
    with Server(served, "production", env=without) as server, Nginx(served, [server]) as nginx:
        answer = httpx.get(f"{nginx.url}healthz")
    assert (answer.status_code, answer.json()) == (503, {"database": "OperationalError", "channel_layer": "ok"})


def make_certificate(folder):
    """Return the Paths of a key and a certificate of 127.0.0.1."""
    key, certificate = folder / "privkey.pem", folder / "fullchain.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    output("openssl", *new, *names, "-keyout", key, "-out", certificate)
    return key, certificate


@real
def test_redis_with_tls_and_a_password(served, env, tmp_path):
    require(shutil.which("openssl"), "openssl is not installed")
    with Redis(tls=make_certificate(tmp_path)) as redis:
        with_redis = env | {"REDIS_URL": redis.url}
        with (
            Server(served, "production", env=with_redis) as one,
            Server(served, "production", env=with_redis) as other,
            open_client(one) as sender,
            open_client(other) as receiver,
        ):
            sender.send({"type": "message", "text": "encrypted"})
            assert sender.receive()["text"] == receiver.receive()["text"] == "encrypted"


@real
def test_tls(served, env, tmp_path):
    """The block of the file, uncommented: plain HTTP is redirected, pages speak HTTP/2, sockets are wss."""
    require(shutil.which("openssl"), "openssl is not installed")
    certificate = make_certificate(tmp_path)[1]
    trusting = ssl.create_default_context(cafile=certificate)
    port = free_port()
    changes = with_tls(served)
    ((block, uncommented),) = changes.items()
    changes[block] = uncommented.replace(" 443 ", f" {port} ").replace("/etc/nginx/certificates", str(tmp_path))

    with (
        Server(served, "production", env=env | {"DJANGO_HTTPS": "true"}) as server,
        Nginx(served, [server], changes) as nginx,
    ):
        plain = httpx.get(nginx.url)
        assert (plain.status_code, plain.headers["Location"]) == (301, "https://127.0.0.1/")

        secure = SimpleNamespace(url=f"https://127.0.0.1:{port}/")
        secure.socket_url = secure.url.replace("http", "ws") + "ws/socket-server/"
        page = httpx.get(secure.url, verify=trusting)
        assert page.status_code == 200
        assert "max-age" in page.headers["Strict-Transport-Security"]
        with open_client(secure, ssl=trusting) as client:
            client.ping()

        trusting.set_alpn_protocols(["h2", "http/1.1"])
        with trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as tls:
            assert tls.selected_alpn_protocol() == "h2"


@real
def test_idle_sockets_stay_open(site):
    """For 90 s; and with a read time-out of 25 s, too, since uvicorn pings every 20 s."""
    time.sleep(max(0, site.idle_since + 90 - time.monotonic()))
    for idle in site.idle:
        idle.ping()
