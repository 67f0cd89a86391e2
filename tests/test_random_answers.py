"""
Answers at random: each is refused in one line with nothing left behind, or gives a project that works.

RANDOM_ANSWERS=10000 draws as many instead of two hundred, as the weekly workflow does. Add what fails to KEPT.
"""

import ast
import functools
import html
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import tomllib
import unicodedata
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import cookiecutter.generate
import cookiecutter.hooks
import cookiecutter.prompt
import pytest
import yaml
from combinations import OPTIONS
from cookiecutter.environment import StrictEnvironment
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter as bake
from cookiecutter.utils import work_in
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from servers import REPOSITORY, clean_environ, python_of
from test_answers import BAD_ANSWERS, RESERVED, contents, is_slug

MARKDOWN = MarkdownIt("commonmark")
EXAMPLES = int(os.environ.get("RANDOM_ANSWERS", "200" if os.environ.get("REQUIRE_ALL") == "1" else "60"))


def bad_answers(question):
    return [answer for (option, _), answers in BAD_ANSWERS.items() if option == question for answer in answers]


# What failed once, or nearly did.
KEPT = [
    {"project_name": '"""', "project_slug": None},
    {"project_name": "\\", "project_slug": None},
    {"project_name": "\\N{cases}", "project_slug": None},
    {"project_name": "</title><script>alert(1)</script>", "project_slug": None},
    {"project_name": r"*a* _b_c_ `d` ![e](f) <g> &copy; \* #", "project_slug": None},
    {"project_name": "{{ 7 * 7 }}", "project_slug": None},
    {"project_name": "{# gone #}", "project_slug": None},
    {"project_name": "\ud800", "project_slug": None},
    {"project_name": "\ud83d\ude80 x", "project_slug": None},
    {"project_name": "a\u2028b", "project_slug": None},
    {"project_name": "\u202egnp.evil", "project_slug": None},
    {"project_name": "x" * 300, "project_slug": "x" * 50},
    {"project_name": "Ω" * 301, "project_slug": None},
    {"project_name": "x", "project_slug": "a/../.."},
    {"project_name": "x", "project_slug": "x" * 51},
    # Those that test_answers.py types on the command line.
    *({"project_name": answer, "project_slug": None} for answer in bad_answers("project_name")),
    *({"project_name": "x", "project_slug": answer} for answer in bad_answers("project_slug")),
]

pieces = st.sampled_from(
    [
        *(
            "'",
            '"',
            '"""',
            "'''",
            "\\",
            "\\n",
            "{",
            "}",
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "${",
            "$(",
            "`",
            "<",
            "&",
            "&lt;",
        ),
        *(
            "</title>",
            "#",
            "%s",
            "//",
            "../",
            "C:\\",
            "|",
            "\n",
            "\t",
            "\0",
            "\x1b[31m",
            "\u2028",
            "\u202e",
            "\u200d",
            " ",
        ),
        *(
            "été",
            "聊天",
            "שלום",
            "مرحبا",
            "Жизнь",
            "हिन्दी",
            "ไทย",
            "한국어",
            "🚀",
            "👩\u200d👩\u200d👧",
            "ǅ",
            "ß",
            "İ",
            "ﬁ",
        ),
    ]
)
any_character = st.characters(exclude_categories=())
names = st.one_of(
    st.text(any_character, max_size=30),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=60),
    st.lists(st.one_of(pieces, st.text(max_size=8)), max_size=12).map("".join),
    st.sampled_from(sorted(RESERVED)).map(str.title),
    st.tuples(st.characters(exclude_categories=["Cc", "Cs"]), st.integers(295, 305)).map(
        lambda pair: pair[0] * pair[1]
    ),
)
good_slugs = st.from_regex(r"[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,8}){0,5}", fullmatch=True)
slugs = st.one_of(
    st.none(),
    good_slugs,
    st.tuples(
        good_slugs, st.sampled_from(["_", "__a", "-a", " a", ".a", "/a", "/..", "A", "é", "\n", "\0", "2", "a" * 44])
    ).map("".join),
    st.tuples(st.sampled_from(["_", "2", "-", "../", "/", "A", "\\"]), good_slugs).map("".join),
    st.sampled_from(sorted(RESERVED)),
    st.sampled_from(sorted(RESERVED)).map(str.upper),
    st.text(any_character, max_size=8),
    st.integers(44, 56).map(lambda length: "x" * length),
)
choices = st.fixed_dictionaries({question: st.sampled_from(values) for question, values in OPTIONS.items()})


def is_good_name(name):
    """Return whether the README promises that the name works."""
    unprintable = {"Cc", "Cs", "Zl", "Zp"}
    return (
        name.strip()
        and len(name) <= 300
        and not any(unicodedata.category(character) in unprintable for character in name)
        and not any(sign in name for sign in ("{{", "{%", "{#"))
    )


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """
    Return a function that bakes with answers as they are typed: `typed(project_name=…, …) -> Path`.

    It is cookiecutter's own, but the hooks run in this process, and a template is compiled once for all bakes: a tenth
    of the time. What a hook says when it refuses is the text of the exception.
    """
    folder = tmp_path_factory.mktemp("typed")
    config = folder / "config.yaml"
    config.write_text(json.dumps({"replay_dir": str(folder / "replay"), "cookiecutters_dir": str(folder)}), "utf-8")

    def run_script(script, cwd="."):
        with work_in(cwd), redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as end:
                raise FailedHookException(end.code) from end

    @functools.cache
    def compile_template(environment_class, source, name, filename):
        return compile(environment_class(context={}, keep_trailing_newline=True), source, name, filename)

    def compile_once(environment, source, name=None, filename=None, **_):
        return compile_template(type(environment), source, name, filename)

    compile = StrictEnvironment.compile
    is_binary = functools.cache(cookiecutter.generate.is_binary)

    def typed(output_dir, **answers):
        def read_user_variable(question, default, *_):
            return default if answers[question] is None else answers[question]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cookiecutter.hooks, "run_script", run_script)
            patch.setattr(cookiecutter.hooks.logger, "disabled", True)
            patch.setattr(cookiecutter.generate, "is_binary", is_binary)
            patch.setattr(StrictEnvironment, "compile", compile_once)
            patch.setattr(cookiecutter.prompt, "read_user_variable", read_user_variable)
            patch.setattr(cookiecutter.prompt, "read_user_choice", lambda question, *_: answers[question])
            return Path(bake(str(REPOSITORY), config_file=str(config), output_dir=str(output_dir)))

    return typed


@pytest.fixture(scope="module")
def wrong_in(cookies_session):
    """Return a function that tells what is wrong with a bake that runs: `wrong_in(project, name, starter) -> str`."""
    script = REPOSITORY / "tests" / "probes" / "check_bakes.py"
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with ExitStack() as stack:

        @functools.cache
        def checker(starter):
            python = python_of(cookies_session.bake(extra_context={"starter": starter}).project_path)
            process = stack.enter_context(subprocess.Popen([python, script], env=clean_environ(), **streams))
            stack.callback(process.stdin.close)
            return process

        def wrong_in(project, name, starter):
            process = checker(starter)
            print(json.dumps([str(project), name]), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield wrong_in


def keep(test):
    for answers in KEPT:
        test = example(answers=answers, options={question: values[-1] for question, values in OPTIONS.items()})(test)
    return test


@keep
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    # Two small answers are no reason to bake a hundred times more.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    print_blob=True,
)
@given(answers=st.fixed_dictionaries({"project_name": names, "project_slug": slugs}), options=choices)
def test_any_answers(typed, wrong_in, tmp_path_factory, answers, options):
    name, slug = answers["project_name"], answers["project_slug"]
    output_dir = tmp_path_factory.mktemp("out")
    before = contents(output_dir)
    try:
        good = is_good_name(name) and (slug is None or (is_slug(slug) and slug not in RESERVED))
        if not good:
            with pytest.raises(FailedHookException) as refusal:
                typed(output_dir, **answers, **options)
            message = str(refusal.value)
            assert re.fullmatch(r"project_(name|slug) .* is refused: [^\n]+", message)
            assert message.isprintable()
            assert contents(output_dir) == before
            return

        project = typed(output_dir, **answers, **options)
        assert list(output_dir.iterdir()) == [project]
        assert is_slug(project.name)
        assert project.name not in RESERVED
        assert project.name == (slug or project.name)
        check_files(project, name)
        assert wrong_in(project, name, options["starter"]) == ""
    finally:
        shutil.rmtree(output_dir)


def check_files(project, name):
    """Check that the files can be read by what reads them, and have the name as it was typed."""
    for path in project.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "settings.py":
            values = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
            assert ast.literal_eval(values["SITE_NAME"]) == name
    tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    for path in [*project.glob("*.yaml"), *project.glob(".github/*/*.yml")]:
        yaml.safe_load(path.read_text(encoding="utf-8"))
    title = (project / "README.md").read_text(encoding="utf-8").split("\n")[0]
    # A heading has no spaces around it.
    assert html.unescape(MARKDOWN.render(title)).strip() == f"<h1>{name.strip()}</h1>"
