"""What is baked: its files, their style, and the project's own checks and tests, for every combination of options."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from combinations import ALL, COMBINATIONS, OPTIONS
from servers import REPOSITORY, run

FILES = [
    ".env",
    ".env.example",
    ".gitignore",
    ".pre-commit-config.yaml",
    "AGENTS.md",
    "README.md",
    "accounts/__init__.py",
    "accounts/admin.py",
    "accounts/limits.py",
    "accounts/migrations/0001_initial.py",
    "accounts/migrations/__init__.py",
    "accounts/models.py",
    "chat/__init__.py",
    "chat/consumers.py",
    "chat/routing.py",
    "chat/static/chat/chat.css",
    "chat/static/chat/chat.js",
    "chat/urls.py",
    "chat/views.py",
    "conftest.py",
    "manage.py",
    "my_realtime_site/__init__.py",
    "my_realtime_site/__main__.py",
    "my_realtime_site/asgi.py",
    "my_realtime_site/channel_layer.py",
    "my_realtime_site/context_processors.py",
    "my_realtime_site/protocols.py",
    "my_realtime_site/settings.py",
    "my_realtime_site/settings_test.py",
    "my_realtime_site/storage.py",
    "my_realtime_site/urls.py",
    "pyproject.toml",
    "realtime/README.md",
    "realtime/__init__.py",
    "realtime/activity.py",
    "realtime/apps.py",
    "realtime/asgi.py",
    "realtime/authentication.py",
    "realtime/batches.py",
    "realtime/broadcasts.py",
    "realtime/checks.py",
    "realtime/close.py",
    "realtime/conf.py",
    "realtime/consumers.py",
    "realtime/database.py",
    "realtime/fanout.py",
    "realtime/frames.py",
    "realtime/health.py",
    "realtime/layers.py",
    "realtime/limits.py",
    "realtime/management/commands/frames.py",
    "realtime/management/commands/handshake.py",
    "realtime/management/commands/runserver.py",
    "realtime/management/commands/startconsumer.py",
    "realtime/management/commands/startconsumer.txtar",
    "realtime/outage.py",
    "realtime/outbox.py",
    "realtime/process.py",
    "realtime/socket.py",
    "realtime/static/realtime/socket.js",
    "realtime/tasks.py",
    "realtime/testing.py",
    "realtime/tickets.py",
    "realtime/urls.py",
    "realtime/users.py",
    "static/site.css",
    "templates/403.html",
    "templates/403_csrf.html",
    "templates/404.html",
    "templates/500.html",
    "templates/base.html",
]
STARTER_FILES = {
    "minimal": [
        "chat/templates/chat/index.html",
        "chat/tests.py",
    ],
    "chat": [
        "accounts/forms.py",
        "accounts/middleware.py",
        "accounts/migrations/0002_attempts.py",
        "accounts/names.py",
        "accounts/static/accounts/kept.js",
        "accounts/static/accounts/session.js",
        "accounts/static/accounts/texts.js",
        "accounts/templates/accounts/email.html",
        "accounts/templates/accounts/login.html",
        "accounts/templates/accounts/password_change.html",
        "accounts/templates/accounts/password_change_done.html",
        "accounts/templates/accounts/password_reset.html",
        "accounts/templates/accounts/signup.html",
        "accounts/templates/accounts/too_many.html",
        "accounts/tests.py",
        "accounts/urls.py",
        "accounts/views.py",
        "chat/README.md",
        "chat/admin.py",
        "chat/apps.py",
        "chat/feed.py",
        "chat/forms.py",
        "chat/frames.py",
        "chat/management/commands/demo_room.py",
        "chat/migrations/0001_initial.py",
        "chat/migrations/0002_lobby.py",
        "chat/migrations/0003_room_owner.py",
        "chat/migrations/0004_reading_bans_blocks.py",
        "chat/migrations/__init__.py",
        "chat/models.py",
        "chat/presence.py",
        "chat/rooms.py",
        "chat/signals.py",
        "chat/static/chat/composer.js",
        "chat/static/chat/links.js",
        "chat/static/chat/list.js",
        "chat/static/chat/messages.js",
        "chat/static/chat/people.js",
        "chat/static/chat/rooms.js",
        "chat/static/chat/timeline.js",
        "chat/templates/chat/item.html",
        "chat/templates/chat/items.html",
        "chat/templates/chat/list.html",
        "chat/templates/chat/person.html",
        "chat/templates/chat/room.html",
        "chat/templates/chat/rooms.html",
        "chat/tests/conftest.py",
        "chat/tests/test_consumers.py",
        "chat/tests/test_models.py",
        "chat/tests/test_people.py",
        "chat/tests/test_unread.py",
        "chat/tests/test_views.py",
        "chat/unread.py",
        "locale/de/LC_MESSAGES/django.mo",
        "locale/de/LC_MESSAGES/django.po",
        "locale/de/LC_MESSAGES/djangojs.mo",
        "locale/de/LC_MESSAGES/djangojs.po",
        "templates/form.html",
    ],
}
DOCKER_FILES = [
    ".dockerignore",
    "Dockerfile",
    "compose.yaml",
    "deploy/nginx.conf",
]
GITHUB_ACTIONS_FILES = [
    ".github/workflows/ci.yml",
]


@pytest.fixture(params=COMBINATIONS)
def baked(request, cookies):
    """A project as it has just been baked, which a test may change."""
    return cookies.bake(extra_context=request.param).project_path


def files_of(project):
    return sorted(path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file())


def test_every_option_is_combined():
    questions = json.loads((REPOSITORY / "cookiecutter.json").read_text(encoding="utf-8"))
    choices = {name: values for name, values in questions.items() if isinstance(values, list) and name[0] != "_"}
    assert choices == OPTIONS


@pytest.mark.parametrize("answers", ALL, ids=lambda answers: "-".join(answers.values()))
def test_exactly_these_files(cookies, answers):
    project = cookies.bake(extra_context=answers).project_path

    expected = [
        *FILES,
        *STARTER_FILES[answers["starter"]],
        *(DOCKER_FILES if answers["docker"] == "yes" else []),
        *(GITHUB_ACTIONS_FILES if answers["github_actions"] == "yes" else []),
    ]
    assert files_of(project) == sorted(expected)
    assert not [path for path in project.rglob("*") if path.is_dir() and not any(path.iterdir())]


@pytest.mark.parametrize("starter", OPTIONS["starter"])
def test_options_add_files_and_change_nothing_that_runs(cookies, starter):
    """Which is why the second of COMBINATIONS is weekly."""
    answers = ({"starter": starter, "docker": answer, "github_actions": answer} for answer in ("yes", "no"))
    with_all, without = (cookies.bake(extra_context=context).project_path for context in answers)

    changed = {name for name in files_of(without) if (with_all / name).read_bytes() != (without / name).read_bytes()}

    assert changed <= {".env", ".gitignore", "README.md"}


def test_a_default_bake_is_small():
    files = FILES + STARTER_FILES["minimal"] + DOCKER_FILES + GITHUB_ACTIONS_FILES

    # The design wants 75; AGENTS.md, a generator of apps, a doctor and batches have come.
    assert len(files) <= 78
    # The design wants 35: its own list of folders has 37, and settings need four modules beside them.
    assert len([name for name in files if not name.startswith("realtime/")]) <= 45


def test_no_leftover_of_the_template(baked):
    for path in baked.rglob("*"):
        assert "{" not in path.name
        # Compiled translations are no text.
        if path.is_file() and path.suffix != ".mo":
            text = path.read_text(encoding="utf-8")
            assert "cookiecutter" not in text, path
            # HTML has braces of Django's, scripts their own, workflows ${{ }}; a .txtar holds all of them.
            if path.suffix not in {".html", ".js", ".txtar"}:
                assert not re.search(r"(?<!\$)\{\{|\{%|%\}", text), path
            assert text.endswith("\n") or not text, path
            assert "\n\n\n\n" not in text, path


def test_same_answers_same_bytes(cookies):
    first, second = (cookies.bake().project_path for _ in range(2))

    assert [(name, (first / name).read_bytes()) for name in files_of(first)] == [
        (name, (second / name).read_bytes()) for name in files_of(second)
    ]


def test_style(baked):
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["djlint", "--check", "--lint", "."]):
        result = subprocess.run([sys.executable, "-m", *command], cwd=baked, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_checks_and_migrations(baked):
    assert "no issues" in run(baked, "-W", "error", "manage.py", "check").stdout
    assert "No changes" in run(baked, "manage.py", "makemigrations", "--check", "--dry-run").stdout


def test_own_tests_in_a_fresh_clone(baked):
    """They need no .env, and no variable of the shell disturbs them."""
    (baked / ".env").unlink()

    result = run(
        baked, "-m", "pytest", "-W", "error", env={"REDIS_URL": "redis://127.0.0.1:1/0", "DJANGO_ALLOWED_HOSTS": "x"}
    )

    assert re.search(r"\d+ passed in", result.stdout), result.stdout


def edit(project, changes):
    """Put other text into files of a project. changes: dict of dicts, the old text and the new one, by path."""
    for name, replacements in changes.items():
        path = project / name
        text = path.read_text(encoding="utf-8")
        for old, new in replacements.items():
            assert old in text, (name, old)
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("starter", ["minimal", pytest.param("chat", marks=pytest.mark.long)])
def test_chat_can_be_deleted(cookies, starter):
    """As the README says: its tables, its folder, and its lines in three files."""
    baked = cookies.bake(extra_context={"starter": starter}).project_path
    run(baked, "manage.py", "migrate")
    if starter == "chat":
        make = "from accounts.models import User; from chat.models import Membership, Room"
        make += "; Membership.objects.create(room=Room.objects.get(), user=User.objects.create_user('ada'))"
        run(baked, "manage.py", "shell", "--no-imports", "-c", make)
        assert "`manage.py migrate chat zero`" in (baked / "README.md").read_text(encoding="utf-8")
        run(baked, "manage.py", "migrate", "chat", "zero")
    shutil.rmtree(baked / "chat")
    lines = {
        "my_realtime_site/settings.py": ['    "chat",\n'],
        "my_realtime_site/urls.py": ['    path("", include("chat.urls")),\n'],
        "my_realtime_site/asgi.py": [
            "from chat.routing import websocket_urlpatterns  # noqa: E402\n",
            "*websocket_urlpatterns, ",
        ],
    }
    edit(baked, {name: dict.fromkeys(parts, "") for name, parts in lines.items()})

    run(baked, "manage.py", "check")
    run(baked, "manage.py", "migrate")
    delete = "from django.contrib.auth import get_user_model; get_user_model().objects.all().delete()"
    run(baked, "manage.py", "shell", "--no-imports", "-c", delete)
    page = "from django.test import Client; print(Client().get('/', headers={'host': 'localhost'}).status_code)"
    assert "404" in run(baked, "manage.py", "shell", "--no-imports", "-c", page).stdout.splitlines()
    # In a minimal project no other test is left.
    ends, is_chat = (r"\d+ passed in", True) if starter == "chat" else ("no tests ran in", False)
    assert re.search(ends, run(baked, "-m", "pytest", check=is_chat).stdout)


def test_what_django_writes_has_the_style_of_the_project(baked):
    run(baked, "manage.py", "startapp", "bell")
    edit(baked, {"my_realtime_site/settings.py": {'    "chat",\n': '    "chat",\n    "bell",\n'}})
    model = """

class Bell(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, verbose_name="its owner")

    def __str__(self):
        return f"The bell of {self.user}"
"""
    imports = "from django.conf import settings\nfrom django.db import models\n"
    (baked / "bell" / "models.py").write_text(imports + model, encoding="utf-8")
    run(baked, "manage.py", "makemigrations", "bell")

    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command], cwd=baked, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_manage_py_test_runs_the_tests(baked):
    """Of one app: test_own_tests_in_a_fresh_clone runs them all."""
    result = run(baked, "manage.py", "test", "accounts" if (baked / "accounts" / "tests.py").exists() else "chat")

    assert re.search(r"\d+ passed in", result.stdout), result.stdout
    assert run(baked, "manage.py", "test", "nowhere", check=False).returncode != 0


@pytest.mark.long
def test_a_project_with_djangos_user_keeps_it(cookies):
    """By the steps of CHANGELOG.md, on a database that was migrated before."""
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    lines = {"my_realtime_site/settings.py": ['AUTH_USER_MODEL = "accounts.User"\n', '    "accounts",\n']}
    for line in lines["my_realtime_site/settings.py"]:
        assert line.strip() in changelog
    old, new = (cookies.bake().project_path for _ in range(2))
    edit(old, {name: dict.fromkeys(parts, "") for name, parts in lines.items()})
    shutil.rmtree(old / "accounts")
    run(old, "manage.py", "migrate")
    superuser = {"DJANGO_SUPERUSER_PASSWORD": "a horse, a staple"}
    ada = ("--username", "ada", "--email", "ada@example.com")
    run(old, "manage.py", "createsuperuser", "--no-input", *ada, env=superuser)
    shutil.copy(old / "db.sqlite3", new)

    result = run(new, "manage.py", "migrate", check=False)
    assert "InconsistentMigrationHistory" in result.stdout

    edit(new, {name: dict.fromkeys(parts, "") for name, parts in lines.items()})
    shutil.rmtree(new / "accounts")
    assert "No migrations to apply" in run(new, "manage.py", "migrate").stdout
    assert "No changes" in run(new, "manage.py", "makemigrations", "--check", "--dry-run").stdout
    who = "from django.contrib.auth import get_user_model; print(get_user_model().objects.get())"
    assert run(new, "manage.py", "shell", "--no-imports", "-c", who).stdout.split() == ["ada"]
    assert re.search(r"\d+ passed in", run(new, "-m", "pytest").stdout)


def test_the_consumer_is_short(bake):
    lines = (bake() / "chat" / "consumers.py").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= 40


def test_the_plumbing_is_small(bake):
    """What runs in a server process is read in half an hour: lines of code, comments aside."""
    realtime = bake() / "realtime"
    sizes = {path.relative_to(realtime).as_posix(): count_code(path) for path in realtime.rglob("*.py")}
    # Tests, and what manage.py runs: commands and system checks.
    names = [name for name in sizes if name in ("testing.py", "checks.py") or name.startswith("management/")]
    apart = {name: sizes.pop(name) for name in names}

    # The design wants 1,100. Typed frames, tokens, tickets, re-checked logins, owners' limits, batches and turns in a
    # crowd need more.
    assert sum(sizes.values()) <= 1964
    assert max(sizes.values()) <= 200
    # The doctor is one file, since it is copied as one, and grows with each fault that it explains.
    assert apart.pop("management/commands/handshake.py") <= 325
    # A server imports it, too.
    assert apart["checks.py"] <= 200
    assert max(apart.values()) <= 250
    script = count_code(realtime / "static" / "realtime" / "socket.js")
    assert script <= 250
    # As docs/compare.md tells whoever thinks of less.
    compared = (REPOSITORY / "docs" / "compare.md").read_text(encoding="utf-8")
    (python, javascript) = re.search(
        r"some ([\d,]+) lines of Python in each server\s+and a script of (\d+),", compared
    ).groups()
    assert sum(sizes.values()) == pytest.approx(int(python.replace(",", "")), rel=0.05)
    assert script == pytest.approx(int(javascript), rel=0.05)


def count_code(path):
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'""".*?"""|/\*.*?\*/', "", text, flags=re.DOTALL)
    comment = "#" if path.suffix == ".py" else "//"
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith(comment))
