"""
Step 1 of 4: configure ASGI.

A server (runserver, uvicorn, daphne) hands every connection to `application`, which tells HTTP from WebSockets.
Step 2 is chat/consumers.py. https://channels.readthedocs.io/en/stable/deploying.html
"""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings")

# This line loads the apps, so it stays above the imports that use their models.
# https://github.com/django/channels/issues/1564
django_asgi_app = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from chat.routing import websocket_urlpatterns  # noqa: E402
from realtime.asgi import AllowedOrigins, Authentication, Sockets, unknown_path  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_asgi_app,
        # From the outside in: the life of a socket, the page's Origin, its user (scope["user"]), its path.
        "websocket": Sockets(
            AllowedOrigins(
                Authentication(
                    URLRouter([*websocket_urlpatterns, unknown_path]),
                ),
            ),
        ),
    }
)
