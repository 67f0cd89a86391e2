"""The table of mutants, and the program that tries them: a case of each verdict. `make mutants` tries them all."""

import re

import mutants
import pytest
from mutants import TEMPLATE, Mutant, read_table
from servers import REPOSITORY, WINDOWS

TABLE, WITHOUT = read_table()


@pytest.mark.parametrize("name", TABLE)
def test_a_mutant_applies_to_the_template_and_its_test_is_there(name):
    mutant = TABLE[name]
    path = mutant.path(REPOSITORY)
    assert path.read_text(encoding="utf-8").count(mutant.before) == 1
    assert mutant.before != mutant.after

    file, *_, test = mutant.test.split("::")
    bake = REPOSITORY / TEMPLATE / "placed-by-hook" / f"starter={mutant.starter}"
    homes = {"tests/": REPOSITORY, "on_bake/": REPOSITORY / "tests"}
    (home,) = [homes[start] for start in homes if file.startswith(start)] or [bake]
    source = home / file
    function = re.escape(test.partition("[")[0])
    begin = rf'test\(["`]{function}["`],' if file.endswith(".mjs") else rf"(async )?def {function}\("
    assert re.search(rf"(?m)^ *{begin}", source.read_text(encoding="utf-8"))


def test_a_file_of_the_repository_that_a_bake_has_too(bake):
    """With a slash before it, it is that of the repository, and no other."""
    for name in ("README.md", "pyproject.toml", ".github/workflows/ci.yml"):
        row = {"name": "", "before": "", "after": "", "test": ""}
        own, either = Mutant(file=f"/{name}", **row), Mutant(file=name, **row)

        assert own.path(REPOSITORY) == REPOSITORY / name
        with pytest.raises(mutants.Broken, match="2 files"):
            either.path(REPOSITORY)
        assert either.path(bake()) == bake() / name
        with pytest.raises(mutants.Broken, match="0 files"):
            own.path(bake())


def test_each_pitfall_has_a_mutant_or_a_reason():
    headings = re.findall(r"(?m)^### (.*)$", (REPOSITORY / "docs" / "pitfalls.md").read_text(encoding="utf-8"))
    named = [mutant.pitfall for mutant in TABLE.values() if mutant.pitfall]

    assert sorted({*named, *WITHOUT}) == sorted(headings)
    assert not {*named} & {*WITHOUT}


CAUGHT = """
[[mutant]]
name = "shown"
file = "realtime/socket.py"
before = "    if text.isprintable():"
after = "    if True:"
test = "on_bake/test_asgi.py::test_what_a_client_sends_is_shown_on_one_line"
"""


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, " caught "),
        # Nothing that this test looks at.
        ({"after = ": "after = '    if text.isprintable() or False:'\n#"}, "SURVIVES"),
        ({"text.isprintable()": "text.is_printable()"}, "    does not apply"),
        ({"realtime/socket.py": "realtime/sockets.py"}, "    0 files"),
        # Nothing can be imported.
        pytest.param({"    if True:": "    if"}, "    pytest ended with ", marks=pytest.mark.long),
        ({"    if True:": "    if text.nonsense:"}, '    fails with "AttributeError'),
        pytest.param({"shown_on_one_line": "shown_on_two_lines"}, "    no such test", marks=pytest.mark.long),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.strip(),
)
@pytest.mark.skipif(WINDOWS, reason="copies share a folder by a symbolic link, which needs a right of its own there")
def test_verdicts(tmp_path, capfd, change, verdict):
    text = CAUGHT
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    table = tmp_path / "mutants.toml"
    table.write_text(text, encoding="utf-8")

    code = mutants.main(["--table", str(table), "--jobs", "1"])

    out = capfd.readouterr().out
    assert verdict in out
    assert code == (0 if verdict == " caught " else 1)
    assert ("1 of 1 caught, 0 survive, 0 broken." in out) == (code == 0)
    assert re.search(r"\nIt took \d+ min \d+ s\.\n", out)


FIXTURES = """
import pytest


@pytest.fixture
def log():
    yield
    assert "a traceback" == ""


@pytest.fixture
def project():
    assert "cannot be baked" == ""


@pytest.mark.weekly
def test_log(log):
    pass


def test_project(project):
    pass
"""


def test_what_a_fixture_finds_at_the_end_counts(tmp_path):
    """At the beginning it has found nothing of what the test is about. Weekly tests are run, too."""
    tests = tmp_path / "copy" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_it.py").write_text(FIXTURES, encoding="utf-8")

    (failure,) = mutants.failures(tests.parent, ["tests/test_it.py::test_log"])
    assert failure.startswith("AssertionError: assert 'a traceback'")
    with pytest.raises(mutants.Broken, match="an error beside the test: failed on setup"):
        mutants.failures(tests.parent, ["tests/test_it.py::test_project"])


def test_a_test_without_an_end_proves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "TIMEOUT", 2)
    tests = tmp_path / "copy" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_it.py").write_text("import time\n\ndef test_it():\n    time.sleep(60)\n", encoding="utf-8")

    with pytest.raises(mutants.Broken, match="no end in 2 s"):
        mutants.failures(tests.parent, ["tests/test_it.py::test_it"])


def test_a_name_that_no_mutant_has(capsys):
    with pytest.raises(SystemExit):
        mutants.main(["log-raw", "nonsense"])

    assert "no such mutant: nonsense" in capsys.readouterr().err


@pytest.mark.skipif(WINDOWS, reason="as above")
def test_a_test_that_fails_anyway_proves_nothing(tmp_path, capfd, monkeypatch):
    """A remedy that is not there when the mutants are tried."""
    table = tmp_path / "mutants.toml"
    table.write_text(CAUGHT, encoding="utf-8")
    monkeypatch.setattr(mutants, "try_without", lambda tests, starter, copies: {tests[0]: "assert 1 == 2"})

    assert mutants.main(["--table", str(table)]) == 1
    out = capfd.readouterr().out
    assert "BROKEN: fails without any mutant" in out
    assert "0 of 1 caught, 0 survive, 1 broken." in out
    assert "BROKEN: shown\n" in out
