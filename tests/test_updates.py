"""Updates: a bake's version, the README's commands in a terminal, and a project that follows the history."""

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
from combinations import OPTIONS
from history import IDENTITY, TEMPLATE_PARTS, commit, copy_template, cruft, git
from servers import REPOSITORY, WINDOWS, clean_environ, python_of, require

QUESTIONS = json.loads((REPOSITORY / "cookiecutter.json").read_text(encoding="utf-8"))
VERSION = QUESTIONS["_version"]

# What an owner adds below which line of a file, or at its end; the lines are as old as the walk is long.
EDITS = {
    ".env.example": (None, "#OURS="),
    ".gitignore": ("__pycache__/", "/ours/"),
    "README.md": ("# My Realtime Site", "\nOurs."),
    "pyproject.toml": ("dependencies = [", '  "ours>=1",'),
    "compose.yaml": ("services:", "  ours:\n    image: ours:1"),
    "Dockerfile": ("USER 10001", "LABEL ours=1"),
    "deploy/nginx.conf": ("    server_tokens off;", "    # ours"),
    ".github/workflows/ci.yml": ("jobs:", "  ours:\n    runs-on: ubuntu-latest"),
    "my_realtime_site/settings.py": ('SITE_NAME = "My Realtime Site"', "OURS = True"),
    "my_realtime_site/urls.py": ("urlpatterns = [", "    # ours"),
    "my_realtime_site/asgi.py": ("import os", "import json  # ours"),
    "chat/consumers.py": ("    async def connect(self):", "        # ours"),
    "chat/routing.py": ("websocket_urlpatterns = [", "    # ours"),
    "chat/urls.py": ("urlpatterns = [", "    # ours"),
    "chat/views.py": ("from django.shortcuts import render", "import json  # ours"),
    "chat/static/chat/chat.css": (None, "/* ours */"),
    "chat/static/chat/chat.js": (None, "// ours"),
    "accounts/models.py": (None, "# ours"),
    "static/site.css": (None, "/* ours */"),
    "templates/base.html": (None, "{# ours #}"),
    "conftest.py": (None, "# ours"),
}
STARTER_EDITS = {
    "minimal": {
        "chat/templates/chat/index.html": ("{% load static %}", "{# ours #}"),
        "chat/tests.py": ("import pytest", "# ours"),
    },
    "chat": {
        "chat/templates/chat/room.html": (None, "{# ours #}"),
        "chat/views.py": ("ROOMS_ON_A_PAGE = 50", "OURS = True"),
        "chat/consumers.py": ("PAGE = 50", "OURS = True"),
        "chat/models.py": (None, "# ours"),
        "chat/tests/test_views.py": (None, "# ours"),
    },
}


def edits_of(starter):
    return EDITS | STARTER_EDITS[starter]


def edit(project, starter="minimal"):
    for name, (anchor, line) in edits_of(starter).items():
        path = project / name
        text = path.read_text(encoding="utf-8")
        if anchor is None:
            text = f"{text}{line}\n"
        else:
            assert text.count(f"{anchor}\n") == 1, (name, anchor)
            text = text.replace(f"{anchor}\n", f"{anchor}\n{line}\n")
        path.write_text(text, encoding="utf-8")


def missing_edits(project, starter="minimal"):
    return [
        name
        for name, (_, line) in edits_of(starter).items()
        if not (project / name).exists() or line not in (project / name).read_text(encoding="utf-8")
    ]


def check(project, python):
    """The project's checks and tests are green. What it adds to its dependencies is not installed."""
    for command, answer in (("manage.py check", "no issues"), ("-m pytest", " passed")):
        command = [python, "-W", "error", *command.split()]
        result = subprocess.run(command, cwd=project, env=clean_environ(), capture_output=True, encoding="utf-8")
        assert result.returncode == 0, result.stdout + result.stderr
        assert answer in result.stdout, result.stdout + result.stderr


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


# What a version is


def is_version_right(version, tags, tags_here):
    """Return whether `version`, a str, fits a commit with the tags `tags_here`, in a repository with `tags`."""
    release = version.removesuffix(".dev")
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", release):
        return False
    # The tag comes after the commit that names it, and ".dev" of the next version with the commit after that.
    return release not in tags if version != release else release in tags_here or release not in tags


@pytest.mark.parametrize(
    ("version", "tags_here", "right"),
    [
        ("0.2.dev", [], True),
        ("0.1.dev", [], False),
        ("0.1.0", ["0.1.0"], True),
        ("0.1.0", [], False),
        ("0.2.0", [], True),
        ("latest", [], False),
    ],
)
def test_a_version_is_a_tag_or_dev(version, tags_here, right):
    assert is_version_right(version, ["0.1", "0.1.0"], tags_here) == right


def test_the_version_of_this_commit():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (.*)$", changelog)[0] == VERSION
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["version"] == VERSION
    require(shutil.which("git") and (REPOSITORY / ".git").exists(), "not a git checkout")
    tags, tags_here = git(REPOSITORY, "tag").split(), git(REPOSITORY, "tag", "--points-at", "HEAD").split()
    assert is_version_right(VERSION, tags, tags_here)


def test_a_bake_knows_its_version(bake):
    for starter in OPTIONS["starter"]:
        pyproject = tomllib.loads((bake(starter=starter) / "pyproject.toml").read_text(encoding="utf-8"))
        assert pyproject["tool"]["template"] == {"version": VERSION}


# The commands of the README, in a terminal


def documented_commands():
    """Return the commands with cruft that README.md shows: those that create, link and update."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Update a project") : readme.index("## License")]
    return re.findall(r"(?m)^    (uvx .*)$", section)


@pytest.fixture
def terminal(tmp_path):
    """
    Return a function that types a command into a shell in a terminal: `terminal(command, cwd, answers) -> str`.

    It types the answer of `answers` whose key is in the question, or only return, and returns what was on the screen.
    """
    require(not WINDOWS, "no pseudo-terminals")
    require(shutil.which("git"), "git is not installed")
    import pty

    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("uv", "uvx"):
        (bin / name).symlink_to(Path(sys.executable).parent / name)
    cache = subprocess.run([bin / "uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    env = clean_environ(PATH=path, HOME=str(tmp_path), UV_CACHE_DIR=cache, TERM="xterm", COLUMNS="200", **IDENTITY)

    def terminal(command, cwd, answers=(), timeout=240):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            ["sh", "-c", command], cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            screen, answered, deadline = "", 0, time.monotonic() + timeout
            try:
                while time.monotonic() < deadline:
                    readable, _, _ = select.select([ours], [], [], 1)
                    try:
                        part = os.read(ours, 65536).decode(errors="replace") if readable else ""
                    except OSError:
                        # Linux's word for the end of the other side.
                        break
                    if readable and not part:
                        break
                    screen += part
                    # A question leaves the cursor behind a colon.
                    if screen.endswith(": ") and len(screen) > answered:
                        question = screen.splitlines()[-1]
                        answer = next((text for key, text in dict(answers).items() if key in question), "")
                        os.write(ours, f"{answer}\n".encode())
                        answered = len(screen)
                assert process.wait(10) == 0, screen
            finally:
                process.kill()
                os.close(ours)
        return screen

    return terminal


def change_template(source):
    example = source / "{{cookiecutter.project_slug}}" / ".env.example"
    example.write_text("DJANGO_NEW=true\n" + example.read_text(encoding="utf-8"), encoding="utf-8")
    commit(source)


def test_the_documented_commands_create_and_update(terminal, source, tmp_path):
    create, _, update = documented_commands()
    assert update in (REPOSITORY / "{{cookiecutter.project_slug}}" / "README.md").read_text(encoding="utf-8")
    terminal(create.replace("gh:org/template", str(source)), tmp_path)
    project = tmp_path / "my_realtime_site"
    commit(project)
    (project / ".env").write_text("DJANGO_SECRET_KEY=mine\n")
    change_template(source)

    screen = terminal(update, project, {"Apply diff and update?": "y"})

    assert "Apply diff and update?" in screen
    # The way into the temporary folder that cruft bakes in.
    assert "Start it with" not in screen
    assert (project / ".env.example").read_text(encoding="utf-8").startswith("DJANGO_NEW=true\n")
    assert (project / ".env").read_text() == "DJANGO_SECRET_KEY=mine\n"
    assert not list(project.rglob("*.rej"))


@pytest.mark.long
def test_the_documented_commands_link_and_update(terminal, source, tmp_path):
    """A project that cookiecutter baked, linked to the commit of its version."""
    _, link, update = documented_commands()
    baked_from = git(source, "rev-parse", "HEAD").strip()
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", source, "--no-input", "--default-config"],
        cwd=tmp_path,
        env=clean_environ(HOME=str(tmp_path), USERPROFILE=str(tmp_path)),
        check=True,
    )
    project = tmp_path / "my_realtime_site"
    commit(project)
    change_template(source)

    terminal(link.replace("gh:org/template", str(source)), project, {"Link to template at commit": baked_from})
    assert json.loads((project / ".cruft.json").read_text())["commit"] == baked_from
    commit(project)
    terminal(update, project, {"Apply diff and update?": "y"})

    assert (project / ".env.example").read_text(encoding="utf-8").startswith("DJANGO_NEW=true\n")


# Years of updates


@pytest.mark.long
@pytest.mark.parametrize("starter", ["minimal", pytest.param("chat", marks=pytest.mark.weekly)])
def test_an_edited_project_follows_the_history(bake, history, tmp_path, starter):
    """
    Nothing that an owner has added is lost, nothing is left as *.rej, and checks and tests are green after each step.

    A file may conflict if CHANGELOG.md names it, since its owner then has to see to it.
    """
    source, (first, *others) = history
    if starter == "chat":
        # Its tests take longer: one step over all.
        others = others[-1:]
    python = python_of(bake(starter=starter))
    answers = json.dumps({"starter": starter})
    cruft(tmp_path, "create", source, "--no-input", "--checkout", first, "--extra-context", answers)
    project = tmp_path / "my_realtime_site"
    commit(project)
    edit(project, starter)
    commit(project)
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    given_up = set()
    for checkout in others:
        said = cruft(project, "update", "--skip-apply-ask", "--checkout", checkout)
        assert not list(project.rglob("*.rej")), said
        conflicts = set(git(project, "diff", "--name-only", "--diff-filter=U").split())
        assert [name for name in conflicts if f"`{name}`" not in changelog] == [], said
        for name in conflicts:
            assert edits_of(starter)[name][1] in (project / name).read_text(encoding="utf-8")
            git(project, "checkout", "--theirs", name)
        given_up |= conflicts
        assert set(missing_edits(project, starter)) <= given_up, said
        check(project, python)
        commit(project)


@pytest.mark.long
def test_an_edited_file_that_is_renamed_keeps_its_edit(bake, source, tmp_path):
    cruft(tmp_path, "create", source, "--no-input")
    project = tmp_path / "my_realtime_site"
    commit(project)
    edit(project)
    commit(project)
    chat = source / "{{cookiecutter.project_slug}}" / "placed-by-hook" / "starter=minimal" / "chat"
    views = chat / "views.py"
    views.write_text(views.read_text(encoding="utf-8") + "\n\nNEW = True\n", encoding="utf-8")
    views.rename(chat / "pages.py")
    urls = (chat / "urls.py").read_text(encoding="utf-8")
    assert "from . import views\n" in urls
    urls = urls.replace("from . import views\n", "from . import pages as views\n")
    (chat / "urls.py").write_text(urls, encoding="utf-8")
    commit(source)

    said = cruft(project, "update", "--skip-apply-ask")

    assert not list(project.rglob("*.rej")), said
    assert git(project, "diff", "--name-only", "--diff-filter=U") == "", said
    assert missing_edits(project) == ["chat/views.py"]
    pages = (project / "chat" / "pages.py").read_text(encoding="utf-8")
    assert EDITS["chat/views.py"][1] in pages
    assert pages.endswith("NEW = True\n")
    check(project, python_of(bake()))
