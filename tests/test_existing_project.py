"""docs/existing-project.md, followed to the letter from both of its starting points, and a socket that opens then."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import open_browser, visits
from clients import Client, is_greeting, open_client
from servers import PROBES, REPOSITORY, WINDOWS, Process, clean_environ, free_port, require
from services import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

PAGE = REPOSITORY / "docs" / "existing-project.md"
TUTORIAL = PROBES / "tutorial.txt"
LONG_SUPPORTED = "django>=5.2,<5.3"
# The tutorial is followed with the older one.
DJANGOS = [pytest.param("django", marks=pytest.mark.long), pytest.param(LONG_SUPPORTED, marks=pytest.mark.weekly)]

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


class Site:
    """A project with an environment of its own, which follows pages: `folder` (Path) holds manage.py."""

    def __init__(self, folder, django):
        self.folder, bin = folder / "mysite", folder / "venv" / "bin"
        path = os.pathsep.join([str(bin), os.environ["PATH"], str(Path(sys.executable).parent)])
        cache = subprocess.check_output([sys.executable, "-m", "pip", "cache", "dir"], text=True).strip()
        self.env = clean_environ(PATH=path, HOME=str(folder), PIP_CACHE_DIR=cache, PIP_DISABLE_PIP_VERSION_CHECK="1")
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--seed", "--python", sys.executable, folder / "venv"], check=True)
        self.folder.mkdir()
        self.run(f"python -m pip install --quiet '{django}' && django-admin startproject mysite .")

    def run(self, commands):
        """Run shell commands in the folder, with the environment activated, and return what they printed."""
        result = subprocess.run(
            ["bash", "-ec", commands], cwd=self.folder, env=self.env, capture_output=True, encoding="utf-8"
        )
        assert result.returncode == 0, f"{commands}\n{result.stdout}{result.stderr}"
        return result.stdout + result.stderr

    def follow(self, text):
        """Do what the code blocks of `text`, Markdown, say: run commands, change files, write files."""
        name = None
        # What stands between two blocks, and a block.
        for prose, language, block in re.findall(r"(?ms)(.*?)^```(\w+)\n(.*?)^```$", text):
            name = ([name, *re.findall(r"`([\w/]+\.\w+)`", prose)])[-1]
            if language == "sh":
                commands = block.replace("gh:org/template", str(REPOSITORY))
                self.run("\n".join(line for line in commands.splitlines() if "runserver" not in line))
            elif language == "diff":
                self.apply(name, block)
            else:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_text(block, encoding="utf-8")

    def apply(self, name, diff):
        """Change the file `name`, whose old lines stand there exactly once."""
        lines = [(line[:1] or " ", line[1:]) for line in diff.splitlines()]
        old, new = ("".join(f"{text}\n" for sign, text in lines if sign in signs) for signs in (" -", " +"))
        text = (self.folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has not exactly once:\n{old}"
        (self.folder / name).write_text(text.replace(old, new), encoding="utf-8")


class Server(Process):
    """A server of a Site. arguments: the command line, with {port} in it."""

    def __init__(self, site, *arguments, env=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.socket_url = f"ws://127.0.0.1:{self.port}/ws/socket-server/"
        self.directory, self.env = site.folder, site.env | (env or {})
        bin = site.folder.parent / "venv" / "bin"
        self.command = [bin / arguments[0], *[word.format(port=self.port) for word in arguments[1:]]]
        self.log_file = site.folder.parent / f"{self.port}.log"


def runserver(site):
    return Server(site, "python", "manage.py", "runserver", "--noreload", "{port}")


def section(heading):
    """Return the text of a section of the page."""
    (text,) = re.findall(rf"(?ms)^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"))
    return text


@contextmanager
def open_room(server, **options):
    """Open a socket of the tutorial, which does not greet."""
    url = server.url.replace("http", "ws")
    with connect(f"{url}ws/chat/lobby/", origin=server.url.rstrip("/"), **options) as connection:
        yield Client(connection)


@pytest.fixture(scope="module")
def redis_server():
    with Redis() as redis:
        yield redis


@pytest.fixture(scope="module", params=DJANGOS)
def startproject(request, tmp_path_factory):
    """A Site as `startproject` made it, after the page."""
    require(not WINDOWS, "the page's commands are those of a Unix shell")
    site = Site(tmp_path_factory.mktemp("startproject"), request.param)
    for heading in ("Copy", "From startproject", "Then", "A second app, and tests"):
        site.follow(section(heading))
    return site


@pytest.fixture(scope="module")
def tutorial(redis_server, tmp_path_factory):
    """A Site that has followed the tutorial, after the page's first three edits."""
    require(not WINDOWS, "the page's commands are those of a Unix shell")
    site = Site(tmp_path_factory.mktemp("tutorial"), LONG_SUPPORTED)
    site.run("python -m pip install --quiet channels daphne channels_redis && python manage.py startapp chat")
    site.run("cd chat && rm -r admin.py apps.py migrations models.py tests.py")
    site.follow(TUTORIAL.read_text(encoding="utf-8"))
    edits, _, site.last_edit = section("From the tutorial of Channels").partition("**Edit 4**")
    for text in (section("Copy"), edits, section("Then")):
        site.follow(text)
    settings = site.folder / "mysite" / "settings.py"
    text = settings.read_text(encoding="utf-8")
    assert text.count("127.0.0.1:6379") == 1
    settings.write_text(text.replace("127.0.0.1:6379", f"127.0.0.1:{redis_server.port}"), encoding="utf-8")
    return site


def test_what_startproject_makes_shakes_hands(startproject):
    assert "no issues" in startproject.run("python -W error manage.py check")
    with runserver(startproject) as server:
        with open_client(server) as first, open_client(server) as second:
            first.send({"type": "message", "text": "Hello", "id": "1"})
            for client in (first, second):
                assert client.receive() == {"type": "message", "text": "Hello", "id": "1"}
            first.send("no JSON")
            assert first.receive()["type"] == "error"
            first.ping()
        with pytest.raises(InvalidStatus), open_client(server, origin="https://evil.example"):
            pass
        with (
            open_client(server, path="ws/nowhere/", greeting=False) as client,
            pytest.raises(ConnectionClosed, match="4404"),
        ):
            client.receive()
    assert "DJANGO_ALLOWED_ORIGINS" in server.log
    assert "no such path in routing.py" in server.log
    assert "Traceback" not in server.log


def test_its_handshake_command(startproject):
    (install,) = re.findall(r"`(pip install websockets)`", section("Then"))
    (command,) = re.findall(r"`(python manage.py handshake)`", section("Then"))
    startproject.run(f"python -m {install} --quiet")
    with runserver(startproject) as server:
        assert "✗" not in startproject.run(f"{command} {server.url}")


def test_its_page_talks(startproject, visit):
    with runserver(startproject) as server:
        page = visit(server.url, "open", prepare=without_icon)
        page.get_by_label("Message").fill("Hello")
        page.keyboard.press("Enter")
        page.get_by_role("log").get_by_text("Hello").wait_for()


def test_a_second_app_talks_and_its_tests_pass(startproject, visit):
    """No base.html of this project has what its page fills."""
    (command,) = re.findall(r"`(python -m pytest notes)`", section("A second app, and tests"))
    assert "3 passed in" in startproject.run(f"{command} -W error")
    with runserver(startproject) as server:
        page = visit(f"{server.url}notes/", "connected")
        page.get_by_label("Message", exact=True).fill("x" * 900)
        page.keyboard.press("Enter")
        page.get_by_role("log").get_by_text("x" * 900).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_variables_of_a_bake_are_settings_here():
    """A remedy that is printed names a variable, which a project that was not baked does not have."""
    sources = (REPOSITORY / "{{cookiecutter.project_slug}}" / "realtime").rglob("*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    named = set(re.findall(r"\b(?:DJANGO_(?!SETTINGS_MODULE)[A-Z_]+|REDIS_URL|DATABASE_URL)\b", text))
    assert named
    assert [name for name in named if f"`{name}` for `" not in " ".join(section("Then").split())] == []


def test_its_tickets_and_users(startproject):
    """A user of Django's own model fetches a ticket, opens a socket with it, and is out when deactivated."""
    make = "from django.contrib.auth.models import User; User.objects.create_user('ada', password='a long one')"
    startproject.run(f'python manage.py shell -c "{make}"')
    program = """
import django; django.setup()
from django.contrib.auth.models import User
from realtime.tickets import ticket_of
print(ticket_of(User.objects.get()))
"""
    (startproject.folder / "ticket.py").write_text(program)
    with runserver(startproject) as server:
        ticket = startproject.run("DJANGO_SETTINGS_MODULE=mysite.settings python ticket.py").split()[-1]
        with connect(server.socket_url, subprotocols=["realtime", f"bearer.{ticket}"]) as connection:
            assert is_greeting(json.loads(connection.recv(10)))
        with (
            connect(server.socket_url, subprotocols=["realtime", "bearer.no-ticket"]) as connection,
            pytest.raises(ConnectionClosed, match="4401"),
        ):
            connection.recv(10)


def test_its_production(startproject):
    """The command of the section "Then", with debug off."""
    (install,) = re.findall(r"`(pip install uvicorn [^`]*)`", section("Then"))
    (command,) = re.findall(r"`(uvicorn [^`]*)`", section("Then"))
    startproject.run(f"python -m {install} --quiet")
    production = startproject.folder / "mysite" / "production.py"
    production.write_text("from .settings import *\n\nDEBUG = False\nALLOWED_HOSTS = ['127.0.0.1']\n")
    env = {"DJANGO_SETTINGS_MODULE": "mysite.production"}
    server = Server(startproject, *command.split(), "--port", "{port}", env=env)
    with server, open_client(server) as client:
        client.ping()


def test_the_tutorial_goes_on_and_its_page_talks(tutorial, visit):
    assert "no issues" in tutorial.run("python -W error manage.py check")
    with runserver(tutorial) as server:
        with open_room(server) as first, open_room(server) as second:
            # Without the page's change redis-py closes it with 1011 after 5 idle seconds.
            with pytest.raises(TimeoutError):
                second.receive(timeout=6)
            first.send({"message": "Hello"})
            assert first.receive() == second.receive() == {"message": "Hello"}
        pages = [visit(f"{server.url}chat/lobby/", None, prepare=without_icon) for _ in range(2)]
        for page in pages:
            page.wait_for_function("chatSocket.readyState === WebSocket.OPEN")
        say(pages[0], "Hello from the page")
        for page in pages:
            expect_log(page, "Hello from the page")
            # Its script complains when the server ends.
            page.close()


def test_the_tutorial_after_the_last_edit(tutorial, visit):
    tutorial.follow(tutorial.last_edit)

    with runserver(tutorial) as server:
        with open_room(server) as client:
            assert is_greeting(client.receive())
            client.send("no JSON")
            assert client.receive()["type"] == "error"
            client.send({"type": "message", "message": "Hello"})
            assert client.receive() == {"type": "message", "message": "Hello"}
        pages = [visit(f"{server.url}chat/lobby/", None, prepare=without_icon) for _ in range(2)]
        say(pages[0], "Hello from the page")
        for page in pages:
            expect_log(page, "Hello from the page")
    assert "Traceback" not in server.log


def without_icon(page):
    """These pages name none, and the browser would complain that it asks in vain."""
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))


def say(page, text):
    page.locator("#chat-message-input").fill(text)
    page.keyboard.press("Enter")


def expect_log(page, text):
    page.wait_for_function("text => document.querySelector('#chat-log').value.includes(text)", arg=text)
