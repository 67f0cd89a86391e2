"""Consumers of Channels' own classes: what the tutorial does not show."""

import asyncio

from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer


class Json(AsyncJsonWebsocketConsumer):
    """Answers in each of the ways that there are to send."""

    async def receive_json(self, content):
        await self.send_json({"user": str(self.scope["user"])})
        await self.send(text_data="text")
        await self.send(bytes_data=b"bytes")


class Closing(WebsocketConsumer):
    """Closes with a code before it has accepted."""

    def connect(self):
        self.close(4403)


class Refusing(WebsocketConsumer):
    """Refuses: HTTP 403."""

    def connect(self):
        self.close()


class Tasks(AsyncWebsocketConsumer):
    """Goes on sending after its socket is closed."""

    async def receive(self, text_data=None, bytes_data=None):
        asyncio.create_task(self.work())  # noqa: RUF006
        await self.close(4000)
        await self.send(text_data="after the end")

    async def work(self):
        await asyncio.sleep(0.2)
        await self.send(text_data="long after the end")
        await self.close()
        print("work is done", flush=True)
