"""
Take each remedy out of a copy of the template, and see that the test which is named for it fails: `make mutants`.

    python tests/mutants.py [--table FILE] [--jobs N] [name…]

The table, mutants.toml, has the text of each remedy, what stands there instead, and a test. A mutant is caught when
that test passes without it, and fails with it on an assertion: an error of an import proves nothing. A text that is
not there any more, a test that is not found and a mutant that survives end the run with 1.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from servers import REPOSITORY, clean_environ, python_of

TABLE = REPOSITORY / "tests" / "mutants.toml"
TEMPLATE = "{{cookiecutter.project_slug}}"
SLUG = "my_realtime_site"
# Seconds. A remedy may be what ends a test.
TIMEOUT = 240


class Broken(Exception):
    """A mutant of which nothing can be said: its text is not there, its test is not found or fails anyway."""


@dataclass(frozen=True)
class Mutant:
    """
    One remedy that is taken out.

    file: the path in a bake, in which <project> is the package of settings, or in the repository (hooks/…). before:
    text that is there exactly once; after: what stands there instead. test: of pytest, in the repository (tests/…), in
    on_bake/ or of the bake itself, or of node (tests/socket.test.mjs::name). fails_with: how the failure begins.
    pitfall: the heading of docs/pitfalls.md that it is for, or "".
    """

    name: str
    file: str
    before: str
    after: str
    test: str
    starter: str = "minimal"
    fails_with: str = "assert"
    pitfall: str = ""

    def path(self, repository):
        """Return the Path of the file in a copy of the repository."""
        file = self.file.replace("<project>", TEMPLATE)
        template = repository / TEMPLATE
        places = [repository, template, *(template / "placed-by-hook").glob("*")]
        found = [place / file for place in places if (place / file).is_file()]
        # accounts/ differs in the two starters.
        found = [path for path in found if "starter=" not in str(path) or f"starter={self.starter}" in str(path)]
        if len(found) != 1:
            raise Broken(f"{len(found)} files {self.file}")
        return found[0]

    def apply(self, repository):
        path = self.path(repository)
        text = path.read_text(encoding="utf-8")
        if text.count(self.before) != 1 or self.before == self.after:
            raise Broken(f"does not apply: its text is {text.count(self.before)} times in {self.file}")
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")


def read_table(path=TABLE):
    """Return the Mutants of a table by name, and the pitfalls without one, a dict of reasons."""
    table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    mutants = [Mutant(**fields) for fields in table["mutant"]]
    assert len({mutant.name for mutant in mutants}) == len(mutants), "a name is there twice"
    return {mutant.name: mutant for mutant in mutants}, table.get("without", {})


def copy_repository(folder):
    """Copy the repository, with one `build` for all copies."""
    copy = folder / "repository"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis", "benchmarks")
    shutil.copytree(REPOSITORY, copy, ignore=ignored)
    (REPOSITORY / "build").mkdir(exist_ok=True)
    (copy / "build").symlink_to((REPOSITORY / "build").resolve(), target_is_directory=True)
    return copy


def bake(repository, starter):
    command = [Path(sys.executable).parent / "cookiecutter", "--no-input", "--default-config", repository]
    subprocess.run([*command, "-o", repository.parent, f"starter={starter}"], check=True, stdout=subprocess.DEVNULL)
    project = repository.parent / SLUG
    shutil.copytree(repository / "tests" / "on_bake", project / "on_bake")
    return project


def failures(repository, tests, starter):
    """
    Run `tests` of one file on a copy of the repository; return how each failure begins, a list, empty if all pass.

    Raises Broken if there is no such test, or one cannot begin.
    """
    if ".mjs::" in tests[0]:
        return [failure for test in tests for failure in node_failures(repository, *test.split("::"))]
    folder, python = repository, Path(sys.executable)
    if not tests[0].startswith("tests/"):
        folder = bake(repository, starter)
        python = python_of(folder)
    report = repository.parent / "report.xml"
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
    try:
        result = subprocess.run(
            [python, "-m", "pytest", *options, *tests],
            cwd=folder,
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=TIMEOUT * len(tests),
        )
    except subprocess.TimeoutExpired:
        return [f"no end in {TIMEOUT} s"]
    if not report.exists():
        raise Broken(f"pytest ended with {result.returncode}: {result.stdout[-500:]}")
    suite = ElementTree.parse(report).getroot()
    if suite.find(".//testcase") is None or suite.find(".//skipped") is not None:
        raise Broken(f"no such test, or skipped: {' '.join(tests)}: {result.stdout[-500:]}")
    if (error := suite.find(".//error")) is not None:
        raise Broken(f"an error beside the test: {error.get('message')}")
    return [failure.get("message", "") for failure in suite.iterfind(".//failure")]


def node_failures(repository, file, name):
    pattern = f"^{re.escape(name)}$"
    command = ["node", "--test", "--test-reporter=tap", f"--test-name-pattern={pattern}", repository / file]
    result = subprocess.run(command, cwd=repository, capture_output=True, encoding="utf-8", timeout=TIMEOUT)
    if not re.search(rf"(?m)^ *(not )?ok \d+ - {re.escape(name)}$", result.stdout):
        raise Broken(f"no such test: {name}: {result.stdout[-500:]}")
    return re.findall(r"(?m)^ +code: '(ERR_ASSERTION|\w+)'", result.stdout) if result.returncode else []


def is_as_said(failure, fails_with):
    """
    Tell whether a failure is the one that a mutant is caught by.

    pytest.fail() and pytest.raises() assert, too, and so does whoever waits in vain for a frame or a close.
    """
    if fails_with == "assert":
        return failure.startswith(("assert", "AssertionError", "Failed: ", "ERR_ASSERTION", "TimeoutError"))
    return failure.startswith(fails_with)


def try_mutant(mutant):
    """Return the verdict about `mutant`, "caught" or what is wrong, and the seconds that it took."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            repository = copy_repository(Path(folder))
            mutant.apply(repository)
            found = failures(repository, [mutant.test], mutant.starter)
    except Broken as error:
        verdict = f"BROKEN: {error}"
    else:
        if not found:
            verdict = "SURVIVES"
        elif is_as_said(found[0], mutant.fails_with):
            verdict = "caught"
        else:
            verdict = f"BROKEN: fails with {found[0][:200]!r}"
    return verdict, time.monotonic() - started


def try_without(tests, starter):
    """Return what is wrong with each of `tests`, all of one file, without a mutant: a dict, empty if they pass."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = failures(copy_repository(Path(folder)), tests, starter)
    except Broken as error:
        found = [str(error)]
    if found and len(tests) > 1:
        return {test: wrong for each in tests for test, wrong in try_without([each], starter).items()}
    return {tests[0]: found[0][:200]} if found else {}


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Take remedies out, and see that tests fail.")
    parser.add_argument("--table", default=TABLE, type=Path)
    parser.add_argument("--jobs", default=2, type=int, help="mutants at a time (default: %(default)s)")
    parser.add_argument("names", nargs="*", help="of mutants; all without any")
    options = parser.parse_args(arguments)
    table, without = read_table(options.table)
    mutants = [table[name] for name in options.names] if options.names else list(table.values())
    caught = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (verdict, seconds) in zip(mutants, pool.map(try_mutant, mutants), strict=True):
            print(f"{mutant.name:42} {verdict:9} {seconds:5.1f} s  {mutant.test}", flush=True)
            if verdict == "caught":
                caught.append(mutant)
        # A test that fails anyway has caught nothing.
        files = defaultdict(set)
        for mutant in caught:
            files[mutant.test.partition("::")[0], mutant.starter].add(mutant.test)
        groups = [(sorted(tests), starter) for (_, starter), tests in files.items()]
        for (_, starter), wrong in zip(groups, pool.map(lambda group: try_without(*group), groups), strict=True):
            for test, reason in wrong.items():
                caught = [mutant for mutant in caught if (mutant.test, mutant.starter) != (test, starter)]
                print(f"BROKEN: fails without any mutant: {test}: {reason}", flush=True)
    print(f"\n{len(caught)} of {len(mutants)} caught.")
    for name, reason in without.items():
        print(f"Not tried: {name}: {reason}")
    return len(caught) != len(mutants)


if __name__ == "__main__":
    sys.exit(main())
