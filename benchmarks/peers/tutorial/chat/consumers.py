"""
The consumer of Channels' tutorial, part 3, with the frames of a baked project.

https://channels.readthedocs.io/en/stable/tutorial/part_3.html
"""

import json

from channels.generic.websocket import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"].get("room", "lobby")
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.send(json.dumps({"type": "connection_established", "message": "You are now connected!"}))

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data):
        frame = json.loads(text_data)
        if frame["type"] == "ping":
            await self.send(json.dumps({"type": "pong"}))
        else:
            await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": frame["text"]})

    async def chat_message(self, event):
        await self.send(json.dumps({"type": "message", "text": event["text"]}))
