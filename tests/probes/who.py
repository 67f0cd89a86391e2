"""A consumer that says who is there: by ticket, or by a token that ends in a space and a name."""

from django.contrib.auth import get_user_model
from django.urls import path

from realtime.consumers import RealtimeConsumer
from realtime.tickets import user_of_ticket


async def user_of_token(token, scope):
    if " " in token:
        return await get_user_model().objects.filter(username=token.rpartition(" ")[2]).afirst()
    return await user_of_ticket(token, scope)


class Who(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        name, session = self.scope["user"].get_username(), self.scope["session"]
        await self.send({"type": "you", "name": name, "has_session": session.session_key is not None})


websocket_urlpatterns = [path("ws/who/", Who.as_asgi())]
