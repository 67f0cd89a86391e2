"""
A real browser for the tests of pages, as two fixtures:

    browser = pytest.fixture(open_browser, scope="module")
    visit = pytest.fixture(visits)

Nothing sleeps: each `expect()` waits for its condition, and each page fails its test by any error in its console, such
as a violation of the Content-Security-Policy.
"""

import shutil

from servers import require

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

CONNECTED = "connected"
# A host that is not the local machine's, on plain HTTP: as a phone sees a page.
PHONE_HOST = "phone.test"
# What Chromium writes to the console where there is no mistake.
HARMLESS = (
    "WebSocket connection to",  # … failed: each attempt while the server is down.
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


def open_browser():
    require(sync_playwright, "playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    require(chromium, "chromium is not installed")
    with sync_playwright() as playwright:
        # Playwright switches the cache of the back button off; users have it.
        browser = playwright.chromium.launch(
            executable_path=chromium, args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
        )
        # Long enough for the longest wait between two attempts to reconnect, on a slow machine.
        expect.set_options(timeout=60_000)
        yield browser
        browser.close()


def visits(browser):
    """
    Return a function that opens a URL, waits for `state`, and returns the page.

    prepare: called with the page before it is opened. context: that of another page, whose cookies are shared; without
    it the page is in a profile of its own, made with `options`, those of Playwright's `new_context()`.
    """
    contexts = []
    errors = []

    def note(message):
        if message.type == "error" and not message.text.startswith(HARMLESS):
            errors.append(message.text)

    def visit(url, state=CONNECTED, prepare=None, context=None, **options):
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if prepare:
            prepare(page)
        page.goto(url)
        if state:
            expect_state(page, state)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors


def expect_state(page, text):
    expect(page.get_by_role("status")).to_have_text(text)


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
