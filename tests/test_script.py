"""The logic of the reconnecting script, without a browser: socket.test.mjs, run by Node's own test runner."""

import re
import shutil
import subprocess

import pytest
from servers import REPOSITORY, require

TEMPLATE = REPOSITORY / "{{cookiecutter.project_slug}}"


@pytest.fixture
def node():
    node = shutil.which("node")
    require(node, "node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    require(
        int(re.match(r"v(\d+)", version)[1]) >= 20,
        f"node {version.strip()} is older than 20, the first with all of mock.timers",
    )
    return node


def test_logic(node):
    tests = REPOSITORY / "tests" / "socket.test.mjs"

    result = subprocess.run([node, "--test", tests], capture_output=True, encoding="utf-8", timeout=120)

    assert result.returncode == 0, result.stdout + result.stderr


def test_scripts_hold_imports_in_the_form_that_django_hashes():
    """https://docs.djangoproject.com/en/stable/ref/contrib/staticfiles/#manifeststaticfilesstorage"""
    imports = [
        found
        for script in sorted(TEMPLATE.rglob("*.js"))
        for found in re.findall(r"""(?:import|export)[\s{][^;]*?from\s*["'](.*?)["']\s*;""", script.read_text("utf-8"))
    ]

    assert imports == ["../realtime/socket.js", "./unsent.js", "../realtime/socket.js"]
