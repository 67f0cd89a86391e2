"""
Take each remedy out of a copy of the template, and see that the test which is named for it fails: `make mutants`.

    python tests/mutants.py [--table FILE] [--jobs N] [name…]

The table, mutants.toml, has the text of each remedy, what stands there instead, and a test. A mutant is caught when
that test passes without it, and fails with it on an assertion: an error of an import proves nothing. A text that is
not there any more, a test that is not found and a mutant that survives end the run with 1.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from servers import REPOSITORY, WINDOWS, clean_environ, python_of

TABLE = REPOSITORY / "tests" / "mutants.toml"
TEMPLATE = "{{cookiecutter.project_slug}}"
SLUG = "my_realtime_site"
# Seconds. A remedy may be what ends a test.
TIMEOUT = 240

# The verdicts.
CAUGHT, SURVIVES, BROKEN = "caught", "SURVIVES", "BROKEN"


class Broken(Exception):
    """A mutant of which nothing can be said: its text is not there, its test is not found or fails anyway."""


@dataclass(frozen=True)
class Mutant:
    """
    One remedy that is taken out.

    file: the path in a bake, in which <project> is the package of settings, or in the repository (hooks/…); with "/"
    before it that of the repository itself, where a bake has one of the same name (/README.md). before: text that is
    there exactly once; after: what stands there instead. test: of pytest, in the repository (tests/…), in on_bake/ or
    of the bake itself, or of node (tests/socket.test.mjs::name). fails_with: how the failure begins. pitfall: the
    heading of docs/pitfalls.md that it is for, or "".
    """

    name: str
    file: str
    before: str
    after: str
    test: str
    starter: str = "minimal"
    fails_with: str = "assert"
    pitfall: str = ""

    @property
    def is_in_bake(self):
        """Whether the test runs in a bake: all that is put into it is the mutant then, not a new bake."""
        return not self.test.startswith("tests/")

    def path(self, folder):
        """Return the Path of the file in a copy of the repository, or of a bake."""
        is_bake = (folder / "manage.py").is_file()
        if self.file.startswith("/"):
            found = [] if is_bake else [folder / self.file[1:]]
        elif is_bake:
            found = [folder / self.file.replace("<project>", SLUG)]
        else:
            file = self.file.replace("<project>", TEMPLATE)
            template = folder / TEMPLATE
            found = [place / file for place in (folder, template, *(template / "placed-by-hook").glob("*"))]
            # accounts/ differs in the two starters.
            found = [path for path in found if "starter=" not in str(path) or f"starter={self.starter}" in str(path)]
        found = [path for path in found if path.is_file()]
        if len(found) != 1:
            raise Broken(f"{len(found)} files {self.file}")
        return found[0]

    def apply(self, folder):
        path = self.path(folder)
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


class Copies:
    """
    Copies of the repository, for tests/, and of bakes, for the tests that run in one: a bake is made once for all.

    folder: a Path that the bakes go to.
    """

    def __init__(self, folder, starters):
        self._bakes = {}
        for starter in starters:
            cookiecutter = [Path(sys.executable).parent / "cookiecutter", "--no-input", "--default-config"]
            command = [*cookiecutter, "-o", folder / starter, REPOSITORY, f"starter={starter}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            self._bakes[starter] = project = folder / starter / SLUG
            shutil.copytree(REPOSITORY / "tests" / "on_bake", project / "on_bake")

    def make(self, folder, starter=None):
        """Return the Path of a new copy in `folder`, of the repository without a starter."""
        if starter:
            return shutil.copytree(self._bakes[starter], folder / SLUG)
        ignored = (".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis", "benchmarks")
        copy = shutil.copytree(REPOSITORY, folder / "repository", ignore=shutil.ignore_patterns(*ignored))
        # One for all: it holds environments.
        (REPOSITORY / "build").mkdir(exist_ok=True)
        (copy / "build").symlink_to((REPOSITORY / "build").resolve(), target_is_directory=True)
        return copy


def failures(folder, tests):
    """
    Run `tests` of one file on a copy, in its `folder`; return how each failure begins, a list, empty if all pass.

    What a fixture finds wrong at the end counts. Raises Broken if there is no such test, or one cannot begin.
    """
    if ".mjs::" in tests[0]:
        return [failure for test in tests for failure in node_failures(folder, *test.split("::"))]
    python = sys.executable if tests[0].startswith("tests/") else python_of(folder)
    report = folder.parent / "report.xml"
    # Weekly ones, too.
    options = ["-q", "-x", "-m", "", "-p", "no:cacheprovider", f"--junitxml={report}"]
    code, output = run([python, "-m", "pytest", *options, *tests], folder, TIMEOUT * len(tests))
    if not report.exists():
        raise Broken(f"pytest ended with {code}: {output[-500:]}")
    suite = ElementTree.parse(report).getroot()
    if suite.find(".//testcase") is None or suite.find(".//skipped") is not None:
        raise Broken(f"no such test, or skipped: {' '.join(tests)}: {output[-500:]}")
    found = [failure.get("message", "") for failure in suite.iterfind(".//failure")]
    for error in suite.iterfind(".//error"):
        # A fixture that looks at the log when its tests have ended.
        when, _, what = error.get("message", "").partition(' with "')
        if when != "failed on teardown":
            raise Broken(f"an error beside the test: {error.get('message')}")
        found.append(what)
    return found


def node_failures(repository, file, name):
    pattern = f"^{re.escape(name)}$"
    command = ["node", "--test", "--test-reporter=tap", f"--test-name-pattern={pattern}", repository / file]
    code, output = run(command, repository, TIMEOUT)
    if not re.search(rf"(?m)^ *(not )?ok \d+ - {re.escape(name)}$", output):
        raise Broken(f"no such test: {name}: {output[-500:]}")
    return re.findall(r"(?m)^ +code: '(ERR_ASSERTION|\w+)'", output) if code else []


def run(command, folder, timeout):
    """Return the code with which the command ended, and what it printed. Raises Broken when it does not end."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        # So that its servers can be ended with it.
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        if WINDOWS:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Broken(f"no end in {timeout} s") from None
    return process.returncode, output


def is_as_said(failure, fails_with):
    """
    Tell whether a failure is the one that a mutant is caught by.

    pytest.fail() and pytest.raises() assert, too, and so does whoever waits in vain for a frame or a close.
    """
    if fails_with == "assert":
        return failure.startswith(("assert", "AssertionError", "Failed: ", "ERR_ASSERTION", "TimeoutError"))
    return failure.startswith(fails_with)


def try_mutant(mutant, copies):
    """Return the verdict about `mutant`, CAUGHT, SURVIVES or BROKEN, what there is to say about it, and seconds."""
    started = time.monotonic()
    reason = ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = copies.make(Path(folder), mutant.starter if mutant.is_in_bake else None)
            mutant.apply(copy)
            found = failures(copy, [mutant.test])
    except Broken as error:
        verdict, reason = BROKEN, str(error)
    else:
        verdict = CAUGHT if found else SURVIVES
        if found and not any(is_as_said(failure, mutant.fails_with) for failure in found):
            verdict, reason = BROKEN, f"fails with {found[0][:200]!r}"
    return verdict, reason, time.monotonic() - started


def try_without(tests, starter, copies):
    """
    Return what is wrong with each of `tests`, all of one file, without a mutant: a dict, empty if they pass.

    starter: that of the bake in which they run; None for those of tests/.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = failures(copies.make(Path(folder), starter), tests)
    except Broken as error:
        found = [str(error)]
    if found and len(tests) > 1:
        return {test: wrong for each in tests for test, wrong in try_without([each], starter, copies).items()}
    return {tests[0]: found[0][:200]} if found else {}


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Take remedies out, and see that tests fail.")
    parser.add_argument("--table", default=TABLE, type=Path)
    parser.add_argument("--jobs", default=2, type=int, help="mutants at a time (default: %(default)s)")
    parser.add_argument("names", nargs="*", help="of mutants; all without any")
    options = parser.parse_args(arguments)
    table, without = read_table(options.table)
    if unknown := set(options.names) - set(table):
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    mutants = [table[name] for name in options.names] if options.names else list(table.values())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = Copies(Path(folder), sorted({mutant.starter for mutant in mutants if mutant.is_in_bake}))
        verdicts = try_all(mutants, copies, pool)
    counts = Counter(verdicts.values())
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\n{counts[CAUGHT]} of {len(mutants)} caught, {counts[SURVIVES]} survive, {counts[BROKEN]} broken.")
    print(f"It took {minutes} min {seconds} s.")
    for verdict in (SURVIVES, BROKEN):
        if names := [name for name, it in verdicts.items() if it == verdict]:
            print(f"{verdict}: {' '.join(names)}")
    if not options.names:
        print(f"\n{len(without)} pitfalls without a mutant:")
        for name, reason in without.items():
            print(f"  {name}\n    {reason}")
    return counts[CAUGHT] != len(mutants)


def try_all(mutants, copies, pool):
    """Print a line for each of `mutants`, and return the verdicts, a dict by name."""
    print(f"{'mutant':42} {'verdict':9} {'time':>7}  test")
    verdicts = {}
    results = pool.map(lambda mutant: try_mutant(mutant, copies), mutants)
    for mutant, (verdict, reason, seconds) in zip(mutants, results, strict=True):
        verdicts[mutant.name] = verdict
        print(f"{mutant.name:42} {verdict:9} {seconds:5.1f} s  {mutant.test}", flush=True)
        if reason:
            print(f"    {reason}", flush=True)
    # A test that fails anyway has caught nothing.
    caught = [mutant for mutant in mutants if verdicts[mutant.name] == CAUGHT]
    files = defaultdict(set)
    for mutant in caught:
        starter = mutant.starter if mutant.is_in_bake else None
        files[mutant.test.partition("::")[0], starter].add(mutant.test)
    groups = [(sorted(tests), starter) for (_, starter), tests in files.items()]
    results = pool.map(lambda group: try_without(*group, copies), groups)
    for (_, starter), wrong in zip(groups, results, strict=True):
        for test, reason in wrong.items():
            print(f"{BROKEN}: fails without any mutant: {test}\n    {reason}", flush=True)
            for mutant in caught:
                if mutant.test == test and starter in (None, mutant.starter):
                    verdicts[mutant.name] = BROKEN
    return verdicts


if __name__ == "__main__":
    sys.exit(main())
