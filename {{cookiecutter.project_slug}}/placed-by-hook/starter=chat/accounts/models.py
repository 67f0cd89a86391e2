from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower


class User(AbstractUser):
    """
    Django's own user, for now.

    A model of our own from the first migration on, since it is hard to put in later:
    https://docs.djangoproject.com/en/stable/topics/auth/customizing/#substituting-a-custom-user-model
    """

    class Meta:
        constraints = [
            # "Ada" and "ada" would be taken for one another in a conversation.
            models.UniqueConstraint(
                Lower("username"),
                name="accounts_user_username_any_case",
                violation_error_message="A user with that username already exists.",
            ),
        ]
