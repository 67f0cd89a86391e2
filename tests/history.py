"""Repositories of git for the tests: of the template, and of projects that cruft has made of it."""

import shutil
import subprocess
import sys

from servers import REPOSITORY, clean_environ

TEMPLATE_PARTS = ("cookiecutter.json", "hooks", "{{cookiecutter.project_slug}}")
IDENTITY = {f"GIT_{role}_{key}": "a@example.com" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}


def git(folder, *arguments):
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    result = subprocess.run(command, cwd=folder, env=clean_environ(**IDENTITY), capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def commit(folder, message="Change"):
    """Commit everything in the folder, a new repository if need be, and return the commit."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()


def cruft(folder, *arguments):
    """Run cruft without its question, and return what it printed."""
    environ = clean_environ(HOME=str(folder.parent), USERPROFILE=str(folder.parent))
    command = [sys.executable, "-m", "cruft", *arguments]
    result = subprocess.run(command, cwd=folder, env=environ, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def copy_template(source):
    for name in TEMPLATE_PARTS:
        target = source / name
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, target)
