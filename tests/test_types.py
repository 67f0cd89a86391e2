"""The types of a bake: its own code passes mypy, and so does code that uses what realtime/ calls public."""

import shutil
import subprocess
import sys

import pytest
from servers import REPOSITORY, python_of


@pytest.mark.long
@pytest.mark.parametrize("starter", ["minimal", "chat"])
def test_mypy_passes(bake, tmp_path, starter):
    project = shutil.copytree(bake(starter=starter), tmp_path / "project")
    shutil.copy(REPOSITORY / "tests" / "probes" / "typed_use.py", project)

    # Django and Channels bring no types.
    options = ["--ignore-missing-imports", "--disable-error-code", "import-untyped", "--warn-unused-ignores"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--python-executable", python_of(project), "."],
        cwd=project,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout
