"""A consumer that broadcasts many times in one go, one that asks the database, and a log line each second."""

import asyncio

from django.contrib.auth import get_user_model
from django.urls import path

import realtime.activity
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame

realtime.activity.REPORT_EVERY = 1


class Burst(Frame):
    """Ask for so many broadcasts at once."""

    count: int


class Count(Frame):
    """Ask for the number of users."""


class Bursting(RealtimeConsumer):
    receives = [Burst]

    async def connect(self):
        await self.accept()
        await self.join("burst")
        await self.send({"type": "joined"})

    async def receive_frame(self, frame):
        frames = [{"type": "frame", "number": number} for number in range(frame.count)]
        await asyncio.gather(*[self.broadcast("burst", frame) for frame in frames])
        await self.send({"type": "sent"})


class Counting(RealtimeConsumer):
    receives = [Count]

    async def receive_frame(self, frame):
        await self.send({"type": "users", "count": await get_user_model().objects.acount()})


websocket_urlpatterns = [
    path("ws/burst/", Bursting.as_asgi()),
    path("ws/counting/", Counting.as_asgi()),
]
