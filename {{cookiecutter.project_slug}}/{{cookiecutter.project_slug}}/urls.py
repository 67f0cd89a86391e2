"""URLs of HTTP. Those of WebSockets are in chat/routing.py."""

from django.contrib import admin
from django.urls import include, path

from realtime.checks import healthz

urlpatterns = [
    path("", include("chat.urls")),
    path("admin/", admin.site.urls),
    path("healthz", healthz),
]
