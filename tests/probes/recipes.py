"""URLs and sockets for docs/recipes/, and views that publish and hand out tokens."""

import asyncio
from datetime import timedelta

from charts.views import chart
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path
from events.views import events
from htmx_room.consumers import HtmxConsumer
from notifications.consumers import NewsConsumer
from notifications.views import share, wave
from pixels.consumers import PixelsConsumer
from porting import after, before
from presence.consumers import PresenceConsumer
from prices.consumers import PricesConsumer
from prices.models import Quote
from rest_framework_simplejwt.tokens import AccessToken

from realtime import notify


class LatePricesConsumer(PricesConsumer):
    """Joins when something has been published."""

    async def join(self, group):
        while not await Quote.objects.aexists():
            await asyncio.sleep(0.01)
        await super().join(group)


class ClosingConsumer(HtmxConsumer):
    """Closes with the code that is the text of a message."""

    async def receive_frame(self, frame):
        if frame.text.isdecimal():
            await self.close(int(frame.text))
        else:
            await super().receive_frame(frame)


def publish(request):
    for number in range(int(request.GET["count"])):
        Quote.publish(request.GET["symbol"], number + 0.5)
    return HttpResponse()


def tell(request):
    notify("lobby", {"type": "message", "text": request.GET["text"]})
    return HttpResponse()


def token(request):
    token = AccessToken.for_user(get_user_model().objects.get(username=request.GET["name"]))
    token.set_exp(lifetime=timedelta(seconds=int(request.GET["seconds"])))
    return HttpResponse(str(token))


def page(name):
    return lambda request: render(request, name)


urlpatterns = [
    path("chart/", chart),
    path("events/", events),
    path("htmx2/", page("htmx_room/room.html")),
    path("htmx4/", page("htmx_room/room4.html")),
    path("pixels/", page("pixels/pixels.html")),
    path("publish/", publish),
    path("share/<int:pk>/", share),
    path("tell/", tell),
    path("token/", token),
    path("wave/<int:pk>/", wave),
]
websocket_urlpatterns = [
    path("ws/after/<room>/", after.RoomConsumer.as_asgi()),
    path("ws/before/<room>/", before.RoomConsumer.as_asgi()),
    path("ws/htmx/", ClosingConsumer.as_asgi()),
    path("ws/late-prices/", LatePricesConsumer.as_asgi()),
    path("ws/news/", NewsConsumer.as_asgi()),
    path("ws/pixels/", PixelsConsumer.as_asgi()),
    path("ws/presence/", PresenceConsumer.as_asgi()),
    path("ws/prices/", PricesConsumer.as_asgi()),
]
