"""
How many processes and how many Redis a site needs: `python benchmarks/scale.py --sockets 1000000` prints a table.

The costs below were measured (docs/scale.md), and each is an option, as are the assumptions about who is there and
what they do. `--measure 5000 20000` measures this machine, and says how well the first row predicts the others.
"""

import argparse
import math
import sys
from dataclasses import dataclass, field, fields

COST, ASSUMED = "cost", "assumption"


def number(default, kind, meaning):
    return field(default=default, metadata={"kind": kind, "meaning": meaning})


@dataclass
class Site:
    """What the reader knows or assumes, and what the costs are. All times of a processor, for one core."""

    sockets: float = number(1_000_000, ASSUMED, "open at a time")
    room: float = number(50, ASSUMED, "sockets in a room")
    messages: float = number(0.01, ASSUMED, "messages that each socket sends in a second, to its room")
    visit: float = number(600, ASSUMED, "seconds that a socket stays open")
    spread: float = number(1, ASSUMED, "1: a room is on any process; 0: on one, by the load balancer")
    busy: float = number(0.5, ASSUMED, "share of its core that a process may use: the rest is for peaks and a return")
    base: float = number(57, COST, "MB of a process without sockets")
    memory: float = number(25, COST, "KB of a socket, in `chat`; 19 in `minimal`")
    greeting: float = number(1.9, COST, "ms of a handshake, logged in, in `chat`")
    idle: float = number(7, COST, "µs a second of a socket that says nothing: pings of the page and of uvicorn")
    delivery: float = number(16, COST, "µs of a frame to one socket")
    crossing: float = number(0.04, COST, "ms of a broadcast over Redis, for its sender and each other process")
    redis: float = number(0.02, COST, "ms of a Redis for each process that a broadcast reaches")


@dataclass
class Need:
    """What a Site needs: numbers of processes and Redis, shares of one core, bytes."""

    processes: int
    redis: int
    messages: float
    reached: float
    memory: float
    shares: dict
    back: float


def need(site):
    """Return the Need of a Site. The number of processes counts for what a broadcast reaches, hence the search."""
    processes, wanted = 0, 1
    while wanted > processes:
        processes = wanted
        shares, reached, messages = work(site, processes)
        wanted = math.ceil(sum(shares.values()) / site.busy)
    redis = 0 if processes == 1 else math.ceil(messages * reached * site.redis / 1e3 / site.busy)
    memory = processes * site.base * 1e6 + site.sockets * site.memory * 1e3
    back = site.sockets / processes * site.greeting / 1e3
    return Need(processes, redis, messages, reached, memory, shares, back)


def work(site, processes):
    """
    Return the shares of a core that each kind of work takes, a dict; the average number of processes that a broadcast
    reaches; and the messages in a second.
    """
    messages = site.sockets * site.messages
    # Of m sockets, each on any of p processes, a process has none with the probability (1 - 1/p) ** m.
    anywhere = processes * (1 - (1 - 1 / processes) ** site.room)
    reached = 1 + (anywhere - 1) * site.spread
    shares = {
        "idle": site.sockets * site.idle / 1e6,
        "handshakes": site.sockets / site.visit * site.greeting / 1e3,
        "deliveries": messages * site.room * site.delivery / 1e6,
        "crossing": 0 if processes == 1 else messages * (1 + reached) * site.crossing / 1e3,
    }
    return shares, reached, messages


def report(site):
    """Return the table for a Site, as Markdown."""
    needed = need(site)
    rows = [
        ("processes, a core each", f"{needed.processes:,}"),
        ("Redis, a core each", f"{needed.redis:,}"),
        ("sockets of a process", f"{site.sockets / needed.processes:,.0f}"),
        ("memory of all processes", f"{needed.memory / 1e9:,.1f} GB"),
        ("messages a second", f"{needed.messages:,.0f}"),
        ("processes that a broadcast reaches", f"{needed.reached:.1f}"),
        *[(f"cores for {name}", f"{share:,.1f}") for name, share in needed.shares.items()],
        ("seconds until a process that was killed has all pages back", f"{needed.back:.0f}"),
    ]
    return "\n".join(["| what | |", "| --- | ---: |", *[f"| {name} | {value} |" for name, value in rows]])


# A row of sockets in one process: predicted from the costs, and measured


@dataclass
class Row:
    """
    What sockets in one process take, all of them in one room of `minimal`.

    memory: MB of the process. greeting: seconds of its processor until all are greeted, without a login. idle: share
    of its core while nobody says anything, but for uvicorn's pings. broadcast: seconds of it for one to all.
    """

    sockets: int
    memory: float
    greeting: float
    idle: float
    broadcast: float


def predict(row, base, sockets):
    """Return the Row of so many `sockets`, from a measured one. base: MB of a process without sockets."""
    factor = sockets / row.sockets
    memory = base + (row.memory - base) * factor
    return Row(sockets, memory, row.greeting * factor, row.idle * factor, row.broadcast * factor)


def errors(predicted, measured):
    """Return by how much each figure of a Row was predicted too high (1.1) or too low (0.9), a dict by name."""
    names = [each.name for each in fields(Row) if each.name != "sockets"]
    return {name: getattr(predicted, name) / getattr(measured, name) for name in names}


def measure(sizes):
    """Return the Rows of these numbers of sockets, and the MB of a process without any. Linux, with a C compiler."""
    import shutil
    import time
    from pathlib import Path

    import client
    import machine
    import measures
    import subjects

    def used(bench):
        return machine.processor_seconds(bench.server.pid)

    rows = []
    client.compile_client()
    try:
        project, _ = subjects.bake()
        subject = subjects.make_project(project, subjects.python_for(project))
        for size in sizes:
            with measures.serving(subject, measures.QUICK) as bench:
                base, before = bench.server.memory() / 1e6, used(bench)
                options = bench.options(members=size, timeout=600)
                with client.started("hold", options) as holding:
                    holding.stdout.readline()
                    greeting, memory = used(bench) - before, bench.server.memory() / 1e6
                    before, seconds = used(bench), 40
                    time.sleep(seconds)
                    idle = (used(bench) - before) / seconds
                sent = bench.run("broadcast", "message", members=size, window=1, seconds=10, timeout=600)
                rows.append(Row(size, memory, greeting, idle, sent["server_cpu"] / sent["value"] * size))
                print(rows[-1], file=sys.stderr)
    finally:
        shutil.rmtree(Path(machine.RUN), ignore_errors=True)
    return rows, base


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in fields(Site):
        text = f"{each.metadata['kind']}: {each.metadata['meaning']} (default: %(default)s)"
        parser.add_argument(f"--{each.name}", type=float, default=each.default, help=text)
    parser.add_argument("--measure", type=int, nargs="+", metavar="SOCKETS", help="measure a process with so many")
    options = vars(parser.parse_args())
    sizes = options.pop("measure")
    if not sizes:
        print(report(Site(**options)))
        return
    rows, base = measure(sizes)
    print("| sockets | memory, MB | to greet all, s | idle, % of a core | one broadcast to all, s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        figures = f"{row.memory:.0f} | {row.greeting:.2f} | {100 * row.idle:.1f} | {row.broadcast:.3f}"
        print(f"| {row.sockets:,} | {figures} |")
        predicted = predict(rows[0], base, row.sockets)
        print(f"| predicted ÷ measured | {' | '.join(f'{share:.2f}' for share in errors(predicted, row).values())} |")


if __name__ == "__main__":
    main()
