"""The production server, uvicorn, with all of its settings: `python -m {{ cookiecutter.project_slug }}`."""

import argparse
import contextlib
import gc
import logging
import os
import sys

import uvicorn
from django.conf import settings
from uvicorn.supervisors import Multiprocess

logger = logging.getLogger("{{ cookiecutter.project_slug }}.server")

# Open files where the system has no limit.
MAX_FILES = 2**16
# Connections that are accepted in one turn of the event loop.
ACCEPTS = 1 if sys.platform == "win32" else 16


def main():
    # Read before settings.py reads .env: a platform sets it in the environment, and needs the server on all addresses.
    port = os.environ.get("PORT")
    parser = argparse.ArgumentParser(description="Serve the project with uvicorn.")
    parser.add_argument(
        "--host",
        default="0.0.0.0" if port else "127.0.0.1",
        help="address to listen on (default: %(default)s; 0.0.0.0 where PORT is set)",
    )
    parser.add_argument(
        "--port", default=port or 8000, type=int, help="port to listen on (default: the variable PORT, or 8000)"
    )
    options = parser.parse_args()
    if not 0 <= options.port < 2**16:
        parser.error(f"no port has the number {options.port}")
    raise_file_limit()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings")
    if settings.SECURE_SSL_REDIRECT and not settings.SECURE_PROXY_SSL_HEADER:
        logger.warning(
            "Every page is redirected to HTTPS, which this server leaves to a proxy: behind one set"
            " DJANGO_TRUST_PROXY=true, or else browsers are redirected for ever. Without one: DJANGO_HTTPS=false."
        )
    if not settings.DEBUG and not (settings.STATIC_ROOT / "staticfiles.json").exists():
        logger.warning(
            "Every page will be an error: run `manage.py collectstatic --no-input` with DJANGO_DEBUG=false, and start"
            " this again."
        )
    config = uvicorn.Config(
        "{{ cookiecutter.project_slug }}.__main__:load",
        factory=True,
        host=options.host,
        port=options.port,
        workers=count_workers(),
        # REALTIME_TRUST_PROXY decides about X-Forwarded-For; uvicorn alone would believe any local process.
        proxy_headers=False,
        # Behind a proxy, uvicorn's lines would have the address of the proxy, which logs requests itself.
        access_log=not settings.REALTIME_TRUST_PROXY,
        # Connections that may wait to be accepted: as many as Linux allows. Of a crowd that is larger than that, the
        # rest is tried again by the system, 1 second later, which a proxy takes for the end of the server.
        backlog=4096,
        # Seconds from SIGTERM to the end. Sockets are closed with 1012 in the first of them; without a limit, a single
        # client that reads nothing would hold the process up for ever.
        timeout_graceful_shutdown=10,
        # Django has no lifespan events.
        lifespan="off",
        # Seconds. Pings find browsers that have vanished and keep idle sockets open: a proxy must wait longer.
        ws_ping_interval=20,
        ws_ping_timeout=20,
        http="{{ cookiecutter.project_slug }}.protocols:HttpProtocol",
        ws="{{ cookiecutter.project_slug }}.protocols:WebSocketProtocol",
        ws_max_size=settings.REALTIME_MAX_FRAME_SIZE,
        # Compression costs more time and memory than short frames are worth; turn it on for long ones.
        ws_per_message_deflate=False,
    )
    listener = config.bind_socket()
    # uvloop accepts one connection in each turn of its loop, for each socket that listens: with one of them, thousands
    # of pages that come back at once would wait longer than they do. https://github.com/libuv/libuv/pull/3696
    listeners = [listener, *(listener.dup() for _ in range(ACCEPTS - 1))]
    with contextlib.suppress(KeyboardInterrupt):
        if config.workers > 1:
            Multiprocess(config, listeners).run()
        else:
            uvicorn.Server(config).run(listeners)


def load():
    """Return the ASGI application, in each process of the server."""
    from .asgi import application

    # All that is loaded stays, and each thousand sockets would make the garbage collector go through it again: a fifth
    # of a handshake. protocols.py goes on with it.
    gc.freeze()
    return application


def raise_file_limit():
    """Let the process have as many open files as the system allows: each socket is one, and many shells say 1024."""
    try:
        import resource
    except ModuleNotFoundError:
        # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS has a limit of its own where this one is infinite.
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else hard
    if soft not in (wanted, resource.RLIM_INFINITY):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def count_workers():
    """Return the number of processes, WEB_CONCURRENCY; without Redis 1, since sockets in several could not meet."""
    try:
        workers = int(os.environ.get("WEB_CONCURRENCY") or 1)
    except ValueError:
        raise SystemExit("WEB_CONCURRENCY must be a number of processes, such as 2.") from None
    if workers > 1 and "InMemory" in settings.CHANNEL_LAYERS["default"]["BACKEND"]:
        logger.warning("One process is started, not %d: sockets of several meet over Redis. Set REDIS_URL.", workers)
        return 1
    return workers


if __name__ == "__main__":
    main()
