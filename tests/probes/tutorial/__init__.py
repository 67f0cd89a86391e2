"""
The consumers of Channels' official tutorial, with synchronous and with asynchronous handlers, as it has them.

https://channels.readthedocs.io/en/stable/tutorial/part_2.html and part_3.html
"""

from django.urls import path, re_path

from . import consumers_async, consumers_sync, others

websocket_urlpatterns = [
    re_path(r"ws/sync/(?P<room_name>\w+)/$", consumers_sync.ChatConsumer.as_asgi()),
    re_path(r"ws/async/(?P<room_name>\w+)/$", consumers_async.ChatConsumer.as_asgi()),
    path("ws/json/", others.Json.as_asgi()),
    path("ws/closing/", others.Closing.as_asgi()),
    path("ws/refusing/", others.Refusing.as_asgi()),
    path("ws/tasks/", others.Tasks.as_asgi()),
]
