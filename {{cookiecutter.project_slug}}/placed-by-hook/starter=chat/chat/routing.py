"""
Step 3 of 4: routing, the URLconf of consumers.

Step 4 is the script in the page: chat/templates/chat/room.html and chat/static/chat/chat.js.
https://channels.readthedocs.io/en/stable/topics/routing.html
"""

from django.urls import path

from .consumers import ChatConsumer, ListConsumer

websocket_urlpatterns = [
    path("ws/socket-server/", ListConsumer.as_asgi(), name="list-socket"),
    path("ws/socket-server/<slug:room>/", ChatConsumer.as_asgi(), name="socket"),
]
