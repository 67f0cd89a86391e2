"""
Starts an app with a consumer, a page and tests: `manage.py startconsumer live_scores`.

The app is that of startconsumer.txtar, beside this file, under another name. The lines that wire it are put into the text
of three files, so that an owner's comments and line ends stay, and only where Python then reads nothing but them beside
what it read before. Where a file has been changed too far for that, its lines are printed instead.
"""

import ast
import difflib
import keyword
import os
import re
import reprlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.template.loader_tags import BlockNode, ExtendsNode
from django.urls import Resolver404, resolve

from ...checks import default_routes

TEMPLATE = Path(__file__).with_suffix(".txtar")
# The folder that has realtime/ is where apps are imported from.
ROOT = Path(__file__).resolve().parents[3]

LINE_LENGTH = 119
# The lines that wire an app of this name are no longer than that.
MAX_NAME = 40
ALLOWED = f"1 to {MAX_NAME} lower-case letters, digits and single underscores between them, a letter first"
EXAMPLE = "for example live_scores"
# What the page fills in base.html. In a project that was not baked another base.html may be there, or none.
BLOCKS = {"title", "head", "data", "main"}
# Names that mean something else to Git, a container, the server, the extra postgres or Windows, or that pytest, ruff and
# djlint pass over.
RESERVED = {"deploy", "healthz", "htmlcov", "media", "psycopg", "static", "staticfiles", "templates", "tests"}
RESERVED |= {"build", "dist", "node_modules"}
RESERVED |= {"aux", "con", "nul", "prn", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


class Line(NamedTuple):
    """A line that wires an app. where: its place, for people. put: a function that puts it there, see `edit()`."""

    where: str
    text: str
    put: Callable


class Edit(NamedTuple):
    """What becomes of a file: `after` in place of `before`, bytes, or None if `lines` are left to its owner."""

    path: Path
    before: bytes
    after: bytes | None
    lines: tuple[Line, ...]


class Command(BaseCommand):
    help = "Starts an app with a consumer, a page and tests, and wires it. Nothing is ever overwritten."

    def add_arguments(self, parser):
        parser.add_argument("name", help=f"Name of the app, {EXAMPLE}: {ALLOWED}.")
        parser.add_argument("--dry-run", action="store_true", help="Only show what would be written.")

    def handle(self, *args, name, dry_run, **options):
        if reason := why_not(name):
            raise CommandError(f"{reprlib.repr(name)} is refused: {reason}")
        files, edits = render(name), wire(name)
        if not dry_run:
            try:
                write(name, files, edits)
            except OSError as error:
                raise CommandError(f"Nothing was written: {error}") from error
        for path in files:
            self.stdout.write(f"new      {name}/{path}")
        if files.keys() & own_base(name):
            blocks = ", ".join(sorted(BLOCKS))
            self.stdout.write(f"    The page has its own base.html: the project has none with the blocks {blocks}.")
        for edit in edits:
            self.show(edit)
        if dry_run:
            self.stdout.write("Nothing was written: this was a dry run.")
        else:
            page = f"http://127.0.0.1:8000/{name}/"
            self.stdout.write(f"Edit {name}/consumers.py first. The page is {page}, and `pytest {name}` tests it.")

    def show(self, edit):
        name = edit.path.relative_to(ROOT) if edit.path.is_relative_to(ROOT) else edit.path
        if edit.after is None:
            self.stdout.write(self.style.WARNING(f"by hand  {name}, where no place for it is found:"))
            for line in edit.lines:
                self.stdout.write(f"    {line.where}:\n        {line.text}")
        else:
            self.stdout.write(f"changed  {name}")
            texts = [text.decode(errors="replace").splitlines() for text in (edit.before, edit.after)]
            for line in difflib.ndiff(*texts):
                if line.startswith(("+", "-")):
                    self.stdout.write(f"    {line}")


def why_not(name):
    """Return in a few words why no app may have this name, and what is allowed; None if one may."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > MAX_NAME:
        return f"{ALLOWED}, {EXAMPLE}"
    taken = {
        "a keyword of Python": keyword.iskeyword(name),
        "a module of Python": name in sys.stdlib_module_names,
        "an app in INSTALLED_APPS": name in apps.app_configs,
        "a file or folder of the project": os.path.lexists(ROOT / name),
        "reserved": name in RESERVED,
        "a module that is installed": find_spec(name),
        "the address of a page": is_page(name),
        "the address of a socket": is_socket(name),
    }
    what = next((what for what, is_true in taken.items() if is_true), None)
    return f"it is {what}; any other is free, {EXAMPLE}" if what else None


def is_page(name):
    """Return whether a URL pattern has just this path, unlike <slug:page>/ and the like, which take others, too."""
    try:
        return resolve(f"/{name}/").route.strip("^$") == f"{name}/"
    except Resolver404:
        return False


def is_socket(name):
    """Return whether a consumer of another app has just the path that the one of this app would have."""
    return any(str(route.pattern).strip("^$") == f"ws/{name}/" for route in default_routes() or ())


def render(name):
    """Return the files of an app of this name: a dict of their texts by path."""
    text = TEMPLATE.read_text(encoding="utf-8")
    has_base = blocks_of("base.html") >= BLOCKS
    if not has_base:
        text = re.sub(r" – \S+ SITE_NAME \S+", "", text.replace('extends "base.html"', 'extends "new_app/base.html"'))
    words = {"new_app": name, "NewApp": name.title().replace("_", ""), "New app": name.replace("_", " ").capitalize()}
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    _, *parts = re.split(r"^-- (.+) --\n", text, flags=re.MULTILINE)
    files = dict(zip(parts[::2], parts[1::2], strict=True))
    return {path: text for path, text in files.items() if not (has_base and path in own_base(name))}


def own_base(name):
    """Return the paths of what the page of an app extends where the project has no base.html for it."""
    return {f"templates/{name}/base.html", f"static/{name}/{name}.css"}


def blocks_of(name):
    """Return the names of the blocks in a template, and in those that it extends; none if there is no such template."""
    try:
        nodes = get_template(name).template.nodelist
    except (TemplateDoesNotExist, AttributeError):
        # A template of Jinja has no nodes.
        return set()
    blocks = {block.name for block in nodes.get_nodes_by_type(BlockNode)}
    parents = [node.parent_name.var for node in nodes.get_nodes_by_type(ExtendsNode)]
    return blocks.union(*(blocks_of(parent) for parent in parents if isinstance(parent, str)))


def write(name, files, edits):
    """Write everything or, if something fails, nothing."""
    with tempfile.TemporaryDirectory(prefix=".startconsumer-", dir=ROOT) as folder, ExitStack() as undo:
        for path, text in files.items():
            target = Path(folder) / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        (Path(folder) / name).rename(ROOT / name)
        undo.callback(shutil.rmtree, ROOT / name)
        for path, before, after, _ in edits:
            if after is not None:
                undo.callback(path.write_bytes, before)
                path.write_bytes(after)
        undo.pop_all()


# Wiring


def wire(name):
    """Return the Edit of each file that an app of this name is named in."""
    app, page = f'"{name}",', f'path("{name}/", include("{name}.urls")),'
    routing = f"from {name} import routing as {name}_routing  # noqa: E402"
    sockets = f"*{name}_routing.websocket_urlpatterns,"
    put_app = partial(put_item, into="INSTALLED_APPS", at=len)
    put_sockets = partial(put_item, into="URLRouter", at=find_beginning)
    put_page = partial(put_item, into="urlpatterns", at=find_include)
    return [
        edit(settings.SETTINGS_MODULE, Line("at the end of INSTALLED_APPS", app, put_app)),
        edit(
            settings.ASGI_APPLICATION.rpartition(".")[0],
            Line("with the imports below get_asgi_application()", routing, put_import),
            Line("at the beginning of the list in URLRouter", sockets, put_sockets),
        ),
        edit(settings.ROOT_URLCONF, Line("at the beginning of urlpatterns", page, put_page)),
    ]


def edit(module, *lines):
    """
    Return the Edit of a module's file that puts all `lines` there.

    `put()` of each is handed its text, the file as a list of bytes, and as ast.Module. It changes both in the same way,
    or raises ValueError if it does not know how.
    """
    path = Path(find_spec(module).origin).resolve()
    before = after = path.read_bytes()
    try:
        for line in lines:
            source, tree = after.splitlines(keepends=True), ast.parse(after)
            line.put(line.text, source, tree)
            after = b"".join(source)
            if ast.dump(ast.parse(after)) != ast.dump(tree):
                raise ValueError(f"this is not all that changes: {line.text}")
    except (SyntaxError, ValueError):
        after = None
    return Edit(path, before, after, lines)


def find_include(items):
    """Return the place of the first include(): one after it may take every path, and the names in it are imported."""
    return [item.startswith("path(") and "include(" in item for item in items].index(True)


def find_beginning(items):
    """Return the first place of a list with unknown_path: a path of another app may have a variable, which takes all."""
    return items.index("unknown_path") and 0


def put_item(text, source, tree, *, into, at):
    """
    Put an item into the one list that is assigned to the name `into`, or is the argument of its call.

    at: a function of the list's items, str, that returns an index. What ast calls a column counts bytes.
    """
    found = []
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Name(name)], value=ast.List() as items)
                | ast.AnnAssign(target=ast.Name(name), value=ast.List() as items)
                | ast.Call(func=ast.Name(name), args=[ast.List() as items])
            ) if name == into:
                found.append(items)
    (items,) = found
    others = items.elts[:]
    index = at([ast.unparse(other) for other in others])
    items.elts.insert(index, ast.parse(f"[{text}]").body[0].value.elts[0])
    is_last = index == len(others)
    line = source[others[index - is_last].lineno - 1]
    indent, end = ends_of(line)
    new = (text if b'"' in line else text.replace('"', "'")).encode()
    if items.lineno < items.end_lineno:
        row = items.end_lineno if is_last else others[index].lineno
        source.insert(row - 1, indent + new + end)
    else:
        parts = [line[other.col_offset : other.end_col_offset] + b"," for other in others]
        parts.insert(index, new)
        head, tail = line[: items.col_offset], line[items.end_col_offset :]
        joined = head + b"[" + b" ".join(parts)[:-1] + b"]" + tail
        # As ruff breaks a long line: each bracket that is open.
        heads = re.findall(rb"[^(]+\(", head.strip())
        *outer, middle, inner = (indent + b" " * 4 * depth for depth in range(len(heads) + 2))
        broken = [step + head + end for step, head in zip(outer, heads, strict=True)]
        broken += [middle + b"[" + end, *(inner + part + end for part in parts), middle + b"]" + end]
        broken += [*(step + b")" + end for step in outer[:0:-1]), indent + tail[len(heads[1:]) :]]
        source[items.lineno - 1 : items.lineno] = [joined] if len(joined.decode().rstrip()) <= LINE_LENGTH else broken


def put_import(text, source, tree):
    """Put an import into the block with that of realtime.asgi, sorted as ruff sorts them."""
    (new,), nodes = ast.parse(text).body, tree.body
    first = last = [getattr(node, "module", None) == "realtime.asgi" for node in nodes].index(True)
    while is_block(nodes[first - 1 : first + 1], source):
        first -= 1
    while is_block(nodes[last : last + 2], source):
        last += 1
    index = first + sum(sort_key(node.module or "") < sort_key(new.module) for node in nodes[first : last + 1])
    row = nodes[first].lineno - 1 if index == first else nodes[index - 1].end_lineno
    source.insert(row, text.encode() + ends_of(source[row - 1])[1])
    nodes.insert(index, new)


def is_block(pair, source):
    """Return whether these are two `from … import …`, with nothing but comments between them."""
    if [type(node) for node in pair] != [ast.ImportFrom] * 2:
        return False
    return all(line.startswith(b"#") for line in source[pair[0].end_lineno : pair[1].lineno - 1])


def sort_key(module):
    """Numbers in the name of a module count as numbers: room2, room10."""
    parts = re.findall(r"\d+|\D", module)
    return [(ord("0"), int(part)) if part.isdigit() else (ord(part), 0) for part in parts]


def ends_of(line):
    """Return the indentation and the line break of a line."""
    return re.fullmatch(rb"([ \t]*).*?([\r\n]*)", line, re.DOTALL).groups()
