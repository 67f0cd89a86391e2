"""What a server process has once, and all of its sockets share."""

import asyncio

_server = None


class Process(dict):
    """
    The objects of one event loop, each by what makes it: a class, or a tuple of a class and its arguments.

        process()[Activity]["opened"] += 1
    """

    def __missing__(self, key):
        factory, *arguments = key if isinstance(key, tuple) else (key,)
        self[key] = made = factory(*arguments)
        return made


def process():
    """
    Return the Process of the running event loop.

    It is kept at the loop, and goes with it: tests and commands have many loops in one process.
    """
    loop = asyncio.get_running_loop()
    try:
        return loop._realtime
    except AttributeError:
        loop._realtime = Process()
        return loop._realtime


def serve():
    """As process(), of a server."""
    global _server
    _server = asyncio.get_running_loop()
    return process()


def server_loop():
    """Return the event loop of the server that runs in this process, or None."""
    return _server if _server is not None and _server.is_running() else None
