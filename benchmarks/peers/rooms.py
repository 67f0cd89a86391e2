"""The second consumer of a baked project: rooms, put into its app `chat` as a developer would."""

from realtime.consumers import RealtimeConsumer

from .consumers import ChatConsumer


class RoomConsumer(RealtimeConsumer):
    receives = sends = ChatConsumer.receives

    async def connect(self):
        await self.accept()
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.join(self.room)

    async def receive_frame(self, frame):
        await self.broadcast(self.room, frame)
