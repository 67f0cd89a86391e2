"""The table of mutants, and the program that tries them: a case of each verdict. `make mutants` tries them all."""

import re

import mutants
import pytest
from mutants import TEMPLATE, read_table
from servers import REPOSITORY, WINDOWS

TABLE, WITHOUT = read_table()


@pytest.mark.parametrize("name", TABLE)
def test_a_mutant_applies_to_the_template_and_its_test_is_there(name):
    mutant = TABLE[name]
    path = mutant.path(REPOSITORY)
    assert path.read_text(encoding="utf-8").count(mutant.before) == 1
    assert mutant.before != mutant.after

    file, _, test = mutant.test.partition("::")
    homes = [REPOSITORY, REPOSITORY / "tests", REPOSITORY / TEMPLATE / "placed-by-hook" / f"starter={mutant.starter}"]
    (source,) = [home / file for home in homes if (home / file).is_file()]
    function = re.escape(test.partition("[")[0])
    begin = rf'test\(["`]{function}["`],' if file.endswith(".mjs") else rf"(async )?def {function}\("
    assert re.search(rf"(?m)^ *{begin}", source.read_text(encoding="utf-8"))


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
        ({"text.isprintable()": "text.is_printable()"}, "BROKEN: does not apply"),
        ({"realtime/socket.py": "realtime/sockets.py"}, "BROKEN: 0 files"),
        # Nothing can be imported.
        ({"    if True:": "    if"}, "BROKEN"),
        ({"    if True:": "    if text.nonsense:"}, 'BROKEN: fails with "AttributeError'),
        ({"shown_on_one_line": "shown_on_two_lines"}, "BROKEN: no such test"),
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
    assert ("1 of 1 caught." in out) == (code == 0)


@pytest.mark.skipif(WINDOWS, reason="as above")
def test_a_test_that_fails_anyway_proves_nothing(tmp_path, capfd, monkeypatch):
    """A remedy that is not there when the mutants are tried."""
    table = tmp_path / "mutants.toml"
    table.write_text(CAUGHT, encoding="utf-8")
    monkeypatch.setattr(mutants, "try_without", lambda tests, starter: {tests[0]: "assert 1 == 2"})

    assert mutants.main(["--table", str(table)]) == 1
    out = capfd.readouterr().out
    assert "BROKEN: fails without any mutant" in out
    assert "0 of 1 caught." in out
