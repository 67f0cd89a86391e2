"""
The steps of a baked project's workflow, verbatim from its YAML, as GitHub runs them after a fresh clone.

And those of this repository's, which are the commands that are run here.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from history import commit, cruft, git
from servers import REPOSITORY, WINDOWS, clean_environ, require


def workflow_of(project):
    return yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def steps_of(project, job):
    """Return the steps of the job that run commands, as dicts with a "run", and the variables of the job."""
    job = workflow_of(project)["jobs"][job]
    return [step for step in job["steps"] if "run" in step], job.get("env", {})


@pytest.fixture
def runner(tmp_path):
    """Return the variables of a machine that has Python, pipx and git, and no uv before `pipx install uv`."""
    require(not WINDOWS and shutil.which("git"), "the steps are for Linux, and need git")
    bin = tmp_path / "bin"
    bin.mkdir()
    uv = Path(sys.executable).parent / "uv"
    link = f'ln -sf "{uv}" "{uv}x" "{bin}"'
    (bin / "pipx").write_text(f'#!/bin/sh\n[ "$*" = "install uv" ] && {link}\n', encoding="utf-8")
    (bin / "pipx").chmod(0o755)
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "uv").exists()]
    return clean_environ(PATH=os.pathsep.join([str(bin), *others]), HOME=str(tmp_path), UV_CACHE_DIR=cache)


def test_every_job_of_a_bake_is_known(bake):
    """A step that is gone, or whose failure counts for nothing, passes: so its commands are here once more."""
    workflow = workflow_of(bake())
    # YAML takes the word `on` for true.
    assert workflow[True].keys() == {"push", "pull_request", "schedule"}
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    commands = {name: [step["run"].splitlines() for step in steps_of(bake(), name)[0]] for name in jobs}
    assert list(jobs) == ["test", "vulnerabilities", "news", "docker"]
    assert commands["test"] == [
        ["pipx install uv", "uv sync"],
        ["uv run ruff check", "uv run ruff format --check", "uv run djlint --check .", "uv run djlint --lint ."],
        ["uv run pytest"],
        ["cp .env.example .env", "uv run manage.py check", "uv run manage.py makemigrations --check", "rm .env"],
        ["uv run manage.py check --deploy --fail-level WARNING"],
    ]
    export = "uv export --quiet --no-dev --all-extras --no-hashes --format requirements.txt > requirements.txt"
    audit = "uvx pip-audit --requirement requirements.txt --disable-pip --no-deps"
    assert commands["vulnerabilities"] == [["pipx install uv", export, audit]]
    assert [step.get("name") for step in jobs["docker"]["steps"] if "uses" not in step] == [
        "Build and start",
        "Handshake through nginx",
        "What went wrong",
    ]
    scheduled = "github.event_name == 'schedule'"
    assert {name: job["if"] for name, job in jobs.items() if "if" in job} == dict.fromkeys(
        ["vulnerabilities", "news"], scheduled
    )
    for name, job in jobs.items():
        assert job["runs-on"] == "ubuntu-latest"
        assert job["timeout-minutes"] <= 15
        # The one that writes is run by the clock only.
        writes = {"contents": "write", "pull-requests": "write"}
        assert job["permissions"] == (writes if name == "news" else {"contents": "read"})
        (checkout,) = [step for step in job["steps"] if "uses" in step]
        assert job["steps"][0] == checkout
        # What a step runs finds no token in .git/config. news merges with what was baked, long ago.
        depth = {"fetch-depth": 0} if name == "news" else {}
        assert checkout["with"] == {"persist-credentials": False, **depth}
        assert checkout["uses"].startswith("actions/checkout@")
        for step in [job, *job["steps"]]:
            assert "continue-on-error" not in step, name
            assert not re.search(r"\|\|\s*(true|:)|set \+e", step.get("run", "")), name
    # Whose failure is shown, and no other's.
    conditions = [step["if"] for step in jobs["docker"]["steps"] + jobs["test"]["steps"] if "if" in step]
    assert conditions == ["failure()"]


def test_both_workflows_run_at_each_push_and_on_every_python(bake):
    """What is not run fails nowhere: an event, a Python or a system that is gone would be missed by nobody."""
    classifiers = tomllib.loads((bake() / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    pythons = [name.rpartition(" ")[2] for name in classifiers if "Python :: 3." in name]
    assert f"With Python {pythons[0]} to {pythons[-1]} " in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    matrices = []
    for workflow in (workflow_of(bake()), workflow_of(REPOSITORY)):
        events = workflow[True]
        assert events["push"] == {"branches": ["main"]}
        assert events["pull_request"] is None
        (weekly,) = events["schedule"]
        assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", weekly["cron"])
        # A push ends the run of the one before it, and neither that of another branch nor the weekly one.
        names = {"${{ github.event_name }}", "${{ github.ref }}"}
        assert {*re.findall(r"\$\{\{.*?\}\}", workflow["concurrency"]["group"])} == names
        assert workflow["concurrency"]["cancel-in-progress"] is True
        strategy = workflow["jobs"]["test"]["strategy"]
        # One that fails says nothing about the others.
        assert strategy["fail-fast"] is False
        matrices.append(strategy["matrix"])
    systems = ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert matrices == [{"python": pythons}, {"os": systems, "python": pythons}]
    assert steps_of(bake(), "test")[1] == {"UV_PYTHON": "${{ matrix.python }}"}


def test_every_job_of_this_repository_is_known():
    """As of a bake. The tests need the history, and a Python of the matrix; what takes long is run by the clock."""
    workflow = workflow_of(REPOSITORY)
    scheduled = "github.event_name == 'schedule'"
    assert {name: job.get("if") for name, job in workflow["jobs"].items()} == {
        "test": None,
        "answers": scheduled,
        "mutants": f"{scheduled} || github.event_name == 'workflow_dispatch'",
    }
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] == ("${{ matrix.os }}" if name == "test" else "ubuntu-latest")
        assert job["permissions"] == {"contents": "read"}
        checkout, python, *steps = job["steps"]
        depth = {"fetch-depth": 0} if name == "test" else {}
        assert checkout["with"] == {"persist-credentials": False, **depth}
        assert python["with"] == {"python-version": "${{ matrix.python }}" if name == "test" else "3.14"}
        for step in [job, *steps]:
            assert "continue-on-error" not in step, name
    conditions = [step["if"] for step in workflow["jobs"]["test"]["steps"] if "if" in step]
    assert conditions == ["runner.os == 'Linux'", "runner.os == 'Linux'", "runner.os != 'Linux'"]
    # Once a week each is a long run.
    variables = {
        name: value
        for job in workflow["jobs"]
        for step in steps_of(REPOSITORY, job)[0]
        for name, value in step.get("env", {}).items()
    }
    assert variables == {
        "CHAOS_KILLS": "${{ " + scheduled + " && '60' || '4' }}",
        "ROLLS": "${{ " + scheduled + " && '20' || '1' }}",
        "ARGS": "${{ " + scheduled + " && '-m \"\"' || '' }}",
        "RANDOM_ANSWERS": "10000",
    }


@pytest.mark.long
def test_every_step_of_the_job_with_tests_passes(bake, runner, tmp_path):
    project = shutil.copytree(bake(), tmp_path / "project")
    # It is no part of a clone.
    (project / ".env").unlink()
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    steps, variables = steps_of(project, "test")
    # ${{ matrix.python }} is the Python of this run.
    assert variables == {"UV_PYTHON": "${{ matrix.python }}"}
    for step in steps:
        run_step(step, project, runner | {"UV_PYTHON": sys.executable})
    assert not (project / ".env").exists()


def run_step(step, project, env):
    """Run a step in the project as GitHub does, and return what it printed."""
    # https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
    result = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=project,
        env=env | step.get("env", {}),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert result.returncode == 0, f"{step['run']}\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


@pytest.mark.long
def test_what_production_installs_is_audited(bake, runner, tmp_path):
    """With pip-audit itself; only its question to the database of vulnerabilities is left out."""
    project = shutil.copytree(bake(), tmp_path / "project")
    uvx = Path(sys.executable).parent / "uvx"
    known = subprocess.run([uvx, "pip-audit", "--version"], env=runner, capture_output=True, encoding="utf-8")
    require(known.returncode == 0, f"pip-audit cannot be installed: {known.stderr}")
    bin = tmp_path / "bin"
    (bin / "pipx").write_text(f'#!/bin/sh\n[ "$*" = "install uv" ] && ln -sf "{uvx.with_name("uv")}" "{bin}"\n')
    (bin / "uvx").write_text(f'#!/bin/sh\nexec "{uvx}" "$@" --dry-run\n')
    (bin / "uvx").chmod(0o755)
    ((step,), variables) = steps_of(project, "vulnerabilities")

    said = run_step(step, project, runner | variables)

    packages = re.findall(r"(?m)^([\w-]+)==", (project / "requirements.txt").read_text(encoding="utf-8"))
    assert {"django", "channels", "uvicorn", "psycopg"} <= {*packages}
    # Nothing that is for development only.
    assert not {"daphne", "pytest", "ruff"} & {*packages}
    # Some are for other systems.
    assert 15 < int(re.search(r"would have audited (\d+) packages", said)[1]) <= len(packages)


def test_the_job_with_docker_is_what_is_tested(bake):
    """By test_docker.py and, without an engine, test_deploy.py, which take the handshake from the YAML."""
    steps, variables = steps_of(bake(), "docker")
    build, handshake, complain = (step["run"] for step in steps)

    tests = (REPOSITORY / "tests" / "test_docker.py").read_text(encoding="utf-8")
    assert f'run("{build}")' in tests
    assert "connection_established" in handshake
    assert complain == "docker compose logs"
    # What compose.yaml does not start without.
    asked = re.findall(r"\$\{(\w+):\?", (bake() / "compose.yaml").read_text(encoding="utf-8"))
    assert variables.keys() == {*asked}


def test_the_steps_of_this_repository_are_what_is_run_here():
    """A runner of GitHub is no machine of ours: each line is one that another place has, and none is missing."""
    makefile, run = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/run"))
    services = "nginx postgresql redis-server"
    assert {*services.split()} <= {*re.findall(r"missing\+=\((\S+)\)", run)}
    apt = ["sudo apt-get update", f"sudo apt-get install --yes --no-install-recommends {services}"]
    quiet = " --quiet --disable-pip-version-check"
    pip = [f"python{line.replace(quiet, '')}" for line in re.findall(r"\$\(BIN\)/python( -m pip install.*)", makefile)]
    assert len(pip) == 2
    (options,) = re.findall(r"python -m pytest (.*) \$\(ARGS\)", makefile)
    assert re.search(r"(?m)^mutants: ", makefile)
    known = {
        "test": [apt, [".ci/run"], [*pip, f'python -m pytest {options} -m "not weekly"']],
        "answers": [[*pip, "python -m pytest tests/test_random_answers.py"]],
        "mutants": [apt, ["make mutants"]],
    }
    read_by_tests = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").glob("test_*.py"))

    for job, scripts in known.items():
        steps, _ = steps_of(REPOSITORY, job)
        assert [step["run"].splitlines() for step in steps] == scripts
        for step in steps:
            for name in step.get("env", {}):
                assert f'os.environ.get("{name}"' in read_by_tests or f"$({name})" in makefile, name


# The template's news

# Stands in for GitHub's command: it keeps what it was asked, and knows the pull requests that it was asked for.
GH = """#!/bin/sh
printf '%s\\n' "$*" >> "$GH_ASKED"
case "$1 $2" in
  "pr list")
    case "$3" in --state) branch=$6 ;; *) branch=$4 ;; esac
    grep --quiet "pr create --head $branch " "$GH_ASKED" && echo '{"number":1}' || true ;;
  "pr create") cat "$8" > "$GH_ASKED.body" ;;
esac
"""
WORKFLOW = ".github/workflows/ci.yml"
BOT = "github-actions[bot] 41898282+github-actions[bot]@users.noreply.github.com"


@pytest.fixture
def on_github(runner, source, tmp_path):
    """
    A project that cruft has made, with an edit in chat/views.py, as a bare repository in GitHub's place.

    Return its Path, `weekly()`, which runs the steps in a fresh clone, and `asked() -> list`, what `gh` was asked.
    """
    require(shutil.which("jq"), "jq is not installed")
    cruft(tmp_path, "create", source, "--no-input")
    project, remote = tmp_path / "my_realtime_site", tmp_path / "remote.git"
    commit(project)
    views = project / "chat" / "views.py"
    views.write_text("# ours\n" + views.read_text(encoding="utf-8"), encoding="utf-8")
    commit(project)
    git(tmp_path, "clone", "--quiet", "--bare", project, remote)
    gh = tmp_path / "bin" / "gh"
    gh.write_text(GH, encoding="utf-8")
    gh.chmod(0o755)
    log = tmp_path / "asked"
    log.touch()
    (tmp_path / "temp").mkdir()
    env = runner | {"UV_PYTHON": sys.executable, "RUNNER_TEMP": str(tmp_path / "temp"), "GH_ASKED": str(log)}

    def weekly():
        clone = tmp_path / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        (checkout,) = [step["with"] for step in workflow_of(project)["jobs"]["news"]["steps"] if "uses" in step]
        # As actions/checkout: the newest commit alone, unless it is told otherwise.
        depth = checkout.get("fetch-depth", 1)
        git(tmp_path, "clone", "--quiet", *(["--depth", str(depth)] if depth else []), remote.as_uri(), clone)
        steps, variables = steps_of(clone, "news")
        conditions = [re.fullmatch(r"hashFiles\('(.*)'\) != ''", step["if"])[1] for step in steps]
        assert conditions == [".cruft.json", "uv.lock"]
        for step, name in zip(steps, conditions, strict=True):
            if (clone / name).exists():
                run_step(step, clone, env | variables)

    def asked():
        return log.read_text(encoding="utf-8").splitlines()

    return remote, weekly, asked


def change(source, name, old, new):
    """Change a file of the template, below its project's folder."""
    path = source / "{{cookiecutter.project_slug}}" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (name, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def writers(remote, branch):
    """Return name and address of the author of the newest commit, and of who committed it."""
    return git(remote, "log", "-1", "--format=%an %ae%n%cn %ce", branch).splitlines()


def branches(remote):
    return git(remote, "branch", "--format=%(refname:short)").split()


def test_news_of_the_template_become_a_pull_request(on_github, source, tmp_path):
    remote, weekly, asked = on_github
    weekly()
    assert branches(remote) == ["main"]
    assert asked() == []

    change(source, ".env.example", "DJANGO_DEBUG=true", "DJANGO_DEBUG=true\nDJANGO_NEW=true")
    change(source, "placed-by-hook/github_actions=yes/" + WORKFLOW, "uv run pytest", "uv run pytest --new")
    views = "placed-by-hook/starter=minimal/chat/views.py"
    change(source, views, "from django.conf import settings", "# theirs\nfrom django.conf import settings")
    newest = commit(source)
    weekly()

    branch = f"template-{newest[:10]}"
    assert branches(remote) == ["main", branch]
    assert writers(remote, branch) == [BOT, BOT]
    assert "DJANGO_NEW=true" in git(remote, "show", f"{branch}:.env.example")
    assert newest in git(remote, "show", f"{branch}:.cruft.json")
    # Both have written the first line.
    assert "<<<<<<<" in git(remote, "show", f"{branch}:chat/views.py")
    # GitHub would refuse the branch.
    assert git(remote, "diff", "--name-only", "main", branch, "--", ".github") == ""
    body = (tmp_path / "asked.body").read_text(encoding="utf-8")
    assert "- `chat/views.py` has conflict marks." in body
    assert "`cruft update`, by the weekly run" in body
    assert "close it and open it again" in body
    (patch,) = re.findall(r"(?s)\nNot in it is this:\n\n```diff\n(.*)\n```\n$", body)
    assert "\n+        run: uv run pytest --new\n" in patch
    assert [line.split()[:4] for line in asked()] == [
        ["pr", "list", "--state", "all"],
        ["auth", "setup-git"],
        ["pr", "create", "--head", branch],
    ]

    # The next week: it is open, or was closed.
    weekly()
    assert [line.split()[:2] for line in asked()][3:] == [["pr", "list"]]


@pytest.mark.long
def test_news_that_change_no_file_are_none(on_github, source):
    remote, weekly, asked = on_github
    with (source / "CONTRIBUTING.md").open("a", encoding="utf-8") as text:
        text.write("\nOf the repository, and in no bake.\n")
    commit(source)

    weekly()

    assert branches(remote) == ["main"]
    assert asked() == []


@pytest.mark.long
def test_newer_packages_become_a_pull_request(on_github, tmp_path):
    remote, weekly, asked = on_github
    project = tmp_path / "my_realtime_site"
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    uv = [Path(sys.executable).parent / "uv", "--quiet", "lock", "--python", sys.executable]
    pyproject.write_text(text.replace('"websockets>=17.0"', '"websockets==17.0"'), encoding="utf-8")
    subprocess.run(uv, cwd=project, check=True)
    # As it was when that was the newest.
    pyproject.write_text(text, encoding="utf-8")
    subprocess.run([*uv, "--upgrade-package", "nothing"], cwd=project, check=True)
    assert 'name = "websockets"\nversion = "17.0"\n' in (project / "uv.lock").read_text(encoding="utf-8")
    commit(project)
    git(project, "push", "--quiet", remote, "main")

    weekly()
    weekly()

    assert branches(remote) == ["main", "newer-packages"]
    assert writers(remote, "newer-packages") == [BOT, BOT]
    assert git(remote, "diff", "--name-only", "main", "newer-packages").split() == ["uv.lock"]
    assert 'name = "websockets"\nversion = "17.0"\n' not in git(remote, "show", "newer-packages:uv.lock")
    assert "Update" in (tmp_path / "asked.body").read_text(encoding="utf-8")
    assert [line.split()[:2] for line in asked()].count(["pr", "create"]) == 1
