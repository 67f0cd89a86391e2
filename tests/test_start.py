"""The first minutes of a new user: the commands of a baked README, as they stand there, up to the greeting."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from clients import GREETING, open_client, sign_up
from combinations import OPTIONS
from servers import WINDOWS, clean_environ, free_port, run, wait_until

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
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def commands(readme, heading):
    """Return the first indented block of `readme` behind `heading`, a str."""
    block = re.search(r"(?m)(^    .*\n)+", readme[readme.index(heading) :])
    return re.sub("(?m)^    ", "", block[0])


@pytest.mark.parametrize(
    ("tool", "starter"),
    [
        ("uv", "minimal"),
        pytest.param("pip", "minimal", marks=pytest.mark.long),
        pytest.param("uv", "chat", marks=pytest.mark.long),
    ],
)
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
    # Of pip, when it installs the project itself: "BuildBackendWarning", in a box.
    assert "Warning" not in (tmp_path / "log").read_text(encoding="utf-8")
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


# What coding assistants are told


@pytest.mark.long
@pytest.mark.parametrize("starter", ["minimal", pytest.param("chat", marks=pytest.mark.weekly)])
def test_the_commands_of_agents_md_run_and_change_nothing(bake, shell, tmp_path, starter):
    project = shutil.copytree(bake(starter=starter), tmp_path / "project")
    script = commands((project / "AGENTS.md").read_text(encoding="utf-8"), "# ")
    script, _, last = script.rstrip().rpartition("\n")
    assert last == "uv run manage.py runserver"

    process = shell(script, cwd=project)

    log = tmp_path / "log"
    assert process.wait(240) == 0, log.read_text(encoding="utf-8")
    assert re.search(r"\d+ passed in", log.read_text(encoding="utf-8"))
    for path in bake(starter=starter).rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert (project / path.relative_to(bake(starter=starter))).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("starter", OPTIONS["starter"])
def test_the_names_of_agents_md_exist(bake, starter):
    project = bake(starter=starter)
    text = (project / "AGENTS.md").read_text(encoding="utf-8")
    quoted = set(re.findall(r"`([^`]+)`", text))
    names = {name for name in quoted if name.startswith("realtime.")}
    paths = {name for name in quoted if "/" in name} | {"README.md", ".env.example"}
    methods = {name.removesuffix("()") for name in quoted if name.endswith("()")}

    assert len(text.splitlines()) <= 25
    assert len(names) >= 11
    assert [path for path in paths if not (project / path).exists()] == []
    # Public for people, too.
    listed = (project / "realtime" / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name.rpartition('.')[2]}`" not in listed] == []
    consumer = {"receive_frame", "broadcast", "start_task"}
    assert methods == consumer | {"notify", "group_send", "aget", "get_asgi_application"}
    names |= {f"realtime.consumers.RealtimeConsumer.{method}" for method in consumer | {"receives"}}
    program = f"from pydoc import locate; print('missing:', [n for n in {sorted(names)} if locate(n) is None])"
    assert "missing: []" in run(project, "manage.py", "shell", "--no-imports", "-c", program).stdout
