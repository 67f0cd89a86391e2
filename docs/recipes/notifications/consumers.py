from realtime import Close
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame


class News(Frame):
    title: str


class NewsConsumer(RealtimeConsumer):
    """Has nothing to join: a socket that is logged in hears what its user is notified of."""

    sends = [News]

    async def connect(self):
        if self.scope["user"].is_anonymous:
            await self.close(Close.NOT_LOGGED_IN)
        else:
            await self.accept()
