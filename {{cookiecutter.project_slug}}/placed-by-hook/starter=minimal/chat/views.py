from django.conf import settings
from django.shortcuts import render
from django.urls import reverse

from .routing import websocket_urlpatterns


def index(request):
    """The page of step 4. It learns the socket's path here, so that chat/routing.py stays the only place for it."""
    context = {
        "socket_path": reverse("socket", urlconf=tuple(websocket_urlpatterns)),
        "max_text_length": settings.CHAT_MAX_TEXT_LENGTH,
    }
    return render(request, "chat/index.html", context)
