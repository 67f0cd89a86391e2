"""
Run Firefox for Playwright, which drives it by WebDriver BiDi, and answer what this Firefox does not know yet.

    python firefox.py firefox-esr ARGUMENTS…
"""

import asyncio
import json
import re
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

# Playwright sends it for each page, but Firefox ESR 153 knows no media features.
UNKNOWN = {"emulation.setMediaFeaturesOverride"}


async def relay(address):
    """Return a server between Playwright and the Firefox that listens at `address`."""

    async def meet(playwright):
        async with connect(address + playwright.request.path, max_size=None, compression=None) as firefox:

            async def forward():
                async for text in playwright:
                    command = json.loads(text)
                    if command["method"] in UNKNOWN:
                        await playwright.send(json.dumps({"type": "success", "id": command["id"], "result": {}}))
                    else:
                        await firefox.send(text)

            task = asyncio.create_task(forward())
            async for text in firefox:
                await playwright.send(text)
            task.cancel()
        await playwright.close()

    return await serve(meet, "127.0.0.1", 0, max_size=None, compression=None)


async def main(command):
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    async for line in process.stderr:
        text = line.decode(errors="replace")
        if match := re.search(r"WebDriver BiDi listening on (ws://\S+)", text):
            server = await relay(match[1])
            port = server.sockets[0].getsockname()[1]
            text = f"WebDriver BiDi listening on ws://127.0.0.1:{port}\n"
        print(text, end="", file=sys.stderr, flush=True)
    return await process.wait()


sys.exit(asyncio.run(main(sys.argv[1:])))
