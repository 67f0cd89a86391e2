"""
Refuse bad answers, each in one line that says what is allowed.

cookiecutter makes the project's folder before this hook runs, and removes it when the hook fails. A slug such as
"../evil" must never be that folder, so cookiecutter.json (__slug_guard) puts REFUSED in place of every bad slug.
"""

import json
import os
import re
import reprlib
import shutil
import sys
import unicodedata
from pathlib import Path

REFUSED = "refused-answer"
MAX_NAME = 300
# In two halves, since cookiecutter renders this file, too.
TEMPLATE_SIGNS = ("{" + "{", "{" + "%", "{" + "#")
STAGING = Path("placed-by-hook")
# What cookiecutter writes beside it, as the template has it; folders end with a slash.
WRITTEN_IN_PLACE = """
    .env.example .gitignore .pre-commit-config.yaml AGENTS.md README.md conftest.py manage.py pyproject.toml
    realtime/ {{ cookiecutter.project_slug }}/
""".split()

# As data, so that no answer can become code.
answers = json.loads(r"""{{ cookiecutter | tojson }}""")
# Character by character: two halves of one, as YAML may hold them, are no text, and JSON would join them.
project_name = "".join(json.loads(r"""{{ cookiecutter.project_name | string | list | tojson }}"""))
# The thing that has each reserved name.
reserved = {
    name: owner for owner, lines in answers["_reserved_names"].items() for line in lines for name in line.split()
}


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
    # cookiecutter takes them for a template when it bakes without asking, as cruft does for each update.
    is_template = any(sign in name for sign in TEMPLATE_SIGNS)
    if unprintable or is_template or not name.strip() or len(name) > MAX_NAME:
        allowed = f"any text of 1 to {MAX_NAME} characters on one line, without control characters"
        refuse("project_name", name, f"{allowed} and {' '.join(TEMPLATE_SIGNS)}, for example My Realtime Site")


def check_slug(slug):
    if answers["project_slug"] != REFUSED:
        return
    if owner := reserved.get(slug.lower()):
        allowed = f"it is the name of {owner}; any other is free"
    else:
        allowed = "1 to 50 lower-case letters, digits and single underscores between them, a letter first"
    refuse("project_slug", slug, f"{allowed}, for example {similar_slug(slug)}")


def places():
    """Yield what cookiecutter writes in place, as WRITTEN_IN_PLACE, and all that lies in the folders."""
    yield from WRITTEN_IN_PLACE
    # In two halves, as above. A relative path is from where cookiecutter was started, which hooks are not told.
    template = "{" + "{cookiecutter.project_slug}" + "}"
    starts = answers.get("_output_dir", ""), os.environ.get("PWD", "")
    found = filter(Path.is_dir, (Path(start, answers.get("_repo_dir", ""), template) for start in starts))
    folder = next(found, None)
    # cruft tells no folder, and bakes where nothing is in the way.
    for top in folder.iterdir() if folder else ():
        name = answers["project_slug"] if top.name.startswith("{") else top.name
        for path in sorted(top.rglob("*")) if name != STAGING.name else ():
            if path.name != "__pycache__" and path.parent.name != "__pycache__":
                yield f"{name}/{path.relative_to(top).as_posix()}{'/' * path.is_dir()}"


def check_places():
    """Stop before anything is written if a folder is in the way of a file, or a file in the way of a folder."""
    for name in places():
        path = Path(name)
        if path.is_dir() and not name.endswith("/"):
            sys.exit(f"{path.as_posix()} is a folder, and a file of that name belongs there: rename it")
        if name.endswith("/") and os.path.lexists(path) and not path.is_dir():
            sys.exit(f"{path.as_posix()} is a file, and a folder of that name belongs there: rename it")


def keep_what_is_replaced():
    """Copy what cookiecutter writes over, so that post_gen_project.py can put it back if it fails."""
    kept = STAGING / "replaced-in-place"
    kept.mkdir()
    for path in map(Path, WRITTEN_IN_PLACE):
        if path.is_dir():
            shutil.copytree(path, kept / path, symlinks=True)
        elif os.path.lexists(path):
            shutil.copy2(path, kept / path, follow_symlinks=False)
    # cookiecutter writes into the files that these lead to, and leaves alone what other links lead to.
    for link in filter(Path.is_symlink, map(Path, places())):
        if not link.is_dir():
            text = STAGING / ("behind-links" if link.exists() else "dangling-links") / link
            text.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(link, text) if link.exists() else text.touch()
    (STAGING / "written-in-place").write_text("\n".join(WRITTEN_IN_PLACE))


def note_skip_if_file_exists():
    """
    Leave a note for post_gen_project.py, in an existing project: was --skip-if-file-exists given?

    No hook is told of that option. The template has the same file with the text "no": cookiecutter writes it over this
    "yes", unless the option is on.
    """
    if not any(Path().iterdir()):
        return
    if os.path.lexists(STAGING):
        sys.exit(f"{STAGING} is in the way, perhaps of a bake that was killed: remove or rename that folder")
    try:
        STAGING.mkdir()
        (STAGING / "skip-if-file-exists").write_text("yes")
        keep_what_is_replaced()
    except OSError as error:
        shutil.rmtree(STAGING, ignore_errors=True)
        sys.exit(f"the project's folder cannot be written to: {error}")


check_name(project_name)
check_slug(answers["__answered_slug"])
check_places()
note_skip_if_file_exists()
