from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver

from realtime import notify_user

from .consumers import News


@receiver(user_logged_in)
def tell_of_login(sender, user, **kwargs):
    """The pages that are open already hear of it."""
    notify_user(user, News(title="You have logged in on another device"))
