"""The tests of realtime/, which are not the owner's: they are copied into a bake and run there, warnings as errors."""

import re
import shutil
from pathlib import Path

import pytest
from servers import run

ON_BAKE = sorted(path.name for path in Path(__file__).with_name("on_bake").glob("test_*.py"))


@pytest.mark.parametrize("starter", ["minimal", "chat"])
@pytest.mark.parametrize("name", ON_BAKE)
def test_on_a_bake(bake, tmp_path, starter, name):
    project = shutil.copytree(bake(starter=starter), tmp_path / "project")
    shutil.copytree(Path(__file__).with_name("on_bake"), project / "on_bake")

    result = run(project, "-m", "pytest", "-W", "error", f"on_bake/{name}", check=False)

    assert re.search(r"\d+ passed[^,]* in", result.stdout), result.stdout
