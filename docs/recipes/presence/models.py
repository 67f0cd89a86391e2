from django.conf import settings
from django.db import models


class Visit(models.Model):
    """An open socket of a user, who is here as long as it is renewed."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    seen_at = models.DateTimeField(auto_now=True, db_index=True)
