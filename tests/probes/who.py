"""A consumer that says who is there."""

from django.urls import path

from realtime.consumers import RealtimeConsumer


class Who(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        name, session = self.scope["user"].get_username(), self.scope["session"]
        await self.send({"type": "you", "name": name, "has_session": session.session_key is not None})


websocket_urlpatterns = [path("ws/who/", Who.as_asgi())]
