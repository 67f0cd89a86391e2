"""URLs of HTTP. Those of WebSockets are in chat/routing.py."""

from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path
{%- if cookiecutter.starter == "chat" %}
from django.views.decorators.cache import cache_control
from django.views.i18n import JavaScriptCatalog
{%- endif %}

urlpatterns = [
    path("", include("chat.urls")),
{%- if cookiecutter.starter == "chat" %}
    path("accounts/", include("accounts.urls")),
    # The texts of scripts, where the language is not the one they are written in.
    path("texts.js", cache_control(max_age=3600)(JavaScriptCatalog.as_view()), name="javascript-catalog"),
{%- endif %}
    path("realtime/", include("realtime.urls")),
    path("admin/", admin.site.urls),
    # Browsers ask for it where a page names no icon, as the admin's do not.
    path("favicon.ico", lambda request: HttpResponse(status=204)),
]
