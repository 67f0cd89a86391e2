"""The texts of the chat can be translated, also those of its scripts: German is the proof."""

import gettext
import json
import re
import shutil

import pytest
from browser import expect, expect_state, messages, open_browser, visits
from servers import Server, require, run

PASSWORD = "a horse, a staple"
MAKE_USER = f"from accounts.models import User; User.objects.create_user('ada', password={PASSWORD!r})"

browser = pytest.fixture(open_browser, scope="module")
visit = pytest.fixture(visits)


@pytest.fixture(scope="module")
def german(bake, tmp_path_factory):
    """A chat whose settings say German, with ada."""
    project = shutil.copytree(bake(starter="chat"), tmp_path_factory.mktemp("german") / "project")
    settings = project / "my_realtime_site" / "settings.py"
    text = settings.read_text(encoding="utf-8")
    assert text.count('LANGUAGE_CODE = "en-us"') == 1
    settings.write_text(text.replace('LANGUAGE_CODE = "en-us"', 'LANGUAGE_CODE = "de"'), encoding="utf-8")
    run(project, "manage.py", "migrate")
    run(project, "manage.py", "shell", "--no-imports", "-c", MAKE_USER)
    return project


def read_catalogue(path):
    with path.open("rb") as file:
        return gettext.GNUTranslations(file)._catalog


@pytest.mark.parametrize("domain", ["django", "djangojs"])
def test_every_text_has_a_translation(bake, tmp_path, domain):
    for tool in ("xgettext", "msgmerge", "msgfmt"):
        require(shutil.which(tool), f"{tool} is not installed")
    project = shutil.copytree(bake(starter="chat"), tmp_path / "project")
    folder = project / "locale" / "de" / "LC_MESSAGES"
    shipped = read_catalogue(folder / f"{domain}.mo")

    run(project, "manage.py", "makemessages", "--locale", "de", "--domain", domain, "--no-obsolete")
    run(project, "manage.py", "compilemessages", "--locale", "de")

    text = (folder / f"{domain}.po").read_text(encoding="utf-8")
    # Neither one that is guessed nor one that is missing.
    assert "#, fuzzy" not in text
    assert not re.findall(r'msgid .*(?:\n".*")*\nmsgstr ""\n(?!")', text)
    made = read_catalogue(folder / f"{domain}.mo")
    assert {key: value for key, value in made.items() if key} == {key: value for key, value in shipped.items() if key}
    assert len(made) > 25


def log_in(page):
    page.get_by_label("Benutzername").fill("ada")
    page.get_by_label("Passwort", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Anmelden").click()
    expect_state(page, "verbunden")


def test_the_pages_and_scripts_are_german(visit, german):
    with Server(german) as server:
        page = visit(f"{server.url}accounts/login/?next=/rooms/lobby/", state=None)
        log_in(page)
        expect(page.get_by_text("Wer hier ist: 1")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", "de")
        page.get_by_label("Nachricht", exact=True).fill("x" * 2001)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Nicht gesendet: 2001 Zeichen, und 2000 passen.")


class Refusal:
    """A `prepare` for `visit`: the first message that the page sends is refused as one that came too fast."""

    is_due = True

    def __call__(self, page):
        page.route_web_socket(re.compile("/ws/socket-server/"), self.meet)

    def meet(self, near):
        far = near.connect_to_server()

        def take(data):
            frame = json.loads(data)
            if frame["type"] == "message" and self.is_due:
                self.is_due = False
                error = {"type": "error", "code": "rate_limited", "message": "in English", "retry_after": 0.1}
                near.send(json.dumps(error | {"id": frame["id"]}))
            else:
                far.send(data)

        near.on_message(take)


def test_what_the_server_refuses_is_said_in_german(visit, german):
    """The page chooses the text by the code, and sends again what came too fast."""
    with Server(german) as server:
        page = visit(f"{server.url}accounts/login/?next=/rooms/lobby/", state=None, prepare=Refusal())
        log_in(page)
        page.evaluate("""() => {
          window.notices = new Set();
          new MutationObserver(() => notices.add(notice.textContent)).observe(notice, { childList: true });
        }""")
        page.get_by_label("Nachricht", exact=True).fill("schnell")
        page.keyboard.press("Enter")

        expect(messages(page)).to_have_count(1)
        expect(page.get_by_role("alert")).to_be_empty()
        said = "Das war viel auf einmal. Was Sie geschrieben haben, wird gleich von selbst gesendet."
        assert set(page.evaluate("[...notices]")) == {"", said}


def test_an_english_page_loads_no_catalogue(visit, bake, tmp_path):
    project = shutil.copytree(bake(starter="chat"), tmp_path / "project")
    run(project, "manage.py", "migrate")
    with Server(project) as server:
        page = visit(f"{server.url}accounts/login/", state=None)
        assert "texts.js" not in page.content()


@pytest.mark.long
def test_the_tests_of_a_german_project_pass(german):
    result = run(german, "-m", "pytest", "-W", "error", "-q", check=False)

    assert re.search(r"\d+ passed in", result.stdout), result.stdout
