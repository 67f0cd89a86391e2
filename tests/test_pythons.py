"""The newest Pythons: both starters installed there by pip and by uv, their tests, their servers and a handshake."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clients import open_client, sign_up
from servers import LOCAL_PRODUCTION, REPOSITORY, SERVERS, WINDOWS, Server, clean_environ, require

# A machine has them itself, or in the root that .ci/pythons makes.
ROOT = REPOSITORY / ".ci" / "pythons"
# Where .ci/run has found that there can be no such root, it says why here.
NO_PYTHONS = os.environ.get("NO_PYTHONS")


class Environment:
    """A Python of one version, with a virtual environment in which `install()` installs a project."""

    def __init__(self, version, tool, directory):
        self.version = version
        self.name = f"python{version}"
        self.tool = tool
        self.directory = directory
        self.enter = [] if shutil.which(self.name) else [ROOT, "run"]
        self.bin = directory / "bin" / "python"

    def run(self, *command, cwd=REPOSITORY, env=None, timeout=400):
        """Run a command where this Python is, and return what it printed."""
        result = subprocess.run(
            [*self.enter, *command],
            cwd=cwd,
            env=clean_environ(UV_PROJECT_ENVIRONMENT=str(self.directory), **(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=timeout,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    def install(self, project):
        """Install the project as its README says."""
        if self.tool == "uv":
            uv = Path(sys.executable).parent / "uv"
            sync = ["sync", "--quiet", "--no-python-downloads", "--link-mode", "copy", "--python", self.name]
            self.run(uv, *sync, cwd=project)
            return
        if not self.directory.exists():
            self.run(self.name, "-m", "venv", self.directory)
        pip = [self.bin, "-m", "pip", "install", "--quiet"]
        for arguments in (["-U", "pip"], ["-e", "."], ["--group", "dev"]):
            self.run(*pip, *arguments, cwd=project)


def require_python(version):
    """Skip the test unless the machine has this Python, or a root that has it; with REQUIRE_ALL=1 that fails it."""
    if not shutil.which(f"python{version}"):
        if NO_PYTHONS:
            pytest.skip(f"there can be no root with Python {version} here: {NO_PYTHONS}")
        has_root = not WINDOWS and subprocess.run([ROOT, "run", "true"], capture_output=True).returncode == 0
        require(has_root, f"Python {version} is not installed; `.ci/pythons up` makes a root that has it")


# On 3.15 pip is the one that had to find wheels.
TOOLS = [pytest.param(version, marks=pytest.mark.long) for version in [("3.14", "uv"), ("3.15", "pip")]]
TOOLS += [pytest.param(version, marks=pytest.mark.weekly) for version in [("3.14", "pip"), ("3.15", "uv")]]


@pytest.fixture(scope="module", params=TOOLS, ids="-".join)
def environment(request, tmp_path_factory):
    version, tool = request.param
    require_python(version)
    return Environment(version, tool, tmp_path_factory.mktemp("environment") / "venv")


# The chat needs more than the minimal starter, so that it comes first into an environment.
@pytest.fixture(scope="module", params=["chat", "minimal"])
def starter(request):
    return request.param


@pytest.fixture(scope="module")
def project(bake, environment, starter, tmp_path_factory):
    """A bake whose dependencies are in `environment`, with a migrated database."""
    project = shutil.copytree(bake(starter=starter), tmp_path_factory.mktemp("project") / "project")
    environment.install(project)
    environment.run(environment.bin, "manage.py", "migrate", cwd=project)
    environment.run(environment.bin, "manage.py", "collectstatic", "--no-input", cwd=project, env=LOCAL_PRODUCTION)
    return project


def test_its_own_tests(environment, project):
    """Warnings are errors."""
    output = environment.run(environment.bin, "-W", "error", "-m", "pytest", "-W", "error", cwd=project)

    assert re.search(r"\d+ passed[^,]* in", output), output
    assert environment.run(environment.bin, "--version").startswith(f"Python {environment.version}.")


@pytest.mark.weekly
def test_the_tests_of_realtime(environment, project, starter):
    if starter != "minimal" or environment.tool != "uv":
        pytest.skip("they are the same")
    shutil.copytree(REPOSITORY / "tests" / "on_bake", project / "on_bake")

    output = environment.run(
        environment.bin, "-W", "error", "-m", "pytest", "-W", "error", "on_bake", cwd=project, timeout=900
    )

    assert re.search(r"\d+ passed[^,]* in", output), output


@pytest.mark.parametrize("kind", ["runserver", "production"])
def test_a_handshake(environment, project, starter, kind):
    with Server(project, kind, env=SERVERS[kind], python=[*environment.enter, environment.bin]) as server:
        path, headers = "ws/socket-server/", {}
        if starter == "chat":
            path, headers = f"{path}lobby/", {"Cookie": sign_up(server, f"ann-{kind}")}
        with open_client(server, path=path, additional_headers=headers):
            pass
        assert "Traceback" not in server.log
        assert "Warning" not in server.log


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_another_python_is_refused_in_one_line(bake, tmp_path, tool):
    """By the first command that would need it. No machine has Python 3.99."""
    project = shutil.copytree(bake(), tmp_path / "project")
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    assert 'requires-python = ">=3.11"' in text
    pyproject.write_text(text.replace(">=3.11", ">=3.99"), encoding="utf-8")
    uv = [Path(sys.executable).parent / "uv", "run", "--quiet", "--python", sys.executable, "manage.py", "migrate"]
    command = uv if tool == "uv" else [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "-e", "."]

    result = subprocess.run(command, cwd=project, env=clean_environ(), capture_output=True, encoding="utf-8")

    assert result.returncode != 0
    # A narrow terminal has it on several, of which all but the first are indented.
    said = re.sub(r"\n +", " ", result.stderr.strip()).splitlines()
    said = [line for line in said if not line.startswith("WARNING:")]
    assert len(said) == 1, result.stderr
    assert "3.99" in said[0]
