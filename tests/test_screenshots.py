"""The pictures of README.md: both starters in a real browser. `make screenshots` writes them into docs/."""

import os
import re
import shutil
import struct

import pytest
from browser import expect, expect_state, messages, open_browser, send, visits
from servers import REPOSITORY, Server, run

PASSWORD = "a horse, a staple"
LINES = [
    ("ada", "Good morning! Is anybody here?"),
    ("grace", "Since six. The compiler is done."),
    ("ada", "مرحبا، كيف الحال؟"),
    ("grace", "Fine. I found a moth in the relay."),
    ("ada", "Keep it.\nTape it into the log book."),
]
# No emoji: not every machine has a font with them.
FILL = f"""
import uuid
from accounts.models import User
from chat.models import Room, post_message
users = {{name: User.objects.create_user(name, password={PASSWORD!r}) for name in ("ada", "grace")}}
rooms = {{name: Room.objects.create(name=name, slug=name.lower()) for name in ("Compilers", "Engines", "Moths")}}
for name, text in {LINES!r}:
    post_message(rooms["Moths"].pk, users[name], uuid.uuid4(), text)
"""
WINDOW = {"width": 800, "height": 450}
MAX_BYTES = 60_000

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


@pytest.fixture
def keep(tmp_path):
    """Return a function that takes a picture of a page: into docs/ with SCREENSHOTS=1, or else for this test alone."""
    folder = REPOSITORY / "docs" if os.environ.get("SCREENSHOTS") == "1" else tmp_path

    def keep(page, name):
        page.mouse.move(0, 0)
        page.screenshot(path=folder / name, animations="disabled", caret="hide")
        assert size_of(folder / name) == WINDOW
        assert (folder / name).stat().st_size < MAX_BYTES

    return keep


def size_of(path):
    """Return the size of a PNG, a dict of pixels (https://www.w3.org/TR/png-3/#11IHDR)."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return dict(zip(("width", "height"), struct.unpack(">II", data[16:24]), strict=True))


def test_minimal(project, visit, keep):
    with Server(project) as server:
        first, second = visit(server.url, viewport=WINDOW), visit(server.url)
        send(first, "Hello from one tab!")
        expect(messages(second)).to_have_count(1)
        send(second, "And from another one.")
        expect(messages(first)).to_have_count(2)
        send(second, "مرحبا، كيف الحال؟")
        expect(messages(first)).to_have_count(3)
        send(first, "Fine. No service was started for this.")
        expect(messages(second)).to_have_count(4)
        keep(first, "minimal.png")


def test_chat(bake, visit, keep, tmp_path):
    project = shutil.copytree(bake(starter="chat"), tmp_path / "project")
    run(project, "manage.py", "migrate")
    run(project, "manage.py", "shell", "--no-imports", "-c", FILL)
    with Server(project) as server:
        grace = enter(visit, server, "grace")
        send(grace, "It is in there. With a picture!")
        ada = enter(visit, server, "ada")
        expect(messages(ada)).to_have_count(len(LINES) + 1)
        keep(ada, "chat.png")


def enter(visit, server, name):
    page = visit(f"{server.url}accounts/login/?next=/rooms/moths/", state=None, viewport=WINDOW)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect_state(page, "connected")
    return page


def test_readme_shows_them():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]{20,}\]\((docs/\w+\.png)\)", readme)
    assert shown == ["docs/minimal.png", "docs/chat.png"]
    for name in shown:
        assert size_of(REPOSITORY / name) == WINDOW
        assert (REPOSITORY / name).stat().st_size < MAX_BYTES
