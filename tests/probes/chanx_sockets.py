"""The example of chanx's README, on Django; and a consumer that lets in the users of DRF's IsAuthenticated."""

from typing import Literal

from chanx.channels.authenticator import DjangoAuthenticator
from chanx.channels.websocket import AsyncJsonWebsocketConsumer
from chanx.core.decorators import channel, ws_handler
from chanx.messages.base import BaseMessage
from django.urls import path
from pydantic import BaseModel
from rest_framework.permissions import IsAuthenticated


class ChatPayload(BaseModel):
    text: str


class ChatMessage(BaseMessage):
    action: Literal["chat"] = "chat"
    payload: ChatPayload


class ChatNotification(BaseMessage):
    action: Literal["chat_notification"] = "chat_notification"
    payload: ChatPayload


@channel(name="chat", description="Room chat")
class ChatConsumer(AsyncJsonWebsocketConsumer):
    channel_layer_alias = "default"
    groups = ["lobby"]

    @ws_handler(output_type=ChatNotification)
    async def handle_chat(self, message: ChatMessage) -> None:
        await self.broadcast_message(ChatNotification(payload=message.payload))


class MembersAuthenticator(DjangoAuthenticator):
    permission_classes = [IsAuthenticated]


@channel(name="members", description="For who is logged in")
class MembersConsumer(ChatConsumer):
    authenticator_class = MembersAuthenticator


websocket_urlpatterns = [
    path("ws/chanx/", ChatConsumer.as_asgi()),
    path("ws/members/", MembersConsumer.as_asgi()),
]
