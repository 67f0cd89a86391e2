from typing import Annotated

from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame, Text


class Message(Frame):
    text: Annotated[str, Text(max_length=2000)]


class RoomConsumer(RealtimeConsumer):
    receives = [Message]
    sends = [Message]

    async def connect(self):
        self.group = f"room_{self.scope['url_route']['kwargs']['room']}"
        await self.accept()
        await self.join(self.group)

    async def receive_frame(self, frame):
        await self.broadcast(self.group, frame)
