import asyncio
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from realtime import Close
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame

from .models import Visit

RENEW_EVERY = getattr(settings, "PRESENCE_RENEW_EVERY", 20)  # seconds


class Here(Frame):
    names: list[str]


class PresenceConsumer(RealtimeConsumer):
    sends = [Here]
    visit = None

    async def connect(self):
        if self.scope["user"].is_anonymous:
            await self.close(Close.NOT_LOGGED_IN)
            return
        await self.accept()
        await self.join("presence")
        self.visit = await Visit.objects.acreate(user=self.scope["user"])
        await self.broadcast("presence", await self.here())
        self.start_task(self.renew())

    async def renew(self):
        while True:
            await asyncio.sleep(RENEW_EVERY)
            await self.visit.asave()
            await self.send(await self.here())

    async def here(self):
        # Visits of a process that was killed end by age.
        await Visit.objects.filter(seen_at__lt=timezone.now() - timedelta(seconds=2.5 * RENEW_EVERY)).adelete()
        names = Visit.objects.order_by("user__username").values_list("user__username", flat=True).distinct()
        return Here(names=[name async for name in names])

    async def disconnect(self, code):
        if self.visit is not None:
            await self.visit.adelete()
            await self.broadcast("presence", await self.here())
