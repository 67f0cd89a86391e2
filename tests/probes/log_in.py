"""Make users with the names of the arguments, and print the Cookie header of each, as JSON."""

import json
import sys

from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

cookies = {}
for name in sys.argv[1:]:
    client = Client()
    client.force_login(get_user_model().objects.create_user(name))
    cookies[name] = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
print(json.dumps(cookies))
