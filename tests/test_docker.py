"""
The Docker option for real: an engine builds, starts, updates, rolls and stops the sites of both starters.

ROLLS is how many times each of them is rolled while visitors are there.
"""

import asyncio
import os
import re
import shlex
import shutil
import socket
import socketserver
import threading
import time

import httpx
import pytest
from clients import open_client
from engine import Load, Site, engines_network, require_engine
from servers import wait_until
from test_deploy import LEFT_OUT, handshake_of_the_workflow, kubernetes
from websockets.exceptions import ConnectionClosed

ROLLS = int(os.environ.get("ROLLS", "1"))
UPDATE = "docker compose build &&"
ROLL = "old="
TAKE_AWAY = "docker rm --force"
RELOAD = "docker compose exec nginx"
# What a migration reads.
KEPT = "accounts/migrations/sql/views.sql"


@pytest.fixture(scope="module")
def start(bake, tmp_path_factory):
    """Return a function that starts the site of a starter by the README's commands, once: `start("chat") -> Site`."""
    require_engine()
    sites = {}

    def start(starter):
        if starter not in sites:
            slug = f"docker_{starter}"
            project = shutil.copytree(
                bake(starter=starter, project_slug=slug), tmp_path_factory.mktemp("docker") / slug
            )
            for name in [*LEFT_OUT, KEPT]:
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                (project / name).touch()
            sites[starter] = site = Site(project, starter)
            site.run("docker compose up --build --detach --wait")
        return sites[starter]

    with engines_network():
        yield start
        for site in sites.values():
            site.down()


@pytest.fixture(params=["minimal", "chat"])
def site(request, start):
    return start(request.param)


@pytest.fixture
def minimal(start):
    return start("minimal")


def answers(site):
    """Tell whether the site answers with its page."""
    try:
        return httpx.get(site.url, follow_redirects=True).status_code == 200
    except httpx.HTTPError:
        return False


def test_handshake(site):
    """By the command of the baked workflow, which must see the greeting and not only an open socket."""
    command = handshake_of_the_workflow(site.project, site.url)
    assert "connection_established" in site.run(command).stdout

    elsewhere = command.replace("ws/socket-server/", "ws/no-such-path/")
    assert site.run(elsewhere, check=False).returncode != 0
    if site.starter == "chat":
        assert site.run(command.replace("--cookie cookies \\", "\\"), check=False).returncode != 0


def test_up_again_changes_nothing(minimal):
    """One image is built, for one service: a second build of the same name would start both containers anew."""
    before = minimal.containers()
    minimal.run("docker compose up --build --detach --wait")
    minimal.run("docker compose up --detach --wait")
    assert minimal.containers() == before


def test_messages_cross_between_the_containers(minimal):
    with open_client(minimal) as one, open_client(minimal) as other:
        one.send({"type": "message", "text": "there"})
        assert one.receive()["text"] == other.receive()["text"] == "there"


def test_only_what_must_be_is_in_the_image(minimal):
    files = minimal.run("docker compose exec web find /app -type f").stdout.split()
    names = {name.removeprefix("/app/") for name in files}

    assert names.isdisjoint(LEFT_OUT)
    assert not [
        name
        for name in names - {KEPT}
        if re.search(r"\.env|\.pem|\.sql|^tests/|^AGENTS|^README|^Dockerfile|^compose|^deploy", name)
    ]
    assert {"manage.py", "chat/consumers.py", KEPT} <= names


def test_a_change_of_code_is_one_small_layer(minimal):
    before = minimal.inspect("docker_minimal", ".RootFS.Layers")
    with (minimal.project / "chat" / "views.py").open("a") as views:
        views.write("\n# changed\n")
    minimal.run("docker compose build")

    assert minimal.inspect("docker_minimal", ".RootFS.Layers")[:-1] == before[:-1]
    sizes = minimal.run(
        "docker history --no-trunc --human=false --format '{{.Size}} {{.CreatedBy}}' docker_minimal"
    ).stdout
    (code,) = re.findall(r"(?m)^(\d+) COPY /app /app", sizes)
    (environment,) = re.findall(r"(?m)^(\d+) COPY /venv /venv", sizes)
    print(f"code {int(code) / 1e6:.1f} MB, environment {int(environment) / 1e6:.0f} MB")
    assert int(code) < 8e6 < int(environment)


@pytest.mark.parametrize("service", ["web", "nginx", "valkey"])
def test_containers_cannot_be_written_to(minimal, service):
    written = minimal.run(f"docker compose exec --user 0 {service} sh -c 'echo x >/usr/x'", check=False)
    assert "Read-only file system" in written.stdout
    # Uploads that are larger than memory allows.
    assert service != "web" or minimal.run("docker compose exec web sh -c 'echo x >/tmp/x'")


def test_health_check_asks_no_proxy(minimal):
    (container, *_) = minimal.containers()
    kind, *command = minimal.inspect(container, ".Config.Healthcheck.Test")
    assert kind == "CMD"
    proxies = "--env http_proxy=http://127.0.0.1:1 --env HTTP_PROXY=http://127.0.0.1:1"

    # An empty PORT is none.
    minimal.run(f"docker exec {proxies} --env PORT= {container} {shlex.join(command)}")

    # It can fail: nothing listens there.
    failed = minimal.run(f"docker exec --env PORT=1 {container} {shlex.join(command)}", check=False)
    assert failed.returncode == 1


def test_health_checks_and_a_wrong_host_in_the_log(minimal):
    answer = httpx.get(minimal.url, headers={"Host": "evil.example"})
    (container, *_) = minimal.containers()
    checks = len(minimal.inspect(container, ".State.Health.Log"))
    log = minimal.run("docker compose logs web").stdout

    assert answer.status_code == 400
    assert checks > 0
    assert "/healthz" not in log
    assert "evil.example" in log
    assert "Traceback" not in log


def test_health_stays_inside(minimal):
    for path in ("healthz", "healthz?x=1", "%68ealthz", "./healthz", "//healthz", "x/../healthz"):
        assert httpx.get(minimal.url + path).status_code == 404, path


def test_an_update_whose_migration_fails_leaves_the_site_up(minimal):
    migration = minimal.project / "accounts" / "migrations" / "0002_fails.py"
    migration.write_text(
        "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
        '    dependencies = [("accounts", "0001_initial")]\n'
        '    operations = [migrations.RunSQL("SELECT 1 / 0")]\n'
    )
    before, load = minimal.containers(), Load(minimal)

    try:
        with open_client(minimal) as client:
            result = asyncio.run(load.during(lambda: minimal.run(minimal.commands(UPDATE), check=False)))
            client.ping()
    finally:
        migration.unlink()

    assert result.returncode != 0
    assert "division by zero" in result.stdout
    assert minimal.containers() == before
    assert load.failures == []
    assert answers(minimal)


def test_an_update_by_the_command_of_the_readme(minimal):
    page = minimal.project / "chat" / "templates" / "chat" / "index.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</h1>", ", new</h1>"), encoding="utf-8")

    minimal.run(minimal.commands(UPDATE))

    assert ", new</h1>" in httpx.get(minimal.url).text
    assert len(minimal.containers()) == 2


def test_rolls_lose_no_request(site):
    """The README's commands, ROLLS times: nobody is refused, no page fails, sockets come back."""
    # The commands take any number of containers.
    count = 3 if site.starter == "minimal" else 2
    site.run(f"docker compose up --detach --no-deps --no-recreate --scale web={count} --wait web")
    load = Load(site)

    def roll():
        for _ in range(ROLLS):
            before, frames = site.containers(), load.frames
            site.run(site.commands(ROLL))
            time.sleep(2)  # what comes after the last container has gone
            after = site.containers()
            assert len(after) == count
            assert after.isdisjoint(before)
            assert load.frames >= frames + 20

    asyncio.run(load.during(roll))

    print(f"{ROLLS} rolls: {load.pages} pages, the slowest {load.slowest:.1f} s; {load.frames} frames")
    assert load.failures == []


@pytest.mark.weekly
def test_a_roll_whose_new_containers_fail_stops_no_old_one(minimal):
    """As typed into a shell, which goes on after a command that fails. A line of the README removes the new ones."""
    asgi = minimal.project / "docker_minimal" / "asgi.py"
    text = asgi.read_text(encoding="utf-8")
    before, load = minimal.containers(), Load(minimal)
    roll = f"docker compose build\nset +e\n{minimal.commands(ROLL)}\n{minimal.commands(TAKE_AWAY)}"
    try:
        asgi.write_text(text + "raise SystemExit('does not start')\n", encoding="utf-8")
        result = asyncio.run(load.during(lambda: minimal.run(roll)))
    finally:
        asgi.write_text(text, encoding="utf-8")
        minimal.run("docker compose build")

    assert "is unhealthy" in result.stdout or "exited (1)" in result.stdout
    assert set(minimal.run("docker compose ps --all --quiet web").stdout.split()) == minimal.containers() == before
    assert load.failures == []


def test_an_edit_of_the_nginx_file_is_loaded_without_a_restart(minimal):
    """Also when an editor puts a new file in the place of the old one. A wrong file changes nothing."""
    path = minimal.project / "deploy" / "nginx.conf"
    text = path.read_text(encoding="utf-8")
    before = minimal.containers("nginx")

    def edit(content):
        new = path.with_suffix(".new")
        new.write_text(content, encoding="utf-8")
        new.replace(path)
        return minimal.run(minimal.commands(RELOAD), check=False)

    load = Load(minimal)
    changed = text.replace("location = /healthz {", "location = /edited { return 204; } location = /healthz {")
    asyncio.run(load.during(lambda: edit(changed)))
    wait_until(lambda: httpx.get(f"{minimal.url}edited").status_code == 204, "the new file counts")
    assert load.failures == []

    assert edit(text.replace("location = /healthz", "locashun = /healthz")).returncode != 0
    assert answers(minimal)
    edit(text)
    assert minimal.containers("nginx") == before


def test_nginx_is_made_anew_in_seconds(minimal):
    """After an edit of compose.yaml: with the image's own stop signal it waits for every socket that is open."""
    with open_client(minimal):
        stopped = time.monotonic()
        minimal.run("docker compose up --detach --no-deps --force-recreate nginx")
        wait_until(lambda: answers(minimal), "nginx is back")
        assert time.monotonic() - stopped < 8


def test_the_image_runs_as_in_the_manifest_for_kubernetes(minimal):
    """With the user, environment and file system of docs/production.md, until its probe is content; and its job."""
    deployment, _, job = kubernetes()
    pod = deployment["spec"]["template"]["spec"]
    (web,) = pod["containers"]
    (migrate,) = job["spec"]["template"]["spec"]["containers"]
    # The secret, whose values the shell has.
    secret = {
        "DATABASE_URL": "postgres://app@postgres/app",
        "DJANGO_SECRET_KEY": minimal.environ["DJANGO_SECRET_KEY"],
        "PGPASSWORD": minimal.password,
        "REDIS_URL": "redis://valkey",
    }

    def variables(container):
        own = [f"{each['name']}={each['value']}" for each in container["env"]]
        return " ".join(f"--env {name}" for name in [*own, *secret])

    options = f"--user {pod['securityContext']['runAsUser']} --read-only --cap-drop ALL"
    options += " --network test-minimal_default"
    command = f"docker run --rm {options} {variables(migrate)} docker_minimal {shlex.join(migrate['command'])}"
    assert "No migrations to apply" in minimal.run(command, **secret).stdout
    probe = web["readinessProbe"]["httpGet"]
    (port,) = [each["containerPort"] for each in web["ports"] if each["name"] == probe["port"]]
    # By the address of the container, as the kubelet asks.
    url = f"http://'+gethostbyname(gethostname())+':{port}{probe['path']}"
    script = f"from socket import *; from urllib.request import *; urlopen('{url}')"
    in_pod = "docker exec test-kubernetes"
    options += " --tmpfs /tmp --detach --name test-kubernetes"
    try:
        minimal.run(f"docker run {options} {variables(web)} docker_minimal", **secret)
        ready = f"{in_pod} python -c {shlex.quote(script)}"
        wait_until(lambda: minimal.run(ready, check=False).returncode == 0, "the probe is content")
        minimal.run(f"{in_pod} {shlex.join(web['lifecycle']['preStop']['exec']['command'])}")
        minimal.run("docker stop test-kubernetes")
        assert minimal.inspect("test-kubernetes", ".State.ExitCode") == 0
    finally:
        minimal.run("docker rm --force test-kubernetes")


class OldEngine(socketserver.ThreadingUnixStreamServer):
    """The engine, which says that its API is that of Docker 24."""

    daemon_threads = True

    class RequestHandlerClass(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
                threading.Thread(target=self.pass_on, args=(self.request, engine), daemon=True).start()
                self.pass_on(engine, self.request)

        def pass_on(self, source, target):
            try:
                while data := source.recv(2**16):
                    target.sendall(re.sub(rb"(?i)(api-version: )1\.\d\d", rb"\g<1>1.43", data))
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def __init__(self, path):
        super().__init__(str(path), self.RequestHandlerClass)


def test_an_engine_before_25_is_told_so(minimal, tmp_path):
    with OldEngine(tmp_path / "engine") as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        old = {"DOCKER_HOST": f"unix://{tmp_path}/engine", "COMPOSE_PROJECT_NAME": "test-old", "DOCKER_BUILDKIT": "1"}
        result = minimal.run("docker compose up --detach", check=False, **old)
        minimal.run("docker compose down --volumes", check=False, COMPOSE_PROJECT_NAME="test-old")
        engine.shutdown()
    assert result.returncode != 0
    # As the README says.
    assert "requires API version 1.44" in result.stdout
    assert "requires API version 1.44" in (minimal.project / "README.md").read_text(encoding="utf-8")


def test_stop(site):
    """Sockets are told with 1012, and the processes end by themselves."""
    containers = site.containers()
    with open_client(site, additional_headers=site.log_in(), greeting=False) as client:
        client.receive()
        started = time.monotonic()
        site.run("docker compose stop web")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.receive()
    assert closed.value.rcvd.code == 1012
    assert time.monotonic() - started < 15
    assert {site.inspect(container, ".State.ExitCode") for container in containers} == {0}
