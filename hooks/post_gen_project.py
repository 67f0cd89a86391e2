"""Put the files of the chosen options where they belong, and print what to do next."""

import json
import os
import shlex
import shutil
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

from cookiecutter.utils import rmtree

WINDOWS = os.name == "nt"
# cookiecutter writes here the files that only some answers bake, and those that it copies without asking whether it
# may replace a file. Each folder in it is named after the answer that bakes its files.
STAGING = Path("placed-by-hook")

# As data, so that no answer can become code.
answers = json.loads(r"""{{ cookiecutter | tojson }}""")


def staged_files():
    """Return the files that the answers bake, as pairs of Path: where each lies, and where it belongs."""
    chosen = {"always", *(f"{question}={answer}" for question, answer in answers.items())}
    parts = sorted(part for part in STAGING.iterdir() if part.name in chosen)
    files = [(path, path.relative_to(part)) for part in parts for path in sorted(part.rglob("*")) if path.is_file()]
    if not os.path.lexists(".env"):
        # It holds its owner's settings from then on, and no bake touches it again.
        files.append((Path(shutil.copyfile(".env.example", STAGING / ".env")), Path(".env")))
    return files


def make_writable(files):
    """Let their owner write to files, pairs of Path as above: those of a read-only template are copied as such."""
    paths = [source for source, _ in files]
    # There is no such note in a new project, in which all is ours.
    if not (STAGING / "written-in-place").exists():
        paths += [path for path in Path().rglob("*") if path.is_file()]
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def place(files):
    """Move files, pairs of Path as from `staged_files()`, into place; put everything back if one cannot be moved."""
    with ExitStack() as undo:
        for source, target in files:
            for folder in reversed(target.parents):
                if not folder.exists():
                    folder.mkdir()
                    undo.callback(folder.rmdir)
            if os.path.lexists(target):
                replaced = STAGING / "replaced" / target
                replaced.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(target, replaced)
                undo.callback(shutil.move, replaced, target)
            shutil.move(source, target)
            undo.callback(target.unlink)
        undo.pop_all()


def undo_written_in_place():
    """Put back what cookiecutter has written over in an existing project, and remove what it has added."""
    kept, names = STAGING / "replaced-in-place", STAGING / "written-in-place"
    behind, dangling = STAGING / "behind-links", STAGING / "dangling-links"
    if not names.exists():
        return
    for top in map(Path, names.read_text().split()):
        # What lies in a folder first.
        for path in [*sorted(top.rglob("*"), reverse=True), top]:
            if os.path.lexists(kept / path):
                if not path.is_dir():
                    (kept / path).replace(path)
                if (behind / path).is_file():
                    shutil.copyfile(behind / path, path)
                elif (dangling / path).is_file():
                    path.resolve().unlink(missing_ok=True)
            elif path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)


def check(files):
    """Stop with one line if a folder is in the way of a file, or a file in the way of a folder."""
    for _, target in files:
        if target.is_dir():
            sys.exit(f"{target} is a folder, and a file of that name belongs there: rename it")
        for folder in target.parents:
            if os.path.lexists(folder) and not folder.is_dir():
                sys.exit(f"{folder} is a file, and a folder of that name belongs there: rename it")


def place_staged_files():
    """Place what was chosen; with --skip-if-file-exists only where nothing is. Leave nothing behind in any case."""
    try:
        files = staged_files()
        # pre_gen_project.py tells how this file knows.
        if (STAGING / "skip-if-file-exists").read_text().strip() == "yes":
            files = [(source, target) for source, target in files if not os.path.lexists(target)]
        check(files)
        make_writable(files)
        place(files)
    except (OSError, SystemExit) as error:
        undo_written_in_place()
        if isinstance(error, OSError):
            sys.exit(f"the files of the chosen options cannot be written, and none was: {error}")
        raise
    finally:
        rmtree(STAGING)


def folder_to_enter():
    """Return the project's folder as one would type it; None where nobody would go."""
    project = Path.cwd()
    shell = os.environ.get("PWD")
    if shell and Path(shell).is_dir() and project.parent.samefile(shell):
        return project.name
    # cruft update bakes in a temporary folder.
    if "_output_dir" not in answers:
        return None
    return f'"{project}"' if WINDOWS else shlex.quote(str(project))


def commands(folder):
    """Yield the commands from the bake to a page in the browser."""
    yield f"cd {folder}"
    if shutil.which("uv"):
        python = "uv run"
    else:
        python = r".venv\Scripts\python" if WINDOWS else ".venv/bin/python"
        yield "py -m venv .venv" if WINDOWS else "python3 -m venv .venv"
        yield f"{python} -m pip install -U pip"
        # Apart, so that an older Python is told by the first, in one line.
        yield f"{python} -m pip install -e ."
        yield f"{python} -m pip install --group dev"
    yield f"{python} manage.py migrate"
    yield f"{python} manage.py runserver"


def print_next_steps(folder):
    # A folder's name may hold what the encoding of the output does not.
    sys.stdout.reconfigure(errors="backslashreplace")
    print(f"\n{Path.cwd().name} is ready. Start it with:\n")
    for command in commands(folder):
        print(f"    {command}")
    print("\nThen open http://127.0.0.1:8000/ in the browser. README.md says which files to edit first.")


place_staged_files()
if folder := folder_to_enter():
    print_next_steps(folder)
