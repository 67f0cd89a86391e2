"""A consumer that says whose socket it is, asks the database, and broadcasts."""

from django.contrib.auth import get_user_model
from django.urls import path

from chat.consumers import Message
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame


class Count(Frame):
    """Ask for the number of users."""


class Probe(RealtimeConsumer):
    receives = [Count, Message]

    async def connect(self):
        await self.accept()
        await self.join("lobby")
        await self.send({"type": "connection_established", "user": self.scope["user"].get_username()})

    async def receive_frame(self, frame):
        match frame:
            case Count():
                await self.send({"type": "count", "count": await get_user_model().objects.acount()})
            case Message():
                await self.broadcast("lobby", frame)

    async def disconnect(self, code):
        print("disconnect called with", code, flush=True)


websocket_urlpatterns = [path("ws/probe/", Probe.as_asgi())]
