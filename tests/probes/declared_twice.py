"""Two consumers whose frames cannot be told apart by their names."""

from django.urls import path

from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame


def make_consumer(type_of_text):
    class Message(Frame):
        text: type_of_text

    class Consumer(RealtimeConsumer):
        receives = [Message]

        async def receive_frame(self, frame):
            await self.send(frame)

    return Consumer


websocket_urlpatterns = [
    path("ws/first/", make_consumer(str).as_asgi()),
    path("ws/second/", make_consumer(int).as_asgi()),
]
