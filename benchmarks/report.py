"""Tables in Markdown and a chart in SVG, from the figures of a run."""
# ruff: noqa: RUF001 - the signs of arithmetic, as people write them

import re
import shutil
from html import escape
from statistics import median

from machine import REPOSITORY
from measures import GROUPS

MEASURES = {group.prefix + measure.name: measure for group in GROUPS for measure in group.measures}
DOCUMENT = REPOSITORY / "docs" / "performance.md"
CHART = ("echo", "broadcast_200", "broadcast_1000", "redis_broadcast_1000", "handshake", "handshake_session")


def middle(results, measure, subject, key="value"):
    """Return the median of the rounds, or None where nothing was measured."""
    rounds = results["figures"].get(measure, {}).get(subject, [])
    values = [figures[key] for figures in rounds if figures.get(key) is not None]
    return median(values) if values else None


def ratio(results, measure, subject="project", to="tutorial"):
    """Return how many times better the median of the subject is than that of the other, or None."""
    own, other = middle(results, measure, subject), middle(results, measure, to)
    if not own or not other:
        return None
    return own / other if MEASURES[measure].more else other / own


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def with_ratio(cell, times):
    return f"{cell} ({times:.{1 if times < 10 else 0}f}×)" if times else cell


def table(head, rows):
    """Return a Markdown table whose columns line up; all but the first are aligned to the right."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [rows[0], rule, *rows[1:]]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def tables(results, chosen):
    """Return all tables. chosen: the Subjects, in the order of the columns."""
    sections = {
        "Goals": goals(results),
        "Figures": figures(results, chosen),
        "Per second of the server's processor time": efficiency(results, chosen),
        "Behind the figures": details(results, chosen),
        "Who was the bottleneck": bottlenecks(results, chosen),
    }
    parts = [heading(results), *(f"### {title}\n\n{text}" for title, text in sections.items() if text)]
    notes = "".join(f"- {note}.\n" for note in [*results["notes"], *shared_core(results)])
    return "\n".join([*parts, notes] if notes else parts)


def heading(results):
    where = results["environment"]
    rounds = max((len(r) for name, by in results["figures"].items() if name != "bake" for r in by.values()), default=0)
    versions = {"Python": where["python"], "Node": where["node"], "Redis": where["redis"], **where["packages"]}
    return (
        f"{where['date']}: {where['processor']}, {where['cores']} cores, Linux {where['kernel']}.\n"
        f"{', '.join(f'{name} {version}' for name, version in versions.items() if version)}.\n"
        f"Cores: server {where['core_of_server']}, client {where['core_of_client']}, Redis {where['core_of_redis']}.\n"
        f"Rounds: {rounds}, of which these are the medians; {results['seconds']:.0f} seconds in all.\n"
    )


def goals(results):
    """Return the table of the goals. One that is missed is marked, and fails nothing."""

    def of(measure, key="value", subject="project"):
        return middle(results, measure, subject, key)

    def quotient(one, other):
        return one / other if one and other else None

    def difference(one, other):
        return None if one is None or other is None else one - other

    lines = [
        ("broadcast to 1,000 in memory, × tutorial", ratio(results, "broadcast_1000"), "≥", 20, 1),
        ("broadcast to 1,000 in memory, × socket.io", ratio(results, "broadcast_1000", to="socket.io"), "≥", 1, 2),
        ("broadcast to 200 in memory, × Starlette", ratio(results, "broadcast_200", to="starlette"), "≥", 0.95, 2),
        ("broadcast to 1,000 over Redis, × tutorial", ratio(results, "redis_broadcast_1000"), "≥", 10, 1),
        (
            "broadcast to 1,000, Redis, × in memory",
            quotient(of("redis_broadcast_1000"), of("broadcast_1000")),
            "≥",
            0.95,
            2,
        ),
        ("message to a room of one, × Starlette", ratio(results, "room_of_one", to="starlette"), "≥", 1, 2),
        ("message to a room of one over Redis, a second", of("redis_room_of_one"), "≥", 5000, 0),
        ("echo, × tutorial", ratio(results, "echo"), "≥", 2, 1),
        ("echo, × Starlette", ratio(results, "echo", to="starlette"), "≥", 1, 2),
        ("handshakes, anonymous, × Starlette", ratio(results, "handshake", to="starlette"), "≥", 0.85, 2),
        (
            "handshakes with a session cookie, × anonymous",
            quotient(of("handshake_session"), of("handshake")),
            "≥",
            0.85,
            2,
        ),
        ("handshakes with a session cookie, × tutorial", ratio(results, "handshake_session"), "≥", 2.5, 1),
        ("memory per idle socket, KB", of("idle_memory"), "≤", 20, 1),
        ("worker before the first connection, MB", of("worker_memory"), "≤", 52, 0),
        ("start-up to the first handshake, s", of("startup"), "≤", 0.8, 2),
        ("simultaneous connects over Redis, failed", of("redis_storm"), "≤", 0, 0),
        ("50 stuck readers, 100 MB: memory, MB", of("stuck_readers"), "≤", 20, 1),
        (
            "50 stuck readers: p99 of the others, ms more",
            difference(of("stuck_readers", "p99"), of("stuck_readers", "p99_before")),
            "≤",
            10,
            1,
        ),
    ]
    rows = []
    for title, value, sign, goal, digits in lines:
        if value is not None:
            reached = value >= goal if sign == "≥" else value <= goal
            rows.append([title, number(value, digits), f"{sign} {goal}", "yes" if reached else "no"])
    return table(["what", "project", "goal", "reached"], rows) if rows else ""


def figures(results, chosen):
    """Return the table of medians, with the ratio to the tutorial's code in brackets: above 1 is better."""
    rows = []
    for name, measure in MEASURES.items():
        if name not in results["figures"]:
            continue
        row = [f"{measure.title}, {measure.unit}"]
        for subject in chosen:
            cell = number(middle(results, name, subject.name), measure.digits)
            row.append(with_ratio(cell, ratio(results, name, subject.name)))
        rows.append(row)
    baked = number(middle(results, "bake", "project"), 2)
    rows.append(["bake, s", *(baked if subject.name == "project" else "–" for subject in chosen)])
    return table(["median", *(subject.label for subject in chosen)], rows)


def efficiency(results, chosen):
    """
    Return the table of what the servers do in a second of processor time, with the ratio to the tutorial's code.

    It changes less than the other figures when something else runs on the machine.
    """
    rows = []
    for name, measure in MEASURES.items():
        each = {}
        for subject in chosen:
            shared = [f for f in results["figures"].get(name, {}).get(subject.name, []) if f.get("server_cpu")]
            if measure.more and shared:
                each[subject.name] = median(figures["value"] / figures["server_cpu"] for figures in shared)
        if each:
            base = each.get("tutorial")
            cells = [
                with_ratio(number(each.get(s.name)), each.get(s.name, 0) / base if base else None) for s in chosen
            ]
            rows.append([f"{measure.title}, {measure.unit.partition('/')[0]}", *cells])
    return table(["median", *(subject.label for subject in chosen)], rows) if rows else ""


def details(results, chosen):
    """Return the table of further figures: p50, losses, seconds."""
    rows = []

    def add(title, measure, value, digits=1):
        cells = []
        for subject in chosen:
            rounds = results["figures"].get(measure, {}).get(subject.name, [])
            values = [value(figures) for figures in rounds]
            values = [each for each in values if each is not None]
            cells.append(number(median(values), digits) if values else "–")
        if set(cells) != {"–"}:
            rows.append([title, *cells])

    for prefix, where in (("", ""), ("redis_", ", Redis")):
        for key in ("p50", "p99", "max"):
            add(
                f"latency {key}{where}, ms",
                f"{prefix}latency_200",
                lambda figures, key=key: figures.get("latency_ms", {}).get(key),
            )
    add("storm over Redis: seconds until all are greeted", "redis_storm", lambda f: f["connecting_seconds"])
    add("storm over Redis: members left behind", "redis_storm", lambda f: f["left"], 0)
    add("stuck readers: p99 of the others before, ms", "stuck_readers", lambda f: f["p99_before"])
    add("stuck readers: p99 of the others, ms", "stuck_readers", lambda f: f["p99"])
    add("stuck readers: deliveries lost to the others", "stuck_readers", lambda f: f["lost"], 0)
    for name in MEASURES:
        lost = [f.get("lost") for by in results["figures"].get(name, {}).values() for f in by]
        if any(lost) and name != "stuck_readers":
            add(f"deliveries lost: {MEASURES[name].title}", name, lambda f: f["lost"], 0)
    return table(["median", *(subject.label for subject in chosen)], rows) if rows else ""


def bottlenecks(results, chosen):
    """Return the table of the shares of a core: the server's is near 100 % where the server set the pace."""
    rows = []
    for name, measure in MEASURES.items():
        cells = []
        for subject in chosen:
            server, own, redis = (
                middle(results, name, subject.name, f"{who}_cpu") for who in ("server", "client", "redis")
            )
            if measure.more and server is not None:
                cells.append(f"{server:.0%} / {own:.0%}" + (f" / {redis:.0%}" if name.startswith("redis_") else ""))
            else:
                cells.append("–")
        if set(cells) != {"–"}:
            rows.append([measure.title, *cells, f"{spread(results, name):.0%}"])
    head = ["share of a core: server / client / Redis", *(subject.label for subject in chosen), "spread"]
    return table(head, rows) if rows else ""


def shared_core(results):
    """Return a note, in a list, if servers had less than 90 % of their core where they should have set the pace."""
    shares = [
        median(f["server_cpu"] for f in by_round)
        for name, by_subject in results["figures"].items()
        if name != "bake" and MEASURES[name].more
        for by_round in by_subject.values()
    ]
    low = sum(share < 0.9 for share in shares)
    return [f"In {low} of {len(shares)} figures of speed, the server had less than 90 % of its core"] if low else []


def spread(results, measure):
    """Return how far the rounds lie apart, the widest of all subjects: (largest - smallest) / median."""
    widest = 0
    for by_round in results["figures"][measure].values():
        values = [figures["value"] for figures in by_round if figures.get("value")]
        if values:
            widest = max(widest, (max(values) - min(values)) / median(values))
    return widest


# The chart: a panel for each measure, a bar for each subject.

WIDTH, PANEL, BAR, LEFT, COLUMNS = 860, 24, 18, 108, 2
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
rect { fill: #8c959f }
.project { fill: #1a7f37 }
.tutorial { fill: #cf222e }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .project { fill: #3fb950 } .tutorial { fill: #f85149 } }
"""


def chart(results, chosen):
    """Return an SVG: bars from zero, so that their lengths compare within a panel."""
    panels = [name for name in CHART if name in results["figures"]]
    shown = {name: [s for s in chosen if middle(results, name, s.name) is not None] for name in panels}
    parts, y = [], 8
    width = WIDTH / COLUMNS
    for first in range(0, len(panels), COLUMNS):
        line = panels[first : first + COLUMNS]
        for column, name in enumerate(line):
            parts += panel(results, name, shown[name], column * width, y, width)
        y += PANEL + BAR * max(len(shown[name]) for name in line) + 16
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
    )
    title = "<title>A baked project and its peers, on one core</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def panel(results, name, shown, x, y, width):
    measure = MEASURES[name]
    longest = max(middle(results, name, subject.name) for subject in shown) or 1
    parts = [f'<text class="title" x="{x + 4}" y="{y + 14}">{escape(f"{measure.title}: {measure.unit}")}</text>']
    for index, subject in enumerate(shown):
        value = middle(results, name, subject.name)
        top = y + PANEL + BAR * index
        length = max(1, (width - LEFT - 76) * value / longest)
        parts += [
            f'<text x="{x + LEFT - 6}" y="{top + 12}" text-anchor="end">{escape(subject.label)}</text>',
            f'<rect class="{subject.name}" x="{x + LEFT}" y="{top + 2}" width="{length:.1f}" height="{BAR - 5}"/>',
            f'<text x="{x + LEFT + length + 5:.1f}" y="{top + 12}">{number(value, measure.digits)}</text>',
        ]
    return parts


def document(results_folder):
    """Put the tables between the two marks in docs/performance.md, and the chart beside it."""
    figures = (results_folder / "tables.md").read_text(encoding="utf-8")
    text = DOCUMENT.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- figures: begin -->\n).*(<!-- figures: end -->)", re.DOTALL)
    DOCUMENT.write_text(marks.sub(lambda m: f"{m[1]}\n{figures}\n{m[2]}", text), encoding="utf-8")
    shutil.copyfile(results_folder / "chart.svg", DOCUMENT.with_name("performance.svg"))
