"""
Measure how a crowd of pages comes back: `python benchmarks/herd.py` prints a table.

Thousands of pages, each with the project's own socket.js, are open; their server is killed or stopped and started
again, or the nginx in front of it is; and they come back by themselves. Linux. Nothing is asserted. docs/scale.md has
figures, and says how to read them.
"""

import argparse
import asyncio
import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import machine

# Importing `machine` has put the tests on the path.
import npm
from clients import log_in_all
from machine import REPOSITORY
from servers import LOCAL_PRODUCTION, Server, run, run_probe
from services import Postgres, Redis
from websockets.asyncio.client import connect

HERE = Path(__file__).parent
# Pages of one person; a process takes 50 sockets of one.
TABS = 20
# Pages of one address: nginx lets in 100 handshakes of one in a second.
PAGES_PER_ADDRESS = 100
# Sockets on the other process, which ping one after the other, and the seconds between two pings.
STAYERS = 20
PING_EVERY = 0.02
# Seconds after which the pong has told every page how large the crowd is: PING_INTERVAL in socket.js.
PONG = 26


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--template", type=Path, default=REPOSITORY, help="where to bake from (default: here), to compare releases")
    add("--starter", choices=["minimal", "chat"], default="chat")
    add("--pages", type=int, default=4000)
    add("--rooms", type=int, default=1, help="of `chat`, over which the pages are spread")
    add("--at-a-time", type=int, default=20, help="pages that come at a time in the beginning (default: %(default)s)")
    add("--by", choices=["kill", "term", "proxy"], default="kill", help="what ends, and how (default: %(default)s)")
    add("--postgres", action="store_true", help="instead of SQLite")
    add("--processes", type=int, choices=[1, 2], default=1, help="behind nginx if there are two, of which one ends")
    add("--seconds", type=float, default=120, help="after which it is given up (default: %(default)s)")
    add("--json", action="store_true", help="print all that was measured")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # nginx has two for each page.
    needed = options.pages * (2 if options.by == "proxy" or options.processes > 1 else 1) + 500
    if most < needed:
        sys.exit(f"{options.pages} pages need {needed} open files, and {most} are allowed: `ulimit -n`.")
    try:
        figures = measure(options)
    finally:
        shutil.rmtree(machine.RUN, ignore_errors=True)
    print(json.dumps(figures, indent=1) if options.json else table(options, figures))


def measure(options):
    """Return what was measured: dicts "came" (one after the other) and "back" (together)."""
    project = bake(options)
    with ExitStack() as stack:
        env = dict(LOCAL_PRODUCTION)
        if options.postgres:
            env["DATABASE_URL"] = stack.enter_context(Postgres()).create_database()
        if options.processes > 1:
            env["REDIS_URL"] = stack.enter_context(Redis()).url
        if options.processes > 1 or options.by == "proxy":
            env["DJANGO_TRUST_PROXY"] = "true"
        run(project, "manage.py", "migrate", env=env)
        people = -(-options.pages // TABS)
        cookies = [*log_in_all(project, [f"person-{number}" for number in range(people)], env).values()]
        paths = ["/ws/socket-server/"]
        if options.starter == "chat":
            slugs = [f"room-{number}" for number in range(options.rooms)]
            run_probe(project, "make_rooms.py", *slugs, env=env)
            paths = [f"/ws/socket-server/{slug}/" for slug in slugs]
        servers = [stack.enter_context(Server(project, "production", env=env)) for _ in range(options.processes)]
        ends = front = servers[0]
        if "DJANGO_TRUST_PROXY" in env:
            from test_deploy import Nginx

            front = stack.enter_context(Nginx(project, [*servers, *servers][:2]))
            ends = front if options.by == "proxy" else ends
        for server, core in zip(servers, (machine.SERVER_CORE, machine.SECOND_SERVER_CORE), strict=False):
            os.sched_setaffinity(server.process.pid, {core})
        herd = stack.enter_context(
            pages(
                script=str(project / "realtime" / "static" / "realtime" / "socket.js"),
                paths=paths,
                origin=front.url.rstrip("/"),
                cookies=cookies,
                pages=options.pages,
                atATime=options.at_a_time,
                addresses=-(-options.pages // PAGES_PER_ADDRESS),
            )
        )
        return end_and_start(herd, servers, ends, paths[0], cookies, options)


def bake(options):
    output = machine.RUN / "project"
    command = [sys.executable, "-m", "cookiecutter", options.template, "--no-input", "--default-config"]
    command += ["--output-dir", output, f"starter={options.starter}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    project = next(output.glob("*/manage.py")).parent
    run(project, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    return project


def end_and_start(herd, servers, ends, path, cookies, options):
    """Let the pages come, end `ends` and start it again; return what was measured."""

    def used():
        return sum(machine.processor_seconds(server.process.pid) for server in servers)

    def start():
        ends.start()
        if ends is servers[0]:
            os.sched_setaffinity(ends.process.pid, {machine.SERVER_CORE})

    empty, busy = sum(server.memory for server in servers), used()
    came = herd("come")
    came["processor"] = used() - busy
    time.sleep(PONG)
    pings = Pings(servers[-1], path, cookies) if len(servers) > 1 else None
    herd("stay")
    began = time.monotonic()
    if options.by == "proxy":
        ends.kill()
    else:
        ends.process.send_signal(signal.SIGKILL if options.by == "kill" else signal.SIGTERM)
        ends.process.wait()
    ended = time.monotonic()
    starting = threading.Thread(target=start)
    starting.start()
    if options.by == "proxy" or len(servers) == 1:
        # Otherwise the other process listens all the time.
        starting.join()
    down = time.monotonic() - ended
    busy = sum(machine.processor_seconds(server.process.pid) for server in servers if server is not ends)
    back = herd(f"back {options.seconds}")
    starting.join()
    back |= {"end": ended - began, "down": down, "processor": used() - busy}
    back["memory"] = (sum(server.memory for server in servers) - empty) / options.pages / 1024
    if pings:
        back["pings"] = pings.stop()
    return {"came": came, "back": back}


class Pings:
    """Sockets that stay on a process and ping it, in a thread, until `stop()` returns the 99th percentile: seconds."""

    def __init__(self, server, path, cookies):
        self.url, self.origin = server.url.replace("http", "ws").rstrip("/") + path, server.url.rstrip("/")
        self.cookies = cookies
        self.latencies, self.stopped, self.begun = [], False, threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.ping()))
        self.thread.start()
        self.begun.wait(60)

    async def ping(self):
        async with AsyncExitStack() as stack:
            sockets = []
            for cookie in self.cookies[:STAYERS]:
                options = {"origin": self.origin, "additional_headers": {"Cookie": cookie}, "open_timeout": 60}
                sockets.append(await stack.enter_async_context(connect(self.url, compression=None, **options)))
            for socket in itertools.cycle(sockets):
                if self.stopped:
                    return
                began = time.monotonic()
                await socket.send('{"type": "ping"}')
                while '"pong"' not in (await socket.recv())[:20]:
                    pass
                self.latencies.append(time.monotonic() - began)
                if len(self.latencies) > STAYERS:
                    self.begun.set()
                await asyncio.sleep(PING_EVERY)

    def stop(self):
        self.stopped = True
        self.thread.join()
        return statistics.quantiles(self.latencies, n=100)[98]


@contextmanager
def pages(**options):
    """Yield a function that sends a command to herd.mjs, and returns its answer."""
    options["ws"] = str(npm.install("ws@8.23.0") / "node_modules" / "ws" / "index.js")
    process = subprocess.Popen(
        ["node", "--max-old-space-size=8192", HERE / "herd.mjs", json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {machine.CLIENT_CORE}),
    )

    def ask(command):
        process.stdin.write(command + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def table(options, figures):
    came, back = figures["came"], figures["back"]
    lost = back["lost"]
    rows = {
        "pages; those that came back": f"{options.pages:,}; {back['open'] - options.pages + lost:,} of {lost:,}",
        f"{options.at_a_time} at a time": f"{came['seconds']:.1f} s, {options.pages / came['seconds']:.0f} a second",
        "all together, since a process listens again": f"{back['seconds']:.1f} s;"
        f" half after {back.get('median', 0):.1f} s",
        "processor time of the server for each": f"{1000 * came['processor'] / options.pages:.2f} ms; together"
        f" {1000 * back['processor'] / max(1, lost):.2f} ms",
        "attempts of a page": f"{back['attempts']['mean']:.2f}, at most {back['attempts']['max']}",
        "pages that were told to wait": f"{back['waited']:,}",
        "resets; other errors": f"{back['resets']}; {sum(back['errors'].values()):,}",
        "it took to end, and was away for": f"{back['end']:.1f} s, {back['down']:.1f} s",
        "memory for each socket": f"{back['memory']:.0f} KB",
    }
    if "pings" in back:
        rows["p99 of the pings on the other process"] = f"{back['pings'] * 1000:.0f} ms"
    return "\n".join(["| what | |", "| --- | --- |", *[f"| {name} | {value} |" for name, value in rows.items()]])


if __name__ == "__main__":
    main()
