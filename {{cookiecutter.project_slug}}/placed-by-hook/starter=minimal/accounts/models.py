from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """
    Django's own user, for now.

    A model of our own from the first migration on, since it is hard to put in later:
    https://docs.djangoproject.com/en/stable/topics/auth/customizing/#substituting-a-custom-user-model
    """
