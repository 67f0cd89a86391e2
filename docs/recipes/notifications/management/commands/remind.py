from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from realtime import notify_user

from ...consumers import News


class Command(BaseCommand):
    help = "Reminds all users of the meeting."

    def handle(self, *args, **options):
        for user in get_user_model().objects.filter(is_active=True).iterator():
            notify_user(user, News(title="The meeting begins in ten minutes"))
