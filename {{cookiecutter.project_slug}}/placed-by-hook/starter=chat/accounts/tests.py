import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from .models import User

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


def test_next_on_this_site(client, ada):
    page = reverse("password_change")

    assert client.get(page).url == f"{reverse('login')}?next={page}"
    assert f'href="{reverse("signup")}?next={page}"' in client.get(f"{reverse('login')}?next={page}").content.decode()
    assert log_in(client, "ada", next=page).url == page
    client.logout()
    assert sign_up(client, "grace", next=page).url == page


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

    assert response.context["form"].errors["username"] == ["A user with that username already exists."]
    assert name_of_visitor(client) == ""
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("Ada")


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
    assert "already exists" in admin_client.post(reverse("admin:accounts_user_add"), form).content.decode()
    admin_client.post(reverse("admin:accounts_user_add"), form | {"username": "grace"})
    assert User.objects.filter(username="grace").exists()
