"""docs/recipes.md shows the files of docs/recipes/, which work in a bake, over real sockets."""

import json
import re
import shutil
import struct
from contextlib import contextmanager

import httpx
import npm
import pytest
from browser import expect, expect_state, open_browser, visits
from clients import log_in_all, open_client
from servers import (
    LOCAL_PRODUCTION,
    PROBES,
    REPOSITORY,
    Process,
    Server,
    append_settings,
    clean_environ,
    python_of,
    run,
    wait_until,
    with_packages,
)
from services import Redis
from test_deploy import Nginx
from websockets.exceptions import ConnectionClosed

RECIPES = REPOSITORY / "docs" / "recipes"
APPS = ["notifications", "prices", "presence", "tokens", "porting", "htmx_room", "charts", "pixels", "events"]
PACKAGES = ["celery[redis]", "djangorestframework", "djangorestframework-simplejwt", "django-unfold"]
SETTINGS = [
    f"INSTALLED_APPS += {[*APPS, 'rest_framework', 'rest_framework.authtoken']}",
    'INSTALLED_APPS.insert(INSTALLED_APPS.index("django.contrib.admin"), "unfold")',
    'MIDDLEWARE.insert(MIDDLEWARE.index("csp.middleware.CSPMiddleware") + 1, "mysite.csp.RelaxedAdmin")',
    'REALTIME_TOKEN_USER = os.environ.get("TOKEN_USER", "realtime.tickets.user_of_ticket")',
    # So that a test need not wait for a minute.
    "PRESENCE_RENEW_EVERY = 1",
    "REALTIME_RECHECK_SECONDS = 1",
]

# A script of a package whose types are not vendored.
TYPED = """
/**
 * @typedef {import("../types/nowhere").Name} Name
 */
// import("./nowhere.js")
const other = /** @type {import("./nowhere").Other} */ (await import("../site.css"));
"""

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


# The page


def test_the_page_shows_the_files():
    """Before each block stands a link to its file, and no file is left out."""
    page = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = {}
    for text, code in re.findall(r"(.*?)^```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        blocks[re.findall(r"\]\(recipes/([\w/.]+)\)", text)[-1]] = code
    files = {
        path.relative_to(RECIPES).as_posix(): path.read_text(encoding="utf-8")
        for path in RECIPES.rglob("*.*")
        if "__pycache__" not in path.parts and path.stat().st_size
    }

    assert page.count("```") == 2 * len(blocks)
    assert blocks == files


# The project


@pytest.fixture(scope="module")
def site(bake, tmp_path_factory):
    """A project with all recipes, the users ann and bob, and the database and static files that they need."""
    site = shutil.copytree(bake(project_name="Mysite"), tmp_path_factory.mktemp("recipes") / "project")
    ignored = shutil.ignore_patterns("__pycache__", "settings.py")
    for folder in [*APPS, "mysite"]:
        shutil.copytree(RECIPES / folder, site / folder, ignore=ignored, dirs_exist_ok=True)
    append_settings(site, *SETTINGS, (RECIPES / "notifications" / "settings.py").read_text(encoding="utf-8"))
    with (site / "mysite" / "__init__.py").open("a", encoding="utf-8") as package:
        package.write("\nfrom .celery import app  # noqa: F401\n")
    shutil.copy(PROBES / "recipes.py", site / "chat" / "probes.py")
    for name in ("urlpatterns", "websocket_urlpatterns"):
        with (site / "chat" / {"urlpatterns": "urls.py"}.get(name, "routing.py")).open("a", encoding="utf-8") as file:
            file.write(f"\nfrom .probes import {name} as probes\n\n{name} += probes\n")
    vendor = site / "static" / "vendor"
    vendor.mkdir()
    two, four = npm.install("htmx.org@2.0.11", "htmx-ext-ws@2.0.4"), npm.install("htmx.org@4.0.1")
    for name in ("htmx.org/dist/htmx.min.js", "htmx-ext-ws/dist/ws.min.js"):
        shutil.copy(two / "node_modules" / name, vendor)
    shutil.copy(four / "node_modules/htmx.org/dist/htmx.min.js", vendor / "htmx4.min.js")
    shutil.copy(four / "node_modules/htmx.org/dist/ext/hx-ws.min.js", vendor)
    (vendor / "typed.js").write_text(TYPED, encoding="utf-8")
    with_packages(site, *PACKAGES)
    run(site, "manage.py", "makemigrations", "prices", "presence")
    run(site, "manage.py", "migrate")
    run(site, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    return site


@pytest.fixture(scope="module")
def cookies(site):
    return log_in_all(site, ["ann", "bob"], LOCAL_PRODUCTION)


@pytest.fixture(scope="module")
def env():
    """The variables of production, with tokens of simplejwt."""
    with Redis() as redis:
        yield LOCAL_PRODUCTION | {"REDIS_URL": redis.url, "TOKEN_USER": "tokens.jwt.user_of_token"}


@pytest.fixture(scope="module")
def server(site, cookies, env):
    with Server(site, "production", env) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def development(site, cookies):
    """A runserver without Redis, with tokens of the REST framework."""
    env = LOCAL_PRODUCTION | {"DJANGO_DEBUG": "true", "TOKEN_USER": "tokens.drf.user_of_token"}
    with Server(site, "runserver", env) as server:
        yield server
        assert "Traceback" not in server.log


def shell(site, code, env=None):
    """Run `code`, which may use User, in a process that is no server, and return what it prints last."""
    imports = "from django.contrib.auth import get_user_model; User = get_user_model()\n"
    lines = run(site, "manage.py", "shell", "--no-imports", "-c", imports + code, env=env).stdout.splitlines()
    return lines[-1] if lines else ""


def logged_in(cookies, name):
    return {"additional_headers": {"Cookie": cookies[name]}}


def bearer(token):
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


def open_plain(server, path, **options):
    return open_client(server, path=path, greeting=False, **options)


def close_code(client):
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    return closed.value.rcvd.code


def post(server, cookies, name, path):
    """Send a form as this user, with the CSRF token that a page would have."""
    token = "a" * 32
    headers = {"Cookie": f"{cookies[name]}; csrftoken={token}", "X-CSRFToken": token}
    response = httpx.post(server.url + path, headers=headers)
    assert response.status_code == 204, response.text


# One user's notifications


class Celery(Process):
    """A worker of Celery, which listens on no port."""

    def __init__(self, project, env):
        self.command = [python_of(project), *"-m celery -A mysite worker --concurrency 1 --loglevel INFO".split()]
        self.directory, self.env = project, clean_environ(**env)
        self.log_file = project / "celery.log"

    def _is_up(self):
        assert self.process.poll() is None, self.log
        return " ready." in self.log


def news(title):
    return {"type": "news", "title": title}


def test_notifications_of_one_user(site, server, cookies, env):
    with (
        open_client(server, path="ws/news/", **logged_in(cookies, "ann")) as ann,
        open_client(server, path="ws/news/", **logged_in(cookies, "bob")) as bob,
    ):
        for path, title in (("share/1/", "bob shares a page with you"), ("wave/1/", "bob waves at you")):
            post(server, cookies, "bob", path)
            assert ann.receive() == news(title)
        shell(site, "from django.test import Client; Client().force_login(User.objects.get(username='ann'))", env)
        assert ann.receive() == news("You have logged in on another device")
        with Celery(site, env) as worker:
            shell(site, "from notifications.tasks import write_report; write_report.delay(1)", env)
            assert ann.receive(timeout=30) == news("Your report is ready")
        run(site, "manage.py", "remind", env=env)
        # The first that bob hears.
        assert ann.receive() == bob.receive() == news("The meeting begins in ten minutes")
        assert "Traceback" not in worker.log
    with open_plain(server, "ws/news/") as nobody:
        assert close_code(nobody) == 4401


# A feed


def publish(server, symbol, count=1):
    assert httpx.get(f"{server.url}publish/", params={"symbol": symbol, "count": count}, timeout=30).status_code == 200


def test_a_late_joiner_of_a_feed_misses_nothing(server):
    """A consumer that joins only when something has been published: what it has read before would be too old."""
    quote = {"type": "quote", "symbol": "ada", "price": 0.5}
    with open_plain(server, "ws/late-prices/") as client:
        publish(server, "ada")
        assert client.receive()["quotes"] == [quote | {"number": 1}]
        publish(server, "ada")
        assert client.receive() == quote | {"number": 2}


def test_each_viewer_of_a_feed_has_a_pace(server):
    with open_plain(server, "ws/prices/") as fast, open_plain(server, "ws/prices/") as slow:
        for client, seconds in ((fast, 0.02), (slow, 3)):
            assert client.receive()["type"] == "snapshot"
            client.send({"type": "pace", "seconds": seconds})
            client.ping()
        slow.send({"type": "pace", "seconds": 0})
        assert slow.receive()["code"] == "bad_number"
        publish(server, "bob", 200)

        counts = []
        for client in (fast, slow):
            counts.append(1)
            while client.receive()["number"] < 200:
                counts[-1] += 1
    assert counts[0] > 3 * counts[1]


# Presence


def names(client):
    frame = client.receive()
    assert frame["type"] == "here"
    return frame["names"]


def open_presence(server, cookies, name):
    return open_client(server, path="ws/presence/", **logged_in(cookies, name))


def test_presence(site, server, cookies, env):
    with open_presence(server, cookies, "ann") as ann:
        assert names(ann) == ["ann"]
        with open_presence(server, cookies, "bob") as bob, open_presence(server, cookies, "bob") as tab:
            assert names(bob) == names(tab) == ["ann", "bob"]
        wait_until(lambda: names(ann) == ["ann"], "bob has left")
        with Server(site, "production", env) as other, open_presence(other, cookies, "bob") as bob:
            assert names(bob) == ["ann", "bob"]
            other.process.kill()
            wait_until(lambda: names(ann) == ["ann", "bob"], "bob is here")
            wait_until(lambda: names(ann) == ["ann"], "nobody told of him, and his visit has ended")


# Tokens


def test_tokens_of_simplejwt(site, server):
    refresh = shell(
        site,
        """
from rest_framework_simplejwt.tokens import RefreshToken
User.objects.create_user("cai")
print(RefreshToken.for_user(User.objects.get(username="ann")))
""",
        LOCAL_PRODUCTION,
    )
    long, short, of_cai = (
        httpx.get(f"{server.url}token/", params={"name": name, "seconds": seconds}).text
        for name, seconds in (("ann", 600), ("ann", 2), ("cai", 600))
    )
    with (
        open_client(server, path="ws/news/", **bearer(short)) as soon,
        open_client(server, path="ws/news/", **bearer(long)) as ann,
        open_client(server, path="ws/news/", subprotocols=["realtime", f"bearer.{of_cai}"]) as cai,
    ):
        assert close_code(soon) == 4401
        shell(site, "User.objects.filter(username='cai').update(is_active=False)")
        assert close_code(cai) == 4401
        ann.ping()
    for bad in (refresh, short, of_cai, long[:-2], "x"):
        with open_plain(server, "ws/news/", **bearer(bad)) as client:
            assert close_code(client) == 4401, bad
    assert long not in server.log


def test_tokens_of_the_rest_framework(site, development):
    ann = "User.objects.get(username='ann')"
    token = shell(site, f"from rest_framework.authtoken.models import Token; print(Token.objects.create(user={ann}))")
    with open_client(development, path="ws/news/", **bearer(token)) as ann:
        ann.ping()
    for bad in (token[:-1], "", "x" * 1000):
        with open_plain(development, "ws/news/", **bearer(bad)) as client:
            assert close_code(client) == 4401
    assert token not in development.log


# Code of Channels


def test_a_consumer_before_and_after_porting(server):
    for kind in ("before", "after"):
        with open_plain(server, f"ws/{kind}/lobby/") as one, open_plain(server, f"ws/{kind}/lobby/") as two:
            if kind == "after":
                assert one.receive()["type"] == two.receive()["type"] == "connection_established"
            one.send({"type": "message", "text": "Hello"})
            assert one.receive() == two.receive() == {"type": "message", "text": "Hello"}
    with open_plain(server, "ws/after/lobby/") as one:
        one.receive()
        one.send("no JSON")
        assert one.receive()["code"] == "not_json"


# Binary frames

# Of a copy: Chromium warns of a canvas that is read again and again.
COLOUR = """() => {
    const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    copy.drawImage(document.querySelector("canvas"), 0, 0);
    return copy.getImageData(3, 4, 1, 1).data.join();
}"""


def test_pixels(server, visit):
    pixel = struct.pack("!HH3B", 3, 4, 0, 0, 255)
    with open_client(server, path="ws/pixels/") as client:
        for wrong in (pixel[:-1], struct.pack("!HH3B", 64, 0, 0, 0, 0)):
            client.send(wrong)
            assert client.receive()["code"] == "no_pixel"
        page = visit(f"{server.url}pixels/", state=None)
        page.locator("canvas").click(position={"x": 5, "y": 6})
        # Once it is connected.
        assert client.connection.recv(10) == struct.pack("!HH3B", 5, 6, 255, 0, 0)
        client.send(pixel)
        wait_until(lambda: page.evaluate(COLOUR) == "0,0,255,255", "the pixel of the other")


# htmx


@pytest.mark.parametrize("version", [2, 4])
def test_htmx(site, visit, version):
    """It comes back after a restart and after a code of ours, and stops when the server says no."""

    def say(text):
        page.get_by_label("Message").fill(text)
        page.get_by_role("button").click()

    with Server(site, "production", LOCAL_PRODUCTION) as server:
        page, other = (visit(f"{server.url}htmx{version}/") for _ in range(2))
        say("<b>")
        for each in (page, other):
            expect(each.get_by_role("listitem")).to_have_text(["<b>"])
        server.stop()
        server.start()
        wait_until(lambda: server.log.count("opened") == 4, "both are back")
        say("4000")
        wait_until(lambda: server.log.count("opened") == 5, "it is back")
        say("again")
        expect(other.get_by_role("listitem")).to_have_text(["<b>", "again"])
        if version == 2:
            say("x" * 201)
            expect(page.get_by_role("alert")).to_contain_text("200")
        say("4403")
        if version == 2:
            expect_state(page, "Disconnected: the server said no (4403).")
        other.get_by_label("Message").fill("last")
        other.get_by_role("button").click()
        expect(other.get_by_role("listitem")).to_have_text(["<b>", "again", "last"])
        assert server.log.count("opened") == 5


# The Content-Security-Policy


def test_a_theme_of_the_admin(site, server, visit):
    shell(site, "User.objects.create_superuser('root', password='secret')")
    page = visit(f"{server.url}admin/", state=None)
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill("secret")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{server.url}admin/")
    page.goto(f"{server.url}admin/accounts/user/")
    assert page.evaluate("Boolean(window.Alpine)")
    assert "unsafe" not in httpx.get(server.url).headers["Content-Security-Policy"]


def test_a_script_of_a_cdn(server, visit):
    def answer(page):
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/javascript"}
        body = 'document.title = "drawn by a CDN";'
        page.route("https://cdn.example/**", lambda route: route.fulfill(body=body, headers=headers))

    page = visit(f"{server.url}chart/", state=None, prepare=answer)
    expect(page).to_have_title("drawn by a CDN")


def test_types_in_comments_of_scripts_are_left_alone(site):
    """collectstatic hashes what a script imports, and fails if it is not there; it has done so for the whole site."""
    (hashed,) = (site / "staticfiles" / "vendor").glob("typed.*.js")
    text = hashed.read_text(encoding="utf-8")

    assert re.search(r'await import\("\.\./site\.\w+\.css"\)', text)
    assert re.sub(r"site\.\w+\.css", "site.css", text) == TYPED


# Server-sent events


@contextmanager
def open_events(server, cookie):
    with httpx.stream("GET", f"{server.url}events/", headers={"Cookie": cookie}, timeout=10) as response:
        yield response, response.iter_lines()


def test_server_sent_events(server, development, cookies):
    """In production over Redis, and in a development server in which no socket has been opened."""
    for each in (server, development):
        with open_events(each, cookies["ann"]) as (response, lines):
            assert response.headers["Content-Type"] == "text/event-stream"
            assert [next(lines), next(lines)] == [": welcome", ""]
            httpx.get(f"{each.url}tell/", params={"text": "a\nb"})
            line = next(lines)
            assert json.loads(line.removeprefix("data: ")) == {"type": "message", "text": "a\nb"}
        assert httpx.get(f"{each.url}events/").status_code == 204
        assert "reaches nobody" not in each.log


# Below a path


def test_a_site_below_a_path(site, tmp_path, visit):
    site = shutil.copytree(site, tmp_path / "project")
    append_settings(site, (RECIPES / "below" / "settings.py").read_text(encoding="utf-8"))
    run(site, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    rewrite = (RECIPES / "below" / "nginx.conf").read_text(encoding="utf-8")
    change = {"        limit_req zone=handshakes": f"{rewrite}\n        limit_req zone=handshakes"}
    with Server(site, "production", LOCAL_PRODUCTION) as server, Nginx(site, [server], change) as nginx:
        page = visit(f"{nginx.url}shop/")
        page.get_by_label("Message", exact=True).fill("below")
        page.keyboard.press("Enter")
        expect(page.get_by_role("log").get_by_role("listitem")).to_have_text(["below"])
        assert "/shop/ws/socket-server/" in page.content()
        login = httpx.get(f"{nginx.url}shop/admin/", follow_redirects=True)
        assert login.url.path == "/shop/admin/login/"
        assert "Path=/shop/" in login.headers["Set-Cookie"]
        assert "Traceback" not in server.log
