"""URLs of HTTP. Those of WebSockets are in chat/routing.py."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("chat.urls")),
    path("admin/", admin.site.urls),
]
