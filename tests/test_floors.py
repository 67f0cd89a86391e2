"""The lowest versions that a bake's pyproject.toml allows: its own tests, its servers and a handshake with them."""

import re
import shutil
import subprocess
import sys

import pytest
from clients import open_client, sign_up
from servers import LOCAL_PRODUCTION, SERVERS, Server, clean_environ

# An environment of its own.
pytestmark = pytest.mark.long

# The newest security releases of Django's series: https://docs.djangoproject.com/en/stable/releases/security/
SAFE_DJANGO = {"5.2": 19, "6.0": 10, "6.1": 3}


@pytest.fixture(scope="module")
def python(bake, tmp_path_factory):
    """The Python of an environment with the lowest versions of all that either starter asks for."""
    directory = tmp_path_factory.mktemp("floors")
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pyproject = bake(starter="chat") / "pyproject.toml"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--allow-existing", "--python", sys.executable, directory], check=True)
    lowest = ["--resolution", "lowest-direct", "-r", pyproject, "--group", f"{pyproject}:dev", "--extra", "postgres"]
    subprocess.run([*uv, "pip", "install", "--python", python, *lowest], check=True)
    return python


@pytest.fixture(scope="module", params=["minimal", pytest.param("chat", marks=pytest.mark.weekly)])
def starter(request):
    return request.param


@pytest.fixture(scope="module")
def project(bake, python, starter, tmp_path_factory):
    project = shutil.copytree(bake(starter=starter), tmp_path_factory.mktemp("floors") / "project")
    run(python, project, "manage.py", "migrate")
    run(python, project, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    return project


def run(python, project, *command, env=None):
    result = subprocess.run(
        [python, *command],
        cwd=project,
        env=clean_environ(**(env or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_its_own_tests(python, project):
    output = run(python, project, "-W", "error", "-m", "pytest", "-W", "error")

    assert re.search(r"\d+ passed in", output), output


@pytest.mark.parametrize("kind", ["runserver", "production"])
def test_a_handshake(python, project, starter, kind):
    with Server(project, kind, env=SERVERS[kind], python=[python]) as server:
        path, headers = "ws/socket-server/", {}
        if starter == "chat":
            path, headers = f"{path}lobby/", {"Cookie": sign_up(server, f"ann-{kind}")}
        with open_client(server, path=path, additional_headers=headers):
            pass
        assert "Traceback" not in server.log


@pytest.mark.parametrize(("series", "safe"), SAFE_DJANGO.items())
def test_no_release_of_django_with_known_holes_is_allowed(bake, python, series, safe):
    """Of each series the newest security release, and none before it; 6.0 is left out as a whole."""
    code = "import sys; from packaging.specifiers import SpecifierSet; allowed = SpecifierSet(sys.argv[1]).contains\n"
    code += "print(*filter(allowed, sys.argv[2:]))"
    specifier = re.search(r'"django([^-\w"][^"]*)"', (bake() / "pyproject.toml").read_text(encoding="utf-8"))[1]
    releases = [series, *(f"{series}.{number}" for number in range(1, safe + 1))]

    taken = run(python, bake(), "-c", code, specifier, *releases).split()

    assert taken == ([] if series == "6.0" else [f"{series}.{safe}"])
