"""Who opens a socket: the address, and the session and the user of the cookie."""

from importlib import import_module

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.models import AnonymousUser
from django.http import parse_cookie
from django.utils.crypto import constant_time_compare


class SessionAndUser:
    """
    Fills `scope["cookies"]`, `scope["session"]` and `scope["user"]`, as Channels' AuthMiddlewareStack does.

    It reads both in one hop to a thread and one query each, and without a session cookie does neither. It never writes
    a session: after a change of SECRET_KEY, Channels deletes those that SECRET_KEY_FALLBACKS still vouches for.
    """

    def __init__(self, application):
        self.application = application
        self.session_store = import_module(settings.SESSION_ENGINE).SessionStore

    async def __call__(self, scope, receive, send):
        cookies = parse_cookie(get_header(scope, b"cookie") or "")
        key = cookies.get(settings.SESSION_COOKIE_NAME)
        session = self.session_store(key)
        user = AnonymousUser() if key is None else await database_sync_to_async(get_user)(session)
        scope = dict(scope, cookies=cookies, session=session, user=user)
        return await self.application(scope, receive, send)


def get_user(session):
    """
    Return the user that is logged in with `session`, a SessionStore, or AnonymousUser.

    As django.contrib.auth.get_user(), which would give the session a new key, that no WebSocket can tell the browser.
    """
    try:
        user_id = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        backend = session[BACKEND_SESSION_KEY]
        session_hash = session[HASH_SESSION_KEY]
    except KeyError:
        return AnonymousUser()
    user = load_backend(backend).get_user(user_id) if backend in settings.AUTHENTICATION_BACKENDS else None
    if user is None:
        return AnonymousUser()
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    if not any(constant_time_compare(session_hash, valid) for valid in hashes):
        return AnonymousUser()
    return user


def client_address(scope):
    """
    Return the IP address of the client, a str for the log.

    scope: the ASGI scope. With DJANGO_TRUST_PROXY it is the last entry of X-Forwarded-For, the one that our own proxy
    wrote; a client may have sent those before it.
    """
    if settings.TRUST_PROXY:
        forwarded = get_header(scope, b"x-forwarded-for")
        if forwarded:
            return forwarded.rpartition(",")[2].strip()
    client = scope.get("client")
    return client[0] if client else "unknown"


def get_header(scope, name):
    """Return the last value of the header `name` (bytes, lower case) as a str, or None."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1") if values else None
