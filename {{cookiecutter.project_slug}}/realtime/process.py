"""What a server process has once, and all of its sockets share."""

import asyncio
import os
import warnings
from typing import Any

# The event loop of the server, by process: a fork has a copy of its parent's.
_servers: dict[int, asyncio.AbstractEventLoop] = {}
_show_warning = warnings.showwarning


class Process(dict[Any, Any]):
    """
    The objects of one event loop, each by what makes it: a class, or a tuple of a class and its arguments.

        process()[Activity]["opened"] += 1
    """

    def __missing__(self, key):
        factory, *arguments = key if isinstance(key, tuple) else (key,)
        self[key] = made = factory(*arguments)
        return made


def process() -> Process:
    """
    Return the Process of the running event loop.

    It is kept at the loop, and goes with it: tests and commands have many loops in one process.
    """
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "_realtime"):
        loop._realtime = Process()
    return loop._realtime


def serve():
    """As process(), of a server."""
    if server_loop() is not asyncio.get_running_loop():
        _servers[os.getpid()] = asyncio.get_running_loop()
        if warnings.showwarning.__module__.startswith("twisted."):
            # daphne's runserver throws away what it is warned of, "coroutine 'join' was never awaited" for one.
            warnings.showwarning = _show_warning
    return process()


def server_loop():
    """Return the event loop of the server that runs in this process, or None."""
    loop = _servers.get(os.getpid())
    return loop if loop is not None and loop.is_running() else None
