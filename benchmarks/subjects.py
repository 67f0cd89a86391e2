"""The subjects: a baked project and its peers, each a real server process that speaks the same frames."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from machine import BUILD, REPOSITORY, RUN, append_settings, clean_environ, project_python, slug_of

PEERS = Path(__file__).with_name("peers")
SECRET_KEY = "only for the benchmark, on the loopback interface"

# The frames of a baked project; "@" stands for the payload, in a path for the number of the room (client.c).
JSON_FRAMES = {
    "path": "/ws/socket-server/",
    "rooms": "/ws/rooms/@/",
    "greeting": "connection_established",
    "echo": {"frame": '{"type": "ping"}', "expect": '"pong"'},
    "message": {"frame": '{"type": "message", "text": "@"}', "expect": '"message"'},
}
# The same as events of socket.io, in its own framing, over a WebSocket from the beginning.
SOCKET_IO_FRAMES = {
    "path": "/socket.io/?EIO=4&transport=websocket",
    "rooms": "/socket.io/?EIO=4&transport=websocket&room=@",
    "greeting": "connection_established",
    "hello": "40",
    "echo": {"frame": '42["echo"]', "expect": '"pong"'},
    "message": {"frame": '42["message","@"]', "expect": '"message"'},
}


@dataclass
class Subject:
    """
    A server to measure.

    command: with "{port}" where the port goes. cwd: where it is started. env: its own variables.
    frames: how it is spoken to. cookie: what logs a user in, or "" where there are no users. users: a file with the
    cookies of 1,000 users, beside one with their primary keys, or None. has_redis: it takes REDIS_URL.
    """

    name: str
    label: str
    command: list
    cwd: Path
    env: dict = field(default_factory=dict)
    frames: dict = field(default_factory=lambda: JSON_FRAMES)
    cookie: str = ""
    users: Path | None = None
    has_redis: bool = False

    def command_for(self, port):
        return [str(part).format(port=port) for part in self.command]


def bake(*answers, template=REPOSITORY, name="project"):
    """
    Bake as users do, with `answers` such as "starter=chat"; return the project's folder and the seconds it took.

    template: the folder of the template. name: of the folder that it is baked into.
    """
    output = RUN / name
    shutil.rmtree(output, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        template,
        "--no-input",
        "--default-config",
        "--output-dir",
        output,
        *answers,
    ]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    return next(output.glob("*/manage.py")).parent, seconds


def python_for(project):
    """Return the Python of an environment with the project's own dependencies and Starlette: one for all subjects."""
    pyproject = (project / "pyproject.toml").read_text(encoding="utf-8")
    return project_python(pyproject.replace("dependencies = [\n", 'dependencies = [\n  "starlette>=1.0",\n', 1))


def make_subjects(project, python, wanted):
    """Return the Subjects in `wanted` (names) that this machine can run, and the reasons for those that it cannot."""
    makers = {
        "project": lambda: make_project(project, python),
        "tutorial": lambda: make_tutorial(python),
        "starlette": lambda: make_starlette(python),
        "ws": lambda: make_node("ws", "Node ws", "ws_server.js"),
        "socket.io": lambda: make_node("socket.io", "socket.io", "socketio_server.js", SOCKET_IO_FRAMES),
    }
    subjects, missing = [], []
    for name in wanted:
        try:
            subjects.append(makers[name]())
        except LookupError as error:
            missing.append(f"{name} is left out: {error}")
    return subjects, missing


NAMES = ("tutorial", "project", "starlette", "ws", "socket.io")


def make_before(revision, python):
    """Return the Subject that is a bake of the template as it was at `revision`, a name that git knows."""
    template = RUN / "template-before"
    shutil.rmtree(template, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", REPOSITORY, template], check=True)
    if subprocess.run(["git", "checkout", "--quiet", revision], cwd=template).returncode:
        sys.exit(f"--before: git does not know the revision {revision}.")
    project, _ = bake(template=template, name="before")
    before = make_project(project, python, rooms=False)
    return replace(before, name="before", label=f"before ({revision})")


def add_rooms(project):
    """Put a second consumer into the app `chat`, for rooms, as a developer would."""
    shutil.copy(PEERS / "rooms.py", project / "chat" / "rooms.py")
    with (project / "chat" / "routing.py").open("a", encoding="utf-8") as routing:
        routing.write("\nfrom .rooms import RoomConsumer\n\n")
        routing.write('websocket_urlpatterns += [path("ws/rooms/<room>/", RoomConsumer.as_asgi())]\n')


def make_project(project, python, rooms=True):
    """rooms: False for a bake that may know nothing of typed frames yet, and notify_user()."""
    slug = slug_of(project)
    if rooms:
        add_rooms(project)
    # The client sends more than a person may; the peers have no limit.
    append_settings(project, "REALTIME_FRAMES_PER_SECOND = None")
    env = {"DJANGO_SECRET_KEY": SECRET_KEY, "DJANGO_ALLOWED_HOSTS": "127.0.0.1", "DJANGO_HTTPS": "false"}
    settings = {"DJANGO_SETTINGS_MODULE": f"{slug}.settings"}
    subprocess.run(
        [python, "manage.py", "collectstatic", "--no-input", "--verbosity", "0"],
        cwd=project,
        env=clean_environ(**env),
        check=True,
    )
    cookie = log_in(python, project, env | settings)
    users = write_users(python, project, env | settings) if rooms else None
    frames = JSON_FRAMES if rooms else {key: value for key, value in JSON_FRAMES.items() if key != "rooms"}
    command = [python, "-m", slug, "--port", "{port}"]
    return Subject("project", "baked project", command, project, env | settings, frames, cookie, users, has_redis=True)


def make_tutorial(python):
    directory = PEERS / "tutorial"
    database = RUN / "tutorial.sqlite3"
    env = {
        "DJANGO_SECRET_KEY": SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "TUTORIAL_DATABASE": str(database),
    }
    cookie = log_in(python, directory, env)
    command = [python, "-m", "uvicorn", "mysite.asgi:application", "--port", "{port}"]
    return Subject("tutorial", "tutorial's code", command, directory, env, cookie=cookie, has_redis=True)


def make_starlette(python):
    command = [python, "-m", "uvicorn", "starlette_app:app", "--port", "{port}"]
    return Subject("starlette", "Starlette", command, PEERS)


def make_node(name, label, script, frames=JSON_FRAMES):
    """Return a Subject on Node; the packages of package.json are installed below build/ the first time."""
    directory = BUILD / "node"
    package = Path(__file__).with_name("package.json").read_text(encoding="utf-8")
    if not shutil.which("node"):
        raise LookupError("node is not installed")
    if not (directory / "complete").exists() or (directory / "complete").read_text(encoding="utf-8") != package:
        if not shutil.which("npm"):
            raise LookupError("npm is not installed")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_text(package, encoding="utf-8")
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"]
        if subprocess.run(install, cwd=directory, env=os.environ | {"CI": "1"}).returncode:
            raise LookupError("npm install failed")
        (directory / "complete").write_text(package, encoding="utf-8")
    env = {"NODE_PATH": str(directory / "node_modules"), "NODE_ENV": "production"}
    return Subject(name, label, ["node", PEERS / script, "{port}"], PEERS, env, frames)


LOG_IN = """
import django
django.setup()
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
client = Client()
client.force_login(get_user_model().objects.create_user("reader"))
print(f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}")
"""


# As above, for 1,000 users: a line for each, the primary key and the cookie.
LOG_IN_MANY = """
import django
django.setup()
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
for number in range(1000):
    user, client = get_user_model().objects.create_user(f"user{number}"), Client()
    client.force_login(user)
    print(user.pk, f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}")
"""


def log_in(python, directory, env, script=LOG_IN):
    """Make the tables, a user and a session in the subject's SQLite file; return the cookie, "name=value"."""
    result = subprocess.run(
        [python, "-c", script], cwd=directory, env=clean_environ(**env), capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    return result.stdout.strip()


def write_users(python, project, env):
    """Make 1,000 users and their sessions; return the file of the cookies, beside which "primary-keys" is."""
    users = [line.split(" ", 1) for line in log_in(python, project, env, LOG_IN_MANY).splitlines()]
    for name, column in (("primary-keys", 0), ("cookies", 1)):
        (project / name).write_text("".join(f"{user[column]}\n" for user in users), encoding="utf-8")
    return project / "cookies"
