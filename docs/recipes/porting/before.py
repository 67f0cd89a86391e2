from channels.generic.websocket import AsyncJsonWebsocketConsumer


class RoomConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.group = f"room_{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive_json(self, content):
        text = content["text"]
        await self.channel_layer.group_send(self.group, {"type": "room.message", "text": text})

    async def room_message(self, event):
        await self.send_json({"type": "message", "text": event["text"]})
