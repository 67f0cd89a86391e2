"""The pages of the chat starter in a real browser, against a real server."""

import contextlib
import itertools
import json
import re
import shutil
import socket
import sqlite3
import threading
import uuid

import pytest
from browser import (
    CONNECTED,
    answer,
    box,
    each_engine,
    each_engine_weekly,
    each_routing_engine,
    expect,
    expect_in_place,
    expect_state,
    fits,
    is_focused,
    messages,
    notice,
    open_browser,
    send,
    visits,
    waiting,
)
from clients import open_client
from servers import LOCAL_PRODUCTION, Server, append_settings, collect_static, run

# The frames of a user are counted together: tests of limits have users of their own, and one that changes a password.
USERS = ["ada", "grace", "mallory", "hedy", "barbara", "evelyn", "radia", "joan"]
PASSWORD = "a horse, a staple"
# Sessions of each user, of the first two most: a test may end those that it has.
SESSIONS = [150, 150, *[20] * 5, 1]
# Rooms that are empty, and those of them that ada has in her list.
ROOMS, HERS = range(100), range(100, 120)
# Messages of 200 characters in the room "month".
MONTH = 1200
FILL = f"""
import json
import uuid
from pathlib import Path
from django.test import Client
from accounts.models import User
from chat.models import Message, Reading, Room, post_message
users = [User.objects.create_user(name, password={PASSWORD!r}) for name in {USERS}]
Room.objects.bulk_create(Room(name=f"Room {{n}}", slug=f"room-{{n}}") for n in range({HERS.stop}))
hers = Room.objects.filter(slug__in=[f"room-{{n}}" for n in {HERS}])
Reading.objects.bulk_create(Reading(room=room, user=users[0]) for room in hers)
for name in ("old", "archive"):
    room = Room.objects.create(name=name.capitalize(), slug=name)
    for number in range(1, 131):
        post_message(room.pk, users[number % 2], uuid.uuid4(), f"old {{number}}" + "\\n…" * (number % 5))
Room.objects.create(name="Month", slug="month", last_seq={MONTH})
month = Room.objects.get(slug="month")
Message.objects.bulk_create(
    Message(id=uuid.uuid4(), room=month, seq=seq, user=users[seq % 2], text="What they said. " * 12)
    for seq in range(1, {MONTH} + 1)
)

def log_in(user):
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value

keys = {{user.username: [log_in(user) for _ in range(count)] for user, count in zip(users, {SESSIONS})}}
Path("sessions.json").write_text(json.dumps(keys))
"""
OWN = "UPDATE chat_room SET owner_id = (SELECT id FROM accounts_user WHERE username = ?) WHERE slug = ?"
# What can be pressed, and is less than a finger needs (WCAG 2.5.5).
SMALL = """() => [...document.querySelectorAll("button, input, textarea, summary, main a, header a")]
  .filter((element) => element.checkVisibility() && element.type !== "checkbox")
  .map((element) => [element.outerHTML, element.getBoundingClientRect().height])
  .filter(([, height]) => height < 43.9)"""
# Enter picks a letter, as in Japanese: as most browsers tell it, and as Safari does.
COMPOSE = """(element) => [{ isComposing: true }, { keyCode: 229 }].forEach((how) =>
  element.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...how })))"""
SLOWER = "That was a lot at once. What you wrote is sent in a moment, all by itself."
SOCKETS = re.compile("/ws/socket-server/")
PHONE = {"viewport": {"width": 390, "height": 667}, "is_mobile": True, "has_touch": True}

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)
slugs = map("room-{}".format, ROOMS)
slugs_of_hers = map("room-{}".format, HERS)


@pytest.fixture(scope="module")
def site(bake, tmp_path_factory):
    """A project with users and rooms. There are 130 messages in "old", and in "archive", where nobody writes."""
    site = shutil.copytree(bake(starter="chat"), tmp_path_factory.mktemp("chat") / "project")
    run(site, "manage.py", "migrate")
    run(site, "manage.py", "shell", "--no-imports", "-c", FILL, env=LOCAL_PRODUCTION)
    collect_static(site)
    return site


def execute(site, statement, *values):
    """Run `statement` in the database of the site, without a word to its servers. Return the rows that it finds."""
    with contextlib.closing(sqlite3.connect(site / "db.sqlite3", timeout=20)) as database, database:
        return database.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def sessions(site):
    """Iterators over the keys of open sessions, by the names of the users."""
    keys = json.loads((site / "sessions.json").read_text())
    return {name: iter(keys[name]) for name in keys}


@pytest.fixture(scope="module")
def server(site):
    with Server(site, "production", env=LOCAL_PRODUCTION | {"EMAIL_URL": "memorymail://"}) as server:
        yield server


@pytest.fixture
def room():
    """The slug of an empty room."""
    return next(slugs)


@pytest.fixture
def enter(visit, server, sessions):
    """Return a function that opens the room in a profile of its own, where `name` is logged in, and returns it."""

    def enter(name, room, url=server.url, key=None, **options):
        return visit(f"{url}rooms/{room}/", cookies={"sessionid": key or next(sessions[name])}, **options)

    return enter


def log_in(page, name):
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def link_to(page, room):
    """The entry of the list of rooms with this name."""
    return page.locator("#list li", has=page.get_by_text(room, exact=True)).get_by_role("link")


def make_room(page, name, is_open=True):
    page.get_by_text("New room").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Open to everybody").set_checked(is_open)
    page.get_by_role("button", name="Make the room").click()


def texts(page):
    return page.get_by_role("log").locator("li p")


def present(page):
    return page.get_by_role("list", name="Who is here").get_by_role("listitem")


class Relay:
    """
    A network between browsers and a server that can be cut, as when a laptop is closed.

    The server sees its connections end. The browser sees nothing, and nothing ever comes over the old ones again.
    """

    def __init__(self, server):
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.alive = []
        self.dead = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        # Until the listener is closed.
        with contextlib.suppress(OSError):
            while True:
                link = (self.listener.accept()[0], socket.create_connection(("127.0.0.1", self.server.port)))
                self.alive.append(link)
                for source, sink in (link, link[::-1]):
                    threading.Thread(target=self.carry, args=(link, source, sink), daemon=True).start()

    def carry(self, link, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if link in self.alive:
                    sink.sendall(data)
            if link in self.alive:
                sink.shutdown(socket.SHUT_WR)

    def cut(self):
        while self.alive:
            link = self.alive.pop()
            self.dead.append(link)
            with contextlib.suppress(OSError):
                link[1].shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.listener.close()
        for end in itertools.chain(*self.alive, *self.dead):
            end.close()


class Switch:
    """All WebSockets of a context go through it. While it is `on`, they reach the server."""

    def __init__(self, context):
        self.on = True
        self.deaf = False  # Then no message comes back.
        self.sockets = []
        context.route_web_socket(SOCKETS, self.meet)

    def meet(self, near):
        if self.on:
            self.sockets.append(near)
            far = near.connect_to_server()
            far.on_message(lambda data: (self.deaf and '"message"' in data) or near.send(data))
        else:
            near.close(code=4000)

    def turn_off(self):
        self.on = False
        for near in self.sockets:
            near.close(code=4000)


class Script:
    """A `prepare` for `enter`: the page's sockets are met by a greeting and `frames`, and not by the server."""

    def __init__(self, *frames, user="ada", last_seq=0):
        greeting = {
            "type": "connection_established",
            "message": "You are now connected!",
            "user": user,
            "user_id": "0",
            "last_seq": last_seq,
        }
        self.frames = [greeting, *frames]
        self.urls = []
        self.heard = []

    def __call__(self, page):
        page.route_web_socket(SOCKETS, self.meet)

    def meet(self, socket):
        self.socket = socket
        self.urls.append(socket.url)
        socket.on_message(lambda data: self.heard.append(json.loads(data)))
        self.say(*self.frames)

    def say(self, *frames):
        for frame in frames:
            self.socket.send(json.dumps(frame))

    def heard_of(self, type):
        return [frame for frame in self.heard if frame["type"] == type]


def message(seq, text=None, user="grace", id=None, time="12:00"):
    return {
        "type": "message",
        "seq": seq,
        "id": id or str(uuid.uuid4()),
        "user": user,
        "text": text or f"number {seq}",
        "sent_at": f"2026-11-22T{time}:00Z",
    }


def wait_for(page, condition):
    """Wait while the callbacks of Playwright run, which a sleep would hold up."""
    for _ in range(1000):
        if condition():
            return
        page.wait_for_timeout(20)
    pytest.fail("in vain")


# With a real server


@each_engine
def test_two_people_talk(enter, room):
    first, second = enter("ada", room), enter("grace", room)

    send(first, "Hello!")
    expect(texts(second)).to_have_text(["Hello!"])
    box(second).fill("¡Hola! 👋\n  مرحبا")
    second.get_by_role("button", name="Send").click()

    for page in (first, second):
        expect(texts(page)).to_have_text(["Hello!", "¡Hola! 👋\n  مرحبا"])
        assert texts(page).all_text_contents()[1] == "¡Hola! 👋\n  مرحبا"
        expect(messages(page).locator("b")).to_have_text(["ada", "grace"])
        expect(messages(page).locator("time")).to_have_text([re.compile(r"^\d+:\d\d")] * 2)
        expect(waiting(page)).to_have_count(0)
        expect(box(page)).to_have_value("")
        assert is_focused(box(page))
    # Firefox takes what is clipped for visible.
    if first.context.browser.browser_type.name == "chromium":
        expect(messages(first).locator("b").first).not_to_be_in_viewport(ratio=0.9)
        expect(messages(second).locator("b").first).to_be_in_viewport(ratio=1)


@each_engine
def test_who_is_here(enter, room):
    first, second = enter("ada", room), enter("grace", room)

    for page in (first, second):
        expect(present(page)).to_have_text(["ada", "grace"])
        expect(page.get_by_text("Who is here: 2")).to_be_visible()

    second.close()
    expect(present(first)).to_have_text(["ada"])


@each_engine
@pytest.mark.parametrize("kind", ["runserver", "production"])
def test_server_is_killed_while_both_type(enter, site, room, kind):
    """What both have typed before, meanwhile and after arrives once, and in the same order for both."""
    # The key of the sessions is in the environment.
    env = LOCAL_PRODUCTION | {"DJANGO_DEBUG": json.dumps(kind == "runserver")}
    with Server(site, kind, env=env) as server:
        pages = [enter("ada", room, server.url), enter("grace", room, server.url)]

        def write_both(when):
            for number in range(5):
                for page, name in zip(pages, ("ada", "grace"), strict=True):
                    send(page, f"{name} {when} {number}")

        write_both("before")
        server.process.kill()
        server.process.wait()
        write_both("meanwhile")
        for page in pages:
            expect_state(page, "reconnecting…")
            expect(waiting(page).last).to_contain_text("not sent yet")
        server.start()
        write_both("after")

        for page in pages:
            expect(messages(page)).to_have_count(30)
            expect(waiting(page)).to_have_count(0)
            expect_state(page, CONNECTED)
        first, second = (texts(page).all_text_contents() for page in pages)
        assert first == second
        for name in ("ada", "grace"):
            written = [f"{name} {when} {number}" for when in ("before", "meanwhile", "after") for number in range(5)]
            assert sorted(text for text in first if text.startswith(name)) == sorted(written)


@each_engine
def test_a_laptop_sleeps(enter, server, room):
    """Its connection is dead, and nobody tells it so."""
    with Relay(server) as network:
        asleep, awake = enter("ada", room, network.url), enter("grace", room)
        send(awake, "before")
        expect(texts(asleep)).to_have_text(["before"])

        network.cut()
        asleep.context.set_offline(True)
        send(awake, "meanwhile")
        send(asleep, "from the train")
        expect(waiting(asleep).locator("p")).to_have_text(["from the train"])
        expect(waiting(asleep).get_by_text("not sent yet")).to_be_visible()
        expect(texts(awake)).to_have_text(["before", "meanwhile"])

        asleep.context.set_offline(False)
        for page in (asleep, awake):
            expect(texts(page)).to_have_text(["before", "meanwhile", "from the train"])
            expect(waiting(page)).to_have_count(0)


@each_routing_engine
def test_what_is_not_sent_survives_a_reload(enter, room):
    page, other = enter("ada", room), enter("grace", room)
    switch = Switch(page.context)
    page.reload()
    expect_state(page, CONNECTED)

    switch.turn_off()
    for text in ("first\nline", "second"):
        box(page).fill(text)
        page.get_by_role("button", name="Send").click()
    page.reload()
    expect(waiting(page).locator("p")).to_have_text(["first\nline", "second"])

    switch.on = True
    for each in (page, other):
        expect(texts(each)).to_have_text(["first\nline", "second"])
        expect(waiting(each)).to_have_count(0)
    page.reload()
    expect(texts(page)).to_have_text(["first\nline", "second"])
    expect(waiting(page)).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage)") == []


def test_what_is_stored_but_not_confirmed_is_not_doubled(enter, room):
    page, other = enter("ada", room), enter("grace", room)
    switch = Switch(page.context)
    page.reload()
    expect_state(page, CONNECTED)

    switch.deaf = True
    send(page, "heard?")
    expect(texts(other)).to_have_text(["heard?"])
    expect(waiting(page).locator("p")).to_have_text(["heard?"])
    switch.deaf = False
    page.reload()

    expect(waiting(page)).to_have_count(0)
    send(page, "yes")
    for each in (page, other):
        expect(texts(each)).to_have_text(["heard?", "yes"])


def test_what_waits_is_its_writers_alone(enter, server, room):
    """The session ends: somebody else in the same browser neither sees nor sends what was written in it."""
    page = enter("ada", room)
    switch = Switch(page.context)
    page.reload()
    expect_state(page, CONNECTED)
    switch.turn_off()
    send(page, "a secret")
    expect(waiting(page)).to_have_count(1)
    box(page).fill("half a sec")

    def become(name):
        page.context.clear_cookies()
        page.goto(f"{server.url}accounts/login/?next=/rooms/{room}/")
        log_in(page, name)
        expect_state(page, CONNECTED)

    page.goto(server.url)
    switch.on = True
    become("grace")
    expect(waiting(page)).to_have_count(0)
    expect(box(page)).to_have_value("")
    send(page, "grace")
    expect(texts(page)).to_have_text(["grace"])

    become("ada")
    expect(texts(page)).to_have_text(["grace", "a secret"])
    expect(messages(page).last.locator("b")).to_have_text("ada")
    expect(box(page)).to_have_value("half a sec")


@each_engine
def test_drafts(enter, server, room):
    """They survive a reload and the back button, each in its room, until they are sent."""
    page = enter("ada", room)
    other = next(slugs)
    box(page).fill("half a")
    page.reload()
    expect(box(page)).to_have_value("half a")

    page.goto(f"{server.url}rooms/{other}/")
    expect(box(page)).to_have_value("")
    box(page).fill("elsewhere")
    page.go_back()
    expect(box(page)).to_have_value("half a")

    expect_state(page, CONNECTED)
    box(page).evaluate("element => element.focus()")
    page.keyboard.press("Enter")
    expect(texts(page)).to_have_text(["half a"])
    page.reload()
    expect(box(page)).to_have_value("")
    page.goto(f"{server.url}rooms/{other}/")
    expect(box(page)).to_have_value("elsewhere")
    # Nobody else's page takes it for a message.
    expect(waiting(page)).to_have_count(0)


@each_engine_weekly
def test_what_cannot_be_sent_is_there_after_a_login(enter, server, sessions, room):
    """The session is gone while somebody types."""
    key = next(sessions["ada"])
    page = enter("ada", room, key=key)
    box(page).fill("a long")
    execute(server.directory, "DELETE FROM django_session WHERE session_key = ?", key)

    expect_state(page, "You are logged out.")
    # Nor for the next person at this screen.
    expect(box(page)).to_have_value("")
    send(page, "a long story")
    expect(notice(page)).to_contain_text("Not sent")
    page.get_by_role("link", name="Log in").click()
    log_in(page, "ada")

    expect_state(page, CONNECTED)
    expect(box(page)).to_have_value("a long story")


@each_engine_weekly
def test_log_out_warns_of_what_is_not_sent_and_erases_it(enter, visit, server, room):
    page = enter("ada", room)
    tab = visit(f"{server.url}rooms/{room}/", context=page.context)
    box(tab).fill("a secret")
    log_out = page.get_by_role("button", name="Log out")

    assert "not sent" in answer(page, log_out.click, accept=False)
    expect(log_out).to_be_visible()
    expect(box(tab)).to_have_value("a secret")
    answer(page, log_out.click, accept=True)

    page.wait_for_url("**/accounts/login/")
    expect_state(tab, "You are logged out.")
    expect(box(tab)).to_have_value("")
    assert tab.evaluate("Object.keys(localStorage)") == []


def test_log_out_asks_nothing_where_nothing_is_typed(enter, room):
    page = enter("ada", room)
    page.on("dialog", lambda box: pytest.fail(box.message))
    box(page).fill("gone again")
    box(page).fill("")

    page.get_by_role("button", name="Log out").click()

    page.wait_for_url("**/accounts/login/")


def test_nothing_stays_in_a_tab_that_is_logged_out(enter, visit, server):
    page = enter("ada", "archive")
    expect(texts(page).last).to_contain_text("old 130")
    tabs = [visit(server.url, state=None, context=page.context) for _ in range(2)]

    tabs[0].get_by_role("button", name="Log out").click()

    expect_state(page, "You are logged out.")
    expect(tabs[1].get_by_text("You are logged out.")).to_be_visible()
    expect(tabs[1].get_by_role("link", name="Log in")).to_be_visible()
    assert "Archive" not in tabs[1].content()
    assert not re.search("old 130|Archive|grace|ada", page.locator("body").inner_text() + page.title())


def test_a_user_who_has_a_new_name_goes_on(enter, site, room):
    """In the admin, while the page is open: what was typed comes along."""
    page = enter("mallory", room)
    switch = Switch(page.context)
    page.reload()
    expect_state(page, CONNECTED)
    box(page).fill("half a")
    rename = "UPDATE accounts_user SET username = ? WHERE username = ?"
    execute(site, rename, "mallory2", "mallory")
    try:
        switch.turn_off()
        switch.on = True
        expect(page.get_by_role("banner")).to_contain_text("mallory2")
        expect_state(page, CONNECTED)
        expect(box(page)).to_have_value("half a")
    finally:
        execute(site, rename, "mallory", "mallory2")


def test_a_name_brings_nothing_that_its_last_bearer_has_typed(enter, site, server, sessions, room):
    """One who has another name now, or whose account is deleted, and who had no page open then."""
    page = enter("hedy", room)
    box(page).fill("half a")
    page.goto("about:blank")
    rename = "UPDATE accounts_user SET username = ? WHERE username = ?"
    execute(site, rename, "hedy2", "hedy")
    execute(site, rename, "hedy", "mallory")
    try:
        cookie = {"name": "sessionid", "value": next(sessions["mallory"]), "domain": "127.0.0.1", "path": "/"}
        page.context.add_cookies([cookie])
        page.goto(f"{server.url}rooms/{room}/")
        expect(page.get_by_role("banner").get_by_text("hedy", exact=True)).to_be_visible()
        expect_state(page, CONNECTED)
        expect(box(page)).to_have_value("")
    finally:
        execute(site, rename, "mallory", "hedy")
        execute(site, rename, "hedy", "hedy2")


def test_a_broken_text_in_the_browser_holds_back_no_other(enter, room):
    """Nor does it matter that a page of the last release has kept them, under the user's name."""
    page = enter("ada", room, prepare=None)
    time = "2026-11-22T12:00:00Z"
    for name, value in {
        "1": "{",
        "2": json.dumps({"text": 7, "time": time}),
        "3": "null",
        "4": json.dumps({"text": "x", "time": "never"}),
        str(uuid.uuid4()): json.dumps({"text": "whole", "time": time}),
    }.items():
        page.evaluate("item => localStorage.setItem(...item)", [f"chat/ada/{room}/{name}", value])

    page.reload()

    expect(texts(page)).to_have_text(["whole"])
    expect(waiting(page)).to_have_count(0)


@each_engine
def test_log_out_in_another_tab(enter, visit, server, room):
    page = enter("ada", room)
    tab = visit(server.url, state=None, context=page.context)

    tab.get_by_role("button", name="Log out").click()

    expect_state(page, "You are logged out.")
    send(page, "anybody?")
    expect(notice(page)).to_contain_text("Not sent")
    expect(box(page)).to_have_value("anybody?")
    page.get_by_role("link", name="Log in").click()
    log_in(page, "ada")
    expect_state(page, CONNECTED)
    assert page.url.endswith(f"/rooms/{room}/")


def test_password_change_in_another_tab(enter, visit, server, room):
    """It ends the session of the socket, but not the login: the page comes back with the new cookie."""
    sockets = []
    page = enter("joan", room, prepare=lambda page: page.on("websocket", lambda socket: sockets.append(socket)))
    tab = visit(f"{server.url}accounts/password_change/", state=None, context=page.context)

    tab.get_by_label("Old password").fill(PASSWORD)
    tab.get_by_label("New password", exact=True).fill(PASSWORD)
    tab.get_by_label("New password confirmation").fill(PASSWORD)
    tab.get_by_role("button", name="Change").click()

    expect(tab.get_by_role("heading", name="Password changed")).to_be_visible()
    wait_for(page, lambda: len(sockets) == 2)
    expect_state(page, CONNECTED)
    send(page, "still here")
    expect(texts(page)).to_have_text(["still here"])
    expect(page.get_by_role("link", name="Log in")).to_be_hidden()


def test_markup_is_text(enter, room):
    text = '<script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1">'
    pages = [enter("ada", room), enter("grace", room)]

    send(pages[0], text)

    for page in pages:
        expect(texts(page)).to_have_text([text])
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0


def test_history(enter):
    page = enter("ada", "archive", viewport={"width": 400, "height": 700})
    scroller = page.get_by_role("region", name="Conversation")
    older = page.get_by_role("button", name="Older messages")

    def numbers():
        return [int(text.split()[1]) for text in texts(page).all_text_contents()]

    expect(messages(page)).to_have_count(50)
    expect(messages(page).last).to_be_in_viewport()
    seen = texts(page).first
    assert seen.text_content().startswith("old 81")
    seen = page.get_by_text("old 81")

    scroller.evaluate("element => { element.scrollTop = 30 }")
    expect(messages(page)).to_have_count(100)
    assert numbers() == list(range(31, 131))
    # It is where it was: 30 pixels further up than at the very top.
    expect(seen).to_be_in_viewport()
    top = seen.bounding_box()["y"]

    # Not by Playwright, which would scroll to it.
    older.evaluate("element => { element.focus({ preventScroll: true }); element.click() }")
    expect(messages(page)).to_have_count(130)
    assert numbers() == list(range(1, 131))
    assert abs(seen.bounding_box()["y"] - top) < 1
    expect(older).to_be_hidden()
    expect(scroller).to_be_focused()


def test_a_reader_who_has_scrolled_up_is_left_alone(enter):
    page, other = enter("ada", "old", viewport={"width": 400, "height": 500}), enter("grace", "old")
    scroller = page.get_by_role("region", name="Conversation")
    newer = page.get_by_role("button", name="New messages")
    expect(messages(page)).to_have_count(50)
    expect(newer).to_be_hidden()

    scroller.evaluate("element => { element.scrollTop = 200 }")
    expect(messages(page).last).not_to_be_in_viewport()
    send(other, "more")
    expect(messages(page)).to_have_count(51)
    assert scroller.evaluate("element => element.scrollTop") == 200

    newer.click()
    expect(messages(page).last).to_be_in_viewport()
    expect(newer).to_be_hidden()


def test_a_closed_room(enter, visit, server):
    member, stranger = enter("ada", "old"), enter("mallory", "old")
    member.goto(server.url)
    make_room(member, "The board", is_open=False)
    expect_state(member, CONNECTED)
    expect(member.get_by_role("list", name="Members").get_by_role("listitem")).to_have_text(["ada"])
    closed = link_to(member, "The board").get_by_text("members only", exact=True)
    expect(closed).to_be_visible()
    send(member, "Welcome to the board!")
    last = link_to(member, "The board").locator(".last")
    expect(last).to_have_text("ada: Welcome to the board!")
    # A lock says it, and leaves the line to the message.
    assert last.evaluate("element => element.scrollWidth <= element.clientWidth")
    assert closed.bounding_box()["width"] < 20

    path = member.url.removeprefix(server.url)
    assert stranger.request.get(server.url + path).status == 404
    socket_path = "/" + path.replace("rooms/", "ws/socket-server/")
    code = "path => new Promise(done => { new WebSocket(path).onclose = ({ code }) => done(code) })"
    assert stranger.evaluate(code, socket_path) == 4404
    stranger.goto(server.url)
    expect(link_to(stranger, "Old")).to_be_visible()
    expect(link_to(stranger, "The board")).to_have_count(0)

    member.get_by_label("Add a member").fill("nobody")
    member.get_by_role("button", name="Add").click()
    expect(member.get_by_label("Add a member")).to_be_visible()
    expect(member.get_by_label("Add a member")).to_have_attribute("aria-invalid", "true")
    expect(member.get_by_label("Add a member")).to_be_focused()
    member.get_by_label("Add a member").fill("mallory")
    member.get_by_role("button", name="Add").click()
    expect(member.get_by_role("list", name="Members").get_by_role("listitem")).to_have_text(["ada", "mallory"])
    stranger.get_by_role("searchbox").fill("board")
    stranger.keyboard.press("Enter")
    link_to(stranger, "The board").click()
    expect_state(stranger, CONNECTED)

    leave = stranger.get_by_role("button", name="Leave the room")
    assert answer(stranger, leave.click, accept=False) == "Leave this room? Only a member can let you in again."
    send(stranger, "still here")
    expect(texts(member)).to_have_text(["Welcome to the board!", "still here"])
    answer(stranger, leave.click, accept=True)
    expect(stranger.get_by_role("heading", name="Rooms")).to_be_visible()


def test_sign_up_and_say_something(visit, server):
    page = visit(server.url, state=None)
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Username").fill("Ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_text("already exists")).to_be_visible()
    page.get_by_label("Username").fill("margaret")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    page.get_by_label("Find a room").fill("lobby")
    link_to(page, "Lobby").click()
    expect_state(page, CONNECTED)
    send(page, "Hello!")
    expect(texts(page).last).to_have_text("Hello!")
    expect(page.get_by_role("banner")).to_contain_text("margaret")


def test_keyboard_only(visit, server):
    page = visit(server.url, state=None)
    keyboard = page.keyboard

    def press_until(key, element):
        for _ in range(60):
            if element.evaluate("element => element === document.activeElement"):
                assert element.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
                return
            keyboard.press(key)
        pytest.fail(f"{element} is not reached")

    expect(page.get_by_label("Username")).to_be_focused()
    # Who has not written in the room: on the way over many messages of their own, older ones come by themselves.
    keyboard.type("mallory")
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Rooms")).to_be_visible()
    press_until("Tab", link_to(page, "Old"))
    keyboard.press("Enter")
    expect_state(page, CONNECTED)
    expect(box(page)).to_be_focused()
    keyboard.type("two")
    keyboard.press("Shift+Enter")
    keyboard.type("lines")
    box(page).evaluate(COMPOSE)
    expect(box(page)).to_have_value("two\nlines")
    keyboard.press("Enter")
    expect(texts(page).last).to_have_text("two\nlines")

    press_until("Shift+Tab", page.get_by_role("button", name="Older messages"))
    keyboard.press("Enter")
    expect(texts(page).filter(has_text=re.compile(r"^old 81\b"))).to_have_count(1)
    press_until("Shift+Tab", page.get_by_role("region", name="Conversation"))
    wait_for(page, lambda: keyboard.press("Home") or texts(page).first.text_content() == "old 1\n…")


def test_phone(enter, visit, server):
    page = enter("ada", "old", **PHONE)
    box(page).tap()
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.keyboard.type("two")
    expect(box(page)).to_have_value("one\ntwo")
    page.get_by_role("button", name="Send").tap()
    expect(texts(page).last).to_have_text("one\ntwo")
    send(page, "W" * 500)
    page.get_by_role("button", name="Send").tap()
    expect(texts(page).last).to_have_text("W" * 500)

    for size in ({"width": 320, "height": 568}, {"width": 667, "height": 375}):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        assert page.evaluate("document.documentElement.scrollHeight") == size["height"]
        expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
        expect(page.get_by_role("status")).to_be_in_viewport(ratio=1)
    # Below 16 px Safari zooms in on the field.
    assert box(page).evaluate("element => parseFloat(getComputedStyle(element).fontSize)") >= 16


@each_engine
def test_narrow_pages(enter, visit, server):
    page = enter("ada", "old", viewport={"width": 320, "height": 568})
    expect(messages(page)).to_have_count(50)
    expect_in_place(page)
    page.goto(server.url)
    make_room(page, "W" * 100, is_open=False)
    expect_state(page, CONNECTED)
    page.get_by_text("Who is here").click()
    room = page.url.removeprefix(server.url)
    guest = visit(server.url, state=None, viewport={"width": 320, "height": 568})

    def check(page):
        assert fits(page), page.url
        assert page.evaluate(SMALL) == [], page.url

    check(page)
    page.goto(server.url)
    page.get_by_text("New room").click()
    check(page)
    person = f"{room}people/grace/"
    for path in ("", room, person, "accounts/password_change/", "accounts/password_change/done/", "accounts/email/"):
        page.goto(server.url + path)
        check(page)
    for path in ("accounts/login/", "accounts/signup/", "accounts/password_reset/"):
        guest.goto(server.url + path)
        check(guest)
        guest.get_by_role("main").get_by_role("button").click()
        check(guest)


@each_engine
def test_messages_on_a_phone(enter, server, room):
    """What others write has its place, also where the reader can take it back, by a finger or the keyboard."""
    execute(server.directory, OWN, "ada", room)
    page, other = enter("ada", room, viewport={"width": 390, "height": 667}), enter("grace", room)
    send(page, "mine " * 50)
    expect(messages(other)).to_have_count(1)
    send(other, "theirs " * 50)
    expect(messages(page)).to_have_count(2)
    buttons = page.locator(".take-back")

    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 667})
        own, theirs = (page.locator(".bubble").nth(number).bounding_box() for number in (0, 1))
        # Without the scroll bar.
        free = page.evaluate("scroller.clientWidth")
        assert own["width"] > 0.7 * free
        assert theirs["width"] > 0.6 * free
        for number, bubble in enumerate([own, theirs]):
            button = buttons.nth(number).bounding_box()
            assert min(button["width"], button["height"]) >= 43.9
            assert button["x"] >= 0
            assert button["x"] + button["width"] <= width
            assert button["x"] + button["width"] <= bubble["x"] or button["x"] >= bubble["x"] + bubble["width"]
        assert fits(page)
    opacity = buttons.nth(1).evaluate("element => { element.focus(); return getComputedStyle(element).opacity }")
    # Without a window manager no window of WebKit has the focus.
    assert opacity == "1" or page.context.browser.browser_type.name == "webkit"
    answer(page, buttons.nth(1).click, accept=True)
    expect(texts(other).nth(1)).to_have_text("This message was taken back.")


def test_the_name_of_the_site_is_not_cut_on_a_phone(enter, server):
    page = enter("mallory", "old", viewport={"width": 360, "height": 640})
    page.goto(server.url)

    home = page.get_by_role("banner").get_by_role("link")
    assert home.evaluate("element => element.scrollWidth <= element.clientWidth")


# The list of rooms


def unread_of(page, room):
    return link_to(page, room).locator(".unread")


@pytest.fixture
def two_rooms():
    """The slugs of two empty rooms in ada's list."""
    return [next(slugs_of_hers), next(slugs_of_hers)]


def name_of(slug):
    return slug.replace("room-", "Room ")


def test_unread_messages_are_counted_until_they_are_seen(enter, visit, server, two_rooms):
    """Live, on the page of the list and beside another room, also for rooms that are not open; on all devices."""
    quiet, busy = two_rooms
    other = enter("grace", busy)
    lists = [enter("ada", quiet), enter("ada", quiet)]
    lists[1].goto(server.url)
    count = [unread_of(page, name_of(busy)) for page in lists]

    send(other, "one")
    send(other, "two")
    for page, unread in zip(lists, count, strict=True):
        expect(unread).to_have_text("2")
        expect(unread).to_have_attribute("aria-label", "2 unread messages")
        expect(link_to(page, name_of(busy)).locator(".last")).to_have_text(re.compile(r"grace: two"))
        expect(page.locator("#list li").first).to_contain_text(name_of(busy))
    # One's own do not count.
    expect(unread_of(other, name_of(busy))).to_be_hidden()

    lists[0].goto(f"{server.url}rooms/{busy}/")
    expect(texts(lists[0])).to_have_text(["one", "two"])
    for unread in count:
        expect(unread).to_be_hidden()
    lists[1].reload()
    expect(count[1]).to_be_hidden()


def test_a_line_marks_where_the_unread_begin(enter, server, two_rooms):
    quiet, busy = two_rooms
    page, other = enter("ada", busy), enter("grace", busy)
    send(other, "read")
    expect(texts(page)).to_have_text(["read"])
    expect(unread_of(page, name_of(busy))).to_be_hidden()
    page.goto(f"{server.url}rooms/{quiet}/")
    expect(link_to(page, name_of(busy)).locator(".text")).to_have_text("read")
    expect(unread_of(page, name_of(busy))).to_be_hidden()

    for text in ("first", "second"):
        send(other, text)
    expect(unread_of(page, name_of(busy))).to_have_text("2")
    link_to(page, name_of(busy)).click()

    expect(messages(page).filter(has_text="Unread from here")).to_have_count(1)
    expect(messages(page).filter(has_text="Unread from here").locator("p")).to_have_text("first")


def line(page):
    return messages(page).filter(has_text="Unread from here")


def test_no_line_marks_what_its_reader_sees_come(enter, two_rooms):
    page, other = enter("ada", two_rooms[0]), enter("grace", two_rooms[0])
    send(other, "one")
    expect(link_to(page, name_of(two_rooms[0])).locator(".text")).to_have_text("one")
    expect(unread_of(page, name_of(two_rooms[0]))).to_be_hidden()
    page.reload()
    expect(texts(page)).to_have_text(["one"])

    send(other, "two")

    expect(texts(page)).to_have_text(["one", "two"])
    expect(line(page)).to_have_count(0)


def test_the_line_moves_up_to_what_is_unread_in_older_messages(enter, server):
    page = enter("hedy", "old")
    hers = "user_id = (SELECT id FROM accounts_user WHERE username = 'hedy')"
    hers += " AND room_id = (SELECT id FROM chat_room WHERE slug = 'old')"
    # The server stores it a moment after the page has told.
    wait_for(page, lambda: execute(server.directory, f"SELECT 1 FROM chat_reading WHERE read_seq > 70 AND {hers}"))
    page.goto(server.url)
    execute(server.directory, f"UPDATE chat_reading SET read_seq = 70 WHERE {hers}")
    page.goto(f"{server.url}rooms/old/")
    expect(line(page)).to_have_count(1)

    page.get_by_role("button", name="Older messages").evaluate("element => element.click()")

    expect(messages(page)).to_have_count(100)
    expect(line(page).locator("p")).to_contain_text(["old 71"])


@each_engine
def test_what_was_seen_at_the_last_moment_is_read(enter, server, two_rooms):
    """The page tells it once a second at most, and also when its reader goes."""
    quiet, busy = two_rooms
    page, other = enter("ada", busy), enter("grace", busy)
    # That second is never over.
    page.evaluate("() => { window.setTimeout = () => 1; }")
    for number in range(3):
        send(other, f"number {number}")
        expect(texts(page).nth(number)).to_have_text(f"number {number}")

    page.goto(f"{server.url}rooms/{quiet}/")

    entry = page.locator(f"#list [data-slug={busy}]")
    expect(entry.locator(".text")).to_have_text("number 2")
    expect(entry.locator(".unread")).to_be_hidden()


def turn(page, hidden):
    """Hide the tab of `page`, or show it again."""
    hide = "Object.defineProperty(document, '{}', {{ configurable: true, value: {} }})"
    page.evaluate(hide.format("hidden", json.dumps(hidden)))
    page.evaluate(hide.format("visibilityState", json.dumps("hidden" if hidden else "visible")))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_the_title_tells_of_what_came_while_the_tab_was_hidden(enter, visit, server, room):
    page, other = enter("ada", room), enter("grace", room)
    send(page, "hello")
    expect(texts(other)).to_have_text(["hello"])
    # The server knows that it is seen.
    expect(unread_of(page, name_of(room))).to_be_hidden()
    turn(page, hidden=True)
    for text in ("one", "two"):
        send(other, text)
    expect(page).to_have_title(re.compile(r"^\(2\) Room "))
    turn(page, hidden=False)

    expect(page).to_have_title(re.compile(r"^Room "))
    expect(messages(page).filter(has_text="Unread from here").locator("p")).to_have_text("one")

    expect(unread_of(page, name_of(room))).to_be_hidden()
    turn(page, hidden=True)
    send(other, "three")
    expect(page).to_have_title(re.compile(r"^\(1\) Room "))
    visit(server.url, state=None, context=page.context).get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Logged out")
    turn(page, hidden=False)
    expect(page).to_have_title("Logged out")


def test_the_title_counts_what_is_unread_and_new(enter, room):
    """Also where a message comes in the same poll as another one's reading, and in a room that was not in the list."""
    script = Script()
    page = enter("ada", room, prepare=script)

    def tell(slug, last, unread, time="12:00"):
        # As of noon less a second.
        state = {"name": name_of(slug), "is_open": True, "user": "grace", "text": "…", "as_of": 1795348799000}
        count = {"last_seq": last, "unread": unread, "sent_at": f"2026-11-22T{time}:00Z"}
        script.say({"type": "room", "slug": slug, **state, **count})

    tell(room, 7, 3)
    expect(unread_of(page, name_of(room))).to_have_text("3")
    turn(page, hidden=True)
    # A phone has read the three, and one has come.
    tell(room, 8, 1)
    expect(page).to_have_title(re.compile(r"^\(1\) Room "))
    tell(room, 10, 3)
    expect(page).to_have_title(re.compile(r"^\(3\) Room "))
    # Read on the phone, there and in part of a room that was not in the list.
    tell(room, 10, 0)
    tell("half-read", 40, 20, "11:59")
    expect(unread_of(page, "half-read")).to_have_text("20")
    expect(page).to_have_title(re.compile(r"^Room "))
    # Four are from long ago.
    tell("unlisted", 90, 5)
    expect(page).to_have_title(re.compile(r"^\(1\) Room "))
    tell("unlisted", 92, 7)
    expect(page).to_have_title(re.compile(r"^\(3\) Room "))
    turn(page, hidden=False)
    expect(page).to_have_title(re.compile(r"^Room "))


def test_a_room_that_is_read_elsewhere_stays_where_it_is(enter, visit, server, two_rooms):
    """The list is in the order of the last messages."""
    quiet, busy = two_rooms
    page, other = enter("ada", "old"), enter("grace", busy)
    send(other, "first")
    expect(unread_of(page, name_of(busy))).to_have_text("1")
    other.goto(f"{server.url}rooms/{quiet}/")
    send(other, "then")
    expect(unread_of(page, name_of(quiet))).to_have_text("1")
    page.goto(server.url)
    expect(page.locator("#list li").first).to_contain_text(name_of(quiet))

    visit(f"{server.url}rooms/{busy}/", context=page.context)

    expect(unread_of(page, name_of(busy))).to_be_hidden()
    expect(page.locator("#list li").first).to_contain_text(name_of(quiet))


def test_the_room_that_is_open_is_marked_also_after_a_search(enter, two_rooms):
    page = enter("ada", two_rooms[0])
    # Rooms without messages may be on the second page of the list.
    send(page, "hello")
    current = page.locator("#list [aria-current]")
    expect(current).to_contain_text(name_of(two_rooms[0]))
    field = page.get_by_label("Find a room by its name")

    field.fill(name_of(two_rooms[1]))
    expect(current).to_have_count(0)
    # Without a message below it, the name stands beside the middle of the initial.
    found = link_to(page, name_of(two_rooms[1]))
    initial, name = found.locator(".avatar").bounding_box(), found.locator("b").bounding_box()
    assert abs(initial["y"] + initial["height"] / 2 - name["y"] - name["height"] / 2) <= 1
    field.fill("")

    expect(current).to_contain_text(name_of(two_rooms[0]))


def test_rooms_are_found_by_typing(enter, server):
    page = enter("ada", "old")
    rooms = page.locator("#list [data-slug]")
    field = page.get_by_label("Find a room by its name")

    field.press_sequentially("room 9")
    expect(rooms.locator("b").filter(has_text="Room 9")).to_have_count(11)
    expect(rooms).to_have_count(11)
    assert page.url.endswith("/rooms/old/")

    field.fill("<b>Hats</b>")
    expect(page.get_by_text("No room has this in its name.")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("<b>Hats</b>")
    page.get_by_role("button", name="Make the room").click()
    expect(page.get_by_role("heading", name="<b>Hats</b>")).to_be_visible()
    expect(page.locator("#list [aria-current]")).to_contain_text("<b>Hats</b>")


def test_a_page_of_older_rooms_takes_no_newer_one(enter, visit, server, two_rooms):
    frames = []

    def listen(page):
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(frame)))

    other = enter("grace", two_rooms[0])
    # Without a message it may be on that page.
    send(other, "old")
    context = enter("ada", "old").context
    page = visit(f"{server.url}?page=2", state=None, context=context, prepare=listen)
    expect(page.get_by_role("link", name="Back")).to_be_visible()
    wait_for(page, lambda: frames)
    send(other, "news")
    wait_for(page, lambda: any(two_rooms[0] in frame and '"news"' in frame for frame in frames))

    expect(link_to(page, name_of(two_rooms[0]))).to_have_count(0)
    expect(page.locator("#list li").last).to_contain_text("Page 2 of")


def test_the_list_is_the_way_in_and_back_on_a_phone(enter, server):
    page = enter("ada", "old", **PHONE)
    expect(page.get_by_role("navigation", name="Rooms")).to_be_hidden()

    page.get_by_role("link", name="Rooms").tap()
    expect(page.get_by_role("heading", name="Rooms")).to_be_visible()
    # Wherever it is in the list.
    page.get_by_label("Find a room by its name").fill("Archive")
    link_to(page, "Archive").tap()

    expect(page.get_by_role("heading", name="Archive")).to_be_visible()


# Links, and who is typing


def test_links_are_links_and_nothing_else(enter, room):
    page = enter("ada", room)
    send(page, "see https://example.com/?a=<b>&c (javascript:alert(1)).")

    link = texts(page).get_by_role("link")
    expect(texts(page)).to_have_text(["see https://example.com/?a=<b>&c (javascript:alert(1))."])
    expect(link).to_have_attribute("href", "https://example.com/?a=")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow ugc")


def test_who_is_typing(enter, room):
    page, other = enter("ada", room), enter("grace", room)

    box(other).press_sequentially("he")
    expect(page.get_by_text("is typing…")).to_contain_text("grace")
    expect(other.get_by_text("is typing…")).to_have_count(0)
    other.keyboard.press("Enter")

    expect(page.get_by_text("is typing…")).to_have_count(0)


def test_a_refused_message_is_sent_again_or_edited(enter, room):
    script = Script()
    page = enter("ada", room, prepare=script)

    def refuse(number):
        wait_for(page, lambda: len(script.heard_of("message")) == number)
        id = script.heard_of("message")[-1]["id"]
        script.say({"type": "error", "code": "rude", "message": "Be nice.", "id": id})

    send(page, "$%&!")
    refuse(1)
    page.get_by_role("button", name="Send again").click()
    refuse(2)
    assert len({frame["id"] for frame in script.heard_of("message")}) == 2
    box(page).fill("What I wrote meanwhile")
    page.get_by_role("button", name="Edit").click()

    expect(box(page)).to_have_value("$%&!\nWhat I wrote meanwhile")
    expect(box(page)).to_be_focused()
    expect(messages(page)).to_have_count(0)


# What owners and members can do


def test_a_message_is_taken_back(enter, room):
    page, other = enter("ada", room), enter("grace", room)
    send(page, "rude")
    send(page, "nice")
    expect(texts(other)).to_have_text(["rude", "nice"])
    expect(other.get_by_role("button", name="Take back this message")).to_have_count(0)

    answer(page, page.get_by_role("button", name="Take back this message").first.click, accept=True)

    for each in (page, other):
        expect(texts(each)).to_have_text(["This message was taken back.", "nice"])
    other.reload()
    expect(texts(other)).to_have_text(["This message was taken back.", "nice"])


def test_a_list_shows_nothing_of_a_message_that_is_taken_back(enter, server, two_rooms):
    quiet, busy = two_rooms
    other = enter("grace", busy)
    send(other, "a secret")
    page = enter("ada", quiet)
    last = link_to(page, name_of(busy)).locator(".last")
    expect(last).to_contain_text("grace: a secret")

    answer(other, other.get_by_role("button", name="Take back this message").click, accept=True)

    expect(last).to_contain_text("grace: This message was taken back.")
    expect(unread_of(page, name_of(busy))).to_have_text("1")
    page.reload()
    expect(last).to_contain_text("grace: This message was taken back.")


def test_a_page_that_has_missed_it_starts_anew(enter, room):
    script = Script(message(1), message(2), last_seq=2)
    page = enter("ada", room, prepare=script)
    expect(messages(page)).to_have_count(2)
    script.frames[0]["edits"] = 1
    script.frames[1]["text"] = ""

    script.socket.close(code=4000)

    expect(texts(page)).to_have_text(["This message was taken back.", "number 2"])


def test_somebody_is_blocked(enter, server, room):
    page, other = enter("ada", room), enter("mallory", room)
    send(other, "rude")
    expect(texts(page)).to_have_text(["rude"])

    page.get_by_role("list", name="Who is here").get_by_role("link", name="mallory").click()
    page.get_by_role("button", name="Block").click()
    expect_state(page, CONNECTED)
    expect(texts(page)).to_be_hidden()
    page.evaluate("""() => {
      window.typed = "";
      new MutationObserver(() => (typed += typing.textContent)).observe(typing, { childList: true });
    }""")
    last = link_to(page, name_of(room)).locator(".text")
    expect(last).to_have_text("You have blocked this person.")
    box(other).press_sequentially("more")
    send(other, "more")
    expect(messages(page)).to_have_count(2)
    expect(messages(page).get_by_text("more", exact=True)).to_be_hidden()
    send(page, "mine")
    expect(last).to_have_text("mine")
    box(other).press_sequentially("still")
    send(other, "still more")
    expect(messages(page)).to_have_count(4)
    expect(last).to_have_text("You have blocked this person.")
    assert "mallory" not in page.evaluate("typed")
    page.get_by_role("button", name="Show the message").first.click()
    expect(texts(page).first).to_be_visible()

    page.goto(f"{server.url}rooms/{room}/people/mallory/")
    page.get_by_role("button", name="Do not block any more").click()
    expect(texts(page)).to_have_text(["rude", "more", "mine", "still more"])
    expect(texts(page).last).to_be_visible()


def test_somebody_is_banned_from_an_open_room(enter, server):
    owner = enter("ada", "old")
    owner.goto(server.url)
    make_room(owner, "Quiet please")
    expect_state(owner, CONNECTED)
    guest = enter("mallory", "quiet-please")
    send(guest, "LOUD")
    expect(texts(owner)).to_have_text(["LOUD"])

    owner.get_by_role("list", name="Who is here").get_by_role("link", name="mallory").click()
    owner.get_by_role("button", name="Ban from the room").click()

    expect_state(guest, "You can no longer enter this room.")
    assert guest.request.get(f"{server.url}rooms/quiet-please/").status == 404
    expect(owner.get_by_role("list", name="Banned").get_by_role("listitem")).to_have_text(["mallory"])


def test_a_room_is_left(enter, room):
    page = enter("ada", room)

    page.get_by_role("button", name="Leave the room").click()

    expect(page.get_by_role("heading", name="Rooms")).to_be_visible()


# Honest people and the limits


def watch_notices(page):
    """Note in `window.notices` what the page says to its reader from now on."""
    page.evaluate("""() => {
      window.notices = [];
      const note = () => notice.textContent && notices.push(notice.textContent);
      new MutationObserver(note).observe(notice, { childList: true, characterData: true, subtree: true });
    }""")


def test_somebody_who_types_fast_meets_no_limit(enter, server, room):
    """Sixty lines, as fast as the page takes them."""
    page, other = enter("evelyn", room), enter("grace", room)
    watch_notices(page)
    lines = [f"line {number}" for number in range(60)]

    page.evaluate(
        """(lines) => {
          for (const line of lines) {
            text.value = line;
            text.dispatchEvent(new InputEvent("input", { bubbles: true }));
            form.requestSubmit();
          }
        }""",
        lines,
    )

    for each in (page, other):
        expect(texts(each)).to_have_text(lines)
    expect(waiting(page)).to_have_count(0)
    assert page.evaluate("notices") == []
    assert "told to wait" not in server.log


def read_all(client, last):
    """Read the frames that come up to the message with the number `last`. Return those that are no messages."""
    others = []
    while (frame := client.receive()).get("seq") != last or frame["type"] != "message":
        if frame["type"] != "message":
            others.append(frame)
    return others


def come_in(stack, server, key, room, query=""):
    """Open the socket of a page of `room`."""
    options = {"path": f"ws/socket-server/{room}/{query}", "additional_headers": {"Cookie": f"sessionid={key}"}}
    return stack.enter_context(open_client(server, **options))


def test_somebody_with_ten_tabs_meets_no_limit(server, sessions):
    """Ten pages of a busy room, which come at once and tell what was seen; in one of them somebody turns back."""
    key = next(sessions["radia"])
    with contextlib.ExitStack() as stack:
        tabs = [come_in(stack, server, key, "month", "?listed=0") for _ in range(10)]
        for tab in tabs:
            read_all(tab, MONTH)
            tab.send({"type": "read", "seq": MONTH})
            tab.send({"type": "typing"})
        for before in range(MONTH - 49, MONTH - 500, -50):
            tab.send({"type": "history", "before": before})
        for tab in tabs:
            tab.send({"type": "ping"})
            types = []
            while "pong" not in types:
                types.append(tab.receive()["type"])
            assert "error" not in types
        assert types.count("history") == 10


def test_somebody_who_returns_after_a_month_meets_no_limit(server, sessions):
    """With all that was written meanwhile, in the room and in the list, and much to say about it."""
    with contextlib.ExitStack() as stack:
        key = next(sessions["barbara"])
        tab = come_in(stack, server, key, "month", f"?after={MONTH - 1000}&listed=1")
        others = read_all(tab, MONTH)
        for number in range(20):
            tab.send({"type": "message", "text": f"yes {number}"})
        others += read_all(tab, MONTH + 20)
        assert "error" not in {frame["type"] for frame in others}
        # Still more is not replayed.
        late = come_in(stack, server, key, "month", "?after=1&listed=1")
        assert late.greeting["last_seq"] == -1
        assert "error" not in {frame["type"] for frame in read_all(late, MONTH + 20)}


@pytest.mark.long
def test_a_page_keeps_to_limits_that_are_lower(visit, site, sessions, room, tmp_path):
    """Without being told it would send 100 frames at once, and be cut off with 4429 for the last of them."""
    lower = shutil.copytree(site, tmp_path / "lower")
    append_settings(lower, "REALTIME_FRAMES_PER_SECOND = 40", "REALTIME_FRAME_BURST = 20")
    with Server(lower, "production", env=LOCAL_PRODUCTION) as server:
        page = visit(f"{server.url}rooms/{room}/", cookies={"sessionid": next(sessions["ada"])})
        page.evaluate("""() => {
          for (let number = 0; number < 60; number += 1) {
            const box = document.querySelector("#form textarea");
            box.value = String(number);
            box.dispatchEvent(new Event("input", { bubbles: true }));
            document.querySelector("#form").requestSubmit();
          }
        }""")

        expect(texts(page)).to_have_text([str(number) for number in range(60)], timeout=30_000)
        assert "too many frames" not in server.log


@each_engine_weekly
def test_who_has_too_many_pages_is_told_what_to_do(enter, visit, server, sessions, room):
    """Beside the list of rooms, too. Both come by themselves when the others are closed."""
    with contextlib.ExitStack() as stack:
        key = next(sessions["hedy"])
        for _ in range(50):  # REALTIME_SOCKETS_PER_USER
            come_in(stack, server, key, "month", f"?after={MONTH}")

        pages = [enter("hedy", room, key=key, state="reconnecting…")]
        pages.append(visit(server.url, state=None, context=pages[0].context))

        for page in pages:
            expect(notice(page)).to_contain_text("Too many pages of yours are open")
    expect_state(pages[0], CONNECTED)
    for page in pages:
        expect(page.get_by_text("Too many pages of yours")).to_have_count(0)


# With a server that says what the test wants


@pytest.mark.parametrize(
    ("code", "text"), [(4401, "logged out"), (4403, "no longer enter"), (4404, "no such room"), (4410, "4410")]
)
def test_close_codes_that_mean_no(enter, room, code, text):
    script = Script()
    page = enter("ada", room, prepare=script)

    script.socket.close(code=code)
    if code == 4401:
        # Another tab may have logged in again: the script tries once more with the new cookie.
        wait_for(page, lambda: len(script.urls) == 2)
        script.socket.close(code=code)

    expect_state(page, re.compile(text))
    expect(page.get_by_text("Who is here")).to_be_hidden()
    expect(page.get_by_role("link", name="Log in")).to_be_visible(visible=code == 4401)
    send(page, "anybody?")
    expect(notice(page)).to_contain_text("Not sent")
    expect(box(page)).to_have_value("anybody?")
    assert len(script.urls) == (2 if code == 4401 else 1)


def test_a_gap_is_filled(enter, room):
    script = Script(message(1), message(2), last_seq=2)
    page = enter("ada", room, prepare=script)
    expect(messages(page)).to_have_count(2)

    script.say(message(5), message(6))
    wait_for(page, lambda: script.heard_of("resume"))
    script.say(*map(message, [3, 4, 5, 6, 6, 2, 7]))

    expect(texts(page)).to_have_text([f"number {seq}" for seq in range(1, 8)])
    assert script.heard_of("resume") == [{"type": "resume", "after": 2}]

    script.say(message(9))
    wait_for(page, lambda: len(script.heard_of("resume")) == 2)
    assert script.heard_of("resume")[1] == {"type": "resume", "after": 7}


def test_a_pong_tells_of_what_is_missing(enter, room):
    script = Script(message(1), last_seq=1)
    page = enter("ada", room, prepare=script)
    expect(messages(page)).to_have_count(1)

    page.evaluate("window.dispatchEvent(new Event('focus'))")
    wait_for(page, lambda: script.heard_of("ping"))
    script.say({"type": "pong", "last_seq": 3})

    wait_for(page, lambda: script.heard_of("resume"))
    assert script.heard_of("resume") == [{"type": "resume", "after": 1}]


def test_it_comes_back_with_the_last_number(enter, room):
    script = Script(message(7), message(8), last_seq=8)
    page = enter("ada", room, prepare=script)
    expect(messages(page)).to_have_count(2)

    script.socket.close(code=4000)

    wait_for(page, lambda: len(script.urls) == 2)
    assert "after=" not in script.urls[0]
    assert "/?after=8&" in script.urls[1]
    expect(texts(page)).to_have_text(["number 7", "number 8"])
    assert not script.heard_of("resume")


def test_an_answer_from_long_ago(enter, room):
    """A message that was sent, and stored, long before those that the server shows first."""
    script = Script(last_seq=130)
    page = enter("ada", room, prepare=script)
    send(page, "where were we?")
    wait_for(page, lambda: script.heard_of("message"))

    id = script.heard_of("message")[0]["id"]
    script.say(message(10, user="ada", id=id), *map(message, range(81, 131)))

    expect(messages(page)).to_have_count(50)
    expect(texts(page).first).to_have_text("number 81")
    expect(waiting(page)).to_have_count(0)
    assert not script.heard_of("resume")


def test_another_database(enter, room):
    """A number that the server does not know: it has been put back to a backup, say."""
    script = Script(message(1), last_seq=1)
    page = enter("ada", room, prepare=script)
    expect(messages(page)).to_have_count(1)
    script.say(message(2))
    expect(messages(page)).to_have_count(2)

    script.socket.close(code=4000)

    wait_for(page, lambda: len(script.urls) == 3)
    assert "?after=2&" in script.urls[1]
    assert "after=" not in script.urls[2]
    expect(texts(page)).to_have_text(["number 1"])
    expect_state(page, CONNECTED)


def test_somebody_else_has_logged_in(enter, room):
    """In another tab, while this page had no connection: what waits here is not sent in their name."""
    script = Script(user="grace")
    page = enter("ada", room, prepare=script, state="You are logged out.")
    item = {"text": "a secret", "time": "2026-11-22T12:00:00Z"}
    page.evaluate("item => localStorage.setItem(...item)", [f"chat/ada/{room}/1", json.dumps(item)])

    page.reload()

    expect_state(page, "You are logged out.")
    expect(waiting(page)).to_have_count(0)
    assert not script.heard_of("message")
    assert "a secret" in page.evaluate("Object.values(localStorage).join()")


def lines_of(page, selector):
    """Where the lines of the text are that begins the first such element."""
    return page.evaluate(
        """(selector) => {
          const range = new Range();
          range.selectNodeContents(document.querySelector(selector).firstChild);
          return [...range.getClientRects()].map(({ top, bottom }) => ({ top, bottom }));
        }""",
        selector,
    )


def test_a_refused_message_says_why(enter, room):
    script = Script()
    page = enter("ada", room, prepare=script, viewport=PHONE["viewport"])
    send(page, "$%&!")
    wait_for(page, lambda: script.heard_of("message"))
    error = {"type": "error", "message": "in English", "id": script.heard_of("message")[0]["id"]}

    script.say(error | {"code": "rate_limited", "retry_after": 60})
    expect(notice(page)).to_have_text(SLOWER)
    expect(waiting(page).locator("p")).to_have_text(["$%&!"])
    # Below it is the ring around the field.
    assert lines_of(page, "#notice")[-1]["bottom"] + 4 <= box(page).bounding_box()["y"]
    script.say(error | {"code": "rude", "message": "Be nice, to whomever you write to, and read what the others say."})

    expect(texts(page)).to_have_text(["$%&!"])
    expect(messages(page)).to_contain_text(["not sent: Be nice, to"])
    first, second = lines_of(page, ".note:not(:empty)")
    # The buttons, which are as high as a finger needs, drive none of its lines away.
    assert second["top"] - first["bottom"] < 10
    expect(waiting(page)).to_have_count(0)
    expect(notice(page)).to_be_empty()
    # Nor is the text lost when the page has to start anew, or is loaded again.
    script.frames[0]["edits"] = 1
    script.socket.close(code=4000)
    wait_for(page, lambda: len(script.urls) == 3)
    expect_state(page, CONNECTED)
    expect(texts(page)).to_have_text(["$%&!"])
    page.reload()
    expect(waiting(page).locator("p")).to_have_text(["$%&!"])


def test_a_notice_goes_when_its_message_has_arrived(enter, room):
    script = Script()
    page = enter("ada", room, prepare=script)
    send(page, "one")
    wait_for(page, lambda: script.heard_of("message"))
    sent = script.heard_of("message")[0]

    script.say({"type": "error", "code": "rate_limited", "message": "", "id": sent["id"], "retry_after": 0.1})
    expect(notice(page)).to_have_text(SLOWER)
    wait_for(page, lambda: script.heard_of("message") == [sent, sent])
    script.say(message(1, user="ada", text="one", id=sent["id"]))

    expect(texts(page)).to_have_text(["one"])
    expect(notice(page)).to_be_empty()


def test_what_is_asked_for_too_often_is_not_done(enter, room):
    """Nobody sends it again by itself: the reader is told."""
    script = Script(message(50, user="ada"), last_seq=50)
    page = enter("ada", room, prepare=script)
    error = {"type": "error", "code": "rate_limited", "message": "", "retry_after": 1}
    expect(messages(page)).to_have_count(1)

    answer(page, page.get_by_role("button", name="Take back this message").click, accept=True)
    wait_for(page, lambda: script.heard_of("take_back"))
    script.say(error | {"id": script.heard_of("take_back")[0]["id"]})
    expect(notice(page)).to_have_text("That was a lot at once. Try it again in a moment.")
    script.say({"type": "taken_back", "seq": 50, "edits": 1})
    expect(notice(page)).to_be_empty()

    page.get_by_role("button", name="Older messages").click()
    wait_for(page, lambda: script.heard_of("history"))
    script.say(error)
    expect(notice(page)).to_have_text("That was a lot at once. Try it again in a moment.")
    page.get_by_role("button", name="Older messages").click()
    script.say({"type": "history", "before": 50, "more": True, "messages": [message(49)]})
    expect(messages(page)).to_have_count(2)
    expect(notice(page)).to_be_empty()


def test_who_goes_on_is_not_named_again_but_after_a_pause(enter, room):
    times = ["12:00", "12:09", "12:20", "12:21"]
    users = ["grace", "grace", "grace", "mallory"]
    script = Script(*map(message, range(1, 5), times, users, [None] * 4, times), last_seq=4)
    page = enter("ada", room, prepare=script)

    expect(texts(page)).to_have_text(times)
    avatars = messages(page).locator(".avatar").all()
    assert [avatar.is_visible() for avatar in avatars] == [True, False, True, True]


def test_length_is_counted_like_python(enter, room):
    page = enter("ada", room)

    send(page, "👋" * 2001)
    expect(notice(page)).to_have_text("Not sent: 2001 characters, and 2000 fit.")
    expect(box(page)).to_have_value("👋" * 2001)
    page.keyboard.press("!")
    expect(notice(page)).to_have_text("Not sent: 2002 characters, and 2000 fit.")
    for _ in range(2):
        page.keyboard.press("Backspace")
    expect(notice(page)).to_be_empty()

    send(page, "👋" * 2000)
    expect(texts(page)).to_have_text(["👋" * 2000])
    expect(notice(page)).to_be_empty()


def test_odd_texts(enter, room):
    page = enter("ada", room)

    send(page, "")
    send(page, " \n ")
    # What is blank, but no space in Unicode.
    send(page, "\u200b\u2060\ufeff")
    page.evaluate(r"document.getElementById('text').value = 'half \ud83d of a pair, and \0'")
    page.get_by_role("button", name="Send").click()

    expect(texts(page)).to_have_text(["half \ufffd of a pair, and \ufffd"])


def test_marks_without_end_stay_in_their_bubble(enter, room):
    page = enter("ada", room)
    send(page, "above")
    send(page, "Z" + "\u0301" * 300 + "\u0489" * 300)
    expect(messages(page)).to_have_count(2)

    assert page.evaluate("scroller.scrollWidth <= scroller.clientWidth")
    assert page.locator(".bubble").last.evaluate("element => getComputedStyle(element).overflow") == "clip"


def test_without_storage(enter, room):
    """The page works, and the browser asks before it leaves with something that is not sent."""
    script = Script(message(1), last_seq=1)
    forbidden = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no') } })"

    def prepare(page):
        page.add_init_script(forbidden)
        script(page)

    page = enter("ada", room, prepare=prepare)
    questions = []
    page.on("dialog", lambda dialog: (questions.append(dialog.type), dialog.accept()))
    send(page, "to be confirmed")
    expect(waiting(page)).to_have_count(1)

    page.reload()

    expect(messages(page)).to_have_count(1)
    expect(waiting(page)).to_have_count(0)
    assert questions == ["beforeunload"]


def test_only_what_is_new_is_read_out(enter, room):
    """The live region is off while what is older comes in."""
    script = Script(*map(message, range(51, 101)), last_seq=100)
    watch = """
        window.live = []
        new MutationObserver((records) => {
          for (const { target, addedNodes } of records) {
            if (target.id === "messages" && addedNodes.length) live.push(target.parentElement.ariaLive)
          }
        }).observe(document, { subtree: true, childList: true })
    """

    def prepare(page):
        page.add_init_script(watch)
        script(page)

    page = enter("ada", room, prepare=prepare)
    log = page.get_by_role("log")
    expect(messages(page)).to_have_count(50)
    assert set(page.evaluate("live.splice(0)")) == {"off"}

    expect(log).to_have_attribute("aria-live", "polite")
    script.say(message(101))
    expect(messages(page)).to_have_count(51)
    assert page.evaluate("live.splice(0)") == ["polite"]

    page.get_by_role("button", name="Older messages").click()
    wait_for(page, lambda: script.heard_of("history"))
    assert script.heard_of("history") == [{"type": "history", "before": 51}]
    script.say({"type": "history", "before": 51, "more": True, "messages": [*map(message, range(1, 51))]})
    expect(messages(page)).to_have_count(101)
    assert page.evaluate("live.splice(0)") == ["off"]


def test_a_page_that_stays_open_stays_small(enter, room):
    script = Script(message(1), last_seq=1)
    page = enter("ada", room, prepare=script)

    script.say(*map(message, range(2, 2106)))

    expect(texts(page).last).to_have_text("number 2105")
    expect(messages(page)).to_have_count(2000)
    expect(texts(page).first).to_have_text("number 106")
    page.get_by_role("button", name="Older messages").click()
    wait_for(page, lambda: script.heard_of("history"))
    assert script.heard_of("history") == [{"type": "history", "before": 106}]


@each_engine
@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_colors(enter, room, scheme, bright):
    page = enter("ada", room, color_scheme=scheme)

    def brightness(element, name):
        color = page.locator(element).first.evaluate(f"element => getComputedStyle(element).{name}")
        return sum(map(int, re.findall(r"\d+", color)[:3])) / 3

    assert (brightness("body", "backgroundColor") > 200) is bright
    assert (brightness("body", "color") < 60) is bright
    send(page, "mine")
    # Large and bright in a dark page, it would dazzle.
    assert brightness(".own .bubble", "backgroundColor") < 150


@each_engine
def test_right_to_left(enter, room):
    """In a translated page all sides change places."""
    page, other = enter("ada", room), enter("grace", room)
    send(other, "theirs")
    expect(messages(page)).to_have_count(1)
    send(page, "mine")
    expect(messages(page)).to_have_count(2)

    def left(number):
        return texts(page).nth(number).bounding_box()["x"]

    assert left(0) < left(1)
    page.evaluate("document.documentElement.dir = 'rtl'")
    assert left(0) > left(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_javascript(enter, room):
    page = enter("ada", room, state=None, java_script_enabled=False)

    expect(page.locator("noscript p")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_hidden()
