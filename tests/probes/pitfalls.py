"""Consumers with which a project would meet the pitfalls."""

import asyncio
import threading

from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.urls import path

from realtime import Close
from realtime.consumers import RealtimeConsumer
from realtime.fanout import get_fanout
from realtime.frames import Frame


class Anything(Frame):
    """Ask for whatever the consumer does."""


class Wait(Frame):
    """Make a slow call."""


class Count(Frame):
    """Ask for the number of users."""


class Closing(RealtimeConsumer):
    """Not logged in."""

    async def connect(self):
        await self.close(Close.NOT_LOGGED_IN)


class Refusing(RealtimeConsumer):
    """Refused, before anything is set."""

    async def connect(self):
        await self.close()


class Failing(RealtimeConsumer):
    """An error in a handler."""

    receives = [Anything]

    async def connect(self):
        await self.accept()
        await self.join("failing")
        await self.send({"type": "members", "count": len(get_fanout().groups["failing"].members)})

    async def receive_frame(self, frame):
        raise ZeroDivisionError


class Forgetful(RealtimeConsumer):
    """A forgotten await."""

    async def connect(self):
        await self.accept()
        self.join("forgotten")


class Undecided(RealtimeConsumer):
    """A connect() that neither accepts nor closes."""

    async def connect(self):
        pass


class Slow(RealtimeConsumer):
    """Work that takes long."""

    async def connect(self):
        await self.accept()
        self.start_task(self.work())

    async def work(self):
        try:
            await self.send({"type": "working"})
            await asyncio.sleep(600)
        finally:
            print("work cancelled", flush=True)

    async def disconnect(self, code):
        print("disconnect called", flush=True)


class Threads(RealtimeConsumer):
    """A slow call, which ends when another socket's query has been answered."""

    receives = [Wait, Count]
    answered = threading.Event()

    async def receive_frame(self, frame):
        match frame:
            case Wait():
                await self.send({"type": "waiting"})
                wait = database_sync_to_async(self.answered.wait, thread_sensitive=False)
                await self.send({"type": "waited", "in vain": not await wait(15)})
            case Count():
                await self.send({"type": "users", "count": await get_user_model().objects.acount()})
                self.answered.set()


class Late(RealtimeConsumer):
    """Sends and closes after its close()."""

    receives = [Anything]

    async def receive_frame(self, frame):
        await self.send({"type": "last"})
        await self.close(Close.COME_BACK)
        await self.send({"type": "after the end"})
        await self.send("text after the end")
        await self.close(Close.NOT_FOUND)


websocket_urlpatterns = [
    path("ws/closing/", Closing.as_asgi()),
    path("ws/refusing/", Refusing.as_asgi()),
    path("ws/failing/", Failing.as_asgi()),
    path("ws/forgetful/", Forgetful.as_asgi()),
    path("ws/undecided/", Undecided.as_asgi()),
    path("ws/slow/", Slow.as_asgi()),
    path("ws/threads/", Threads.as_asgi()),
    path("ws/late/", Late.as_asgi()),
]
