"""
Step 2 of 4: a consumer, Channels' version of a view. Step 3 is chat/routing.py.

https://channels.readthedocs.io/en/stable/topics/consumers.html
"""

from typing import Annotated

from django.conf import settings

from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame, Text


class Message(Frame):
    """{"type": "message", "text": "…", "id": "…"}. The id comes back, so that the page knows what has arrived."""

    text: Annotated[str, Text(max_length=settings.CHAT_MAX_TEXT_LENGTH)]


class ChatConsumer(RealtimeConsumer):
    """There is one instance for each open socket, and it lives as long as the socket."""

    # Add a class to these lists for each type of frame that the page sends or receives.
    receives = [Message]
    sends = [Message]

    async def connect(self):
        """The handshake. What must be known of the visitor is in self.scope, as in a view's request."""
        await self.accept()
        await self.join("lobby")

    async def receive_frame(self, frame):
        """A frame came in, which is checked: an instance of one of `receives`."""
        await self.broadcast("lobby", frame)

    async def disconnect(self, code):
        """The socket is closed and has left its groups. Clean up here what connect() made."""
