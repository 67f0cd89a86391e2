from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from .names import MAX_LENGTH, fold, validate_name


class UsernameField(models.CharField):
    """A name that is stored, and found, in lower case, however it is typed."""

    def get_prep_value(self, value):
        return fold(super().get_prep_value(value))


class User(AbstractUser):
    """
    Django's own user, whose name cannot be mistaken for another one.

    A model of our own from the first migration on, since it is hard to put in later:
    https://docs.djangoproject.com/en/stable/topics/auth/customizing/#substituting-a-custom-user-model
    """

    username = UsernameField(
        _("username"),
        max_length=MAX_LENGTH,
        unique=True,
        validators=[validate_name],
        error_messages={"unique": _("A user with that username already exists.")},
    )

    class Meta:
        constraints = [
            # Also for rows that are written without the model.
            models.UniqueConstraint(
                Lower("username"),
                name="accounts_user_username_any_case",
                violation_error_message=_("A user with that username already exists."),
            ),
        ]

    @classmethod
    def normalize_username(cls, username):
        return fold(username)


class Attempts(models.Model):
    """How often an account, an address or a browser has tried something, until when that counts; see limits.py."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(db_index=True)

    def __str__(self):
        return f"{self.count} until {self.until}"
