"""Work that `manage.py runworker thumbnails` does, in a process without sockets; and consumers that hand it over."""

from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.layers import get_channel_layer
from django.urls import path

from realtime import anotify, notify
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame


class Generate(Frame):
    """Ask a worker for a thumbnail."""

    name: str


class Asking(RealtimeConsumer):
    receives = [Generate]

    async def connect(self):
        await self.accept()
        await self.join("thumbnails")

    async def receive_frame(self, frame):
        for worker in ("thumbnails", "thumbnails-sync"):
            await self.channel_layer.send(worker, {"type": "generate", "name": frame.name, "reply": self.channel_name})

    async def thumbnail_generated(self, event):
        await self.send({"type": "reply", "name": event["name"]})


class Worker(AsyncConsumer):
    async def generate(self, message):
        await anotify("thumbnails", {"type": "generated", "by": "async", "name": message["name"]})
        await get_channel_layer().send(message["reply"], {"type": "thumbnail.generated", "name": message["name"]})


class SyncWorker(SyncConsumer):
    def generate(self, message):
        notify("thumbnails", {"type": "generated", "by": "sync", "name": message["name"]})
        reply = {"type": "thumbnail.generated", "name": message["name"]}
        async_to_sync(get_channel_layer().send)(message["reply"], reply)


websocket_urlpatterns = [path("ws/asking/", Asking.as_asgi())]
workers = {"thumbnails": Worker.as_asgi(), "thumbnails-sync": SyncWorker.as_asgi()}
