"""`manage.py startconsumer NAME`: an app that works without another edit, whatever its owner has done to the files."""

import difflib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from browser import box, expect, messages, notice, open_browser, send, visits
from clients import open_client
from combinations import OPTIONS
from servers import Server, run

LONGEST = "a_name_of_40_letters_abcdefghijklmnopqrs"
# One after the other in one project: imports have to stay sorted, and nothing to meet a name of Python or of the chat.
NAMES = ["live_scores", "notifications", "room2", "room10", "a", "zebra", "lobby", "match", "x2_y3", LONGEST]
FEW = ["live_scores", "room2", "room10", "zebra", "lobby", LONGEST]

ALLOWED = (
    "1 to 40 lower-case letters, digits and single underscores between them, a letter first, for example live_scores"
)
REFUSED = {
    "class": "it is a keyword of Python",
    "json": "it is a module of Python",
    "django": "it is a module that is installed",
    "conftest": "it is a module that is installed",
    "chat": "it is an app in INSTALLED_APPS",
    "messages": "it is an app in INSTALLED_APPS",
    "my_realtime_site": "it is a file or folder of the project",
    "templates": "it is a file or folder of the project",
    "notes": "it is a file or folder of the project",
    **dict.fromkeys(["about", "faq"], "it is the address of a page"),
    **dict.fromkeys(["orders", "bills"], "it is the address of a socket"),
    "staticfiles": "it is an app in INSTALLED_APPS",
    # The server's, those of tools and the devices of Windows.
    **dict.fromkeys("healthz htmlcov media psycopg tests build dist node_modules".split(), "it is reserved"),
    **dict.fromkeys("aux con nul prn com1 com9 lpt1 lpt9".split(), "it is reserved"),
    **dict.fromkeys(
        ["Board", "", "1a", "a__b", "_a", "a_", "a-b", "a.b", "../a", "é", "\uff41", "a\n", "a" * 41], ALLOWED
    ),
}

SETTINGS, ASGI, URLS = (f"my_realtime_site/{name}.py" for name in ("settings", "asgi", "urls"))
# What the command adds for the app "notes" to the files as they are baked.
APP = '    "notes",\n'
IMPORT = "from notes import routing as notes_routing  # noqa: E402\n"
SOCKETS = (
    "                    URLRouter([*notes_routing.websocket_urlpatterns, *websocket_urlpatterns, unknown_path]),\n"
)
NEW_SOCKETS = "*notes_routing.websocket_urlpatterns, "
PAGE = '    path("notes/", include("notes.urls")),\n'
ADDED = {SETTINGS: [APP], ASGI: [IMPORT, SOCKETS], URLS: [PAGE]}

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


@pytest.fixture
def project(bake, tmp_path):
    """A project of the minimal starter, to be changed."""
    return shutil.copytree(bake(), tmp_path / "project")


@pytest.fixture(params=["minimal", pytest.param("chat", marks=pytest.mark.long)])
def either(request, bake, tmp_path):
    """A project of each starter, to be changed."""
    return shutil.copytree(bake(starter=request.param), tmp_path / "project")


def start(project, *arguments):
    """Run the command, and return what it printed."""
    return run(project, "manage.py", "startconsumer", *arguments).stdout


def contents(project):
    """Return what is in a project, save what running it leaves: dict by path of bytes, or None for a folder."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(project.rglob("*"))
        if "__pycache__" not in path.parts and ".sqlite3" not in path.name
    }


def is_chat(project):
    return (project / "chat" / "migrations").exists()


def style_of(project):
    """Return what ruff has to say, which should be nothing."""
    commands = (["check", "--quiet"], ["format", "--check", "--quiet"])
    results = (
        subprocess.run([sys.executable, "-m", "ruff", *command], cwd=project, capture_output=True, text=True)
        for command in commands
    )
    return "".join(result.stdout + result.stderr for result in results)


def change(project, name, *replacements):
    """Replace texts in a file: pairs of the old one and the new one, each of which is there once."""
    text = (project / name).read_bytes().decode()
    for old, new in replacements:
        assert text.count(old) == 1, (name, old)
        text = text.replace(old, new)
    (project / name).write_bytes(text.encode())


# What comes out


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (starter, names),
            id=f"{starter}-{len(names)}",
            marks=[pytest.mark.weekly] * (names is NAMES) + [pytest.mark.long] * (starter == "chat"),
        )
        for names in (FEW, NAMES)
        for starter in OPTIONS["starter"]
    ],
)
def grown(request, bake, tmp_path_factory):
    """
    A project of each starter in which apps have been started.

    Return its Path, the names of the apps, and what ruff said after each.
    """
    starter, names = request.param
    project = shutil.copytree(bake(starter=starter), tmp_path_factory.mktemp("grown") / "project")
    if starter == "chat":
        # Where the longest comes first, the line of the sockets is broken at once.
        names = names[::-1]
    said = []
    for name in names:
        assert "by hand" not in start(project, name)
        said.append(style_of(project))
    run(project, "manage.py", "migrate")
    return project, names, said


@pytest.fixture(scope="module")
def server(grown):
    with Server(grown[0]) as server:
        yield server


def test_the_style_is_that_of_the_project(grown):
    project, names, said = grown
    assert said == [""] * len(names)
    djlint = [sys.executable, "-m", "djlint", "--check", "--lint", "."]
    result = subprocess.run(djlint, cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_checks_are_silent(grown):
    assert "no issues" in run(grown[0], "-W", "error", "manage.py", "check").stdout
    assert "No changes" in run(grown[0], "manage.py", "makemigrations", "--check", "--dry-run").stdout


def test_three_tests_of_each_pass(grown):
    project, names, _ = grown
    result = run(project, "-m", "pytest", "-W", "error", *names)

    assert f"{3 * len(names)} passed in" in result.stdout


def test_the_frames_of_all_are_told_apart(grown, bake):
    project, names, _ = grown
    starter = "chat" if is_chat(project) else "minimal"
    before, after = (
        run(path, "manage.py", "frames", "--typescript").stdout for path in (bake(starter=starter), project)
    )

    assert {f"/ws/{name}/" for name in names} <= set(re.findall(r"Consumer at (\S+) sends", after))
    # A second class of the same name would rename the types of the chat, on which a page may rely.
    assert set(re.findall(r"export type (\w+)", before)) <= set(re.findall(r"export type (\w+)", after))
    # So have those that all share.
    shared = ["ConnectionEstablished", "Pong", "ErrorFrame", "Wait"]
    assert re.search(r"export type ZebraConsumerSends = (.+);", after)[1].split(" | ") == [*shared, "ZebraMessage"]


def test_every_page_is_served_and_every_socket_greets(grown, server):
    for name in grown[1]:
        page = httpx.get(f"{server.url}{name}/")
        assert page.status_code == 200
        assert f'data-socket-path="/ws/{name}/"' in page.text
        assert httpx.get(f"{server.url}static/{name}/{name}.js").status_code == 200
        with open_client(server, path=f"ws/{name}/") as first, open_client(server, path=f"ws/{name}/") as second:
            first.send({"type": "message", "text": name})
            for client in (first, second):
                assert client.receive() == {"type": "message", "text": name}


def test_nobody_else_hears_it(server):
    """The minimal chat, which lets everybody in, has a group called lobby, too."""
    paths = ["ws/zebra/"] if is_chat(server.directory) else ["ws/zebra/", "ws/socket-server/"]
    with open_client(server, path="ws/lobby/") as client:
        for path in paths:
            with open_client(server, path=path) as stranger:
                client.send({"type": "message", "text": "Hello"})
                client.receive()
                stranger.ping()


def test_two_tabs(visit, server):
    first, second = (visit(f"{server.url}live_scores/") for _ in range(2))
    expect(first).to_have_title(re.compile("^Live scores . My Realtime Site$"))
    expect(box(first)).to_be_focused()

    send(first, "3 : 1")
    expect(messages(second)).to_have_text(["3 : 1"])
    send(second, "¡Hola! <b>👋</b> مرحبا")

    for page in (first, second):
        expect(messages(page)).to_have_text(["¡Hola! <b>👋</b> مرحبا", "3 : 1"])
        expect(box(page)).to_have_value("")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # What is typed offline is sent later, once, and until then a notice says so.
    first.context.set_offline(True)
    expect(first.get_by_role("status")).to_have_text("reconnecting…")
    send(first, "later")
    expect(notice(first)).to_contain_text("as soon as the connection is back")
    first.context.set_offline(False)
    expect(first.get_by_role("status")).to_have_text("connected")
    for page in (first, second):
        expect(messages(page).first).to_have_text("later")
    expect(notice(first)).to_be_empty()


def test_what_is_printed(project):
    # On Linux the folder of temporary files is another file system often, from which nothing can be renamed.
    env = {"TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else {}
    *lines, last = run(project, "manage.py", "startconsumer", "notes", env=env).stdout.splitlines()

    new = ["__init__.py", "consumers.py", "routing.py", "urls.py", "views.py", "tests.py"]
    new += ["templates/notes/index.html", "static/notes/notes.js"]
    old = SOCKETS.replace(NEW_SOCKETS, "")
    changed = {SETTINGS: [f"+ {APP}"], ASGI: [f"+ {IMPORT}", f"- {old}", f"+ {SOCKETS}"], URLS: [f"+ {PAGE}"]}
    expected = [f"new      notes/{name}" for name in new]
    for name, parts in changed.items():
        expected += [f"changed  {name}", *(f"    {part.rstrip()}" for part in parts)]
    assert lines == expected
    assert (
        last == "Edit notes/consumers.py first. The page is http://127.0.0.1:8000/notes/, and `pytest notes` tests it."
    )


def test_a_dry_run_only_shows(project):
    before = contents(project)

    shown = start(project, "notes", "--dry-run").splitlines()

    assert contents(project) == before
    assert shown[:-1] == start(project, "notes").splitlines()[:-1]
    assert shown[-1] == "Nothing was written: this was a dry run."


# What is refused


def test_a_bad_name_is_refused_in_one_line(project):
    (project / "notes").write_text("A file of the owner's.")
    pages = 'path("about/", lambda request: HttpResponse()), re_path("^faq/$", lambda request: HttpResponse()),'
    change(
        project,
        URLS,
        ("import include, path\n", "import include, path, re_path\n"),
        ("urlpatterns = [\n", f"urlpatterns = [\n    {pages}\n"),
    )
    sockets = 'path("ws/orders/", ChatConsumer.as_asgi()), re_path("^ws/bills/$"'
    change(
        project,
        "chat/routing.py",
        ("import path\n", "import path, re_path\n"),
        ('path("ws/socket-server/"', sockets),
    )
    before = contents(project)
    code = f"""
import json
from django.core.management import CommandError, call_command
said = {{}}
for name in {list(REFUSED)!r}:
    try:
        call_command("startconsumer", name)
    except CommandError as error:
        said[name] = str(error)
print(json.dumps(said))
"""

    # Before it stands what is printed when one is not refused.
    said = json.loads(run(project, "manage.py", "shell", "--no-imports", "-c", code).stdout.splitlines()[-1])

    assert list(said) == list(REFUSED)
    for name, reason in REFUSED.items():
        assert " is refused: " in said[name]
        assert "\n" not in said[name]
        assert reason in said[name]
    assert said["class"] == "'class' is refused: it is a keyword of Python; any other is free, for example live_scores"
    assert contents(project) == before
    result = run(project, "manage.py", "startconsumer", "class", check=False)
    assert (result.returncode, result.stdout) == (1, f"CommandError: {said['class']}\n")


def test_a_second_one_of_the_same_name_is_refused(project):
    start(project, "notes")
    before = contents(project)

    result = run(project, "manage.py", "startconsumer", "notes", check=False)

    assert result.returncode == 1
    assert "it is an app in INSTALLED_APPS" in result.stdout
    assert contents(project) == before


def test_a_pattern_that_takes_every_path_is_no_page(project):
    everything = "    path('<path:page>', lambda request, page: HttpResponse('everything')),\n"
    change(project, URLS, ("urlpatterns = [\n", f"urlpatterns = [\n{PAGE.replace('notes', 'chat')}{everything}"))

    start(project, "notes")

    page = "from django.test import Client; print(Client().get('/notes/', headers={'host': 'localhost'}).content)"
    assert "data-socket-path" in run(project, "manage.py", "shell", "--no-imports", "-c", page).stdout


def test_a_path_that_takes_every_socket_is_behind_it(project):
    """As the tutorial's is, which has the name of a room in it."""
    change(project, "chat/routing.py", ('"ws/socket-server/"', '"ws/<str:room>/"'))

    start(project, "notes")

    first = """
from realtime.checks import default_routes
print(next(route.lookup_str for route in default_routes() if route.pattern.match("ws/notes/")))
"""
    assert "notes.consumers" in run(project, "manage.py", "shell", "--no-imports", "-c", first).stdout


def test_nothing_is_left_where_a_file_cannot_be_written(project):
    before = contents(project)
    code = """
from pathlib import Path
from django.core.management import call_command
write_bytes = Path.write_bytes
def fail(path, data):
    write_bytes(path, data[:9])
    if path.name == "urls.py" and b"notes" in data:
        raise OSError("No space left on device")
    write_bytes(path, data)
Path.write_bytes = fail
call_command("startconsumer", "notes")
"""

    result = run(project, "manage.py", "shell", "--no-imports", "-c", code, check=False)

    assert result.stdout.endswith("CommandError: Nothing was written: No space left on device\n")
    assert contents(project) == before


# What an owner has edited


def some_of(cases, *quick):
    """Return the parametrization by `cases`, a dict by name; each runs the command, so that the others are long."""
    marks = {name: [] if name in quick else [pytest.mark.long] for name in cases}
    assert {*quick} <= {*cases}
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=name, marks=marks[name]) for name, case in cases.items()]
    )


def lines_added(before, after):
    """Return the lines, str with their ends, that `after` has beside those of `before`, bytes; none may be gone."""
    diff = list(difflib.ndiff(*(text.decode().splitlines(keepends=True) for text in (before, after))))
    gone = [line[2:] for line in diff if line.startswith("- ")]
    assert [line for line in gone if "URLRouter" not in line] == []
    return [line[2:] for line in diff if line.startswith("+ ")]


CHAT = '    path("", include("chat.urls")),\n'
ROUTER = "                    URLRouter([*websocket_urlpatterns, unknown_path]),\n"
ROUTER_OF_LINES = """\
                    URLRouter(
                        [
                            *websocket_urlpatterns,
                            unknown_path,  # last
                        ]
                    ),
"""
CHAT_IMPORT = "from chat.routing import websocket_urlpatterns  # noqa: E402\n"
DECOYS = '"""\nINSTALLED_APPS = [\n    "chat",\n]\nURLRouter([unknown_path])\nurlpatterns = [\n]\n"""\n\f\n# Grüße\n'
STILL_WIRED = {
    "tabs": (
        {
            SETTINGS: [('    "accounts",\n    "chat",\n', '\t"accounts",\n\t"chat",\n')],
            URLS: [(CHAT, CHAT.replace("    ", "\t"))],
        },
        {SETTINGS: [APP.replace("    ", "\t")], URLS: [PAGE.replace("    ", "\t")]},
    ),
    "single quotes": (
        {SETTINGS: [('    "chat",\n', "    'chat',\n")], URLS: [(CHAT, CHAT.replace('"', "'"))]},
        {SETTINGS: [APP.replace('"', "'")], URLS: [PAGE.replace('"', "'")]},
    ),
    "comments": (
        {
            SETTINGS: [('    "chat",\n', '    "chat",  # first\n    # No more.\n')],
            ASGI: [(ROUTER, ROUTER.replace(",\n", ",  # für uns\n"))],
            URLS: [(CHAT, f"    # Pages\n{CHAT}")],
        },
        {ASGI: [IMPORT, SOCKETS.replace(",\n", ",  # für uns\n")]},
    ),
    "decoys": (
        {
            SETTINGS: [('SITE_NAME = "My Realtime Site"\n', f'SITE_NAME = "My Realtime Site"\n{DECOYS}')],
            ASGI: [("application = ", f"{DECOYS}\napplication = ")],
            URLS: [("urlpatterns = ", f"{DECOYS}\nurlpatterns = ")],
        },
        {},
    ),
    "lines of their own": (
        {
            ASGI: [
                (ROUTER, ROUTER_OF_LINES),
            ]
        },
        {ASGI: [IMPORT, f"{' ' * 28}*notes_routing.websocket_urlpatterns,\n"]},
    ),
    "types": (
        {
            SETTINGS: [("INSTALLED_APPS = [", "INSTALLED_APPS: list[str] = [")],
            URLS: [("urlpatterns = [", "urlpatterns: list = [")],
        },
        {},
    ),
    "no chat": (
        {
            SETTINGS: [('    "chat",\n', "")],
            ASGI: [(CHAT_IMPORT, ""), ("*websocket_urlpatterns, ", "")],
            URLS: [(CHAT, "")],
        },
        {ASGI: [IMPORT, SOCKETS.replace(" *websocket_urlpatterns, ", " ")]},
    ),
    "letters of more than a byte": (
        {
            ASGI: [
                (CHAT_IMPORT, CHAT_IMPORT.replace("patterns", "patterns as größe")),
                ("[*websocket_urlpatterns, ", "[*größe, "),
            ]
        },
        {ASGI: [IMPORT, SOCKETS.replace(" *websocket_urlpatterns", " *größe")]},
    ),
}


@some_of(STILL_WIRED, "single quotes", "lines of their own", "no chat")
def test_an_edited_file_is_still_wired(project, case):
    """And it keeps the line ends and the mark at its beginning that editors on Windows write."""
    edits, added = case
    for name, replacements in edits.items():
        change(project, name, *replacements)
    for name in ADDED:
        path = project / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    before = contents(project)

    said = start(project, "notes")

    assert "by hand" not in said
    after = contents(project)
    for name, lines in (ADDED | added).items():
        assert lines_added(before[name], after[name]) == [line.replace("\n", "\r\n") for line in lines]
    assert "no issues" in run(project, "manage.py", "check").stdout


NESTED = """
            AllowedOrigins(
                Authentication(
                    URLRouter([*websocket_urlpatterns, unknown_path]),
                ),
            ),
        ),
"""


def test_the_style_stays_where_lines_are_broken_otherwise(project):
    """Imports of several lines, with comments, and all middleware in one line, which becomes too long."""
    names = "AllowedOrigins, Authentication, Sockets, unknown_path"
    lines = names.replace(", ", ",\n    ")
    change(
        project,
        ASGI,
        (f"import {names}  # noqa: E402\n", f"import (  # noqa: E402\n    {lines},\n)\n"),
        (CHAT_IMPORT, "# Ours\nfrom chat.routing import (  # noqa: E402\n    websocket_urlpatterns,\n)\n"),
        (NESTED, "AllowedOrigins(Authentication(URLRouter([*websocket_urlpatterns, unknown_path])))),\n"),
    )

    for name in ("apples", "notes", "scores"):
        assert "by hand" not in start(project, name)
        assert style_of(project) == ""


NOT_WIRED = {
    "no comma": {SETTINGS: [('    "chat",\n', '    "chat"\n')]},
    "two lists": {
        SETTINGS: [('    "chat",\n]\n', '    "chat",\n]\nOURS = []\nINSTALLED_APPS = [*INSTALLED_APPS, *OURS]\n')]
    },
    "a sum": {SETTINGS: [("INSTALLED_APPS = [\n", "INSTALLED_APPS = [] + [\n")]},
    "one line": {SETTINGS: [('    "accounts",\n    "chat",\n]\n', '    "accounts", "chat"]\n')]},
    "no unknown_path": {ASGI: [("*websocket_urlpatterns, unknown_path", "*websocket_urlpatterns")]},
    "two routers": {ASGI: [("application = ", "other = URLRouter([unknown_path])\napplication = ")]},
    "a name for the list": {
        ASGI: [
            ("URLRouter([*websocket_urlpatterns, unknown_path])", "URLRouter(routes)"),
            ("application = ", "routes = [*websocket_urlpatterns, unknown_path]\napplication = "),
        ]
    },
    "names of names": {
        ASGI: [
            (
                "from realtime.asgi import AllowedOrigins, Authentication, Sockets, unknown_path  # noqa: E402\n",
                "import realtime.asgi  # noqa: E402\nfrom realtime.asgi import Sockets as S  # noqa: E402\n",
            ),
            ("Sockets(\n", "S(\n"),
            (" AllowedOrigins(\n", " realtime.asgi.AllowedOrigins(\n"),
            (" Authentication(\n", " realtime.asgi.Authentication(\n"),
            ("unknown_path]", "realtime.asgi.unknown_path]"),
        ]
    },
    "no include": {
        URLS: [
            (
                "from django.urls import include, path\n",
                "import chat.urls\nimport realtime.urls\nfrom django.urls import path\n",
            ),
            (CHAT, ""),
            ('include("realtime.urls")', "(realtime.urls.urlpatterns, None, None)"),
        ]
    },
    "a sum of patterns": {URLS: [("urlpatterns = [\n", "urlpatterns = []\nurlpatterns += [\n")]},
}
BY_HAND = {
    SETTINGS: ["at the end of INSTALLED_APPS", APP],
    ASGI: [
        "with the imports below get_asgi_application()",
        IMPORT,
        "at the beginning of the list in URLRouter",
        "*notes_routing.websocket_urlpatterns,",
    ],
    URLS: ["at the beginning of urlpatterns", PAGE],
}


@some_of(NOT_WIRED, "no comma", "no unknown_path", "names of names", "a sum of patterns")
def test_a_file_that_is_changed_too_far_is_left_to_its_owner(project, case):
    ((changed, replacements),) = case.items()
    change(project, changed, *replacements)
    before = contents(project)

    said = start(project, "notes")

    after = contents(project)
    assert after[changed] == before[changed]
    where = iter(BY_HAND[changed])
    lines = [part for place in where for part in (f"    {place}:", f"        {next(where).strip()}")]
    assert "\n".join([f"by hand  {changed}, where no place for it is found:", *lines, ""]) in said
    for name in ADDED.keys() - {changed}:
        assert lines_added(before[name], after[name]) == ADDED[name]


def test_the_printed_lines_are_enough(project):
    change(project, ASGI, ("URLRouter([*websocket_urlpatterns, unknown_path])", "URLRouter(routes)"))
    change(project, ASGI, ("application = ", "routes = [*websocket_urlpatterns, unknown_path]\napplication = "))
    said = start(project, "notes")
    assert "notes.routing is not used" in run(project, "manage.py", "check").stdout

    line, item = re.findall(r"^        (\S.*)$", said, re.MULTILINE)
    change(
        project,
        ASGI,
        ("from realtime.asgi", f"{line}\nfrom realtime.asgi"),
        ("[*websocket_urlpatterns", f"[{item} *websocket_urlpatterns"),
    )

    assert "no issues" in run(project, "manage.py", "check").stdout
    assert "3 passed in" in run(project, "-m", "pytest", "notes").stdout


# A project with another base.html

LAYOUT = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in ("title", "head", "data", "main"))
OTHER_BASES = {
    "none": ({}, True),
    "other blocks": (
        {"base.html": "<title>{% block title %}{% endblock %}</title>{% block content %}{% endblock %}"},
        True,
    ),
    "a layout": ({"base.html": "{% extends 'layout.html' %}", "layout.html": f"<hr>{LAYOUT}"}, False),
    "a layout by a variable": ({"base.html": "{% extends layout %}{% block main %}{% endblock %}"}, True),
}


@some_of(OTHER_BASES, "none", "a layout")
def test_the_page_stands_alone_where_no_base_has_its_blocks(project, case):
    templates, stands_alone = case
    (project / "templates" / "base.html").unlink()
    for name, text in templates.items():
        (project / "templates" / name).write_text(text)

    said = start(project, "notes")

    assert ("the project has none with the blocks data, head, main, title." in said) == stands_alone
    assert ("new      notes/templates/notes/base.html\n" in said) == stands_alone
    for name in ("templates/notes/base.html", "static/notes/notes.css"):
        assert (project / "notes" / name).exists() == stands_alone
    page = "from django.test import Client; print(Client().get('/notes/', headers={'host': 'localhost'}).text)"
    text = run(project, "manage.py", "shell", "--no-imports", "-c", page).stdout
    assert ("<hr>" in text) != stands_alone
    for part in ('data-socket-path="/ws/notes/"', '<script type="module"', '<form id="form">'):
        assert part in text
    assert re.search(r"<title>\s*Notes\s*</title>" if stands_alone else "Notes . My Realtime Site", text)
    djlint = [sys.executable, "-m", "djlint", "--check", "--lint", "notes"]
    assert subprocess.run(djlint, cwd=project, capture_output=True).returncode == 0


# And back

# The lines of an app, as the README says: in INSTALLED_APPS, asgi.py and urls.py.
NOTES = {SETTINGS: [APP], ASGI: [IMPORT, NEW_SOCKETS], URLS: [PAGE]}
THE_CHAT = {SETTINGS: ['    "chat",\n'], ASGI: [CHAT_IMPORT, " *websocket_urlpatterns,"], URLS: [CHAT]}


def delete(project, name, parts):
    shutil.rmtree(project / name)
    for file, texts in parts.items():
        change(project, file, *((text, "") for text in texts))


def test_it_can_be_deleted(either):
    before = contents(either)
    start(either, "notes")

    delete(either, "notes", NOTES)

    assert contents(either) == before
    readme = " ".join((either / "README.md").read_text(encoding="utf-8").split())
    assert "remove its folder and its lines in `INSTALLED_APPS`, `urls.py` and `asgi.py`" in readme


def test_the_chat_can_be_deleted_beside_it(either):
    run(either, "manage.py", "migrate")
    start(either, "notes")
    if is_chat(either):
        run(either, "manage.py", "migrate", "chat", "zero")

    delete(either, "chat", THE_CHAT)

    assert "no issues" in run(either, "-W", "error", "manage.py", "check").stdout
    assert style_of(either) == ""
    assert "3 passed in" in run(either, "-m", "pytest", "notes").stdout
    page = "from django.test import Client; print(Client().get('/notes/', headers={'host': 'localhost'}).status_code)"
    assert "200" in run(either, "manage.py", "shell", "--no-imports", "-c", page).stdout.splitlines()
