"""Keep what was chosen, write .env, and print the steps that remain."""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

WINDOWS = os.name == "nt"
STARTERS = ("minimal", "chat")

# As data, so that no answer can become code.
answers = json.loads(r"""{{ cookiecutter | tojson }}""")


def place_starter(name):
    """Move the files of the chosen starter into place, and remove the other one."""
    starters = Path("starters")
    # See prepare_probe() in pre_gen_project.py.
    skip_if_file_exists = (starters / "probe").read_text() == "kept"
    for path in (starters / name).rglob("*"):
        target = path.relative_to(starters / name)
        if path.is_file() and not (skip_if_file_exists and target.exists()):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    (starters / "probe").unlink()
    for starter in STARTERS:
        shutil.rmtree(starters / starter)
    # Unless there is something of the owner's in it, in an existing project.
    if not any(starters.iterdir()):
        starters.rmdir()


def remove(*names):
    """Remove the files, and the folders that this leaves empty; in an existing project others' files stay."""
    for name in names:
        path = Path(name)
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:-1]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def write_env():
    """Copy .env.example to .env, unless there is one: it holds its owner's settings."""
    env = Path(".env")
    if not env.exists() and not env.is_symlink():
        env.write_bytes(Path(".env.example").read_bytes())


def where_to_go():
    """Return the project's folder as one would type it; None where nobody would go."""
    project = Path.cwd()
    shell = os.environ.get("PWD")
    if shell and Path(shell).is_dir() and project.parent.samefile(shell):
        return project.name
    # cruft update bakes in a temporary folder.
    if "_output_dir" not in answers:
        return None
    return f'"{project}"' if WINDOWS else shlex.quote(str(project))


def steps(folder):
    yield f"cd {folder}"
    if shutil.which("uv"):
        python = "uv run"
    else:
        python = r".venv\Scripts\python" if WINDOWS else ".venv/bin/python"
        yield "py -m venv .venv" if WINDOWS else "python3 -m venv .venv"
        yield f"{python} -m pip install -U pip"
        yield f"{python} -m pip install -e . --group dev"
    yield f"{python} manage.py migrate"
    yield f"{python} manage.py runserver"
    yield "# then open http://127.0.0.1:8000/"


place_starter(answers["starter"])
if answers["docker"] == "no":
    remove(".dockerignore", "Dockerfile", "compose.yaml", "deploy/nginx.conf")
if answers["github_actions"] == "no":
    remove(".github/workflows/ci.yml")
write_env()
if folder := where_to_go():
    # A folder's name may hold what the encoding of the output does not.
    sys.stdout.reconfigure(errors="backslashreplace")
    print(*steps(folder), sep="\n")
