"""
The methods of Playwright's pages that tests use in WebKitGTK, which Playwright does not drive, over WebDriver.

https://www.w3.org/TR/webdriver2/ and, for what the methods mean, https://playwright.dev/python/docs/api/class-page.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from ctypes.util import find_library
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urljoin

import httpx
from servers import free_port, require, wait_until

TIMEOUT = 60
# A script for each page: what it chooses at random from a range, it chooses from the first tenth.
SOON = "{ const { random } = Math; Math.random = () => random() / 10; }"
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Backspace": "\ue003"}
# Returns the elements that the steps of a locator lead to.
FIND = r"""
const ROLES = {
  alert: "[role=alert]", banner: "body > header", button: "button", heading: "h1, h2, h3", link: "a[href]",
  list: "ul, ol", listitem: "li", log: "[role=log]", main: "main", region: "section[aria-label]",
  status: "[role=status]",
};
const plain = (text) => text.trim().replace(/\s+/g, " ");
const has = (text, wanted, exact) => wanted === null
  || (exact ? plain(text) === wanted : plain(text).toLowerCase().includes(wanted.toLowerCase()));
const isVisible = (element) => element.checkVisibility({ visibilityProperty: true });
const labels = (element) =>
  [element.ariaLabel, ...[...(element.labels ?? [])].map((label) => label.textContent)].filter(Boolean);
const name = (element) => element.ariaLabel
  ?? document.getElementById(element.getAttribute("aria-labelledby"))?.textContent ?? element.textContent;
const STEPS = {
  css: (css) => (root) => [...root.querySelectorAll(css)],
  role: (role, wanted, exact) => (root) => STEPS.css(ROLES[role])(root)
    .filter((element) => isVisible(element) && has(name(element), wanted, exact)),
  label: (wanted, exact) => (root) => STEPS.css("*")(root)
    .filter((element) => labels(element).some((label) => has(label, wanted, exact))),
  text: (wanted, exact) => (root) => STEPS.css("body *:not(script, noscript, style)")(root).filter((element) =>
    has(element.textContent, wanted, exact)
    && ![...element.children].some((child) => has(child.textContent, wanted, exact))),
};
const find = (steps) => steps.reduce((found, [kind, ...rest]) =>
  kind === "nth" ? [found.at(rest[0])].filter(Boolean) : found.flatMap(STEPS[kind](...rest)), [document]);
"""
LOOK = """
  return find(arguments[0]).map((element) => ({
    text: element.textContent, value: element.value, isVisible: isVisible(element),
    isFocused: element === document.activeElement, attribute: element.getAttribute(arguments[1]),
  }));
"""
# What the browser does when somebody pastes, with its events.
FILL = """
  const [element, command, text] = arguments;
  element.focus();
  element.select();
  document.execCommand(command, false, text);
"""
RATIO = """(element) => new Promise((done) => {
  new IntersectionObserver(([entry]) => done(entry.intersectionRatio)).observe(element);
})"""
# As browsers do it (https://html.spec.whatwg.org/#dom-websocket), save that no attempt is made.
OFFLINE = """
  window.OnlineWebSocket ??= WebSocket;
  window.WebSocket = class {
    close() {}
    constructor() { setTimeout(() => this.onclose?.({ code: 1006, reason: "" })); }
  };
  dispatchEvent(new Event("offline"));
"""
ONLINE = "window.WebSocket = OnlineWebSocket; dispatchEvent(new Event('online'));"


class WebKit:
    """The machine's WebKitGTK: a process with its WebDriver for each color scheme, on a screen that nobody sees."""

    def __init__(self):
        programs = [*map(shutil.which, ("WebKitWebDriver", "Xvfb"))]
        is_complete = all(programs) and find_library("webkit2gtk-4.1")
        require(is_complete, "webkit2gtk-driver, xvfb or libwebkit2gtk-4.1 is not installed")
        self.driver, screen = programs
        self.directory = Path(tempfile.mkdtemp())
        self.output = (self.directory / "output").open("wb")
        read, write = os.pipe()
        command = [screen, "-displayfd", str(write), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
        self.processes = [subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)]
        os.close(write)
        with os.fdopen(read) as numbers:
            self.display = ":" + numbers.readline().strip()
        self.drivers = {}

    def new_context(self, color_scheme="light", viewport=None):
        if color_scheme not in self.drivers:
            self.drivers[color_scheme] = self._start([SOON, f"--{color_scheme}"])
        return Context(self.drivers[color_scheme], viewport or {"width": 1280, "height": 720})

    def _start(self, arguments):
        port = free_port()
        environ = os.environ | {"DISPLAY": self.display}
        command = [self.driver, f"--port={port}"]
        self.processes.append(subprocess.Popen(command, env=environ, stdout=self.output, stderr=subprocess.STDOUT))
        program = self.directory / "webkit"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("webkit.py")} "$@"\n')
        program.chmod(0o755)
        return Driver(port, {"binary": str(program), "args": arguments})

    def console(self):
        """Return what pages wrote to it since the last call: lists of an address, a text and a place."""
        lines = (self.directory / "output").read_text(encoding="utf-8").splitlines()
        new, self.seen = lines[getattr(self, "seen", 0) :], len(lines)
        return [json.loads(line) for line in new if line.startswith('["')]

    def close(self):
        for driver in self.drivers.values():
            driver.quit()
        for process in reversed(self.processes):
            process.terminate()
            process.wait()
        self.output.close()
        shutil.rmtree(self.directory)


class Driver:
    """A session of WebDriver. One window, of nobody, stays open: a session ends with its last one."""

    def __init__(self, port, options):
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT)
        wait_until(self._is_up, "WebKitWebDriver listens")
        self.session = ""
        capabilities = {"alwaysMatch": {"webkitgtk:browserOptions": options, "unhandledPromptBehavior": "accept"}}
        self.session = self.post("session", capabilities=capabilities)["sessionId"]
        self.first = self.window = self.request("GET", "window")

    def _is_up(self):
        try:
            return self.client.get("/status").is_success
        except httpx.TransportError:
            return False

    def request(self, method, path, body=None):
        root = f"/session/{self.session}/" if self.session else "/"
        value = self.client.request(method, root + path, json=body).json()["value"]
        if isinstance(value, dict) and "error" in value:
            raise LookupError(f"{method} {path}: {value}")
        return value

    def post(self, path, **body):
        return self.request("POST", path, body)

    def use(self, window):
        if window != self.window:
            self.post("window", handle=window)
            self.window = window

    def quit(self):
        self.use(self.first)
        self.client.delete(f"/session/{self.session}")
        self.client.close()


class Context:
    """A profile of its own."""

    browser = SimpleNamespace(browser_type=SimpleNamespace(name="webkit"))

    def __init__(self, driver, viewport):
        self.driver, self.viewport = driver, viewport
        self.pages = []
        self.spare = None

    def new_page(self):
        page, self.spare = self.spare or self._open(), None
        return page

    def _open(self):
        if self.pages:
            # A tab is opened in the profile of the last window.
            assert self.driver.last is self, "another profile was opened meanwhile"
        self.driver.last = self
        self.pages.append(Page(self, self.driver.post("window/new", type="tab" if self.pages else "window")["handle"]))
        return self.pages[-1]

    def add_cookies(self, cookies):
        """Add them from a page of their site, the only one that may; it becomes that of `new_page()`."""
        self.spare = self._open()
        for cookie in cookies:
            self.spare.goto(urljoin(cookie["url"], "/healthz"))
            self.spare.post("cookie", cookie={"name": cookie["name"], "value": cookie["value"]})

    def set_offline(self, is_offline):
        """Let new WebSockets fail in the open pages, which are told so; those that are open stay so."""
        for page in self.pages:
            page.run(OFFLINE if is_offline else ONLINE)

    def close(self):
        for page in [*self.pages]:
            page.close()


class Page:
    def __init__(self, context, window):
        self.context, self.driver, self.window = context, context.driver, window
        self.keyboard = SimpleNamespace(press=self._press)
        self.set_viewport_size(context.viewport)

    def post(self, path, **body):
        self.driver.use(self.window)
        return self.driver.post(path, **body)

    def run(self, script, *arguments):
        """Run the body of a function of JavaScript with `arguments`, and return what it returns or promises."""
        return self.post("execute/sync", script=script, args=arguments)

    def evaluate(self, expression, *arguments):
        call = "typeof result === 'function' ? result(...arguments) : result"
        return self.run(f"const result = ({expression}); return {call};", *arguments)

    @property
    def url(self):
        return self.evaluate("location.href")

    def set_viewport_size(self, size):
        self.post("window/rect", **size)

    def goto(self, url):
        self.post("url", url=url)

    def reload(self):
        self.post("refresh")

    def go_back(self):
        self.post("back")

    def _press(self, key):
        value = KEYS.get(key, key)
        actions = [{"type": kind, "value": value} for kind in ("keyDown", "keyUp")]
        self.post("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def answer(self, accept):
        """Answer what the browser asks the user, and return the question."""

        def find():
            # An error until there is one.
            with suppress(LookupError):
                return self.driver.request("GET", "alert/text")

        self.driver.use(self.window)
        question = wait_until(find, "a question")
        self.driver.post("alert/accept" if accept else "alert/dismiss")
        return question

    def wait_for_url(self, url):
        wait_until(lambda: fnmatch(self.url, url), url, TIMEOUT)

    def close(self):
        self.driver.use(self.window)
        self.driver.request("DELETE", "window")
        self.driver.use(self.driver.first)
        self.context.pages.remove(self)

    def locator(self, css):
        return Locator(self, ["css", css])

    def get_by_role(self, role, name=None, exact=False):
        return Locator(self, ["role", role, name, exact])

    def get_by_label(self, text, exact=False):
        return Locator(self, ["label", text, exact])

    def get_by_text(self, text, exact=False):
        return Locator(self, ["text", text, exact])


class Locator:
    def __init__(self, page, *steps):
        self.page, self.steps = page, steps

    def __repr__(self):
        return f"<{self.steps}>"

    def locator(self, css):
        return Locator(self.page, *self.steps, ["css", css])

    def get_by_role(self, *rest, **options):
        return Locator(self.page, *self.steps, *self.page.get_by_role(*rest, **options).steps)

    def get_by_text(self, *rest, **options):
        return Locator(self.page, *self.steps, *self.page.get_by_text(*rest, **options).steps)

    def nth(self, number):
        return Locator(self.page, *self.steps, ["nth", number])

    @property
    def first(self):
        return self.nth(0)

    @property
    def last(self):
        return self.nth(-1)

    def _element(self):
        """Wait for the one element that is meant, and return WebDriver's reference to it."""
        found = wait_until(lambda: self.page.run(FIND + "return find(arguments[0])", self.steps), self, TIMEOUT)
        assert len(found) == 1, f"{self} are {len(found)}"
        return found[0]

    def evaluate(self, function):
        return self.page.evaluate(function, self._element())

    def fill(self, text):
        self.page.run(FILL, self._element(), "insertText" if text else "delete", text)

    def set_checked(self, is_checked):
        if self.evaluate("(element) => element.checked") is not is_checked:
            self.click()

    def click(self):
        (reference,) = self._element().values()
        self.page.post(f"element/{reference}/click")

    def bounding_box(self):
        return self.evaluate("(element) => element.getBoundingClientRect().toJSON()")

    def look(self, attribute=""):
        return self.page.run(FIND + LOOK, self.steps, attribute)

    def all_text_contents(self):
        return [element["text"] for element in self.look()]

    def count(self):
        return len(self.look())


class Expect:
    """`expect(page)` and `expect(locator)` of Playwright: each method waits until it is so."""

    def __init__(self, actual):
        self.actual = actual

    def _wait(self, condition, wanted):
        seen = []

        def look():
            seen[:] = [self.actual.look()]
            return condition(seen[0])

        try:
            wait_until(look, self.actual, TIMEOUT)
        except AssertionError:
            raise AssertionError(f"{self.actual} is {seen[0]}, not {wanted}") from None

    def _wait_for_one(self, condition, wanted):
        self._wait(lambda found: len(found) == 1 and condition(found[0]), wanted)

    def _wait_for_texts(self, fits, wanted):
        texts = wanted if isinstance(wanted, list) else [wanted]
        self._wait(lambda found: len(found) == len(texts) and all(map(fits, found, texts)), wanted)

    def to_have_text(self, wanted):
        self._wait_for_texts(lambda one, text: matches(plain(one["text"]), text), wanted)

    def to_contain_text(self, wanted):
        self._wait_for_texts(lambda one, text: plain(text) in plain(one["text"]), wanted)

    def to_have_count(self, wanted):
        self._wait(lambda found: len(found) == wanted, wanted)

    def to_have_value(self, wanted):
        self._wait_for_one(lambda one: one["value"] == wanted, wanted)

    def to_be_empty(self):
        self._wait_for_one(lambda one: not one["text"], "empty")

    def to_be_focused(self):
        self._wait_for_one(lambda one: one["isFocused"], "focused")

    def to_be_visible(self):
        self._wait_for_one(lambda one: one["isVisible"], "visible")

    def to_be_hidden(self):
        self._wait(lambda found: not any(one["isVisible"] for one in found), "hidden")

    def to_have_attribute(self, name, value):
        wait_until(lambda: [one["attribute"] for one in self.actual.look(name)] == [value], f"{self.actual} {name}")

    def to_have_title(self, wanted):
        wait_until(lambda: self.actual.evaluate("document.title") == wanted, wanted)

    def to_be_in_viewport(self, ratio=0.01):
        wait_until(lambda: self.actual.evaluate(RATIO) >= ratio, f"{self.actual} in the viewport")


OURS = (Page, Locator)


def plain(text):
    return re.sub(r"\s+", " ", text).strip()


def matches(text, wanted):
    return wanted.search(text) if isinstance(wanted, re.Pattern) else text == plain(wanted)
