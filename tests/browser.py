"""
A real browser for the tests of pages, as two fixtures:

    browser = pytest.fixture(open_browser, scope="module")
    visit = pytest.fixture(visits)

Nothing sleeps: each `expect()` waits for its condition, and each page fails its test by any warning or error in its
console, such as a violation of the Content-Security-Policy.
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import webdriver
from servers import machines_network, require, wait_until

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None

CONNECTED = "connected"
IN_PLACE = """() => scroller.scrollHeight > scroller.clientHeight
  && scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight <= 1
  && form.getBoundingClientRect().bottom <= innerHeight && document.documentElement.scrollHeight <= innerHeight"""
# A host that is not the local machine's, on plain HTTP: as a phone sees a page.
PHONE_HOST = "phone.test"
# What browsers write to the console where there is no mistake: each attempt to connect while the server is down.
HARMLESS = (
    "WebSocket connection to",
    "Firefox can\u2019t establish a connection to the server at ws",
    "The connection to ws",
    # The same, from htmx.
    "[object Event]",
    "htmx: htmx:ws:error: [object Event]",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {PHONE_HOST} 127.0.0.1",
]


# The engines that a test runs in: `@each_engine`. Others run in Chromium.
ENGINES = ["chromium", "firefox", "webkit"]
each_engine = pytest.mark.parametrize("browser", ENGINES, indirect=True)
# In Chromium in each run, and in the others weekly.
each_engine_weekly = pytest.mark.parametrize(
    "browser", [ENGINES[0], *(pytest.param(engine, marks=pytest.mark.weekly) for engine in ENGINES[1:])], indirect=True
)
# Those whose sockets Playwright can meet in the server's place.
each_routing_engine = pytest.mark.parametrize("browser", ENGINES[:2], indirect=True)


def each_engine_and_kind(first, second):
    """Run a test in Chromium with two kinds of server, and in the other engines with the second one."""
    pairs = [("chromium", first), *((engine, second) for engine in ENGINES)]
    return pytest.mark.parametrize(("browser", "kind"), pairs, indirect=["browser"])


class Chromium:
    """The machine's Chromium. `new_context()` is Playwright's."""

    def __init__(self, playwright):
        names = ("chromium", "chromium-browser", "google-chrome")
        program = next(filter(None, map(shutil.which, names)), None)
        require(program, "chromium is not installed")
        # Playwright switches the cache of the back button off; users have it.
        options = {"args": FLAGS, "ignore_default_args": ["--disable-back-forward-cache"]}
        self.browser = playwright.chromium.launch(executable_path=program, **options)

    def new_context(self, **options):
        return self.browser.new_context(**options)

    def close(self):
        self.browser.close()


class Firefox:
    """The machine's Firefox, driven by WebDriver BiDi: another process for each color scheme."""

    def __init__(self, playwright):
        program = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
        require(program and os.name == "posix", "Firefox is not installed")
        self.playwright = playwright
        self.directory = Path(tempfile.mkdtemp())
        self.program = self.directory / "firefox"
        command = shlex.join([sys.executable, str(Path(__file__).with_name("firefox.py")), program])
        self.program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        self.program.chmod(0o755)
        self.browsers = {}

    def new_context(self, color_scheme="light", **options):
        if color_scheme not in self.browsers:
            # https://searchfox.org/mozilla-central/source/modules/libpref/init/StaticPrefList.yaml
            settings = {"layout.css.prefers-color-scheme.content-override": ["dark", "light"].index(color_scheme)}
            self.browsers[color_scheme] = self.playwright.firefox.launch(
                channel="moz-firefox", executable_path=self.program, firefox_user_prefs=settings
            )
        return self.browsers[color_scheme].new_context(**options)

    def close(self):
        for browser in self.browsers.values():
            browser.close()
        shutil.rmtree(self.directory)


def open_browser(request):
    engine = getattr(request, "param", "chromium")
    if engine == "webkit":
        browser = webdriver.WebKit()
        yield browser
        browser.close()
        return
    require(playwright, "playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = {"chromium": Chromium, "firefox": Firefox}[engine](driver)
        # Long enough for the longest wait between two attempts to reconnect, on a slow machine.
        playwright.expect.set_options(timeout=webdriver.TIMEOUT * 1000)
        yield browser
        browser.close()


def expect(actual):
    """Return the assertions of Playwright on a page or locator of any engine."""
    return (webdriver.Expect if isinstance(actual, webdriver.OURS) else playwright.expect)(actual)


def place_of(error):
    """Return where an error was thrown, "URL:line:column" from its stack, which each engine writes in its own way."""
    place = re.search(r"https?://[^\s)]+:\d+:\d+", error.stack or "")
    return f"uncaught, {place[0]}" if place else "uncaught"


class Console:
    """
    The warnings and errors that pages of a test write to their consoles.

    lines: list of str that name the page, the text and its place. wanted: how those begin that are no fault.
    """

    def __init__(self):
        self.lines = []
        self.wanted = [*HARMLESS]

    def add(self, page, text, place):
        if not text.startswith(tuple(self.wanted)):
            self.lines.append(f"{page}: {text} ({place})")

    def listen(self, context):
        """Add what Playwright hears from the pages of its `context`, from now on."""
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.add(error.page.url, str(error.error), place_of(error.error)))

    def _hear(self, message):
        if message.type in ("warning", "error", "assert"):
            place = f"{message.location['url']}:{message.location['lineNumber']}"
            self.add(message.page.url, message.text, place)


def visits(browser):
    """
    Return a function that opens a URL, waits for `state`, and returns the page.

    prepare: called with the page before it is opened. context: that of another page, whose cookies are shared; without
    it the page is in a profile of its own, made with `options`, those of Playwright's `new_context()`, and `cookies`,
    values by name. wanted: how warnings and errors in the console begin that the test is about.

    Waits that pages choose at random, as before they connect again, are chosen from the first tenth.
    """
    contexts = []
    console = Console()

    def visit(url, state=CONNECTED, prepare=None, context=None, wanted=(), cookies=None, **options):
        console.wanted.extend(wanted)
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
            if isinstance(browser, (Chromium, Firefox)):
                console.listen(context)
                context.add_init_script(webdriver.SOON)
            if cookies:
                # By its address alone, Playwright gives a cookie to no WebSocket.
                is_webkit = isinstance(browser, webdriver.WebKit)
                site = {"url": url} if is_webkit else {"domain": urlsplit(url).hostname, "path": "/"}
                context.add_cookies([{"name": name, "value": cookies[name], **site} for name in cookies])
        page = context.new_page()
        if prepare:
            prepare(page)
        page.goto(url)
        if state:
            expect_state(page, state)
        return page

    with machines_network().read_lock():
        yield visit
        for context in contexts:
            context.close()
    if isinstance(browser, webdriver.WebKit):
        for line in browser.console():
            console.add(*line)
    assert not console.lines, "\n".join(["the console is not empty:", *console.lines])


def expect_state(page, text):
    expect(page.get_by_role("status")).to_have_text(text)


def expect_in_place(page):
    """Expect of a page with more messages than fit that these alone are scrolled, to their end."""
    wait_until(lambda: page.evaluate(IN_PLACE), "the newest message is in sight, and below it the form")


def fits(page):
    """Return whether a page needs no scrolling to the side. A scroll bar takes its place from the page in Firefox."""
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def is_focused(element):
    """Return whether what is typed goes there, also in a tab behind others, which `to_be_focused()` calls inactive."""
    return element.evaluate("element => element === document.activeElement")


def answer(page, ask, accept):
    """Call `ask()`, which makes the browser ask the user something, answer it, and return the question."""
    if isinstance(page, webdriver.Page):
        ask()
        return page.answer(accept)
    questions = []

    def respond(dialog):
        questions.append(dialog.message)
        (dialog.accept if accept else dialog.dismiss)()

    page.once("dialog", respond)
    ask()
    for _ in range(1000):
        if questions:
            return questions[0]
        page.wait_for_timeout(20)
    return pytest.fail("nothing is asked")


def box(page):
    return page.get_by_label("Message", exact=True)


def send(page, text):
    box(page).fill(text)
    page.keyboard.press("Enter")


def messages(page):
    return page.get_by_role("log").get_by_role("listitem")


def waiting(page):
    return page.get_by_role("list", name="Not sent yet").get_by_role("listitem")


def notice(page):
    return page.get_by_role("alert")
