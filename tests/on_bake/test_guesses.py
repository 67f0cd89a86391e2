"""Guesses at the passwords of the admin, in both starters. Each test has accounts and addresses of its own."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from accounts.limits import address_of
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.signing import TimestampSigner, b62_encode
from django.test import Client, RequestFactory
from django.urls import reverse

User = get_user_model()

PASSWORD = "correct horse battery"
NUMBERS = itertools.count(1)
LOGIN, HOME = reverse("admin:login"), reverse("admin:index")


@pytest.fixture
def ada(db):
    """An account of the staff, whose name no other test has."""
    return User.objects.create_superuser(f"ada{uuid4().hex[:8]}", password=PASSWORD)


def browser():
    """Return a Client that has an address of its own."""
    return Client(REMOTE_ADDR=f"192.0.{next(NUMBERS)}.1")


def log_in(client, name, password="a guess"):
    return client.post(LOGIN, {"username": name, "password": password, "next": HOME})


def guesses(client, name, count):
    return [log_in(client, name).status_code for _ in range(count)]


def test_a_right_password_and_wrong_ones(ada):
    client = browser()

    assert guesses(client, ada.username, 9) == [200] * 9
    assert log_in(client, ada.username, PASSWORD).url == HOME


def test_a_right_password_is_no_guess(ada):
    """Of one who uses a new browser each time, too: after so many the account would be locked."""
    client = browser()
    for _ in range(11):
        client.cookies.clear()
        assert log_in(client, ada.username, PASSWORD).status_code == 302


def test_guesses_are_refused_before_anything_is_hashed(ada, monkeypatch):
    """From many addresses, and for a name that nobody has as well."""
    monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", lambda *args, **kwargs: None)
    for name in (ada.username, f"nobody{uuid4().hex[:8]}"):
        assert [log_in(browser(), name).status_code for _ in range(10)] == [200] * 10
        with monkeypatch.context() as patch:
            hashes = "django.contrib.auth.backends.ModelBackend.authenticate"
            patch.setattr(hashes, lambda *args, **kwargs: pytest.fail("a password is hashed"))
            response = log_in(browser(), name, PASSWORD)
        assert response.status_code == 429
        assert 0 < int(response.headers["Retry-After"]) <= 15 * 60
        assert "minutes" in response.content.decode()


def test_the_cookie_of_a_known_browser(ada, settings):
    settings.SESSION_COOKIE_SECURE = True
    client = browser()
    log_in(client, ada.username, PASSWORD)

    cookie = client.cookies["known_browser"]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax")
    assert cookie["max-age"] == 365 * 24 * 3600


@pytest.mark.parametrize(("trusted", "address"), [(False, "10.0.0.1"), (True, "2001:db8::/64")])
def test_whose_guesses_they_are(settings, trusted, address):
    settings.REALTIME_TRUST_PROXY = trusted
    forwarded = "203.0.113.5, 2001:db8::7"

    assert address_of(RequestFactory().post("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded)) == address


def test_a_browser_that_has_logged_in_before_is_not_locked_out(ada):
    known = browser()
    assert log_in(known, ada.username, PASSWORD).url == HOME
    known.post(reverse("admin:logout"))
    assert guesses(browser(), ada.username, 11)[-1] == 429

    assert log_in(known, ada.username, PASSWORD).status_code == 302
    # Its own guesses count.
    known.post(reverse("admin:logout"))
    assert guesses(known, ada.username, 11) == [200] * 10 + [429]


def test_a_browser_is_forgotten_after_a_year(ada, monkeypatch):
    """Also one that keeps its cookie for longer, or gives it to somebody else."""
    known, long_ago = browser(), b62_encode(int(time.time()) - 366 * 24 * 3600)
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "timestamp", lambda self: long_ago)
        assert log_in(known, ada.username, PASSWORD).url == HOME
    known.post(reverse("admin:logout"))
    assert guesses(browser(), ada.username, 11)[-1] == 429

    assert log_in(known, ada.username, PASSWORD).status_code == 429


def test_a_browser_is_known_to_the_account_of_its_password_only(ada):
    client = browser()
    mallory = User.objects.create_superuser(f"mallory{uuid4().hex[:8]}", password=PASSWORD)
    assert log_in(client, mallory.username, PASSWORD).url == HOME
    # It is logged in, and names another account.
    assert guesses(client, ada.username, 10) == [200] * 10
    client.post(reverse("admin:logout"))

    assert log_in(client, ada.username, PASSWORD).status_code == 429
    client.cookies["known_browser"] = f"{client.cookies['known_browser'].value}x"
    assert log_in(client, ada.username, PASSWORD).status_code == 429


def test_guesses_of_one_address_are_refused_whatever_the_name(db, monkeypatch):
    monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", lambda *args, **kwargs: None)
    client = browser()

    assert [log_in(client, f"user{uuid4().hex[:8]}").status_code for _ in range(101)] == [200] * 100 + [429]
    assert log_in(browser(), f"user{uuid4().hex[:8]}").status_code == 200


def test_right_passwords_use_nothing_up(ada):
    client = browser()
    for _ in range(12):
        assert log_in(client, ada.username, PASSWORD).status_code == 302
        client.post(reverse("admin:logout"))


def test_guesses_at_the_old_password(ada):
    client = browser()
    client.force_login(ada)
    form = {"old_password": "a guess", "new_password1": "another staple", "new_password2": "another staple"}
    codes = [client.post(reverse("admin:password_change"), form).status_code for _ in range(11)]

    assert codes == [200] * 10 + [429]


if not hasattr(settings, "ACCOUNTS_PERIOD"):
    # The starter chat counts in its database, which test_accounts.py and its own tests cover.
    from accounts import limits

    def test_guesses_at_the_same_moment_are_counted_each(ada, monkeypatch):
        """Not only when it is known that they are wrong."""
        # Each thread would have a connection of its own, to an empty database.
        monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", lambda *args, **kwargs: None)
        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(lambda number: log_in(browser(), ada.username).status_code, range(16)))

        assert sorted(codes) == [200] * 10 + [429] * 6

    def test_two_are_hashed_at_a_time(db, monkeypatch):
        under_way, most = [], []

        def authenticate(*args, **kwargs):
            under_way.append(1)
            most.append(len(under_way))
            # A hash takes longer.
            time.sleep(0.05)
            under_way.pop()

        monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", authenticate)
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda number: log_in(browser(), f"user{number}").status_code, range(8)))

        assert codes == [200] * 8
        assert max(most) == limits.HASHES == 2

    def test_old_guesses_are_forgotten(ada, monkeypatch):
        assert guesses(browser(), ada.username, 11)[-1] == 429
        now = limits.time.monotonic() + limits.PERIOD
        monkeypatch.setattr(limits.time, "monotonic", lambda: now)

        assert guesses(browser(), ada.username, 10) == [200] * 10
        assert len(limits.attempts._counts) <= 12
