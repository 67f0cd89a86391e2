"""Asks /healthz of a server three times 300 times at a time, and prints the status of each answer as JSON."""

import asyncio
import json
import sys

import httpx


async def main(url):
    limits, answers = httpx.Limits(max_connections=300), []
    for _ in range(3):
        # On a busy machine the server has closed idle connections of the time before just when they are used again.
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            answers += await asyncio.gather(*[client.get("/healthz") for _ in range(300)])
    print(json.dumps([answer.status_code for answer in answers]))


asyncio.run(main(sys.argv[1]))
