"""The steps of a baked project's workflow, verbatim from its YAML, as GitHub runs them after a fresh clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from servers import WINDOWS, clean_environ, require


def steps_of(project, job):
    """Return the steps of the job that run commands, as dicts with a "run", and the variables of the job."""
    workflow = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = [step for step in workflow["jobs"][job]["steps"] if "run" in step]
    return steps, workflow["jobs"][job].get("env", {})


@pytest.fixture
def runner(tmp_path):
    """Return the variables of a machine that has Python, pipx and git, and no uv before `pipx install uv`."""
    require(not WINDOWS and shutil.which("git"), "the steps are for Linux, and need git")
    bin = tmp_path / "bin"
    bin.mkdir()
    uv = Path(sys.executable).parent / "uv"
    (bin / "pipx").write_text(f'#!/bin/sh\n[ "$*" = "install uv" ] && ln -s "{uv}" "{bin}/uv"\n', encoding="utf-8")
    (bin / "pipx").chmod(0o755)
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "uv").exists()]
    return clean_environ(PATH=os.pathsep.join([str(bin), *others]), HOME=str(tmp_path), UV_CACHE_DIR=cache)


def test_every_step_of_the_job_with_tests_passes(bake, runner, tmp_path):
    project = shutil.copytree(bake(), tmp_path / "project")
    # It is no part of a clone.
    (project / ".env").unlink()
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    steps, variables = steps_of(project, "test")
    # ${{ matrix.python }} is the Python of this run.
    assert variables == {"UV_PYTHON": "${{ matrix.python }}"}
    assert len(steps) >= 5
    for step in steps:
        # https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
        result = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=project,
            env=runner | {"UV_PYTHON": sys.executable} | step.get("env", {}),
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert result.returncode == 0, f"{step['run']}\n{result.stdout}{result.stderr}"
    assert not (project / ".env").exists()
