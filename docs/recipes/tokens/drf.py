from datetime import timedelta

from django.utils import timezone
from rest_framework.authtoken.models import Token


async def user_of_token(token, scope):
    found = await Token.objects.select_related("user").filter(key=token).afirst()
    # Asked again after an hour, since nobody tells open sockets that a token has been deleted.
    return found and (found.user, timezone.now() + timedelta(hours=1))
