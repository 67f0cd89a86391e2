"""HTTP: where a page or an app fetches a ticket for a socket."""

from django.urls import path

from .tickets import ticket

urlpatterns = [path("ticket/", ticket, name="realtime_ticket")]
