"""The Docker option: its files pass their linters, and its nginx.conf works in front of two real servers."""

import asyncio
import itertools
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from clients import GREETING, open_client, receive_first
from servers import REPOSITORY, Process, Server, clean_environ, collect_static, free_port, require, run, wait_until
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
    services = dict(compose["services"])
    assert set(services) == {"nginx", "web", "migrate", "postgres", "valkey"}
    assert services["web"]["deploy"]["replicas"] == 2
    # Only nginx can be reached from outside, so that the others may believe its headers.
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    # One image, one build.
    assert [name for name, service in services.items() if "build" in service] == ["web"]
    assert services.pop("migrate").get("restart") is None
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["logging"] == {"driver": "local"}
    # The command of web's is in the Dockerfile.
    assert [name for name, service in services.items() if "test" not in service["healthcheck"]] == ["web"]
    assert set(compose["volumes"]) == {"postgres"}
    # Where the image keeps its data: anywhere else they would go with the container.
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    # A process that is broken into cannot change what the next one reads.
    assert services["nginx"]["volumes"] == ["./deploy:/etc/nginx:ro"]
    # The image's own signal waits until the last socket is closed.
    assert services["nginx"].get("stop_signal") == "SIGTERM"
    # Each socket is a file, or two.
    many = [name for name, service in services.items() if service.get("ulimits") == {"nofile": 65536}]
    assert many == ["nginx", "web"]
    # It writes no disk full with what is worth nothing.
    assert services["valkey"]["command"] == ["valkey-server", "--save", "", "--appendonly", "no"]
    assert [environment(compose, **env)["WEB_CONCURRENCY"] for env in ({}, {"WEB_CONCURRENCY": "3"})] == ["1", "3"]


def test_a_service_that_is_broken_into_can_do_little(compose):
    for name in ("web", "migrate"):
        service = compose["services"][name]
        assert service.get("cap_drop") == ["ALL"]
        assert service.get("security_opt") == ["no-new-privileges:true"]
    written = {name for name, service in compose["services"].items() if not service.get("read_only")}
    assert written == {"postgres"}


def test_services_wait_for_each_other(bake, compose):
    """A first start passes also where they do not, most of the time."""
    services = compose["services"]
    waits = {
        name: {on: how["condition"] for on, how in services[name]["depends_on"].items()}
        for name in services.keys() - {"postgres", "valkey"}
    }
    assert waits == {
        "nginx": {"web": "service_healthy"},
        "web": {"migrate": "service_completed_successfully", "valkey": "service_healthy"},
        "migrate": {"postgres": "service_healthy"},
    }
    # By TCP: while PostgreSQL makes its database, it answers on its Unix socket only.
    assert "--host=127.0.0.1" in services["postgres"]["healthcheck"]["test"]
    # Sockets are closed and frames written before the process is killed.
    server = (bake() / "my_realtime_site" / "__main__.py").read_text(encoding="utf-8")
    graceful = int(re.search(r"timeout_graceful_shutdown=(\d+)", server)[1])
    assert int(services["web"]["stop_grace_period"].removesuffix("s")) > graceful


def test_secrets_are_asked_for(bake, compose):
    for name in SECRETS:
        with pytest.raises(AssertionError, match=r"see Docker in README\.md"):
            interpolate(f"{compose['services']}", {key: value for key, value in SECRETS.items() if key != name})
    assert re.search("(?m)^##+ Docker$", (bake() / "README.md").read_text(encoding="utf-8"))


def test_variables_are_those_of_the_contract(bake, compose):
    example = (bake() / ".env.example").read_text(encoding="utf-8")
    known = set(re.findall(r"(?m)^#?(\w+)=", example))
    # What is set beside it, and what a container has no use for. One that is left out would be set in vain.
    assert set(environment(compose)) == known - {"DJANGO_DEBUG", "PORT"} | {"WEB_CONCURRENCY", "PGPASSWORD"}


def test_deploy_check_with_the_variables_of_the_compose_file(bake, compose):
    env = environment(compose, DJANGO_HTTPS="true", DJANGO_ALLOWED_HOSTS="example.com")
    run(bake(), "-W", "error", "manage.py", "check", "--deploy", "--fail-level", "WARNING", env=env)


def test_readme_and_documentation_agree(bake):
    """The commands for a machine without Docker."""
    documentation = (REPOSITORY / "docs" / "production.md").read_text(encoding="utf-8")
    commands = re.search(r"(?m)^    uv sync --no-dev.*\n(    .*\n)+", documentation)[0]
    assert commands in (bake() / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of bash")
@pytest.mark.parametrize("healthy", [True, False])
def test_a_roll_stops_old_containers_only_beside_as_many_healthy_new_ones(bake, tmp_path, healthy):
    """The commands of the README, typed into a shell, which goes on after one that fails; docker is a stand-in."""
    blocks = (bake() / "README.md").read_text(encoding="utf-8").split("\n\n")
    (commands,) = [block for block in blocks if block.lstrip().startswith("old=")]
    docker = f"""#!/bin/sh
echo "$@" >>asked
case "$*" in
    "compose ps"*) printf 'a\\nb\\nc\\n' ;;
    "compose up"*) exit {int(not healthy)} ;;
esac
"""
    for name, text in {"docker": docker, "sleep": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    environ = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", commands], cwd=tmp_path, env=environ, check=healthy)

    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert "--scale web=6 " in asked[1]
    assert asked[2:] == [f"{word} {name}" for name in "abc" for word in ("stop", "rm")] * healthy


# Kubernetes


def kubernetes():
    """Return the objects of the manifest in docs/production.md, dicts."""
    (manifest,) = re.findall(r"(?s)```yaml\n(.*?)```", documentation_of("Kubernetes"))
    return list(yaml.safe_load_all(manifest))


def test_kubernetes_manifest_follows_the_schema(tmp_path):
    """The strict one, in which a word that it does not know is an error."""
    objects = kubernetes()
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(yaml.safe_dump_all(objects))
    output(tool("kubernetes-validate"), "--strict", manifest)
    assert [each["kind"] for each in objects] == ["Deployment", "Service", "Job"]

    # The Pod Security Standard "restricted", which many clusters demand.
    for pod in [each["spec"]["template"]["spec"] for each in objects if each["kind"] != "Service"]:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}

    pod = objects[0]["spec"]["template"]["spec"]
    # preStop, the 10 seconds of uvicorn, and some to spare.
    assert pod["terminationGracePeriodSeconds"] >= 5 + 10 + 5


# Dockerfile and .dockerignore


@pytest.fixture(scope="module")
def dockerfile(bake):
    return (bake() / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint(bake):
    output(tool("hadolint"), "--failure-threshold", "style", bake() / "Dockerfile")


def test_image(dockerfile):
    build, image = re.split(r"(?m)^FROM python:\S+$", dockerfile)[-2:]
    assert re.search(r"(?m)^FROM astral/uv:\d+\.\d+\.\d+ ", dockerfile)
    # BuildKit of Docker 24 knows no --start-interval, and would say that instead of what is wrong.
    assert "--start-interval" not in dockerfile
    assert re.search(r"(?m)^USER \d+$", image)
    # The access log of a process that is killed is not lost in a buffer.
    assert "PYTHONUNBUFFERED=1" in image
    # The check says what is wrong before Docker gives it up.
    patience, timeout = (int(number) for number in re.findall(r"timeout=(\d+)", image))
    assert timeout < patience
    # Nothing is kept of the key with which static files are collected.
    assert "SECRET" not in image
    assert not re.search(r"(?m)^(ENV|ARG).*SECRET", build)
    # Who runs it owns no file of it.
    assert "--chown" not in image
    # A change of the code leaves the layer with the packages as it is.
    packages = build.partition("uv sync")[0]
    assert re.findall(r"(?m)^COPY (.*)$", packages) == ["--from=uv /uv /usr/local/bin/", "pyproject.toml uv.loc[k] ./"]


# What may lie about in a project, and is in no image; with an engine, test_docker.py builds one.
LEFT_OUT = """
.env.production conf/.env conf/.env.local deploy/privkey.pem deploy/certificates/privkey.pem keys/site.key backup.sql
dumps/today.sql.gz chat/db.sqlite3 chat/db.sqlite3-wal old.sqlite chat/site.db conf/production.env .envrc .pypirc
keys/.ssh/key keys/id_ecdsa conf/credentials.json logs/site.log docker-compose.override.yml Dockerfile.dev
keys/site.pem keys/id_rsa id_ed25519 keys/id_dsa.old keys/site.p12 site.pfx keys/site.jks conf/client_secret_1.json
conf/my-credentials-2.json site.dump chat/views.py.bak media/photo.jpg staticfiles/old.css node_modules/x/index.js
chat/tests/test_views.py chat/__pycache__/views.pyc conftest.py AGENTS.md compose.yaml deploy/nginx.conf
""".split()
# What a migration reads, and what pages and settings are made of.
PUT_IN = "accounts/migrations/sql/views.sql manage.py pyproject.toml uv.lock static/site.css chat/consumers.py".split()


def is_left_out(path, rules):
    """Tell whether a .dockerignore with these lines leaves out a file, or a folder that it is in; the last counts."""
    ends, left_out = [path, *(f"{folder}/" for folder in Path(path).parents if folder.name)], False
    for rule in rules:
        pattern = re.escape(rule.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        pattern = pattern if pattern.endswith("/") else f"{pattern}/?"
        if any(re.fullmatch(pattern, end) for end in ends):
            left_out = not rule.startswith("!")
    return left_out


def test_what_is_left_out_of_the_image(bake):
    lines = (bake() / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert [path for path in LEFT_OUT if not is_left_out(path, rules)] == []
    assert [path for path in PUT_IN if is_left_out(path, rules)] == []
    # Each rule is there for one of these.
    for rule in rules:
        others = [each for each in rules if each != rule]
        assert rule.startswith("!") or any(not is_left_out(path, others) for path in LEFT_OUT), rule


@pytest.mark.skipif(sys.platform == "win32", reason="the line is one of sh")
@pytest.mark.parametrize("locked", [False, True], ids=["without-lock", "with-lock"])
def test_packages_of_the_image(dockerfile, tmp_path, locked):
    """Those of production, with PostgreSQL, and in the versions of uv.lock if there is one."""
    line = re.search(r"(?m)^RUN --mount=\S+ \\\n((?:.*\\\n)*.*)", dockerfile)[1]
    (tmp_path / "uv").write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    (tmp_path / "uv").chmod(0o755)
    if locked:
        (tmp_path / "uv.lock").touch()

    asked = output("sh", "-c", line, cwd=tmp_path, env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}/usr/bin:/bin"})

    assert asked.split() == ["sync", "--no-dev", "--extra", "postgres", *["--locked"] * locked]


def test_collectstatic_of_the_image(bake, dockerfile, tmp_path):
    """Without .env, with the one variable of the RUN line."""
    project = shutil.copytree(bake(), tmp_path / "project", ignore=shutil.ignore_patterns(".env"))
    (line,) = re.findall(r"(?m)^RUN (.*collectstatic.*) && ", dockerfile)
    variable, python, *command = shlex.split(line)
    assert python == "/venv/bin/python"
    run(project, *command, env=dict([variable.split("=")]))
    assert list(project.glob("staticfiles/chat/chat.*.js"))


def test_command_of_the_image(bake, dockerfile):
    command = json.loads(re.findall(r"(?m)^CMD (.*)$", dockerfile)[-1])
    # A container is reached from outside of it.
    assert command == ["python", "-m", "my_realtime_site", "--host", "0.0.0.0"]
    assert "--host" in run(bake(), *command[1:], "--help", env=PRODUCTION).stdout


@contextmanager
def hears_ctrl_c():
    """Let what is started meanwhile end by Ctrl-C, which a run in the background ignores, and so would it."""
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, ignored)


def test_health_check_of_the_image(served, env, dockerfile):
    """It asks for localhost, which no variable allows while pages are refused to strangers, and is not logged."""
    command = json.loads(re.search(r"HEALTHCHECK[^[]*(\[.*\])", dockerfile.replace("\\\n", ""))[1])
    # Without a proxy, uvicorn has an access log.
    variables = env | {"DJANGO_ALLOWED_HOSTS": "example.com", "DJANGO_TRUST_PROXY": "false"}
    with hears_ctrl_c(), Server(served, "production", env=variables) as server:
        run(served, *command[1:], env={"PORT": str(server.port)})
        assert httpx.get(server.url).status_code == 400
        wait_until(lambda: '"GET / HTTP/1.1" 400' in server.log, "the access log")
        # uvicorn would believe the address, since it is told from this machine.
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        handshake |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "X-Forwarded-For": "203.0.113.9"}
        assert httpx.get(f"{server.url}ws/socket-server/", headers=handshake).status_code == 403
        wait_until(lambda: " of 127.0.0.1 refused" in server.log, "the log of the socket", timeout=5)
        assert "/healthz" not in server.log
        if sys.platform != "win32":
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(15) == 0
            assert "Traceback" not in server.log
    with Upstream(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n") as ill:
        assert run(served, *command[1:], env={"PORT": str(ill.port)}, check=False).returncode == 1


# nginx


def without_docker():
    """Return the command of docs/production.md that makes an nginx.conf for a machine without Docker."""
    documentation = (REPOSITORY / "docs" / "production.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"(?ms)^    (sed .*? deploy/nginx\.conf) \|", documentation)
    return shlex.split(command.replace("\\\n", ""))


class Nginx(Service):
    """
    nginx with the project's deploy/nginx.conf, made for a machine without Docker, in front of the servers.

    changes: texts of the file and what stands there instead.
    """

    def __init__(self, project, servers, changes=None):
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
        require(nginx, "nginx is not installed")
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.socket_url = self.url.replace("http", "ws") + "ws/socket-server/"
        text = output(*without_docker(), cwd=project)
        two = re.search(r"(?: +server 127\.0\.0\.1:800\d fail_timeout=2s;\n){2}", text)[0]
        lines = "".join(f"server 127.0.0.1:{server.port} fail_timeout=2s;\n" for server in servers)
        logs = {f"_log /var/log/nginx/{name}.log": f"_log {self.log_file}" for name in ("access", "error")}
        own = {two: lines, "listen 80 ": f"listen {self.port} "} | logs
        for old, new in {**own, **(changes or {})}.items():
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
    (block,) = re.findall(r"(?m)^(?: *#(?:server_name|listen|http2|ssl_|if ).*\n)+", text)
    uncommented = block.replace("#", "")
    nginx = shutil.which("nginx", path=with_sbin()["PATH"])
    require(nginx, "nginx is not installed")
    version = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr
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
    collect_static(copy, env)
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
        # A cache on the way keeps one for those that take it compressed, and one for others.
        assert "Accept-Encoding" in page.headers.get("Vary", "")
        assert page.headers["Server"] == "nginx"
        script = browser.get(re.search(r'src="(/static/chat/chat\.\w+\.js)"', page.text)[1])
        assert script.status_code == 200
        assert "max-age=315360000" in script.headers["Cache-Control"]
        # For the containers only.
        assert browser.get("/healthz").status_code == 404
        # nginx has an access log, with the addresses of the clients.
        assert '"GET / HTTP/1.' in site.nginx.log
        assert not [server.port for server in site.servers if "HTTP/1." in server.log]


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


def handshake_of_the_workflow(project, url):
    """Return the command with which the project's workflow shakes hands, for the site at `url`."""
    workflow = yaml.safe_load((project / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (command,) = [step["run"] for step in workflow["jobs"]["docker"]["steps"] if "Handshake" in step.get("name", "")]
    assert "http://localhost" in command
    return command.replace("http://localhost", url.rstrip("/"))


@real
def test_handshake_of_the_workflow(site, bake):
    """The very command with which the baked project's workflow shakes hands."""
    require(shutil.which("curl"), "curl is not installed")
    command = handshake_of_the_workflow(bake(), site.nginx.url)
    assert "connection_established" in output("bash", "-e", "-c", command)

    elsewhere = command.replace("ws/socket-server/", "ws/no-such-path/")
    assert subprocess.run(["bash", "-e", "-c", elsewhere], capture_output=True).returncode != 0


@real
def test_foreign_origin_is_refused(site):
    with (
        pytest.raises(InvalidStatus) as refusal,
        open_client(site.nginx, origin="https://evil.example"),
    ):
        pass
    assert refusal.value.response.status_code == 403


def test_other_upgrades_are_not_passed_on(bake):
    """Of which uvicorn would log each."""
    with Upstream() as upstream, Nginx(bake(), [upstream]) as nginx:
        httpx.get(nginx.url, headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"})

        assert upstream.header("Upgrade") == []
        assert upstream.header("Connection") == ["close"]


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


class Upstream(Process):
    """A server in this process that keeps the requests it gets, in `.requests`, and answers each with `answer`."""

    def __init__(self, answer=b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"):
        self.answer = answer
        self.requests = []

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *error):
        # Wakes the accept() of the thread, which close() alone does not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self):
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    request = b""
                    while b"\r\n\r\n" not in request and (data := connection.recv(2**16)):
                        request += data
                    if request:
                        self.requests.append(request)
                        connection.sendall(self.answer)

    def header(self, name):
        """Return the values of a header in the last request."""
        return re.findall(rf"(?im)^{name}: ?(.*)\r$", self.requests[-1].decode("latin-1"))


def test_one_address_and_one_scheme_are_passed_on(bake):
    """Ours, whatever the client claims; a proxy in front is believed if its address is in the file."""
    claims = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "203.0.113.8"), ("X-Forwarded-Proto", "https")]
    with Upstream() as upstream, Nginx(bake(), [upstream]) as nginx:
        httpx.get(nginx.url, headers=claims)
        assert upstream.header("X-Forwarded-For") == ["127.0.0.1"]
        assert upstream.header("X-Forwarded-Proto") == ["http"]
        assert upstream.header("Host") == [f"127.0.0.1:{nginx.port}"]
        # With DJANGO_HTTPS=true that would be redirected for ever.
        httpx.get(nginx.url)
        # nginx writes a line after the response.
        wait_until(lambda: nginx.log.count('"GET / HTTP/1.1"') == 2, "the log")
        hint = "(not believed: https, from 127.0.0.1. If that is a proxy of yours: set_real_ip_from)"
        assert nginx.log.count(hint) == 1

    behind = {"#set_real_ip_from 10.0.0.0/8": "set_real_ip_from 127.0.0.1", "#real_ip_header": "real_ip_header"}
    with Upstream() as upstream, Nginx(bake(), [upstream], behind) as nginx:
        for scheme in ("https", "http"):
            headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": scheme}
            httpx.get(nginx.url, headers=headers)
            assert upstream.header("X-Forwarded-For") == ["203.0.113.9"]
            assert upstream.header("X-Forwarded-Proto") == [scheme]
        wait_until(lambda: nginx.log.count("203.0.113.9 [") == 2, "the log")
        assert "not believed" not in nginx.log


def test_the_emptiest_server_gets_the_next_socket(bake):
    """Sockets stay: in turn, a server that has just started would have half of them after hours only."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        nginx = stack.enter_context(Nginx(bake(), [SimpleNamespace(port=it.getsockname()[1]) for it in listeners]))

        def open_socket():
            """Return the number of the server that nginx asks, its end of the connection, and the client's."""
            client = stack.enter_context(socket.create_connection(("127.0.0.1", nginx.port)))
            client.sendall(b"GET /ws/socket-server/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
            ((ready,), _, _) = select.select(listeners, [], [], 5)
            connection = stack.enter_context(ready.accept()[0])
            connection.settimeout(5)
            assert connection.recv(2**16)
            return listeners.index(ready), connection, client

        opened = [open_socket() for _ in range(4)]
        assert sorted(number for number, _, _ in opened) == [0, 0, 1, 1]
        for number, connection, client in opened:
            if number == 0:
                client.close()
                assert connection.recv(1) == b""
        assert [open_socket()[0] for _ in range(2)] == [0, 0]


def test_numbers_of_the_nginx_file(bake):
    """Each fits the others, and those of the server."""
    text = (bake() / "deploy" / "nginx.conf").read_text(encoding="utf-8")

    def number(name):
        return int(re.search(rf"(?m)^ *{name} (\d+)", text)[1])

    # Each socket takes two connections, and no address alone may fill half of a process. A connection is a file.
    assert number("worker_connections") > 2 * number("limit_conn sockets") * 2
    assert number("worker_rlimit_nofile") >= 2 * number("worker_connections")
    # The name stands for all containers: one refusal, as of one that is being replaced, must not shut the site.
    assert re.findall(r"(?m)^ *server web:8000 (.*);", text) == ["resolve max_fails=0"]
    # A page gives up after 10 s: within them the next process is tried, also when containers were replaced just now.
    assert number("proxy_connect_timeout") * 2 < number("proxy_next_upstream_timeout") <= 10
    assert "resolver 127.0.0.11 valid=1s " in text
    # A password takes a core for half a second: those of one address take less than half of one.
    assert int(re.search(r"zone=passwords:\w+ rate=(\d+)r/m;", text)[1]) * 0.5 < 60 / 2
    # Browsers refuse what is older.
    assert re.search(r"(?m)^ *#ssl_protocols (.*);", text)[1] == "TLSv1.2 TLSv1.3"
    # What slow readers have not taken is bounded, and dropped: not kept on the disk, nor for ever.
    assert number("proxy_max_temp_file_size") == 0
    assert number("send_timeout") <= 60
    assert re.search("(?m)^ *reset_timedout_connection on;$", text)
    # Two of uvicorn's pings may be lost.
    server = (bake() / "my_realtime_site" / "__main__.py").read_text(encoding="utf-8")
    ping_interval = int(re.search(r"ws_ping_interval=(\d+)", server)[1])
    assert min(number("proxy_read_timeout"), number("proxy_send_timeout")) > 3 * ping_interval


def test_a_large_body_goes_no_further_than_nginx(bake):
    with Upstream() as upstream, Nginx(bake(), [upstream]) as nginx:
        assert httpx.post(nginx.url, content=b"x" * (2**20 + 1)).status_code == 413

    assert upstream.requests == []


def test_a_redirect_loop_behind_a_proxy_that_ends_tls(served, env):
    """DJANGO_TRUST_PROXY is the variable that is missing then, as the log and docs/production.md say."""
    https = env | {"DJANGO_HTTPS": "true"}
    forwarded = {"X-Forwarded-Proto": "https"}
    for trust, status in (("false", 301), ("true", 200)):
        with Server(served, "production", env=https | {"DJANGO_TRUST_PROXY": trust}) as server:
            answer = httpx.get(server.url, headers=forwarded)
        assert answer.status_code == status
        assert ("behind one set DJANGO_TRUST_PROXY=true" in server.log) == (status == 301)
    assert "DJANGO_TRUST_PROXY" in documentation_of("Behind another proxy")


def documentation_of(title):
    """Return the section of docs/production.md with that title."""
    text = (REPOSITORY / "docs" / "production.md").read_text(encoding="utf-8")
    return re.search(rf"(?ms)^##+ {title}\n.*?(?=^## |\Z)", text)[0]


def test_what_has_been_sent_is_not_sent_again(bake):
    """A form whose server dies while it works on it may have had its effect."""
    with Upstream(answer=b"") as one, Upstream(answer=b"") as other, Nginx(bake(), [one, other]) as nginx:
        assert httpx.post(nginx.url, data={"pay": "once"}).status_code == 502
        assert len(one.requests + other.requests) == 1


def test_what_reached_nobody_is_sent_again(bake):
    """As when all addresses that nginx knew are gone: it asks once more, and so may reach those that are new."""
    with Upstream() as upstream:
        # The only one, which nginx never leaves alone; it refuses the first time.
        changes = {"error_page 502 504 = @again;": "error_page 502 504 = @again; proxy_pass http://127.0.0.1:1;"}
        first = "location / {\n            proxy_pass http://web;"
        with Nginx(bake(), [upstream], {first: "location / {"} | changes) as nginx:
            assert httpx.post(nginx.url, data={"pay": "once"}).status_code == 204
            assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("accounts/login/?next=/", "127.0.0.11"),
        ("accounts/signup/", "127.0.0.12"),
        ("accounts/password_change/", "127.0.0.13"),
        ("accounts/reset/MQ/set-password/", "127.0.0.14"),
        ("accounts/email/", "127.0.0.17"),
        ("admin/login/", "127.0.0.15"),
        ("%61dmin/./login/", "127.0.0.16"),
    ],
)
def test_passwords_are_limited_per_address(limited, path, address):
    """Requests that hash a password. Pages are not counted, nor the requests of other addresses."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        statuses = Counter(client.post(limited.url + path).status_code for _ in range(40))
        assert client.get(limited.url + path).status_code == 204
        assert client.post(limited.url + "rooms/").status_code == 204
    assert set(statuses) == {204, 429}
    assert 21 <= statuses[204] <= 24
    assert httpx.post(limited.url + path).status_code == 204


def test_the_ipv6_addresses_of_a_household_are_limited_together(bake):
    """It has 2**64 of them."""
    changes = {"#set_real_ip_from 10.0.0.0/8;": "set_real_ip_from 127.0.0.1;", "#real_ip_header": "real_ip_header"}
    with (
        Upstream() as upstream,
        Nginx(bake(), [upstream], changes) as nginx,
        httpx.Client(base_url=nginx.url) as client,
    ):

        def statuses(addresses):
            return Counter(
                client.post("admin/login/", headers={"X-Forwarded-For": address}).status_code for address in addresses
            )

        # With a byte that is a line break, since the rule is a regular expression.
        one = statuses(f"2001:db8:a0a:0:{number:x}::{number:x}" for number in range(0x0A00, 0x0A00 + 40))
        assert 21 <= one[204] <= 24
        assert one[429] >= 16
        assert statuses(f"2001:db8:a0a:1::{number:x}" for number in range(20)) == {204: 20}
        assert statuses(f"2001:db8:{number:x}::1" for number in range(40)) == {204: 40}
        assert statuses(f"192.0.2.{number}" for number in range(40)) == {204: 40}


@pytest.fixture(scope="module")
def limited(bake):
    if sys.platform != "linux":
        pytest.skip("only Linux has more than one loopback address")
    with Upstream() as upstream, Nginx(bake(), [upstream]) as nginx:
        yield nginx


def test_no_secret_is_logged(bake):
    secrets = {"Authorization": "Bearer hush-1", "Sec-WebSocket-Protocol": "chat, bearer.hush-2", "Cookie": "a=hush-3"}
    with Upstream() as upstream, Nginx(bake(), [upstream]) as nginx:
        httpx.get(f"{nginx.url}ws/socket-server/?token=hush-4", headers=secrets | {"Referer": "https://a/?hush-5"})
        httpx.get(f"{nginx.url}accounts/reset/MQ/hush-6/")
        httpx.get(f"{nginx.url}a%0aforged%1b[2J")
        wait_until(lambda: "forged" in nginx.log, "the log")
        log = nginx.log
    assert "hush" not in log
    assert "127.0.0.1 [" in log
    assert '"GET /ws/socket-server/ HTTP/1.1" 204' in log
    assert '"GET /accounts/reset/MQ/... HTTP/1.1"' in log
    assert '"GET /a\\x0Aforged\\x1B[2J HTTP/1.1"' in log


@real
@pytest.mark.parametrize(("size", "status"), [(4000, 200), (8000, 200), (8500, 400), (30_000, 400)])
def test_large_headers_get_the_same_answer_everywhere(site, size, status):
    cookie = {"Cookie": f"a={'x' * size}"}
    assert httpx.get(site.nginx.url, headers=cookie).status_code == status
    with suppress(InvalidStatus) if status == 400 else nullcontext():
        with open_client(site.nginx, additional_headers=cookie) as client:
            client.ping()
        assert status == 200


def test_clients_that_do_not_go_on_are_cut_off(bake):
    """With smaller numbers than the file's: connections with half a request, or half a form."""
    changes = {f"client_{part}_timeout 10s": f"client_{part}_timeout 1s" for part in ("header", "body")}
    halves = (b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal")
    with Upstream() as upstream, Nginx(bake(), [upstream], changes) as nginx:
        for half in halves:
            with socket.create_connection(("127.0.0.1", nginx.port)) as client:
                client.settimeout(5)
                client.sendall(half)
                with suppress(ConnectionResetError):
                    while client.recv(2**16):
                        pass


@real
def test_after_a_reload_sockets_come_to_the_new_processes(served, site):
    """With a smaller number than the file's: without any, the old ones stay for as long as a socket of theirs does."""
    changes = {"worker_shutdown_timeout 10s": "worker_shutdown_timeout 1s"}
    with Nginx(served, site.servers, changes) as nginx, open_client(nginx) as client:
        client.ping()
        nginx.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed):
            client.receive(timeout=15)


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
        wait_until(lambda: "limiting connections by zone" in nginx.log, "the log")
        wait_until(lambda: "limiting requests" in nginx.log, "the log")
        assert {httpx.get(nginx.url).status_code for _ in range(10)} == {200}


@real
def test_a_server_stops_under_200_clients(site):
    """
    Its clients get 1012 and are back on the other within 5 s; pages are answered all the time.

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
                    assert (await receive_first(client)).items() >= GREETING.items()
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
        async with connect(staying.socket_url, origin=staying.url.rstrip("/")) as client:
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
    """Its close is given up after CLOSE_TIMEOUT of realtime/socket.py; uvicorn would wait for longer."""
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
    health = f"{site.servers[0].url}healthz"
    site.redis.kill()
    answer = httpx.get(health)
    site.redis.start()
    assert answer.status_code == 503
    assert answer.json()["database"] == "ok"
    assert answer.json()["channel_layer"] != "ok"
    wait_until(lambda: httpx.get(health).status_code == 200, "the channel layer is back")

    without = env | {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
    with Server(served, "production", env=without) as server:
        answer = httpx.get(f"{server.url}healthz")
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
    """With an authority of one's own."""
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
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_platform_like_heroku(served, env, tmp_path):
    """It sets PORT and WEB_CONCURRENCY, nobody can check its Redis, and its SIGTERM goes to all processes at once."""
    require(shutil.which("openssl"), "openssl is not installed")
    with Redis(tls=make_certificate(tmp_path)) as redis:
        # Not the name in the certificate.
        url = redis.url.partition("?")[0].replace("127.0.0.1", "localhost") + "?ssl_cert_reqs=none"
        server = Server(served, "production", env=env | {"REDIS_URL": url, "WEB_CONCURRENCY": "2"})
        server.env["PORT"] = str(server.port)
        del server.command[-4:]
        with server, ExitStack() as stack:
            wait_until(lambda: server.log.count("Started server process") == 2, "both processes are there")
            assert f"Uvicorn running on http://0.0.0.0:{server.port}" in server.log
            clients = [stack.enter_context(open_client(server)) for _ in range(8)]
            clients[0].send({"type": "message", "text": "to all"})
            assert {client.receive()["text"] for client in clients} == {"to all"}

            parent = server.process.pid
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            for pid in [*map(int, children), parent]:
                os.kill(pid, signal.SIGTERM)
            for client in clients:
                with pytest.raises(ConnectionClosed) as closed:
                    client.receive()
                assert closed.value.rcvd.code == 1012
            assert server.process.wait(10) == 0
            # None of those that ended was replaced.
            assert server.log.count("Started server process") == 2


async def ping_over_tls(server, context):
    """In one thread: open_client() reads and writes in two, and one TLS connection in some hundred breaks by that."""
    async with connect(server.socket_url, ssl=context, origin=server.url.rstrip("/"), open_timeout=20) as client:
        assert GREETING.items() <= (await receive_first(client)).items()
        await client.send('{"type": "ping"}')
        assert json.loads(await client.recv())["type"] == "pong"


@real
def test_tls(served, env, tmp_path):
    """The block of the file, uncommented: plain HTTP is redirected, pages speak HTTP/2, sockets are wss."""
    require(shutil.which("openssl"), "openssl is not installed")
    certificate = make_certificate(tmp_path)[1]
    trusting = ssl.create_default_context(cafile=certificate)
    port = free_port()
    changes = with_tls(served)
    ((block, uncommented),) = changes.items()
    own = {" 443 ": f" {port} ", "certificates/": f"{tmp_path}/", "example.com": "127.0.0.1"}
    for old, new in own.items():
        uncommented = uncommented.replace(old, new)
    changes[block] = uncommented

    with (
        Server(served, "production", env=env | {"DJANGO_HTTPS": "true"}) as server,
        Nginx(served, [server], changes) as nginx,
    ):
        plain = httpx.get(nginx.url)
        assert (plain.status_code, plain.headers["Location"]) == (301, "https://127.0.0.1/")
        # To the site's own name, whatever the request says.
        stranger = httpx.get(f"{nginx.url}path?query", headers={"Host": "evil.example"})
        assert stranger.headers["Location"] == "https://127.0.0.1/path?query"

        secure = SimpleNamespace(url=f"https://127.0.0.1:{port}/")
        secure.socket_url = secure.url.replace("http", "ws") + "ws/socket-server/"
        page = httpx.get(secure.url, verify=trusting)
        assert page.status_code == 200
        assert "max-age" in page.headers["Strict-Transport-Security"]
        asyncio.run(ping_over_tls(secure, trusting))

        trusting.set_alpn_protocols(["h2", "http/1.1"])
        with trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as tls:
            assert tls.selected_alpn_protocol() == "h2"


@real
@pytest.mark.weekly
def test_idle_sockets_stay_open(site):
    """For 90 s; and with a read time-out of 25 s, too, since uvicorn pings every 20 s."""
    time.sleep(max(0, site.idle_since + 90 - time.monotonic()))
    for idle in site.idle:
        idle.ping()
