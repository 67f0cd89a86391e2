from celery import shared_task
from django.contrib.auth import get_user_model

from realtime import notify_user

from .consumers import News


@shared_task
def write_report(user_pk):
    # … what takes long …
    user = get_user_model().objects.get(pk=user_pk)
    notify_user(user, News(title="Your report is ready"))
