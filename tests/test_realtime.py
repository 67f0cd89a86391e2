"""The tests of realtime/, which are not the owner's: they are copied into a bake and run there, warnings as errors."""

import re
import shutil
from pathlib import Path

import pytest
from servers import run

HERE = Path(__file__).parent
ON_BAKE = sorted(path.name for path in (HERE / "on_bake").glob("test_*.py"))


@pytest.fixture(scope="module", params=["minimal", pytest.param("chat", marks=pytest.mark.long)])
def output(request, bake, tmp_path_factory):
    """What pytest prints on a bake of each starter: all files in one process, since most of the time is its start."""
    project = shutil.copytree(bake(starter=request.param), tmp_path_factory.mktemp("realtime") / "project")
    shutil.copytree(HERE / "on_bake", project / "on_bake")
    return run(project, "-m", "pytest", "-W", "error", "-v", "-rA", "on_bake", check=False, timeout=600).stdout


@pytest.mark.parametrize("name", ON_BAKE)
def test_on_a_bake(output, name):
    outcomes = re.findall(rf"(?m)^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.* on_bake/{name}\b", output)

    assert {*outcomes} == {"PASSED"}, output


def test_all_of_it_has_run(output):
    """Also what belongs to no file, such as a warning at the end."""
    assert re.search(r"(?m)^=+ \d+ passed[^,]* in", output), output
