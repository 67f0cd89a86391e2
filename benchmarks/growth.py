"""
Measure how costs grow with the sockets: `python benchmarks/growth.py` prints a table, and draws docs/growth.svg.

One process, and two over Redis, of `minimal` with all sockets in one room. Linux, with a C compiler and Redis. Nothing
is asserted. docs/scale.md has figures.
"""

import argparse
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import client
import machine
import measures
import report
import subjects

SIZES = [100, 1000, 5000, 10_000, 19_000]
# Deliveries in a second, whatever the number of members: so many broadcasts that all sizes are as busy.
DELIVERIES = 5000
SECONDS = 10


@dataclass
class Row:
    """
    sockets, processes: how many. memory: KB of a socket. greeting: ms of a processor to greet one. p50, p99: ms from
    the moment that a broadcast was due to a delivery.
    """

    sockets: int
    processes: int
    memory: float
    greeting: float
    p50: float
    p99: float


def measure(subject, sockets, processes):
    """Return the Row of so many `sockets`."""
    with measures.serving(subject, measures.QUICK, over_redis=processes > 1, two=processes > 1) as bench:
        servers = [server for server in (bench.server, bench.second) if server]

        def used():
            return sum(machine.processor_seconds(server.pid) for server in servers)

        def memory():
            return sum(server.memory() for server in servers)

        began, used_before, memory_before = time.monotonic(), used(), memory()
        samples = []
        rate = min(20, DELIVERIES / sockets)
        sent = bench.run(
            "latency",
            "message",
            lambda: samples.append((time.monotonic() - began, used(), memory())),
            members=sockets,
            lanes=64,
            rate=rate,
            warmup=2 / rate,
            seconds=max(SECONDS, 5 / rate),
            timeout=600,
        )
    # The first sample after all were greeted.
    _, used_then, memory_then = next(sample for sample in samples if sample[0] >= sent["connecting_seconds"])
    latency = sent["latency_ms"]
    return Row(
        sockets,
        processes,
        (memory_then - memory_before) / sockets / 1e3,
        (used_then - used_before) / sockets * 1e3,
        latency["p50"],
        latency["p99"],
    )


def table(rows):
    head = ["sockets", "processes", "KB a socket", "ms to greet one", "p50, ms", "p99, ms"]
    cells = [
        [
            f"{row.sockets:,}",
            row.processes,
            f"{row.memory:.1f}",
            f"{row.greeting:.2f}",
            f"{row.p50:.0f}",
            f"{row.p99:.0f}",
        ]
        for row in rows
    ]
    return report.table(head, cells)


# The plot

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 300, 200, 40, 28, 26
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.axis{stroke:#8c959f;stroke-width:1}"
    "polyline{fill:none;stroke-width:2}.one{stroke:#1a7f37;fill:#1a7f37}.two{stroke:#0969da;fill:#0969da}"
    ".p99{stroke-dasharray:4 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.one{stroke:#3fb950;fill:#3fb950}.two{stroke:#58a6ff;fill:#58a6ff}}"
)
PANELS = (
    ("KB of memory a socket", ("memory",)),
    ("ms of a processor to greet one", ("greeting",)),
    ("ms to a delivery: p50, dashed p99", ("p50", "p99")),
)


def plot(rows):
    """Return an SVG: a panel for each figure, over the logarithm of the number of sockets."""
    parts = [panel(rows, title, names, WIDTH * number) for number, (title, names) in enumerate(PANELS)]
    width, height = WIDTH * len(PANELS), HEIGHT + 18
    legend = (
        f'<rect class="one" x="{LEFT}" y="{HEIGHT + 4}" width="10" height="10"/>'
        f'<text x="{LEFT + 14}" y="{HEIGHT + 13}">one process</text>'
        f'<rect class="two" x="{LEFT + 100}" y="{HEIGHT + 4}" width="10" height="10"/>'
        f'<text x="{LEFT + 114}" y="{HEIGHT + 13}">two processes over Redis</text>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    title = "<title>What a socket costs, by the number of sockets</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, legend, "</svg>", ""])


def panel(rows, title, names, left):
    """Return the part of the SVG with the lines of the fields `names` of Rows, from zero."""
    sizes = sorted({row.sockets for row in rows})
    values = [asdict(row) for row in rows]
    highest = max(value[name] for value in values for name in names) or 1
    low, high = math.log(sizes[0]), math.log(sizes[-1]) if len(sizes) > 1 else math.log(sizes[0]) + 1

    def x(sockets):
        return left + LEFT + (WIDTH - LEFT - 16) * (math.log(sockets) - low) / (high - low)

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / highest

    parts = [
        f'<text class="title" x="{left + LEFT}" y="14">{escape(title)}</text>',
        f'<text x="{left + LEFT - 5}" y="{y(highest) + 4:.0f}" text-anchor="end">{highest:.3g}</text>',
        f'<text x="{left + LEFT - 5}" y="{y(0) + 4:.0f}" text-anchor="end">0</text>',
        f'<path class="axis" d="M{left + LEFT} {TOP}V{y(0):.1f}H{left + WIDTH - 12}" fill="none"/>',
    ]
    parts += [f'<text x="{x(size):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{short(size)}</text>' for size in sizes]
    for processes, kind in ((1, "one"), (2, "two")):
        for name in names:
            points = [f"{x(v['sockets']):.1f},{y(v[name]):.1f}" for v in values if v["processes"] == processes]
            parts.append(f'<polyline class="{kind} {name}" style="fill:none" points="{" ".join(points)}"/>')
    return "\n".join(parts)


def short(size):
    return f"{size / 1000:g}k" if size >= 1000 else str(size)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, metavar="SOCKETS", help="(default: %(default)s)"
    )
    parser.add_argument("--plot", type=Path, default=machine.REPOSITORY / "docs" / "growth.svg", help="where to draw")
    options = parser.parse_args()
    client.compile_client()
    rows = []
    try:
        project, _ = subjects.bake()
        subject = subjects.make_project(project, subjects.python_for(project))
        for processes in (1, 2):
            for size in options.sizes:
                print(f"{size:,} sockets, {processes} …, load {os.getloadavg()[0]:.1f}", flush=True)
                rows.append(measure(subject, size, processes))
    finally:
        shutil.rmtree(machine.RUN, ignore_errors=True)
    options.plot.write_text(plot(rows), encoding="utf-8")
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
