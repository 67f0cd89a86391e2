import asyncio
from typing import Annotated

from msgspec import Meta

from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame

from .models import Quote

SYMBOLS = ["ada", "bob"]


class Pace(Frame):
    """How often this viewer wants to see something new."""

    seconds: Annotated[float, Meta(ge=0.02, le=60)]


class PricesConsumer(RealtimeConsumer):
    receives = [Pace]
    seconds = 0.1

    async def connect(self):
        self.latest = {}
        await self.accept()
        for symbol in SYMBOLS:
            await self.join(f"prices.{symbol}")
        # Read after joining: what is published meanwhile comes behind the snapshot, and nothing falls in between.
        quotes = [quote.frame async for quote in Quote.objects.filter(symbol__in=SYMBOLS)]
        await self.send({"type": "snapshot", "quotes": quotes})

    async def receive_frame(self, frame):
        self.seconds = frame.seconds

    def deliver(self, broadcast):
        if not broadcast.group.startswith("prices."):
            # What its user is notified of comes along here, too.
            super().deliver(broadcast)
            return
        if not self.latest:
            asyncio.get_running_loop().call_later(self.seconds, self.show)
        self.latest[broadcast.group] = broadcast

    def show(self):
        latest, self.latest = self.latest, {}
        for broadcast in latest.values():
            super().deliver(broadcast)
