import re
import threading
from types import SimpleNamespace

import pytest
from django.contrib.auth.forms import PasswordResetForm
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from . import names
from .limits import MAX_ACCOUNTS
from .models import Attempts, User

PASSWORD = "a horse, a staple"
HOME = "/"


@pytest.fixture
def ada(db):
    return User.objects.create_user("ada", password=PASSWORD)


def sign_up(client, username, **data):
    return client.post(reverse("signup"), {"username": username, "password1": PASSWORD, "password2": PASSWORD, **data})


def log_in(client, username, **data):
    return client.post(reverse("login"), {"username": username, "password": PASSWORD, **data})


def name_of_visitor(client):
    """Return the name of the user that `client` is logged in as; "" for nobody."""
    response = client.get(reverse("password_change"))
    return response.context["user"].get_username() if response.status_code == 200 else ""


def test_sign_up_logs_in(client, db):
    response = sign_up(client, "grace")

    assert response.url == HOME
    assert name_of_visitor(client) == "grace"


def test_log_in_and_out(client, ada):
    assert log_in(client, "ada").url == HOME
    assert name_of_visitor(client) == "ada"

    assert client.post(reverse("logout")).url == reverse("login")
    assert name_of_visitor(client) == ""


def test_logout_needs_a_post(client, ada):
    client.force_login(ada)

    assert client.get(reverse("logout")).status_code == 405
    assert name_of_visitor(client) == "ada"


def test_wrong_password(client, ada):
    response = log_in(client, "ada", password="a guess")

    assert response.status_code == 200
    assert response.context["form"].errors
    assert name_of_visitor(client) == ""


def test_guesses_are_refused_before_anything_is_hashed(client, ada, settings, monkeypatch):
    for _ in range(settings.ACCOUNTS_GUESSES_PER_ACCOUNT):
        assert log_in(client, "ada", password="a guess").status_code == 200
    hashes = "django.contrib.auth.backends.ModelBackend.authenticate"
    monkeypatch.setattr(hashes, lambda *args, **kwargs: pytest.fail("a password is hashed"))

    for form, name in ((reverse("login"), "ADA"), (reverse("admin:login"), "ada")):
        response = client.post(form, {"username": name, "password": PASSWORD})
        assert response.status_code == 429
        assert 0 < int(response.headers["Retry-After"]) <= settings.ACCOUNTS_PERIOD
        assert "Try again in 15 minutes" in response.content.decode()


def test_a_browser_that_has_logged_in_before_is_not_locked_out(client, ada, settings, django_user_model):
    settings.ACCOUNTS_GUESSES_PER_ACCOUNT, settings.SESSION_COOKIE_SECURE = 2, True
    stranger, known = Client(), client
    log_in(known, "ada")
    cookie = known.cookies["known_browser"]
    assert cookie["httponly"]
    assert cookie["secure"]
    known.post(reverse("logout"))
    for _ in range(3):
        response = log_in(stranger, "ada", password="a guess")
    assert response.status_code == 429

    assert log_in(known, "ada").status_code == 302
    # It is known for its own account, and its own guesses count.
    known.post(reverse("logout"))
    for code in (200, 200, 429):
        assert log_in(known, "ada", password="a guess").status_code == code
    django_user_model.objects.create_user("grace", password=PASSWORD)
    for code in (200, 200, 429):
        assert log_in(known, "grace", password="a guess").status_code == code


def test_a_browser_is_known_to_few_accounts(client, db):
    """Browsers keep no cookie of more than 4 KB."""
    for number in range(MAX_ACCOUNTS + 2):
        sign_up(client, f"user{number}")
        client.post(reverse("logout"))

    _, *accounts = client.cookies["known_browser"].value.partition(":")[0].split(".")
    assert len(accounts) == MAX_ACCOUNTS


def test_nobody_becomes_known_to_an_account_without_its_password(client, ada, settings):
    """Not by naming it in a form that only looks whether somebody is logged in."""
    settings.ACCOUNTS_GUESSES_PER_ACCOUNT = 2
    sign_up(client, "mallory")
    assert log_in(client, "ada", password="a guess").url == HOME
    client.post(reverse("logout"))

    for code in (200, 200, 429):
        assert log_in(client, "ada", password="a guess").status_code == code
    for code in (429, 429):
        assert log_in(Client(), "ada", password="a guess").status_code == code


def test_a_browser_that_is_logged_in_is_not_known_to_others(db, ada, settings):
    """Each further login of mallory would be a browser with guesses of its own."""
    settings.ACCOUNTS_GUESSES_PER_ACCOUNT = 2
    sign_up(Client(), "mallory")
    for code in (200, 200, 429):
        client = Client()
        log_in(client, "mallory")
        response = client.post(reverse("admin:login"), {"username": "ada", "password": "a guess"})
        assert response.status_code == code


def test_guesses_of_one_address_are_refused_whatever_the_name(client, db, settings):
    settings.ACCOUNTS_GUESSES_PER_ADDRESS = 3
    settings.REALTIME_TRUST_PROXY = True
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3", "2001:db8::4"]
    for number, code in enumerate((200, 200, 200, 429)):
        forwarded = {"HTTP_X_FORWARDED_FOR": f"198.51.100.{number}, {addresses[number]}"}
        form = {"username": f"user{number}", "password": "a guess"}
        assert client.post(reverse("login"), form, **forwarded).status_code == code
    # That of the network, and those of the three names that were tried.
    assert Attempts.objects.count() == 4

    # Where one socket listens for both kinds, strangers of IPv4 are not one network.
    for address in ("2001:db8:0:1::1", *(f"::ffff:192.0.2.{number}" for number in range(4))):
        form = {"username": f"user of {address}", "password": "a guess"}
        assert client.post(reverse("login"), form, HTTP_X_FORWARDED_FOR=address).status_code == 200


def test_old_guesses_are_forgotten(client, ada, settings):
    settings.ACCOUNTS_GUESSES_PER_ACCOUNT = 1
    for code in (200, 429):
        assert log_in(client, "ada", password="a guess").status_code == code
    Attempts.objects.update(until=timezone.now())

    assert log_in(client, "ada").url == HOME
    assert not Attempts.objects.filter(count__gt=0).exists()


def test_an_honest_person_never_meets_the_limits(client, ada, settings):
    """Somebody who mistypes a few times a day, and a class of thirty at one address."""
    for _ in range(3):
        for code in (200, 200, 200, 302):
            password = PASSWORD if code == 302 else "a slip"
            assert log_in(client, "ada", password=password).status_code == code
        client.post(reverse("logout"))
    for number in range(30):
        assert sign_up(Client(), f"pupil{number}").url == HOME


def test_sign_ups_of_one_address(db, settings):
    settings.ACCOUNTS_SIGN_UPS_PER_ADDRESS = 2
    for _ in range(3):
        assert sign_up(Client(), "a mistake").status_code == 200
    for number in range(2):
        assert sign_up(Client(), f"user{number}").status_code == 302

    response = sign_up(Client(), "user2")

    assert response.status_code == 429
    assert "Too many accounts" in response.content.decode()
    assert User.objects.count() == 2


@pytest.mark.parametrize("names", [["ada"] * 3, ["grace", "alan", "mary"], [""] * 3])
def test_guesses_at_the_old_password(client, ada, settings, names):
    """Counted for who is logged in, whatever name the form brings."""
    settings.ACCOUNTS_GUESSES_PER_ACCOUNT = 2
    client.force_login(ada)
    guess = {"old_password": "a guess", "new_password1": "another staple", "new_password2": "another staple"}

    for name, code in zip(names, (200, 200, 429), strict=True):
        assert client.post(reverse("password_change"), {**guess, "username": name}).status_code == code


def test_nothing_that_depends_on_the_visitor_is_kept(client, ada):
    """Neither by a cache nor for the back button; what everybody gets may be."""
    client.force_login(ada)

    for url in (reverse("password_change_done"), "/nowhere/"):
        response = client.get(url)
        assert "ada" in response.content.decode()
        assert "no-store" in response.headers["Cache-Control"]
    assert "Cache-Control" not in client.get("/favicon.ico").headers


def test_a_page_that_was_out_of_date(client, ada):
    """As after a login in another tab, which changes the token. The button works on the page that says so."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)

    response = client.post(reverse("logout"))

    assert response.status_code == 403
    page = response.content.decode()
    assert "This page was out of date" in page
    token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', page)[1]
    assert client.post(reverse("logout"), {"csrfmiddlewaretoken": token}).url == reverse("login")


def test_next_on_this_site(client, ada):
    page = reverse("password_change")

    assert client.get(page).url == f"{reverse('login')}?next={page}"
    assert f'href="{reverse("signup")}?next={page}"' in client.get(f"{reverse('login')}?next={page}").content.decode()
    assert log_in(client, "ada", next=page).url == page
    client.logout()
    assert sign_up(client, "grace", next=page).url == page


def test_next_is_not_the_login_itself(client, ada):
    """Django fails at it when somebody is logged in: a link would be enough."""
    page = reverse("login")

    assert log_in(client, "ada", next=page).url == HOME
    assert client.get(page, {"next": page}).url == HOME


@pytest.mark.parametrize(
    "elsewhere", ["https://example.com/", "//example.com/", r"\\example.com", "javascript:alert(1)"]
)
def test_next_elsewhere_is_refused(client, ada, elsewhere):
    assert "example" not in client.get(reverse("signup"), {"next": elsewhere}).context["next"]
    assert log_in(client, "ada", next=elsewhere).url == HOME
    client.logout()
    assert sign_up(client, "grace", next=elsewhere).url == HOME


@pytest.mark.parametrize("name", ["login", "signup"])
def test_a_visitor_who_is_logged_in_needs_no_form(client, ada, name):
    client.force_login(ada)

    assert client.get(reverse(name)).url == HOME
    assert client.post(reverse(name)).url == HOME


def test_a_name_is_taken_in_any_case(client, ada):
    response = sign_up(client, "ADA")

    assert response.context["form"].errors.as_data()["username"][0].code == "unique"
    assert name_of_visitor(client) == ""
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("Ada")


@pytest.mark.parametrize(
    "name", ["Grace", "ada.b+c@d-e_f", "Алиса", "محمد", "李小龙", "田中ひろし", "김철수", "हिन्दी", "José", "x1"]
)
def test_names_of_many_scripts(client, db, name):
    assert sign_up(client, name).url == HOME

    client.logout()
    assert log_in(client, name.upper()).url == HOME
    assert name_of_visitor(client) == name.lower()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\u1160da", "cannot be seen"),
        ("\u115fada", "cannot be seen"),
        ("a\u200bda", "cannot be seen"),
        ("ada lovelace", "no spaces"),
        ("\u0430lice", "Cyrillic, Latin"),
        ("<ada>", "&lt; &gt;"),
        ("...", "a letter or a digit"),
        ("a" + "\u0323\u0324\u0325\u032d\u0330", "too many marks"),
        ("a" * 41, "40"),
        ("admin", "reserved"),
        ("ADM1N", "reserved"),
        ("\u0251dmin", "reserved"),
        ("ad-rnin", "reserved"),
    ],
)
def test_names_that_could_be_mistaken_are_refused_in_a_sentence(client, db, name, why):
    response = sign_up(client, name)

    assert response.status_code == 200
    assert why in response.content.decode()
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ("coco", "\u0441\u043e\u0441\u043e"),
        ("\u0441\u043e\u0441\u043e", "Coco"),
        ("pope-7", "\u0440\u043e\u0440\u0435-7"),
        ("\u03bf\u03c5", "ou"),
    ],
)
def test_a_name_that_looks_like_a_taken_one_in_another_script(client, db, taken, name):
    assert sign_up(client, taken).url == HOME
    client.logout()

    assert "looks like that of somebody else" in sign_up(client, name).content.decode()
    assert User.objects.count() == 1


def test_a_name_of_letters_that_look_like_others_is_free_while_nobody_has_the_other(client, db):
    """A Russian Sarah, all of whose letters look like Latin ones."""
    assert sign_up(client, "\u0441\u0430\u0440\u0430").url == HOME


@pytest.mark.parametrize("name", ["signup", "login"])
def test_a_name_of_a_megabyte_is_not_even_folded(client, db, monkeypatch, name):
    """That took up to half a minute."""
    lengths = []
    profile = SimpleNamespace(enforce=lambda name: lengths.append(len(name)) or name)
    monkeypatch.setattr(names, "PROFILE", profile)

    response = client.post(reverse(name), {"username": "a" * 10**6, "password": PASSWORD})

    assert response.status_code == 200
    assert response.context["form"].errors
    assert max(lengths, default=0) <= 150


def test_commands_and_the_admin_know_the_rules_for_names(db):
    """There, a reserved name can be given."""
    with pytest.raises(CommandError, match="Cyrillic"):
        call_command("createsuperuser", "--no-input", username="\u0430lice", email="")

    call_command("createsuperuser", "--no-input", username="admin", email="")

    assert User.objects.get(username="ADMIN").is_superuser


def test_a_bad_password_is_refused(client, db):
    assert sign_up(client, "grace", password1="1234", password2="1234").context["form"].errors["password2"]
    assert sign_up(client, "grace", password2="another").context["form"].errors["password2"]
    assert not User.objects.exists()


def test_password_change(client, ada):
    log_in(client, "ada")
    new = {"old_password": PASSWORD, "new_password1": "another staple", "new_password2": "another staple"}

    response = client.post(reverse("password_change"), new)

    assert response.url == reverse("password_change_done")
    assert client.get(response.url).status_code == 200
    assert name_of_visitor(client) == "ada"
    client.logout()
    assert log_in(client, "ada", password="another staple").url == HOME


@pytest.mark.parametrize("name", ["login", "signup", "password_change", "password_change_done"])
def test_pages(client, ada, settings, name):
    if name.startswith("password"):
        client.force_login(ada)

    response = client.get(reverse(name))

    assert response.status_code == 200
    assert response.context["SITE_NAME"] == settings.SITE_NAME


def test_admin(admin_client, ada):
    form = {"username": "ADA", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}

    assert admin_client.get(reverse("admin:accounts_user_change", args=[ada.pk])).status_code == 200
    page = admin_client.post(reverse("admin:accounts_user_add"), form)
    assert page.context["adminform"].form.errors.as_data()["username"][0].code == "unique"
    admin_client.post(reverse("admin:accounts_user_add"), form | {"username": "grace"})
    assert User.objects.filter(username="grace").exists()


# A password that is forgotten


def ask_for_reset(client, email):
    """Ask for a mail, and return the answer when it is sent."""
    response = client.post(reverse("password_reset"), {"email": email})
    for thread in threading.enumerate():
        if thread.name == "accounts.mail":
            thread.join()
    return response


def test_a_forgotten_password(client, ada, settings):
    ada.email = "ada@example.com"
    ada.save()

    ask_for_reset(client, "Ada@example.com")

    (message,) = mail.outbox
    assert message.to == ["ada@example.com"]
    assert settings.SITE_NAME in message.subject
    link = re.search(r"http://testserver(/\S+)", message.body)[1]
    page = client.get(link, follow=True)
    new = "another horse"
    done = client.post(page.request["PATH_INFO"], {"new_password1": new, "new_password2": new}, follow=True)
    assert "Your password is changed" in done.content.decode()
    assert log_in(client, "ada", password=new).status_code == 302
    client.logout()
    assert "This link has been used already" in client.get(link, follow=True).content.decode()


def test_many_accounts_of_one_mail_address_are_not_many_mails(client, ada):
    for number in range(9):
        User.objects.create_user(f"user{number}", password=PASSWORD, email="ada@example.com")
    User.objects.filter(pk=ada.pk).update(email="ada@example.com")

    ask_for_reset(client, "ada@example.com")

    assert len(mail.outbox) == 5
    assert any("ada" in message.body for message in mail.outbox)


def test_a_reset_tells_nobody_who_has_an_account(client, ada):
    ada.email = "ada@example.com"
    ada.save()

    answers = [ask_for_reset(client, email) for email in ("ada@example.com", "nobody@example.com")]

    assert len(mail.outbox) == 1
    assert answers[0].status_code == answers[1].status_code == 302
    assert answers[0].url == answers[1].url
    assert answers[0].content == answers[1].content


def test_the_answer_does_not_wait_for_the_mail(client, ada, monkeypatch):
    """Only who has an account would wait, and so be known."""
    ada.email = "ada@example.com"
    ada.save()
    threads = []

    def note(*args, **kwargs):
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(PasswordResetForm, "send_mail", note)

    ask_for_reset(client, "ada@example.com")

    assert threads == ["accounts.mail"]


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com"])
def test_nobody_gets_mail_without_end(client, ada, email):
    ada.email = "ada@example.com"
    ada.save()

    answers = [ask_for_reset(client, email).status_code for _ in range(5)]

    assert answers == [302, 302, 302, 429, 429]
    assert len(mail.outbox) == (3 if email.startswith("ada") else 0)


def test_a_mail_address_is_changed_with_the_password(client, ada):
    log_in(client, "ada")
    for password, email in (("a guess", ""), (PASSWORD, "ada@example.com")):
        client.post(reverse("email_change"), {"email": "ada@example.com", "old_password": password})
        ada.refresh_from_db()
        assert ada.email == email


def test_a_mail_address_may_be_given_at_sign_up(client, db):
    sign_up(client, "grace", email="grace@example.com")

    assert User.objects.get().email == "grace@example.com"
