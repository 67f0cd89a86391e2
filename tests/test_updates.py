"""Updates: the README's commands in a terminal, a bake's version, and a project that follows the template's history."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from servers import REPOSITORY, WINDOWS, clean_environ, python_of, require

TEMPLATE_PARTS = ("cookiecutter.json", "hooks", "{{cookiecutter.project_slug}}")
QUESTIONS = json.loads((REPOSITORY / "cookiecutter.json").read_text(encoding="utf-8"))
VERSION = QUESTIONS["_version"]

# What an owner adds below which line of a file, or at its end; the lines have been there since the first version.
EDITS = {
    ".gitignore": ("__pycache__/", "/ours/"),
    "README.md": ("# My Realtime Site", "\nOurs."),
    "pyproject.toml": ("dependencies = [", '  "ours>=1",'),
    "compose.yaml": ("services:", "  ours:\n    image: ours:1"),
    "Dockerfile": ("USER 10001", "LABEL ours=1"),
    "deploy/nginx.conf": ("http {", "    # ours"),
    ".github/workflows/ci.yml": ("jobs:", "  ours:\n    runs-on: ubuntu-latest"),
    "my_realtime_site/settings.py": ('SITE_NAME = "My Realtime Site"', "OURS = True"),
    "my_realtime_site/urls.py": ("urlpatterns = [", "    # ours"),
    "my_realtime_site/asgi.py": ("import os", "import json  # ours"),
    "chat/consumers.py": ("    async def connect(self):", "        # ours"),
    "chat/routing.py": ("websocket_urlpatterns = [", "    # ours"),
    "chat/urls.py": ("urlpatterns = [", "    # ours"),
    "chat/views.py": ("from django.shortcuts import render", "import json  # ours"),
    "chat/templates/chat/index.html": ("{% load static %}", "{# ours #}"),
    "chat/static/chat/chat.css": (None, "/* ours */"),
    "chat/static/chat/chat.js": (None, "// ours"),
}


def git(folder, *arguments):
    who = {f"GIT_{role}_{key}": "a@example.com" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    result = subprocess.run(command, cwd=folder, env=clean_environ(**who), capture_output=True, encoding="utf-8")
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


@pytest.fixture
def source(tmp_path):
    """A repository of the template as it is here, and no history."""
    require(shutil.which("git"), "git is not installed")
    source = tmp_path / "template"
    copy_template(source)
    commit(source)
    return source


def edit(project):
    for name, (anchor, line) in EDITS.items():
        path = project / name
        text = path.read_text(encoding="utf-8")
        if anchor is None:
            text = f"{text}{line}\n"
        else:
            assert text.count(f"{anchor}\n") == 1, (name, anchor)
            text = text.replace(f"{anchor}\n", f"{anchor}\n{line}\n")
        path.write_text(text, encoding="utf-8")


def missing_edits(project):
    return [
        name
        for name, (_, line) in EDITS.items()
        if not (project / name).exists() or line not in (project / name).read_text(encoding="utf-8")
    ]


def check(project, python):
    command = [python, "-W", "error", "manage.py", "check"]
    result = subprocess.run(command, cwd=project, env=clean_environ(), capture_output=True, encoding="utf-8")
    assert "no issues" in result.stdout, result.stdout + result.stderr


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A clone of this repository with the files as they are here as its newest commit, and five of its commits."""
    require(shutil.which("git") and (REPOSITORY / ".git").exists(), "not a git checkout")
    clone = tmp_path_factory.mktemp("history") / "template"
    git(REPOSITORY, "clone", "--quiet", "--no-hardlinks", REPOSITORY, clone)
    commits = git(clone, "log", "--first-parent", "--format=%H", "--max-count=40", "--", *TEMPLATE_PARTS).split()
    require(len(commits) > 4, "the clone of this repository has no history")
    copy_template(clone)
    newest = commit(clone)
    return clone, [*(commits[len(commits) * step // 4 - 1] for step in (4, 3, 2, 1)), newest]


def test_an_edited_project_follows_the_history(bake, history, tmp_path):
    """
    Nothing that an owner has added is lost, and nothing is left as *.rej.

    A file may conflict if CHANGELOG.md names it, since its owner then has to see to it.
    """
    source, (first, *others) = history
    python = python_of(bake())
    cruft(tmp_path, "create", source, "--no-input", "--checkout", first)
    project = tmp_path / "my_realtime_site"
    commit(project)
    edit(project)
    commit(project)
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    given_up = set()
    for checkout in others:
        said = cruft(project, "update", "--skip-apply-ask", "--checkout", checkout)
        assert not list(project.rglob("*.rej")), said
        conflicts = set(git(project, "diff", "--name-only", "--diff-filter=U").split())
        assert [name for name in conflicts if f"`{name}`" not in changelog] == [], said
        for name in conflicts:
            assert EDITS[name][1] in (project / name).read_text(encoding="utf-8")
            git(project, "checkout", "--theirs", name)
        given_up |= conflicts
        assert set(missing_edits(project)) <= given_up, said
        check(project, python)
        commit(project)
