"""What people answer: odd names work, bad answers are refused in one line, and nothing of theirs is lost."""

import ast
import builtins
import functools
import itertools
import json
import keyword
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from combinations import ALL, OPTIONS
from cookiecutter.environment import StrictEnvironment
from history import copy_template
from servers import REPOSITORY, WINDOWS, clean_environ, run

QUESTIONS = json.loads((REPOSITORY / "cookiecutter.json").read_text(encoding="utf-8"))
RESERVED = {name for lines in QUESTIONS["_reserved_names"].values() for line in lines for name in line.split()}

GOOD_NAMES = {
    "My Realtime Site": "my_realtime_site",
    "Acme": "acme",
    "Chat": "chat_site",
    "Django": "django_site",
    "None": "none",
    "List": "list",
    "con": "con_site",
    "2048 game": "site_2048_game",
    "été": "ete",
    "聊天": "liao_tian",
    "🚀 👩\u200d👩\u200d👧": "my_site",
    "?!": "my_site",
    "../evil": "evil",
    " wide  spaces ": "wide_spaces",
    """Tom's "best" site""": "tom_s_best_site",
    '"""': "my_site",
    "C:\\new\\": "c_new",
    "<b>bold</b> & co": "b_bold_b_co",
    "#1 in 100% of \\N{cases} { }": "site_1_in_100_of_n_cases",
    '"); import os; os.system("touch pwned")#': "import_os_os_system_touch_pwned",
    "x" * 300: "x" * 45,
    "x" * 44 + " y": "x" * 44,
}

# The answers that are refused, by option and by words of the message.
BAD_ANSWERS = {
    ("project_name", "1 to 300 characters on one line"): [
        *("", "  ", "two\nlines", "tab\t", "\x1b[31mred", "a\u2028b", "x" * 301),
    ],
    ("project_slug", "1 to 50 lower-case letters, digits and single underscores"): [
        *("", ".", "..", "../evil", "a/b", "a/../..", "a\\b", "C:evil", "acme\n", "-f", "x" * 51, "y" * 300),
        *("None", "Acme", "a-b", "a b", "a.b", "été", "🚀", "2048", "_a", "a_", "a__b", '"""); open("pwned", "w")#'),
    ],
    ("project_slug", "it is the name of a keyword of Python; any other is free"): ["class", "Class"],
    ("project_slug", "it is the name of a module of Python"): ["json"],
    ("project_slug", "it is the name of a package that the project uses"): ["django", "msgspec", "twisted"],
    ("project_slug", "it is the name of a device of Windows"): ["con", "COM1"],
    ("project_slug", "it is the name of a file, folder or service of the project itself"): [
        *("chat", "Chat", "accounts", "templates", "realtime", "deploy", "manage", "tests", "media", "postgres"),
    ],
    ("docker", "['yes', 'no']"): ["podman", ""],
    ("github_actions", "['yes', 'no']"): ["maybe", '"""); open("pwned", "w")#'],
}


def cookiecutter(output_dir, *options, env=None, template=REPOSITORY, start=None, **answers):
    """Run cookiecutter's command line in `start`, or in the folder above `output_dir`; return the CompletedProcess."""
    home = str(output_dir.parents[1] / "home")
    command = [sys.executable, "-m", "cookiecutter", template, "--no-input", "--default-config", *options]
    return subprocess.run(
        [*command, "--output-dir", output_dir, *(f"{option}={answer}" for option, answer in answers.items())],
        cwd=start or output_dir.parent,
        env=clean_environ(HOME=home, USERPROFILE=home, **(env or {})),
        capture_output=True,
        encoding="utf-8",
    )


LINKS = pytest.mark.skipif(WINDOWS, reason="making a link takes a right that few have there")


def contents(folder):
    """Return what is in the folder, save bytecode: the bytes of each file, None for each folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        # Of a bake that another test has run.
        if "__pycache__" not in path.parts
    }


def modified(folder):
    """Return when each file in the folder was written, in ns."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


@functools.cache
def template(variable):
    return StrictEnvironment(context={}, keep_trailing_newline=True).from_string(QUESTIONS[variable])


def render(variable, **answers):
    """Return the value that cookiecutter.json derives for the variable."""
    return template(variable).render(cookiecutter={**QUESTIONS, **answers})


def is_refused(slug):
    """Return whether cookiecutter.json takes the slug out of cookiecutter's hands."""
    answers = {**QUESTIONS, "project_slug": slug}
    template("__slug_guard").render(cookiecutter=answers)
    return answers["project_slug"] != slug


def is_slug(slug):
    return re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", slug) and len(slug) <= 50


@pytest.fixture
def output_dir(tmp_path):
    """The folder to bake in, with files of its owner in and around it."""
    output_dir = tmp_path / "parent" / "out"
    (output_dir / "a").mkdir(parents=True)
    (output_dir / "precious.txt").touch()
    (output_dir.parent / "precious.txt").touch()
    return output_dir


# Good answers


@pytest.mark.parametrize(("name", "slug"), GOOD_NAMES.items(), ids=range(len(GOOD_NAMES)))
def test_slug_of_any_name(name, slug):
    assert render("project_slug", project_name=name) == slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        pytest.param(name, slug, id=f"{number}", marks=[pytest.mark.long] * (number % 3 > 0))
        for number, (name, slug) in enumerate(GOOD_NAMES.items())
    ],
)
def test_any_name_works(cookies, name, slug):
    result = cookies.bake(extra_context={"project_name": name})
    assert result.exception is None
    assert result.project_path.name == slug
    assert is_slug(slug)
    assert slug not in RESERVED

    settings = result.project_path / slug / "settings.py"
    tree = ast.parse(settings.read_text(encoding="utf-8"))
    values = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    assert ast.literal_eval(values["SITE_NAME"]) == name
    subprocess.run([sys.executable, "-m", "ruff", "format", "--check", settings], check=True)


def test_every_reserved_name_gives_a_free_slug():
    for name in RESERVED:
        slug = render("project_slug", project_name=name)
        assert is_slug(slug)
        assert not is_refused(slug)


def test_literals_are_as_ruff_writes_them(tmp_path):
    names = ["".join(letters) for length in range(1, 5) for letters in itertools.product("'\"\\né", repeat=length)]
    literals = [render("__project_name_literal", project_name=name) for name in names]
    assert [ast.literal_eval(literal) for literal in literals] == names

    path = tmp_path / "names.py"
    path.write_text("".join(f"NAME = {literal}\n" for literal in literals), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--isolated", "--check", path], check=True)


def test_same_answers_same_bytes(cookies):
    started = time.perf_counter()
    first, second = (contents(cookies.bake(extra_context={"project_name": "Été"}).project_path) for _ in range(2))
    print(f"one bake: {(time.perf_counter() - started) / 2:.2f} s")
    assert first == second


# Bad answers


@pytest.mark.parametrize(
    ("option", "allowed", "answer"),
    [
        pytest.param(
            option,
            allowed,
            answer,
            id=f"{option}-{answer[:20]!a}",
            # Of each kind two; test_any_answers of test_random_answers.py has all of them, in one process.
            marks=[pytest.mark.long] * (number > 1),
        )
        for (option, allowed), answers in BAD_ANSWERS.items()
        for number, answer in enumerate(answers)
    ],
)
def test_bad_answer_is_refused(output_dir, option, allowed, answer):
    before = contents(output_dir.parent)
    result = cookiecutter(output_dir, **{option: answer})
    assert result.returncode == 1
    assert contents(output_dir.parent) == before
    if option in {"docker", "github_actions"}:
        # cookiecutter itself looks at choices; its message ends a traceback.
        message, shown = result.stderr.splitlines()[-1], answer
    else:
        (message,), shown = result.stderr.splitlines(), repr(answer)[:10]
    assert option in message
    assert shown in message
    assert allowed in message


@pytest.mark.parametrize("slug", ["", ".", "..", "../out", "chat", "A"])
def test_bad_slug_overwrites_nothing(output_dir, slug):
    (output_dir / "chat").mkdir()
    before = contents(output_dir.parent)
    result = cookiecutter(output_dir, "--overwrite-if-exists", project_slug=slug)
    assert f"project_slug {slug!r} is refused" in result.stderr
    assert contents(output_dir.parent) == before


def test_message_survives_a_poor_terminal(output_dir):
    result = cookiecutter(output_dir, project_slug="🚀", env={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert "project_slug '\\U0001f680' is refused" in result.stderr.splitlines()[0]


def test_next_steps_survive_a_poor_terminal(output_dir):
    result = cookiecutter(output_dir / "聊天", env={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"(?m)^    cd .*\\u804a\\u5929", result.stdout)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
def test_characters_that_no_command_line_holds(cookies, capfd, name):
    result = cookies.bake(extra_context={"project_name": name})
    assert result.exception is not None
    assert f"project_name {name!r} is refused" in capfd.readouterr().err


@pytest.mark.parametrize("slug", ["Chat", "2048", "🚀", "My-Project", "x" * 60])
def test_suggested_slug_is_allowed(output_dir, slug):
    suggestion = cookiecutter(output_dir, project_slug=slug).stderr.strip().rpartition("for example ")[2]
    assert is_slug(suggestion)
    assert suggestion not in RESERVED


@pytest.mark.parametrize("slug", ["..", "missing/..", "missing/../precious"])
def test_paths_that_cookiecutter_would_delete(output_dir, slug):
    # Their first half is missing, so that cookiecutter takes them for new, and removes them when a hook fails.
    (output_dir / "precious").mkdir()
    (output_dir / "precious" / "file.txt").touch()
    before = contents(output_dir)
    assert cookiecutter(output_dir, project_slug=slug).returncode == 1
    assert contents(output_dir) == before
    assert cookiecutter(output_dir / "new", project_slug=slug).returncode == 1
    assert contents(output_dir) == {**before, "new": None}


# Reserved names


def test_reserved_names_are_refused():
    for name in RESERVED:
        assert is_slug(name)
        assert is_refused(name)


def test_reserved_names_are_in_order():
    names = [" ".join(lines).split(" ") for lines in QUESTIONS["_reserved_names"].values()]
    assert names == [sorted(set(group)) for group in names]
    assert sum(map(len, names)) == len(RESERVED)


def test_python_names_are_reserved():
    names = {*keyword.kwlist, *sys.stdlib_module_names}
    assert {name for name in names if is_slug(name)} - RESERVED == set()


def test_installed_names_are_reserved(bake):
    """A package beside manage.py comes before those that are installed; uv lets no project depend on its own name."""
    script = """if True:
        import json, re
        from importlib.metadata import distributions, packages_distributions

        names = [re.sub("[-_.]+", "_", distribution.name) for distribution in distributions()]
        print(json.dumps([*names, *packages_distributions()]))
    """
    names = json.loads(run(bake(), "-c", script).stdout)
    assert {"django", "PyYAML", "yaml", "msgspec"} <= set(names)
    assert {name.lower() for name in names if is_slug(name.lower())} - RESERVED == set()


def test_names_that_packages_do_without_are_reserved(bake):
    """Where redis finds a hiredis, be it our package of settings, no process with a REDIS_URL starts."""
    script = """if True:
        import importlib, json, sys

        class Finder:
            def find_spec(name, path=None, target=None):
                missing.append(name)

        missing = []
        sys.meta_path.append(Finder)
        import django
        django.setup()
        for name in sys.argv[1:]:
            importlib.import_module(name)
        print(json.dumps(missing))
    """
    project = bake(starter="chat")
    name = project.name
    modules = [f"{name}.asgi", f"{name}.__main__", f"{name}.protocols", "uvicorn.supervisors", "pytest"]
    environ = {"DJANGO_SETTINGS_MODULE": f"{name}.settings", "DJANGO_DEBUG": "true"}
    environ |= {"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgres://127.0.0.1:1/site"}
    missing = set(json.loads(run(project, "-c", script, *modules, env=environ).stdout))
    assert {"a2wsgi", "hiredis"} <= missing
    # Those that are imported later, by `manage.py shell`, or looked for in sys.modules, by pytest.approx().
    missing |= {"bpython", "numpy"}
    assert {name for name in missing if is_slug(name)} - RESERVED == set()


@pytest.mark.parametrize("starter", OPTIONS["starter"])
def test_names_in_the_project_are_reserved(bake, starter):
    project = bake(starter=starter)
    names = {path.stem for path in project.iterdir() if path.is_dir() or path.suffix == ".py"} - {project.name}
    # What git or the image would leave out, and the images of compose.yaml, which one of the project's would replace.
    for name, pattern in {
        ".gitignore": r"/?(?:\*\*/)?(\w+)/",
        ".dockerignore": r"/?(?:\*\*/)?(\w+)/",
        "compose.yaml": r" *image: (?:\w+/)?(\w+):.*",
    }.items():
        found = re.findall(f"(?m)^{pattern}$", (project / name).read_text(encoding="utf-8"))
        assert found
        names.update(found)
    assert {name for name in names if is_slug(name)} - RESERVED == set()


def test_names_that_harm_nothing_are_free():
    harmful = {*keyword.kwlist, *sys.stdlib_module_names}
    assert {name.lower() for name in {*dir(builtins), *keyword.softkwlist}} & RESERVED <= harmful
    assert {"admin", "auth", "sessions", "settings", "docs", "test"} & RESERVED == set()


@pytest.mark.parametrize("slug", ["print", "match", "auth"])
def test_a_project_with_the_name_of_a_builtin_works(bake, slug):
    project = bake(project_slug=slug)
    assert "no issues" in run(project, "-W", "error", "manage.py", "check").stdout
    assert "usage:" in run(project, "-m", slug, "--help").stdout


# What is kept, what is removed, and what is printed


@pytest.mark.parametrize("options", [["-f"], ["-f", "-s"]], ids=" ".join)
def test_env_is_written_once(output_dir, options):
    assert cookiecutter(output_dir).returncode == 0
    env = output_dir / "my_realtime_site" / ".env"
    assert env.read_bytes() == env.with_name(".env.example").read_bytes()

    env.write_text("DJANGO_SECRET_KEY=mine\n")
    assert cookiecutter(output_dir, *options).returncode == 0
    assert env.read_text() == "DJANGO_SECRET_KEY=mine\n"


@LINKS
def test_links_that_lead_nowhere_are_the_owners_too(output_dir):
    """Such as one to a secret that is there on the server only."""
    assert cookiecutter(output_dir).returncode == 0
    project = output_dir / "my_realtime_site"
    for name in (".env", "chat/routing.py"):
        (project / name).unlink()
        (project / name).symlink_to("not_there")
    linked = links(project)

    assert cookiecutter(output_dir, "-f", "-s").returncode == 0
    assert links(project) == linked
    assert cookiecutter(output_dir, "-f").returncode == 0
    assert list(links(project)) == [Path(".env")]


# With each starter all options and none; the others, which add and remove single ones of these files, take long.
OVER_A_PROJECT = pytest.mark.parametrize(
    "answers",
    [
        pytest.param(
            answers,
            id="-".join(answers.values()),
            marks=[pytest.mark.long] * (answers["docker"] != answers["github_actions"]),
        )
        for answers in ALL
    ],
)


@pytest.fixture(params=["minimal", "chat"])
def owned(request, bake, output_dir):
    """A baked project whose owner has edited every file and added some, also where the template has folders."""
    project = shutil.copytree(bake(starter=request.param), output_dir / "my_realtime_site")
    for path in project.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"# mine\n")
            # A time long ago shows which files are written again.
            os.utime(path, (1, 1))
    for name in (".github/CODEOWNERS", "deploy/mine.conf", "starters/chat/mine.py", "starters/probe", "chat/mine.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("mine\n")
    (project / "media").mkdir()
    return project


@OVER_A_PROJECT
def test_overwrite_and_skip_change_no_file_of_the_owner(bake, output_dir, owned, answers):
    before, times = contents(owned), modified(owned)

    assert cookiecutter(output_dir, "--overwrite-if-exists", "--skip-if-file-exists", **answers).returncode == 0

    after = contents(owned)
    assert times.items() <= modified(owned).items()
    assert after == contents(bake(**answers)) | before


@OVER_A_PROJECT
def test_overwrite_changes_the_files_of_the_answers_only(bake, output_dir, owned, answers):
    before = contents(owned)

    assert cookiecutter(output_dir, "--overwrite-if-exists", **answers).returncode == 0

    fresh = contents(bake(**answers))
    del fresh[".env"]
    assert contents(owned) == before | fresh


@pytest.mark.parametrize("options", [[], ["--skip-if-file-exists"]], ids=["none", "skip"])
def test_a_project_that_exists_is_left_alone_without_overwrite(output_dir, owned, options):
    before = contents(output_dir)
    result = cookiecutter(output_dir, *options)
    assert result.returncode == 1
    assert "already exists" in result.stdout
    assert contents(output_dir) == before


@pytest.mark.parametrize("start", [REPOSITORY, REPOSITORY.parent])
def test_the_template_may_be_given_by_a_relative_path(output_dir, start):
    """Hooks run in the project's folder, and are told the path as it was given."""
    given = {"start": start, "template": REPOSITORY.relative_to(start), "env": {"PWD": str(start)}}
    in_the_way = output_dir / "my_realtime_site" / "realtime" / "management"

    result = cookiecutter(output_dir, **given)
    assert result.returncode == 0, result.stdout + result.stderr

    shutil.rmtree(in_the_way)
    in_the_way.touch()
    result = cookiecutter(output_dir, "--overwrite-if-exists", **given)
    assert result.returncode != 0
    assert "realtime/management is a file" in result.stderr


def test_a_bake_without_hooks_says_what_is_missing(output_dir):
    """None of the template's code runs then: all that can speak is a file."""
    assert cookiecutter(output_dir, "--accept-hooks", "no").returncode == 0

    (note,) = (output_dir / "my_realtime_site" / "placed-by-hook").glob("*.txt")

    assert "without `--accept-hooks no`" in note.read_text(encoding="utf-8")


def test_files_that_the_owner_deleted_come_back(output_dir):
    assert cookiecutter(output_dir).returncode == 0
    project = output_dir / "my_realtime_site"
    before = contents(project)
    for name in ("chat/routing.py", "Dockerfile", "manage.py", ".github/workflows/ci.yml"):
        (project / name).unlink()
    assert cookiecutter(output_dir, "-f", "-s").returncode == 0
    assert contents(project) == before


IN_THE_WAY = {
    "Dockerfile/": "Dockerfile is a folder, and a file of that name belongs there: rename it",
    "manage.py/": "manage.py is a folder, and a file of that name belongs there: rename it",
    "realtime": "realtime is a file, and a folder of that name belongs there: rename it",
    "deploy": "deploy is a file, and a folder of that name belongs there: rename it",
    # cookiecutter itself leaves out the file without a word, and ends half-way with a traceback.
    "realtime/consumers.py/": "realtime/consumers.py is a folder, and a file of that name belongs there: rename it",
    "realtime/management": "realtime/management is a file, and a folder of that name belongs there: rename it",
    "my_realtime_site/urls.py/": "my_realtime_site/urls.py is a folder, and a file of that name belongs there: "
    "rename it",
    "placed-by-hook/": "placed-by-hook is in the way, perhaps of a bake that was killed: remove or rename that folder",
}


@LINKS
@pytest.mark.parametrize("name", ["realtime", "deploy"])
def test_a_link_that_is_in_the_way_is_named(output_dir, name):
    """One that leads nowhere, so that no folder can be made there."""
    project = output_dir / "my_realtime_site"
    project.mkdir()
    (project / name).symlink_to("not_there")

    result = cookiecutter(output_dir, "-f")

    assert result.stderr.splitlines() == [IN_THE_WAY[name]]
    assert [path.name for path in project.iterdir()] == [name]


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_the_way_is_named(output_dir, name):
    project = output_dir / "my_realtime_site"
    in_the_way = project / name
    if name.endswith("/"):
        in_the_way.mkdir(parents=True)
        (in_the_way / "mine.txt").touch()
    else:
        in_the_way.parent.mkdir(parents=True)
        in_the_way.touch()
    before = contents(project)

    result = cookiecutter(output_dir, "-f")

    assert result.returncode == 1
    assert result.stderr.splitlines() == [IN_THE_WAY[name]]
    assert contents(project) == before


@pytest.mark.parametrize("options", [["-f"], ["-f", "-s"]], ids=" ".join)
def test_a_bake_that_fails_half_way_puts_everything_back(output_dir, tmp_path, options):
    """The disk is full, say, when the hook moves chat/urls.py."""
    assert cookiecutter(output_dir).returncode == 0
    project = output_dir / "my_realtime_site"
    (project / "chat" / "consumers.py").write_text("# mine\n")
    shutil.rmtree(project / "chat" / "static")
    (project / "chat" / "urls.py").unlink()
    # cookiecutter itself writes these, before the hook.
    for name in ("README.md", "my_realtime_site/settings.py", "realtime/consumers.py"):
        (project / name).write_text("# mine\n")
    (project / "realtime" / "mine.py").write_text("# mine\n")
    (project / "manage.py").unlink()
    shutil.rmtree(project / "realtime" / "management")
    before = contents(output_dir)
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK)

    result = cookiecutter(output_dir, *options, env={"PYTHONPATH": str(tmp_path)})

    assert result.returncode == 1
    (message,) = result.stderr.splitlines()
    assert message.endswith("No space left on device")
    assert contents(output_dir) == before


def links(folder):
    """Return where each link in the folder leads."""
    return {path.relative_to(folder): path.readlink() for path in folder.rglob("*") if path.is_symlink()}


@LINKS
def test_a_bake_that_fails_half_way_leaves_links_and_modes_alone(output_dir, tmp_path):
    """cookiecutter writes into the file that a link leads to."""
    assert cookiecutter(output_dir).returncode == 0
    project = output_dir / "my_realtime_site"
    read_only = project / "mine.txt"
    for path in (project / "docs.md", project / "consumers.py", read_only):
        path.write_text("# mine\n")
    read_only.chmod(0o444)
    for name, target in {
        "README.md": "docs.md",
        "AGENTS.md": "not_there.md",
        "realtime/consumers.py": "../consumers.py",
        "realtime/mine.py": "not_there.py",
        "chat/routing.py": "not_there.py",
    }.items():
        (project / name).unlink(missing_ok=True)
        (project / name).symlink_to(target)
    (project / "chat" / "urls.py").unlink()
    # No business of a bake: it may lead to what only root can read.
    (project / "realtime" / "secret.py").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("# root's\n")
    before, linked = contents(output_dir), links(output_dir)
    assert len(linked) == 6
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK + SECRET)

    result = cookiecutter(output_dir, "-f", env={"PYTHONPATH": str(tmp_path)})

    assert result.stderr.endswith("No space left on device\n")
    assert links(output_dir) == linked
    assert contents(output_dir) == before
    assert not read_only.stat().st_mode & stat.S_IWUSR


FULL_DISK = """
import shutil

move = shutil.move

def move_until_full(source, target):
    if target.as_posix() == "chat/urls.py":
        raise OSError("No space left on device")
    return move(source, target)

shutil.move = move_until_full
"""

SECRET = """
import os
copyfile = shutil.copyfile

def copyfile_as_nobody(source, target, **options):
    if os.path.basename(source) == "secret.py" and options.get("follow_symlinks", True):
        raise PermissionError("secret.py")
    return copyfile(source, target, **options)

shutil.copyfile = copyfile_as_nobody
"""


def test_a_bake_that_cannot_begin_leaves_nothing(output_dir, tmp_path):
    """The disk is full when the files are kept that cookiecutter writes over."""
    assert cookiecutter(output_dir).returncode == 0
    before = contents(output_dir)
    (tmp_path / "sitecustomize.py").write_text(
        "import shutil\ndef copy2(*args, **options): raise OSError('No space left on device')\nshutil.copy2 = copy2"
    )

    result = cookiecutter(output_dir, "-f", env={"PYTHONPATH": str(tmp_path)})

    assert result.stderr.splitlines() == ["the project's folder cannot be written to: No space left on device"]
    assert contents(output_dir) == before


def test_a_bake_that_fails_leaves_no_folder(output_dir, tmp_path):
    before = contents(output_dir)
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK)
    assert cookiecutter(output_dir, env={"PYTHONPATH": str(tmp_path)}).returncode == 1
    assert contents(output_dir) == before


def test_files_of_a_read_only_template_can_be_edited(output_dir, tmp_path):
    copy_template(tmp_path / "template")
    for path in (tmp_path / "template").rglob("*"):
        if path.is_file():
            path.chmod(0o444)

    assert cookiecutter(output_dir, template=tmp_path / "template").returncode == 0

    modes = {path.name: path.stat().st_mode for path in output_dir.rglob("*") if path.is_file()}
    assert [name for name, mode in modes.items() if not mode & stat.S_IWUSR] == []


def test_what_is_copied_lies_in_the_staging_folder():
    """cookiecutter copies it over what is there, --skip-if-file-exists or not."""
    template = REPOSITORY / "{{cookiecutter.project_slug}}"
    copied = [
        path.relative_to(template).as_posix()
        for pattern in QUESTIONS["_copy_without_render"]
        for path in template.rglob(pattern.removeprefix("*/"))
    ]
    assert copied
    assert [name for name in copied if not name.startswith("placed-by-hook/")] == []


def test_the_hook_knows_what_is_written_in_place():
    template = REPOSITORY / "{{cookiecutter.project_slug}}"
    hook = (REPOSITORY / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    names = re.search('WRITTEN_IN_PLACE = """(.*?)"""', hook, re.DOTALL)[1].replace("{{ ", "{{").replace(" }}", "}}")
    written = {f"{path.name}/" if path.is_dir() else path.name for path in template.iterdir()}
    assert set(names.split()) == written - {"placed-by-hook/"}


def test_staged_folders_are_named_after_answers():
    staging = REPOSITORY / "{{cookiecutter.project_slug}}" / "placed-by-hook"
    answers = {f"{question}={answer}" for question, choices in OPTIONS.items() for answer in choices}
    assert {path.name for path in staging.iterdir() if path.is_dir()} <= {"always", *answers}


def test_refused_answer_leaves_an_existing_project_alone(output_dir):
    assert cookiecutter(output_dir).returncode == 0
    before = contents(output_dir)
    assert cookiecutter(output_dir, "-f", project_name="").returncode == 1
    assert cookiecutter(output_dir).returncode == 1
    assert contents(output_dir) == before


def test_without_github_actions(output_dir):
    assert cookiecutter(output_dir, github_actions="no").returncode == 0
    assert not (output_dir / "my_realtime_site" / ".github").exists()


def test_without_docker(output_dir):
    assert cookiecutter(output_dir, docker="no").returncode == 0
    project = output_dir / "my_realtime_site"
    assert not (project / "deploy").exists()
    mentions = [path for path in project.rglob("*") if path.is_file() and "docker" in path.read_text("utf-8").lower()]
    assert [path.name for path in mentions] == []
    workflow = (project / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert re.findall(r"(?m)^  (\w+):$", workflow.partition("jobs:")[2]) == ["test", "vulnerabilities", "news"]
    assert workflow.endswith('--body-file "$RUNNER_TEMP/body.md"\n')


def path_with(folder, *commands):
    """Return a PATH on which nothing but the commands is found."""
    folder.mkdir()
    for command in commands:
        path = folder / (f"{command}.bat" if WINDOWS else command)
        path.touch()
        path.chmod(0o755)
    return str(folder)


def test_next_steps_with_uv(output_dir, tmp_path):
    env = {"PATH": path_with(tmp_path / "bin", "uv"), "PWD": str(output_dir)}
    assert cookiecutter(output_dir, env=env).stdout.splitlines() == [
        "",
        "my_realtime_site is ready. Start it with:",
        "",
        "    cd my_realtime_site",
        "    uv run manage.py migrate",
        "    uv run manage.py runserver",
        "",
        "Then open http://127.0.0.1:8000/ in the browser. README.md says which files to edit first.",
    ]


def test_next_steps_without_uv(output_dir, tmp_path):
    env = {"PATH": path_with(tmp_path / "bin"), "PWD": str(output_dir)}
    python = r".venv\Scripts\python" if WINDOWS else ".venv/bin/python"
    assert commands_of(cookiecutter(output_dir, env=env)) == [
        "cd my_realtime_site",
        "py -m venv .venv" if WINDOWS else "python3 -m venv .venv",
        f"{python} -m pip install -U pip",
        f"{python} -m pip install -e .",
        f"{python} -m pip install --group dev",
        f"{python} manage.py migrate",
        f"{python} manage.py runserver",
    ]


def commands_of(result):
    """Return the indented lines that a bake printed, without their indentation."""
    return [line.strip() for line in result.stdout.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("shell", [None, "elsewhere"])
def test_steps_begin_with_a_path_to_type(tmp_path, shell):
    output_dir = tmp_path / "parent" / "Tom's sites"
    output_dir.mkdir(parents=True)
    project = output_dir / "my_realtime_site"
    step = commands_of(cookiecutter(output_dir, env={"PWD": shell or ""}))[0]
    assert step == (f'cd "{project}"' if WINDOWS else f"cd {shlex.quote(str(project))}")
