"""URLs of HTTP. Those of WebSockets are in chat/routing.py."""

from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

urlpatterns = [
    path("", include("chat.urls")),
{%- if cookiecutter.starter == "chat" %}
    path("accounts/", include("accounts.urls")),
{%- endif %}
    path("realtime/", include("realtime.urls")),
    path("admin/", admin.site.urls),
    # Browsers ask for it where a page names no icon, as the admin's do not.
    path("favicon.ico", lambda request: HttpResponse(status=204)),
]
