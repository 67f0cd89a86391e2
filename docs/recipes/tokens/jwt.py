from datetime import UTC, datetime

from django.contrib.auth import get_user_model
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken


async def user_of_token(token, scope):
    try:
        access = AccessToken(token)
    except TokenError:
        return None
    user = await get_user_model().objects.filter(pk=access["user_id"]).afirst()
    return user and (user, datetime.fromtimestamp(access["exp"], tz=UTC))
