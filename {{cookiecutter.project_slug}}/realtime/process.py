"""What a server process has once, and all of its sockets share."""

import asyncio

_server = None


def of_process(factory, *args):
    """
    Return the object that `factory(*args)` makes for the running event loop, the same at each call.

    It is kept at the loop, so that it goes with it: tests and commands have many loops in one process.
    """
    loop = asyncio.get_running_loop()
    try:
        objects = loop._realtime
    except AttributeError:
        objects = loop._realtime = {}
    key = (factory, *args)
    if key not in objects:
        objects[key] = factory(*args)
    return objects[key]


def serve():
    """Note that the running event loop is a server's."""
    global _server
    _server = asyncio.get_running_loop()


def server_loop():
    """Return the event loop of the server that runs in this process, or None."""
    return _server if _server is not None and _server.is_running() else None
