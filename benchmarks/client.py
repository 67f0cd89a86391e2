"""The load client, client.c: compiled when it has changed, run on its own core."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from machine import BUILD, CLIENT_CORE

SOURCE = Path(__file__).with_name("client.c")
PROGRAM = BUILD / "client"


def compile_client():
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if not compiler:
        sys.exit("A C compiler is needed: a client in Python would be slower than the servers. Install gcc or clang.")
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", PROGRAM, SOURCE], check=True)


def command(mode, options):
    arguments = [str(PROGRAM), mode]
    for name, value in options.items():
        arguments += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return arguments


@contextmanager
def started(mode, options):
    """Yield the running client, a Popen on its core whose standard input is open; it is ended on the way out."""
    process = subprocess.Popen(
        command(mode, options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
    )
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def run(mode, options, meanwhile=None):
    """
    Run the client to its end and return what it printed, a dict; client.c says what is in it.

    meanwhile: called every 0.05 s while the client runs.
    """
    with started(mode, options) as process:
        while meanwhile:
            try:
                process.wait(0.05)
                break
            except subprocess.TimeoutExpired:
                meanwhile()
        return read(process)


def read(process):
    """Return the next line that the client prints, a dict."""
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the client failed: {' '.join(process.args)}")
    return json.loads(line)
