from typing import Annotated

from django.template.loader import render_to_string

from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame, Text


class Message(Frame):
    text: Annotated[str, Text(max_length=200)]


class HtmxConsumer(RealtimeConsumer):
    receives = [Message]

    async def connect(self):
        await self.accept()
        await self.join("htmx")
        # Sent here, it takes the place of the greeting, which is JSON.
        await self.send('<p id="state" role="status" hx-swap-oob="true">connected</p>')

    async def receive_frame(self, frame):
        await self.broadcast("htmx", render_to_string("htmx_room/line.html", {"text": frame.text}))
