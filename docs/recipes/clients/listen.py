"""python listen.py wss://site.example/ws/socket-server/ TOKEN: print what comes, and come back after a loss."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def listen(url, token):
    # The loop of websockets waits before each further attempt.
    async for socket in connect(url, additional_headers={"Authorization": f"Bearer {token}"}):
        try:
            async for frame in socket:
                print(frame, flush=True)
        except ConnectionClosed as closed:
            code = closed.rcvd and closed.rcvd.code
            if code and 4400 <= code <= 4499 and code != 4429:
                sys.exit(f"The server says no: {code}")


asyncio.run(listen(*sys.argv[1:]))
