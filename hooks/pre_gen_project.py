"""
Refuse bad answers, each in one line that says what is allowed.

cookiecutter makes the project's folder before this hook runs, and removes it when the hook fails. A slug such as
"../evil" must never be that folder, so cookiecutter.json (__slug_guard) puts REFUSED in place of every bad slug.
"""

import json
import re
import reprlib
import sys
import unicodedata
from pathlib import Path

REFUSED = "refused-answer"
MAX_NAME = 300

# As data, so that no answer can become code.
answers = json.loads(r"""{{ cookiecutter | tojson }}""")
reserved = answers["_reserved_names"].split()


def refuse(option, answer, allowed):
    sys.exit(f"{option} {reprlib.repr(answer)} is refused: {allowed}")


def similar_slug(answer):
    """Return a slug that is allowed and resembles the answer."""
    slug = "_".join(re.findall("[a-z0-9]+", answer.lower()))[:45].rstrip("_") or "my_site"
    if slug[0].isdigit():
        return f"site_{slug}"
    return f"{slug}_site" if slug in reserved else slug


def check_name(name):
    # Controls, lone surrogates, line and paragraph separators.
    unprintable = any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name)
    if unprintable or not name.strip() or len(name) > MAX_NAME:
        allowed = f"any text of 1 to {MAX_NAME} characters on one line, without control characters"
        refuse("project_name", name, f"{allowed}, for example My Realtime Site")


def check_slug(slug):
    if answers["project_slug"] != REFUSED:
        return
    if slug.lower() in reserved:
        allowed = "Python, Django, Windows, a dependency or the project itself uses that name; any other is free"
    else:
        allowed = "1 to 50 lower-case letters, digits and single underscores between them, a letter first"
    refuse("project_slug", slug, f"{allowed}, for example {similar_slug(slug)}")


def prepare_probe():
    """
    Put another text where the template has starters/probe, in an existing project.

    With --skip-if-file-exists it stays there, and so post_gen_project.py knows of that option, which no hook is told.
    """
    if Path("manage.py").exists():
        Path("starters").mkdir(exist_ok=True)
        Path("starters/probe").write_text("kept")


check_name(answers["project_name"])
check_slug(answers["__answered_slug"])
prepare_probe()
