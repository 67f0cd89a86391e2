"""The first minutes of a new user: the commands of a baked README, as they stand there, up to the greeting."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from clients import GREETING, open_client, sign_up
from servers import WINDOWS, clean_environ, free_port, wait_until

HEADINGS = {"uv": "With [uv]", "pip": "With plain Python"}


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a script in a shell in the background, with python3 and uv on its PATH."""
    if WINDOWS:
        pytest.skip("the commands are written for a POSIX shell")
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "python3").symlink_to(sys.executable)
    (bin / "uv").symlink_to(Path(sys.executable).parent / "uv")
    env = clean_environ(PATH=f"{bin}{os.pathsep}{os.environ['PATH']}", UV_PYTHON=sys.executable)
    processes = []

    def shell(script, cwd):
        log = (tmp_path / "log").open("wb")
        command = ["sh", "-ec", script]
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=log, start_new_session=True)
        processes.append(process)
        return process

    yield shell
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def commands(readme, heading):
    """Return the first indented block of `readme` behind `heading`, a str."""
    block = re.search(r"(?m)(^    .*\n)+", readme[readme.index(heading) :])
    return re.sub("(?m)^    ", "", block[0])


@pytest.mark.parametrize(("tool", "starter"), [("uv", "minimal"), ("pip", "minimal"), ("uv", "chat")])
def test_the_commands_of_the_readme_lead_to_the_greeting(bake, shell, tmp_path, tool, starter):
    project = shutil.copytree(bake(starter=starter), tmp_path / "project")
    port = free_port()
    script = commands((project / "README.md").read_text(encoding="utf-8"), HEADINGS[tool])
    assert script.rstrip().endswith("manage.py runserver")

    process = shell(f"{script.rstrip()} {port}", cwd=project)

    server = SimpleNamespace(url=f"http://127.0.0.1:{port}/", socket_url=f"ws://127.0.0.1:{port}/ws/socket-server/")
    wait_until(lambda: answers(process, server, tmp_path / "log"), "the page", timeout=240)
    # uv would say so, and take its time, at each command.
    assert "Bytecode" not in (tmp_path / "log").read_text(encoding="utf-8")
    if starter == "minimal":
        with open_client(server):
            pass
    else:
        headers = {"Cookie": sign_up(server, "ann")}
        path = "ws/socket-server/lobby/"
        with open_client(server, path=path, greeting=False, additional_headers=headers) as client:
            assert client.receive().items() >= (GREETING | {"room": "lobby", "user": "ann", "last_seq": 0}).items()


def answers(process, server, log):
    assert process.poll() is None, log.read_text(encoding="utf-8")
    try:
        return httpx.get(server.url, follow_redirects=True).status_code == 200
    except httpx.TransportError:
        return False
