"""Tickets: the users who get one, its content, and the sockets that it opens."""

import re
import time
import uuid

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.signing import TimestampSigner
from django.test import Client
from django.urls import reverse

from realtime import tickets
from realtime.authentication import Logins
from realtime.process import process
from realtime.tickets import TICKET_SECONDS, ticket_of, user_of_ticket

User = get_user_model()

URL = "/realtime/ticket/"
PATH = "/ws/socket-server/"
OWN = "http://testserver"
APP = "https://app.example.com"
EVIL = "https://evil.example"


@pytest.fixture
def ann(transactional_db):
    return User.objects.create_user("ann")


@pytest.fixture
def browser(ann, settings):
    """A Client in which ann is logged in, and which Django asks for a CSRF token."""
    settings.REALTIME_ALLOWED_ORIGINS = [APP]
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ann)
    return browser


def csrf_token(browser):
    """Return the token of a page with a form, whose cookie `browser` has from then on."""
    return re.search('name="csrfmiddlewaretoken" value="(.*?)"', browser.get("/admin/login/?next=/").text)[1]


# Who gets one


def test_its_url_has_a_name():
    assert reverse("realtime_ticket") == URL


def test_a_page_of_ours_with_a_csrf_token(browser, ann):
    browser.logout()
    token = csrf_token(browser)
    browser.force_login(ann)

    response = browser.post(URL, headers={"Origin": OWN, "X-CSRFToken": token})

    assert response.status_code == 200, response.text
    assert response.json().keys() == {"ticket", "expires_in"}
    assert response.json()["expires_in"] == TICKET_SECONDS == 60
    assert "no-store" in response["Cache-Control"]
    assert "private" in response["Cache-Control"]
    assert "Access-Control-Allow-Origin" not in response


@pytest.mark.parametrize("origin", [OWN, None])
def test_without_a_csrf_token(browser, origin):
    response = browser.post(URL, headers={"Origin": origin} if origin else {})

    assert response.status_code == 403
    assert "CSRF" in response.json()["error"]
    assert "DJANGO_ALLOWED_ORIGINS" not in response.json()["error"]


def test_a_page_of_an_allowed_origin(browser):
    response = browser.post(URL, headers={"Origin": APP})

    assert response.status_code == 200, response.text
    assert response["Access-Control-Allow-Origin"] == APP
    assert response.get("Access-Control-Allow-Credentials") == "true"
    assert "Origin" in response["Vary"]
    assert "no-store" in response["Cache-Control"]


def test_the_question_that_browsers_ask_first(browser):
    response = Client().options(
        URL,
        headers={
            "Origin": APP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )

    assert response.status_code == 204
    assert response["Access-Control-Allow-Origin"] == APP
    assert response.get("Access-Control-Allow-Credentials") == "true"
    assert response["Access-Control-Allow-Methods"] == "POST"
    # A page whose fetch() sends a CSRF token everywhere need not leave it out here.
    assert response["Access-Control-Allow-Headers"] == "content-type, x-csrftoken"


@pytest.mark.parametrize("origin", [EVIL, "null", "http://app.example.com", APP + ".evil.example", APP + ":8443"])
def test_a_page_of_another_origin_is_refused_in_words(browser, origin, caplog):
    token = csrf_token(browser)

    for method in (browser.post, browser.options):
        response = method(URL, headers={"Origin": origin, "X-CSRFToken": token})
        assert "Access-Control-Allow-Origin" not in response
        assert "ticket" not in response.text

    response = browser.post(URL, headers={"Origin": origin, "X-CSRFToken": token})
    assert response.status_code == 403
    # In the log, too: the page cannot read the answer.
    for text in (response.json()["error"], caplog.messages[-1]):
        assert origin in text
        assert "DJANGO_ALLOWED_ORIGINS" in text


def test_nobody_gets_none_and_is_told_so_in_json(browser, settings):
    # Which would send scripts to a page.
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    browser.logout()

    response = browser.post(URL, headers={"Origin": APP})

    assert response.status_code == 401
    assert response.json() == {"error": "Log in first."}
    # The page may read the answer.
    assert response["Access-Control-Allow-Origin"] == APP
    assert "no-store" in response["Cache-Control"]


def test_only_by_post(browser):
    response = browser.get(URL)

    assert response.status_code == 405
    assert response["Allow"] == "POST, OPTIONS"


# Whom it lets in


@pytest.mark.parametrize("pk", [1, 10**12, uuid.uuid4(), "Ann Ünïcode/\"'\0"])
def test_it_has_only_characters_of_a_subprotocol(pk, monkeypatch):
    user = User(pk=pk, password="secret")
    monkeypatch.setattr(type(User._meta.pk), "value_to_string", lambda field, user: str(user.pk))

    # RFC 9110, section 5.6.2
    assert re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", ticket_of(user))


@pytest.mark.parametrize("way", ["header", "subprotocol"])
async def test_it_opens_a_socket_and_again(open_socket, ann, way):
    ticket = ticket_of(ann)
    for _ in range(2):
        socket = await open_with(open_socket, ticket, way)
        await socket.send_json_to({"type": "ping"})
        await socket.receive_type("pong")
    logins = process()[Logins]
    assert {login.user for some in logins._logins.values() for login in some} == {ann}


async def open_with(open_socket, ticket, way="header", **options):
    if way == "header":
        headers = [(b"authorization", f"Bearer {ticket}".encode())]
        return await open_socket(PATH, headers=headers, **options)

    from channels.routing import get_default_application

    async def application(scope, receive, send):
        subprotocols = [f"bearer.{ticket}", "chat"]
        await get_default_application()(dict(scope, subprotocols=subprotocols), receive, send)

    return await open_socket(PATH, application=application, **options)


def altered(ticket):
    """Yield `ticket` with another character at each place."""
    for place, character in enumerate(ticket):
        yield ticket[:place] + ("A" if character != "A" else "B") + ticket[place + 1 :]


@pytest.mark.filterwarnings("ignore:.*")
async def test_an_altered_one_is_refused(ann):
    ticket = ticket_of(ann)
    others = [*altered(ticket), ticket[:-1], ticket[1:], ticket + "=", ticket + ".", ticket.rpartition(".")[0]]

    assert await user_of_ticket(ticket, {}) == ann
    found = [await user_of_ticket(other, {}) for other in others]

    # The last character of a signature has bits that do not count.
    assert found.count(None) >= len(found) - 1
    assert set(found) <= {None, ann}


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", ".a.b.c", "\0", "é.é.é", "\ud800.a.b", "x" * 100_000])
async def test_nonsense_is_refused(ann, token):
    assert await user_of_ticket(token, {}) is None


async def test_a_foreign_one_is_refused(ann, settings):
    value = [str(ann.pk), ann.get_session_auth_hash()]
    signers = [TimestampSigner(sep="."), TimestampSigner(key="another", sep=".", salt="realtime.ticket")]

    for signer in signers:
        assert await user_of_ticket(signer.sign_object(value), {}) is None


@pytest.mark.parametrize("value", [["x", "hash"], [None, None], [["1"], "hash"], ["1", None], ["1", 5]])
async def test_one_of_another_table_of_users_is_refused(ann, value):
    assert await user_of_ticket(tickets.signer().sign_object(value), {}) is None


@pytest.mark.parametrize(("seconds", "holds"), [(59, True), (61, False)])
async def test_it_holds_for_a_minute(ann, monkeypatch, seconds, holds):
    ticket = ticket_of(ann)
    now = time.time()
    monkeypatch.setattr("django.core.signing.time.time", lambda: now + seconds)

    assert (await user_of_ticket(ticket, {}) == ann) == holds


@pytest.mark.parametrize("change", [{"password": "another"}, {"is_active": False}, None])
async def test_a_user_who_has_changed_since(open_socket, ann, change):
    ticket = ticket_of(ann)
    socket = await open_with(open_socket, ticket)
    if change is None:
        await ann.adelete()
    else:
        await User.objects.filter(pk=ann.pk).aupdate(**change)
        logins = process()[Logins]
        await logins._recheck(list({login for some in logins._logins.values() for login in some}))

    assert await user_of_ticket(ticket, {}) is None
    assert await socket.closed_with() == 4401
    assert await (await open_with(open_socket, ticket, greeting=False)).closed_with() == 4401


async def test_a_new_secret_key_keeps_it(ann, settings):
    ticket = ticket_of(ann)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new key"

    assert await user_of_ticket(ticket, {}) == ann


async def test_logout_does_not_end_its_socket(open_socket, ann):
    client = Client()
    await sync_to_async(client.force_login)(ann)
    socket = await open_with(open_socket, ticket_of(ann))

    await sync_to_async(client.logout)()

    await socket.send_json_to({"type": "ping"})
    await socket.receive_type("pong")


async def test_it_decides_beside_the_cookie_of_somebody_else(open_socket, ann):
    ben = await User.objects.acreate_user("ben")
    await open_with(open_socket, ticket_of(ann), user=ben)
    logins = process()[Logins]
    assert {login.user for some in logins._logins.values() for login in some} == {ann}

    socket = await open_with(open_socket, "bad", user=ben, greeting=False)
    assert await socket.closed_with() == 4401


async def test_it_is_in_no_log(open_socket, ann, caplog):
    caplog.set_level("DEBUG")
    ticket = ticket_of(ann)
    for way in ("header", "subprotocol"):
        await open_with(open_socket, ticket, way)
        await open_with(open_socket, ticket + "x", way, greeting=False)

    assert ticket not in caplog.text
