"""What settings.py decides for the whole project: the limits of the README, passwords, paths, its log."""

import importlib
import logging
import re

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from realtime import Close

README = (settings.BASE_DIR / "README.md").read_text(encoding="utf-8")
# How the README counts, where it is not as the settings do.
UNITS = {"REALTIME_MAX_FRAME_SIZE": 1024, "ACCOUNTS_PERIOD": 60}


def test_the_readme_has_the_name_of_each_close_code():
    table = README.partition("\n## Close codes\n")[2].partition("\n## ")[0]
    named = {(name, int(code)) for code, name in re.findall(r"(\d{4}) `([A-Z_]+)`", table)}

    # The others are every server's.
    assert named == {(code.name, code.value) for code in Close if code >= 4000}


def test_limits_are_those_of_the_readme():
    table = README.partition("\n## Limits\n")[2].partition("\n## ")[0]
    told, held = {}, {}
    for names, default in re.findall(r"(?m)^\| (`[A-Z].*?) \| (.*?) \|", table):
        found = re.findall(r"`([A-Z]+_\w+)`", names + default)
        numbers = [name for name in found if not isinstance(getattr(settings, name), list)]
        told |= zip(numbers, re.findall(r"\b(?:\d+|None)\b", default), strict=False)
        for name in numbers:
            value = getattr(settings, name)
            held[name] = str(value and value // UNITS.get(name, 1))

    assert len(told) >= 6
    assert told == held


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("h0rse,a", "password_too_short"),
        ("7402918365", "password_entirely_numeric"),
        ("qwerty123", "password_too_common"),
        ("grace.hoppers", "password_too_similar"),
    ],
)
def test_a_weak_password_is_refused(password, reason):
    user = get_user_model()(username="grace.hopper")
    validate_password("a horse, a staple", user)
    with pytest.raises(ValidationError) as refused:
        validate_password(password, user)

    assert [error.code for error in refused.value.error_list] == [reason]


def test_a_path_without_its_slash_leads_to_the_page(client, db):
    assert client.get("/realtime/ticket").status_code == 301


def test_nothing_is_logged_twice_or_not_at_all():
    assert logging.getLogger("django").handlers == []
    # Others had their loggers before there were settings.
    assert not logging.getLogger("asyncio").disabled


SCRIPT = """\
// import("./nowhere.js")
// To import it is a word of this line, too, and the next one imports.
import { b } from "./b.js";
//# sourceMappingURL=a.js.map
"""


def test_what_a_script_names_is_found(tmp_path):
    """Whatever words a comment has; imports of types in it are left alone."""
    storage = importlib.import_module(f"{settings.SETTINGS_MODULE.partition('.')[0]}.storage")
    files = {"a.js": SCRIPT, "a.js.map": "{}", "b.js": "export const b = 1;\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    static = storage.HashedStaticFilesStorage(location=tmp_path, base_url="/static/")

    processed = static.post_process({name: (static, name) for name in files})

    assert [done for *_, done in processed if isinstance(done, Exception)] == []
    (script,) = tmp_path.glob("a.*.js")
    text = script.read_text(encoding="utf-8")
    assert re.search(r'import \{ b \} from "\./b\.\w+\.js"', text)
    assert re.sub(r"\.[0-9a-f]{12}(?=\.)", "", text) == SCRIPT


def test_runserver_says_what_is_missing(settings):
    """It is this one where daphne's is not the first."""
    settings.DEBUG = True
    with pytest.raises(CommandError, match="needs daphne as the first of INSTALLED_APPS"):
        call_command("runserver")
