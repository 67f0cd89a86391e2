"""
Step 2 of 4: a consumer, Channels' version of a view. Step 3 is chat/routing.py.

https://channels.readthedocs.io/en/stable/topics/consumers.html
"""

from django.conf import settings

from realtime.consumers import RealtimeConsumer
from realtime.frames import get_text


class ChatConsumer(RealtimeConsumer):
    """There is one instance for each open socket, and it lives as long as the socket."""

    async def connect(self):
        """The handshake. What must be known of the visitor is in self.scope, as in a view's request."""
        await self.accept()
        await self.join("lobby")
        await self.send_json({"type": "connection_established", "message": "You are now connected!"})

    async def receive_json(self, content):
        """A frame came in, a dict with a string "type". Add a case for each type that the page sends."""
        match content["type"]:
            case "message":
                # The id comes back, so that the page knows what has arrived.
                text = get_text(content, "text", max_length=settings.CHAT_MAX_TEXT_LENGTH)
                await self.broadcast("lobby", {"type": "message", "text": text, "id": content.get("id")})
            case _:
                await super().receive_json(content)

    async def disconnect(self, code):
        """The socket is closed and has left its groups. Clean up here what connect() made."""
