"""Views that notify, and say how many seconds that took; and the same for a command: `notifying.py group count`."""

import sys
import time

from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import JsonResponse
from django.urls import path

from realtime import anotify, anotify_user, notify, notify_user

User = get_user_model()


def frames(parameters):
    """Return a numbered frame for each that is asked for."""
    text, count = parameters.get("text", ""), int(parameters.get("count", 1))
    return [{"type": "notified", "text": text, "number": number} for number in range(count)]


def to_group(request):
    """All in one transaction."""
    started = time.perf_counter()
    with transaction.atomic():
        for frame in frames(request.GET):
            notify("lobby", frame)
    return JsonResponse({"seconds": time.perf_counter() - started})


async def to_group_async(request):
    started = time.perf_counter()
    for frame in frames(request.GET):
        await anotify("lobby", frame)
    return JsonResponse({"seconds": time.perf_counter() - started})


def to_user(request):
    notify_user(User.objects.get(username=request.GET["name"]), *frames(request.GET))
    return JsonResponse({})


async def to_user_async(request):
    await anotify_user(await User.objects.aget(username=request.GET["name"]), *frames(request.GET))
    return JsonResponse({})


def rolled_back(request):
    try:
        with transaction.atomic():
            notify("lobby", *frames(request.GET))
            raise ValueError
    except ValueError:
        return JsonResponse({})


def wrongly_in_async(request):
    """What a bad group, a bad frame, and notify() in asynchronous code are told, at once."""
    errors = []
    for group, frame in (("no group", {"type": "x"}), ("lobby", {"text": "no type"}), ("lobby", 7)):
        try:
            notify(group, frame)
        except (TypeError, ValueError) as error:
            errors.append(str(error))
    return JsonResponse({"errors": errors})


urlpatterns = [
    path("notify/", to_group),
    path("anotify/", to_group_async),
    path("notify-user/", to_user),
    path("anotify-user/", to_user_async),
    path("rolled-back/", rolled_back),
    path("wrong/", wrongly_in_async),
]
websocket_urlpatterns = []

if __name__ == "__main__":
    group, count = sys.argv[1], int(sys.argv[2])
    started = time.perf_counter()
    with transaction.atomic():
        for number in range(count):
            notify(group, {"type": "notified", "text": "command", "number": number})
    print(f"{time.perf_counter() - started:.3f} seconds")
