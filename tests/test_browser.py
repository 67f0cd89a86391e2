"""The page of the minimal starter in a real browser, against a real server."""

import json
import re

import pytest
from browser import (
    CONNECTED,
    PHONE_HOST,
    each_engine,
    each_engine_and_kind,
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
from servers import Server

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


@pytest.fixture(scope="module")
def server(project):
    with Server(project, env={"DJANGO_ALLOWED_HOSTS": f"127.0.0.1,{PHONE_HOST}"}) as server:
        yield server


def serve_frames(*frames, code=None):
    """Return a `prepare` for `visit`: the page's sockets are met by these frames, and closed with `code`."""

    def prepare(page):
        page.sockets = 0

        def meet(socket):
            page.sockets += 1
            for frame in frames:
                socket.send(json.dumps(frame))
            if code:
                socket.close(code=code)

        page.route_web_socket("**/ws/socket-server/", meet)

    return prepare


@each_engine
def test_page_says_that_it_is_connected(visit, server):
    page = visit(server.url)

    expect(page).to_have_title("My Realtime Site")
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


@each_engine
def test_two_tabs(visit, server):
    first, second = visit(server.url), visit(server.url)

    send(first, "Hello!")
    expect(messages(second)).to_have_text(["Hello!"])
    second.get_by_label("Message", exact=True).fill("¡Hola! 👋 مرحبا")
    second.get_by_role("button", name="Send").click()

    for page in (first, second):
        expect(messages(page)).to_have_text(["Hello!", "¡Hola! 👋 مرحبا"])
        expect(waiting(page)).to_have_count(0)
        expect(page.get_by_label("Message", exact=True)).to_have_value("")
        assert is_focused(page.get_by_label("Message", exact=True))


@each_engine_and_kind("runserver", "uvicorn")
def test_server_restart(visit, project, kind):
    with Server(project, kind) as server:
        first, second = visit(server.url), visit(server.url)
        for page in (first, second):
            page.evaluate("window.sameAsBefore = true")
        send(first, "before")
        expect(messages(second)).to_have_text(["before"])

        server.stop()
        for page in (first, second):
            expect_state(page, "reconnecting…")
        send(first, "typed offline")
        expect(waiting(first)).to_have_text(["typed offline not sent yet"])
        expect(notice(first)).to_contain_text("as soon as the connection is back")
        # A message that is sent before the second tab is back would not reach it: this starter keeps no history.
        first.context.set_offline(True)

        server.start()
        expect_state(second, CONNECTED)
        expect_state(first, "reconnecting…")
        first.context.set_offline(False)
        expect_state(first, CONNECTED)
        expect(notice(first)).to_be_empty()

        send(second, "after")
        for page in (first, second):
            expect(messages(page)).to_have_text(["before", re.compile("missing"), "typed offline", "after"])
            expect(waiting(page)).to_have_count(0)
            assert page.evaluate("window.sameAsBefore"), "reloaded"


@each_engine
def test_narrow(visit, server):
    """As narrow as WCAG 1.4.10 asks for, and with a word that does not fit."""
    page = visit(server.url, viewport={"width": 320, "height": 568})

    send(page, "W" * 500)

    expect(messages(page)).to_have_count(1)
    assert fits(page)
    expect_in_place(page)
    expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("status")).to_be_in_viewport(ratio=1)


@each_engine
def test_right_to_left(visit, server):
    """In a translated page all sides change places."""
    page = visit(server.url)
    button, field = page.get_by_role("button", name="Send"), page.get_by_label("Message", exact=True)
    assert field.bounding_box()["x"] < button.bounding_box()["x"]

    page.evaluate("document.documentElement.dir = 'rtl'")

    assert field.bounding_box()["x"] > button.bounding_box()["x"]
    assert fits(page)


def test_back_button(visit, server):
    page = visit(server.url)
    send(page, "still here")
    expect(messages(page)).to_have_text(["still here"])

    page.goto("about:blank")
    page.go_back(wait_until="commit")

    expect_state(page, CONNECTED)
    expect(messages(page)).to_have_text(["still here", re.compile("missing")])


@pytest.mark.parametrize(
    ("code", "text"),
    [(4401, "log in"), (4403, "not allowed"), (4404, "no socket at this address"), (4410, "4410")],
)
def test_close_codes_that_mean_no(visit, server, code, text):
    page = visit(server.url, state=re.compile(f"^Disconnected: .*{text}"), prepare=serve_frames(code=code))

    send(page, "anybody?")

    expect(notice(page)).to_contain_text("Not sent")
    expect(page.get_by_label("Message", exact=True)).to_have_value("anybody?")
    # Another tab may have logged in again: the script tries once more with the new cookie.
    assert page.sockets == (2 if code == 4401 else 1)


def test_project_name_is_shown_exactly(visit, bake):
    name = """<b>"Ada's" & 'Åsa's'</b> \\n 100 % #1 🎉 שלום"""
    project = bake(project_name=name)
    with Server(project) as server:
        page = visit(server.url)

        assert page.get_by_role("heading").text_content() == name
        assert page.title() == name


@each_engine
def test_markup_in_a_message_is_text(visit, server):
    text = '<script>window.hacked = 1</script><img src="x" onerror="window.hacked = 1">'
    first, second = visit(server.url), visit(server.url)

    send(first, text)

    for page in (first, second):
        expect(messages(page)).to_have_text([text])
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0


def test_length_is_counted_like_python(visit, server):
    page = visit(server.url)

    send(page, "👋" * 2001)
    expect(notice(page)).to_have_text("Not sent: 2001 characters, and 2000 fit.")
    expect(page.get_by_label("Message", exact=True)).to_have_value("👋" * 2001)

    send(page, "👋" * 2000)
    expect(messages(page)).to_have_text(["👋" * 2000])
    expect(notice(page)).to_be_empty()


def test_blank_text_is_not_sent(visit, server):
    page = visit(server.url)

    send(page, "")
    send(page, "   ")
    send(page, "text")

    expect(messages(page)).to_have_text(["text"])


@each_engine
def test_text_that_cannot_be_sent_is_mended(visit, server):
    page = visit(server.url)

    page.evaluate(r"document.getElementById('text').value = 'half \ud83d of a pair, and \0'")
    page.get_by_role("button", name="Send").click()

    expect(messages(page)).to_have_text(["half \ufffd of a pair, and \ufffd"])


def test_a_refused_message_says_why(visit, server):
    def prepare(page):
        def refuse(socket):
            def answer(data):
                frame = json.loads(data)
                if frame["type"] == "message":
                    error = {"type": "error", "code": "rude", "message": "Be nice.", "id": frame["id"]}
                    socket.send(json.dumps(error))

            socket.on_message(answer)
            socket.send(json.dumps({"type": "connection_established", "message": "You are now connected!"}))

        page.route_web_socket("**/ws/socket-server/", refuse)

    page = visit(server.url, prepare=prepare)

    send(page, "$%&!")

    expect(messages(page)).to_have_text(["$%&! not sent: Be nice."])
    expect(waiting(page)).to_have_count(0)


def test_a_notice_goes_when_its_message_has_arrived(visit, server):
    def prepare(page):
        page.frames_heard = []

        def meet(socket):
            def answer(data):
                frame = json.loads(data)
                if frame["type"] == "message":
                    page.frames_heard.append(frame)
                    error = {"type": "error", "code": "rate_limited", "message": "Too many.", "id": frame["id"]}
                    socket.send(json.dumps(error | {"retry_after": 1} if len(page.frames_heard) == 1 else frame))

            socket.on_message(answer)
            socket.send(json.dumps({"type": "connection_established", "message": "You are now connected!"}))

        page.route_web_socket("**/ws/socket-server/", meet)

    page = visit(server.url, prepare=prepare)

    send(page, "one")
    expect(notice(page)).to_have_text("Too many.")
    expect(messages(page)).to_have_text(["one"])
    expect(notice(page)).to_be_empty()
    assert [frame["text"] for frame in page.frames_heard] == ["one", "one"]


def test_errors_and_repetitions(visit, server):
    frames = [
        {"type": "connection_established", "message": "You are now connected!"},
        {"type": "message", "text": "once", "id": "1"},
        {"type": "message", "text": "once", "id": "1"},
        {"type": "message", "text": "twice", "id": None},
        {"type": "message", "text": "twice", "id": None},
        {"type": "error", "code": "full", "message": "The server is full."},
        {"type": "of tomorrow"},
    ]

    page = visit(server.url, prepare=serve_frames(*frames))

    expect(notice(page)).to_have_text("The server is full.")
    expect(messages(page)).to_have_text(["once", "twice", "twice"])


def test_a_reader_who_has_scrolled_up_is_left_alone(visit, server):
    first, second = visit(server.url, viewport={"width": 400, "height": 500}), visit(server.url)
    scroller = first.locator("#scroller")
    for number in range(20):
        send(second, f"line {number}")
    expect(messages(first)).to_have_count(20)
    expect(messages(first).last).to_be_in_viewport()

    scroller.evaluate("element => { element.scrollTop = 100 }")
    expect(messages(first).last).not_to_be_in_viewport()
    send(second, "more")
    expect(messages(first)).to_have_count(21)
    assert scroller.evaluate("element => element.scrollTop") == 100

    send(first, "mine")
    expect(messages(first).last).to_have_text("mine")
    expect(messages(first).last).to_be_in_viewport()


def test_phone(visit, bake):
    project = bake(project_name="Ω" * 300)
    with Server(project) as server:
        page = visit(server.url, viewport={"width": 390, "height": 667}, is_mobile=True, has_touch=True)
        send(page, "W" * 500)
        expect(messages(page)).to_have_count(1)

        for size in ({"width": 390, "height": 667}, {"width": 320, "height": 568}, {"width": 667, "height": 390}):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
            assert page.evaluate("document.documentElement.scrollHeight") == size["height"]
            expect(page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
            expect(page.get_by_role("status")).to_be_in_viewport(ratio=1)

        # Below 16 px Safari zooms in on the input.
        assert page.locator("input").evaluate("element => parseFloat(getComputedStyle(element).fontSize)") >= 16


def test_phone_over_plain_http(visit, server):
    page = visit(server.url.replace("127.0.0.1", PHONE_HOST))
    assert not page.evaluate("isSecureContext")

    send(page, "from the sofa")

    expect(messages(page)).to_have_text(["from the sofa"])


@each_engine
@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_colors(visit, server, scheme, bright):
    page = visit(server.url, color_scheme=scheme)

    def brightness(name):
        color = page.locator("body").evaluate(f"element => getComputedStyle(element).{name}")
        return sum(map(int, re.findall(r"\d+", color)[:3])) / 3

    assert (brightness("backgroundColor") > 200) is bright
    assert (brightness("color") < 60) is bright
    # The head is no bar of another color.
    color = page.locator("header").evaluate("element => getComputedStyle(element).backgroundColor")
    assert color == "rgba(0, 0, 0, 0)"


def test_without_javascript(visit, server):
    page = visit(server.url, state=None, java_script_enabled=False)

    expect(page.locator("noscript p")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_hidden()
