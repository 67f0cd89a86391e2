"""The production server, uvicorn, with all of its settings: `python -m {{ cookiecutter.project_slug }}`."""

import argparse
import logging
import os
import socket

import uvicorn
from django.conf import settings
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

# For uvicorn's errors. That a socket opens and closes is in the lines of realtime, with address and code; of this logger
# settings.LOGGING shows warnings and errors.
logger = logging.getLogger("{{ cookiecutter.project_slug }}.websocket")


class WebSocketProtocol(AutoWebSocketsProtocol):
    """
    uvicorn's own, with a small buffer in the kernel.

    All that has come is read in one go: of a client that floods, megabytes, and a second in which nobody has a turn.
    """

    def connection_made(self, transport):
        self.logger = self.conn.logger = logger
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        super().connection_made(transport)


def main():
    parser = argparse.ArgumentParser(description="Serve the project with uvicorn.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", default=8000, type=int, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings")
    uvicorn.run(
        "{{ cookiecutter.project_slug }}.asgi:application",
        host=options.host,
        port=options.port,
        workers=int(os.environ.get("WEB_CONCURRENCY", "1")),
        # DJANGO_TRUST_PROXY decides whom to believe; uvicorn alone would believe any local process.
        proxy_headers=False,
        # Seconds from SIGTERM to the end. Sockets are closed with 1012 at once; without a limit, a single client that
        # reads nothing would hold the process up for ever.
        timeout_graceful_shutdown=10,
        # Django has no lifespan events.
        lifespan="off",
        # Seconds. They find browsers that have vanished and keep idle sockets open: a proxy must wait longer.
        ws_ping_interval=20,
        ws_ping_timeout=20,
        ws="{{ cookiecutter.project_slug }}.__main__:WebSocketProtocol",
        ws_max_size=settings.REALTIME_MAX_FRAME_SIZE,
        # Compression costs more time and memory than short frames are worth; turn it on for long ones.
        ws_per_message_deflate=False,
    )


if __name__ == "__main__":
    main()
