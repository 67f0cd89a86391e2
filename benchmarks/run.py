"""
Measure a baked project against its peers: `python benchmarks/run.py`.

Linux, two cores, a C compiler; Redis and Node where they are installed. It prints tables, and writes results.json,
tables.md and chart.svg to benchmarks/results/. Nothing is asserted. docs/performance.md says how it is measured.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import client
import machine
import report
import subjects
from measures import FULL, GROUPS, QUICK, serving

RESULTS = Path(__file__).with_name("results")
STARTED = time.monotonic()
LIMIT = 470  # seconds, by which the rounds have to end; the measures that are taken once come after them


def main():
    options = read_options()
    if sys.platform != "linux":
        sys.exit("The benchmark needs Linux: it reads /proc, pins processes and uses epoll.")
    prepare_this_process()
    client.compile_client()
    try:
        measure(options)
    finally:
        shutil.rmtree(machine.RUN, ignore_errors=True)


def measure(options):
    plan = QUICK if options.quick else FULL
    say("baking, and installing what is compared")
    bakes = [subjects.bake() for _ in range(3)]
    project = bakes[0][0]
    python = subjects.python_for(project)
    chosen, notes = subjects.make_subjects(project, python, options.subject or subjects.NAMES)
    if options.before:
        chosen.append(subjects.make_before(options.before, python))
    results = {"environment": machine.environment(python), "plan": vars(plan), "notes": notes, "figures": {}}
    results["figures"]["bake"] = {"project": [{"value": seconds} for _, seconds in bakes]}
    if not machine.redis_server():
        notes.append("What goes over Redis is left out: there is no redis-server")
    if results["environment"]["load_before"] > 0.5:
        load = results["environment"]["load_before"]
        notes.append(f"The machine was not idle before the start (load average {load:.1f}): figures may be noise")
    if machine.SERVER_CORE == machine.CLIENT_CORE:
        notes.append("One core only: servers and client were in each other's way")

    longest = 0
    for number in range(options.rounds or plan.rounds):
        begun = time.monotonic()
        if not options.rounds and begun - STARTED + longest > LIMIT:
            notes.append(f"{number} rounds only: another one would have ended after more than {LIMIT} s")
            break
        # Another one begins each time, so that no subject always has the same place.
        turn = number % len(chosen)
        groups = [group for group in GROUPS if not group.once]
        run_round(f"round {number + 1}", groups, chosen[turn:] + chosen[:turn], options.only, plan, results)
        longest = max(longest, time.monotonic() - begun)
    run_round("once", [group for group in GROUPS if group.once], chosen, options.only, plan, results)

    results["seconds"] = time.monotonic() - STARTED
    write(results, chosen)
    if options.document:
        report.document(RESULTS)


def read_options():
    names = [group.prefix + measure.name for group in GROUPS for measure in group.measures]
    parser = argparse.ArgumentParser(description="Measure a baked project against its peers.")
    parser.add_argument("--quick", action="store_true", help="a minute, to try it out: one round, short and small")
    parser.add_argument("--only", action="append", metavar="MEASURE", choices=names, help=", ".join(names))
    parser.add_argument("--subject", action="append", choices=subjects.NAMES, help="leave out the others")
    parser.add_argument("--before", metavar="REVISION", help="measure the template as it was at a commit, too")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of 3, or 1 with --quick")
    parser.add_argument("--document", action="store_true", help="put the figures and the chart into docs/")
    return parser.parse_args()


def prepare_this_process():
    """Allow as many sockets as may be, also to the servers, and keep away from their core."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {machine.CLIENT_CORE})


def run_round(title, groups, chosen, only, plan, results):
    """Run each of the groups of measures for each subject; add to results["figures"][measure][subject]."""
    for group in groups:
        wanted = [measure for measure in group.measures if not only or group.prefix + measure.name in only]
        if not wanted or (group.over_redis and not machine.redis_server()):
            continue
        for subject in chosen:
            if group.subjects and subject.name not in group.subjects:
                continue
            say(f"{title}: {subject.label}, {', '.join(group.prefix + measure.name for measure in wanted)}")
            try:
                with serving(subject, plan, group.over_redis, group.two) as bench:
                    for measure in wanted:
                        add(results, group.prefix + measure.name, subject, measure.function(bench))
            except (RuntimeError, OSError) as error:
                # Keep the figures that were measured before.
                say(f"  {error}")
                results["notes"].append(f"{subject.label} failed: {str(error).partition(chr(10))[0]}")


def add(results, name, subject, figures):
    """Add the figures of one round, or None if the measure is not the subject's; print what went wrong in it."""
    if figures is None:
        return
    results["figures"].setdefault(name, {}).setdefault(subject.name, []).append(figures)
    problems = {key: figures[key] for key in ("errors", "first_error", "lost") if figures.get(key)}
    if problems:
        say(f"  {subject.label}, {name}: {problems}")


def write(results, chosen):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    tables = report.tables(results, chosen)
    (RESULTS / "tables.md").write_text(tables, encoding="utf-8")
    (RESULTS / "chart.svg").write_text(report.chart(results, chosen), encoding="utf-8")
    print(tables)
    say(f"written: {RESULTS}/results.json, tables.md, chart.svg")


def say(text):
    print(f"{time.monotonic() - STARTED:4.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
