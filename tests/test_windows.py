"""
What can be seen of Windows on another system: a checkout with its line ends, a Python without what it lacks there
(tests/probes/windows/), a console of 256 letters, and ASCII where a file is opened without an encoding.
"""

import re
import subprocess
import sys

import httpx
import pytest
from clients import open_client
from history import copy_template
from servers import LOCAL_PRODUCTION, PROBES, WINDOWS, Server, clean_environ, run
from services import Redis

CONSOLE = {
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "cp1252",
    "PYTHONPATH": str(PROBES / "windows"),
    "PYTHONUTF8": "0",
}
pytestmark = pytest.mark.skipif(WINDOWS, reason="this is Windows")


@pytest.fixture(scope="module", params=["minimal", pytest.param("chat", marks=pytest.mark.weekly)])
def starter(request):
    return request.param


@pytest.fixture(scope="module")
def project(starter, tmp_path_factory):
    """A bake from files that have the line ends of Windows, with a migrated database and an app of `startconsumer`."""
    folder = tmp_path_factory.mktemp("windows")
    copy_template(folder / "template")
    for path in (folder / "template").rglob("*"):
        if path.is_file() and b"\0" not in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    command = [sys.executable, "-m", "cookiecutter", "template", "--no-input", "--default-config"]
    environ = clean_environ(**CONSOLE, HOME=str(folder), USERPROFILE=str(folder))
    baked = subprocess.run(
        [*command, f"starter={starter}"], cwd=folder, env=environ, capture_output=True, encoding="cp1252"
    )
    assert baked.returncode == 0, baked.stdout + baked.stderr
    assert baked.stderr == ""
    project = folder / "my_realtime_site"
    for command in (["migrate"], ["startconsumer", "bell"], ["collectstatic", "--no-input"]):
        run(project, "manage.py", *command, env=CONSOLE | LOCAL_PRODUCTION)
    return project


def test_checks_and_its_own_tests(project, starter):
    run(project, "manage.py", "check", "--fail-level", "WARNING", env=CONSOLE | {"DJANGO_DEBUG": "true"})

    tests = ["bell", "chat"] if starter == "minimal" else ["bell"]
    assert " passed in " in run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, env=CONSOLE).stdout


@pytest.mark.parametrize("kind", ["runserver", "production"])
def test_handshake(project, kind):
    """In production by two processes."""
    environ = CONSOLE | ({"DJANGO_DEBUG": "true"} if kind == "runserver" else LOCAL_PRODUCTION)
    with Redis() as redis:
        if kind == "production":
            environ |= {"REDIS_URL": redis.url, "WEB_CONCURRENCY": "2"}
        with Server(project, kind, env=environ) as server:
            script = httpx.get(f"{server.url}static/realtime/socket.js")
            assert script.headers["content-type"].startswith("text/javascript")

            with open_client(server, path="ws/bell/") as client:
                client.send({"type": "message", "text": "Grüße", "id": "1"})
                assert client.receive()["text"] == "Grüße"

            report = run(project, "manage.py", "handshake", f"{server.url}ws/bell/", env=environ).stdout
            assert re.search(r"a round trip takes (?!0\.0)\d+\.\d ms", report)
