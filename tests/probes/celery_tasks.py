"""Tasks of Celery that notify: `celery -A chat.probes worker`."""

import os

from celery import Celery
from django.contrib.auth import get_user_model
from django.db import transaction

from realtime import notify, notify_user

app = Celery("chat", broker=os.environ["REDIS_URL"])
app.conf.broker_connection_retry_on_startup = True
websocket_urlpatterns = []


@app.task
def tell_group(name, count):
    for number in range(count):
        with transaction.atomic():
            notify("lobby", {"type": "notified", "text": name, "number": number})


@app.task
def tell_user(name):
    notify_user(get_user_model().objects.get(username=name), {"type": "notified", "text": "for you"})
