"""The pages beside the chat in a real browser: errors, letters of all scripts, small screens, and what Back shows."""

import re
import shutil

import httpx
import npm
import pytest
from browser import expect, fits, messages, open_browser, send, visits
from servers import LOCAL_PRODUCTION, Server, collect_static, run

PASSWORD = "a horse, a staple"
FILL = f"""
import uuid
from accounts.models import User
from chat.models import Room, post_message
ada = User.objects.create_user("ada", password={PASSWORD!r})
other = User.objects.create_user("محمد")
Room.objects.create(name="Closed", slug="closed", is_open=False)
room = Room.objects.create(name="غرفة المحادثة", slug="arabic")
for user in (other, ada):
    post_message(room.pk, user, uuid.uuid4(), "مرحبا\\nكيف حالك اليوم يا صديقي؟")
"""
# Fonts of other systems have taller letters than their lines, and other browsers align the text of list items.
OTHERS = """
@font-face {
  font-family: Tall;
  src: local("DejaVu Sans"), local("Liberation Sans"), local("Arial");
  ascent-override: 120%;
  descent-override: 45%;
}
* { font-family: Tall !important }
li { text-align: match-parent }
"""
# Pages of the minimal starter, by path, and the titles that they have.
TITLES = {
    "403/": "Not allowed",
    "csrf/": "This page was out of date",
    "404/": "Not found",
    "500/": "Something went wrong",
}
FAULTY_PAGES = """
from django.core.exceptions import PermissionDenied
from django.views.csrf import csrf_failure


def refuse(request):
    raise PermissionDenied


urlpatterns += [
    path("403/", refuse),
    path("csrf/", csrf_failure),
    path("500/", lambda request: 1 / 0),
]
"""
# How Chromium tells in the console of a page that is an error.
FAILED = "Failed to load resource: the server responded with a status of"
NARROW = {"width": 320, "height": 568}
DESKTOP = {"width": 1280, "height": 800}
# 400 % on a screen of 1280 by 1024 (WCAG 1.4.10).
ZOOMED = {"width": 320, "height": 256}

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


@pytest.fixture(scope="module")
def chat(bake, tmp_path_factory):
    project = shutil.copytree(bake(starter="chat"), tmp_path_factory.mktemp("pages") / "project")
    run(project, "manage.py", "migrate")
    run(project, "manage.py", "shell", "--no-imports", "-c", FILL)
    collect_static(project)
    with Server(project, "production", env=LOCAL_PRODUCTION | {"EMAIL_URL": "memorymail://"}) as server:
        yield server


@pytest.fixture
def enter(visit, chat):
    """Return a function that logs in as ada and returns the page at `path`."""

    def enter(path="", **options):
        page = visit(f"{chat.url}accounts/login/?next=/{path}", state=None, **options)
        page.get_by_label("Username").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(chat.url + path)
        return page

    return enter


@pytest.fixture(scope="module")
def minimal(project, tmp_path_factory):
    """The default project as in production, with pages that are 403 and 500."""
    copy = shutil.copytree(project, tmp_path_factory.mktemp("minimal") / "project")
    with (copy / "my_realtime_site" / "urls.py").open("a", encoding="utf-8") as urls:
        urls.write(FAULTY_PAGES)
    collect_static(copy)
    with Server(copy, "production", env=LOCAL_PRODUCTION) as server:
        yield server


def test_a_page_that_is_missing_is_one_of_the_site(enter, chat):
    page = enter(viewport=NARROW, wanted=[FAILED])
    for path in ("nowhere/", "rooms/nowhere/", "rooms/closed/"):
        page.goto(chat.url + path)

        text = (
            "There is no such room, or you are not a member of it." if "rooms" in path else "no page at this address"
        )
        assert text in page.get_by_role("main").inner_text()
        assert fits(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            background = page.locator("body").evaluate("element => getComputedStyle(element).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 600) is (scheme == "light")
    page.get_by_role("link", name="Go to the start page").click()
    page.wait_for_url(chat.url)


def test_the_pages_of_errors(chat):
    """Those that are seldom seen are rendered without anything that may have failed."""
    render = """
from django.template.loader import render_to_string
print(render_to_string("500.html"))
print(render_to_string("403.html", {"exception": "You are not a member of <b>."}))
"""
    output = run(chat.directory, "manage.py", "shell", "--no-imports", "-c", render, env=LOCAL_PRODUCTION).stdout

    assert output.count("Go to the start page") == 2
    assert "Something went wrong" in output
    assert "You are not a member of &lt;b&gt;." in output


@pytest.mark.parametrize("starter", ["minimal", "chat"])
def test_a_title_in_a_font_of_another_system(enter, visit, minimal, starter):
    """It has no scroll bar, nobody stops at it with the Tab key, and no letter is cut off."""
    page = enter("rooms/arabic/", bypass_csp=True) if starter == "chat" else visit(minimal.url, bypass_csp=True)
    page.add_style_tag(content=OTHERS)
    title = page.get_by_role("heading", level=1)
    content, box, overflow = title.evaluate("e => [e.scrollHeight, e.clientHeight, getComputedStyle(e).overflowY]")
    assert content == box
    assert overflow == "hidden"


def test_names_and_lines_from_right_to_left(enter):
    """In a page from left to right, what others say is on the left, and their lines begin on the right."""
    page = enter("rooms/arabic/", bypass_csp=True)
    page.add_style_tag(content=OTHERS)
    item = page.get_by_role("log").get_by_role("listitem").first
    name, line = item.locator("b").bounding_box(), item.locator("p").bounding_box()

    assert name["x"] + name["width"] < line["x"] + line["width"]
    assert item.locator("p").evaluate("element => getComputedStyle(element).textAlign") == "start"
    assert item.locator("p").evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_a_room_at_400_percent(enter):
    page = enter("rooms/arabic/", viewport=ZOOMED)
    expect(messages(page)).to_have_count(2)
    page.get_by_text("Who is here: 1").click()
    # All that makes room for itself is there.
    expect(page.get_by_text("Also wrote here")).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") == ZOOMED["width"]
    for element in (page.get_by_text("Who is here"), page.get_by_label("Message", exact=True)):
        element.focus()
        box = element.bounding_box()
        assert box["height"] >= 40
        assert 0 <= box["y"] <= ZOOMED["height"] - 40


def test_back_shows_nothing_after_a_logout(enter, chat):
    """Also not from the memory in which the browser keeps pages for the back button."""
    page = enter()
    page.get_by_role("link", name="غرفة المحادثة").click()
    page.wait_for_url(chat.url + "rooms/arabic/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(chat.url + "accounts/login/")

    for _ in range(2):
        page.go_back()
        page.wait_for_load_state()
        assert "غرفة" not in page.content()


def test_the_form_for_a_new_account(visit, chat):
    """No label ends in a colon, rules are below their field, and the browser knows what belongs into each."""
    page = visit(f"{chat.url}accounts/signup/", state=None)

    assert not [label for label in page.locator("label").all_inner_texts() if label.endswith(":")]
    password = page.get_by_label("Password", exact=True)
    rules = page.locator("#" + password.get_attribute("aria-describedby"))
    assert rules.bounding_box()["y"] > password.bounding_box()["y"]
    fields = page.locator("main input:not([type=hidden])")
    known = fields.evaluate_all("all => all.map(({ autocomplete }) => autocomplete)")
    assert known == ["username", "email", "new-password", "new-password"]


def violations_of(page):
    """Return what axe finds on the page, on a phone and a desktop, in the light and in the dark: a list of str."""
    page.add_script_tag(path=npm.install("axe-core@4.14.1") / "node_modules" / "axe-core" / "axe.min.js")
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in (NARROW, DESKTOP):
            page.set_viewport_size(size)
            for violation in page.evaluate("axe.run().then((results) => results.violations)"):
                nodes = [node["html"] for node in violation["nodes"]]
                found.append(f"{page.url}, {scheme}, {size}: {violation['id']} {nodes}")
    return found


def test_no_page_of_the_chat_has_a_violation_that_axe_finds(enter, chat):
    """https://github.com/dequelabs/axe-core: contrast, names of controls, landmarks, what ARIA allows."""
    page = enter("rooms/arabic/", bypass_csp=True, wanted=[FAILED])
    page.get_by_text("Who is here").click()
    found = violations_of(page)
    paths = ["", "rooms/arabic/people/ada/", "accounts/password_change/", "accounts/email/", "nowhere/"]
    for path in ["rooms/arabic/people/%D9%85%D8%AD%D9%85%D8%AF/", *paths]:
        page.goto(chat.url + path)
        found += violations_of(page)
    page.goto(chat.url)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(chat.url + "accounts/login/")
    for path in ("accounts/login/", "accounts/signup/", "accounts/password_reset/"):
        page.goto(chat.url + path)
        found += violations_of(page)
    assert found == []


def test_no_page_of_minimal_has_a_violation_that_axe_finds(visit, minimal):
    page = visit(minimal.url, bypass_csp=True, wanted=[FAILED])
    found = violations_of(page)
    send(page, "Hello!")
    expect(messages(page)).to_have_text(["Hello!"])
    found += violations_of(page)
    for path, title in TITLES.items():
        page.goto(minimal.url + path)
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        found += violations_of(page)
    assert found == []


def test_headers(chat):
    page = httpx.get(chat.url + "accounts/login/")

    features = {"camera", "display-capture", "geolocation", "microphone", "payment", "serial", "usb"}
    assert {*page.headers.get("Permissions-Policy", "").split(", ")} == {f"{feature}=()" for feature in features}
    policy = page.headers["Content-Security-Policy"].split("; ")
    directives = {"default-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"}
    directives |= {f"{kind}-src 'self'" for kind in ("connect", "font", "script", "style")}
    # The icons of the admin are in its style sheets.
    assert {*policy} == directives | {"img-src 'self' data:"}
    # Texts of scripts are asked for by each page.
    assert httpx.get(chat.url + "texts.js").headers["Cache-Control"] == "max-age=3600"
    assert httpx.get(chat.url + "favicon.ico").status_code == 204
