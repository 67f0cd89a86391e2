"""Who opens a socket: the address, and the session and the user of the cookie."""

import asyncio
import hashlib
from copy import copy
from importlib import import_module
from weakref import WeakKeyDictionary

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.signals import user_logged_out
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.http import parse_cookie
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from .database import DatabaseUnavailable, outage, query
from .fanout import notify_members
from .health import activity

_loaders = WeakKeyDictionary()


class SessionAndUser:
    """
    Fills `scope["cookies"]`, `scope["session"]` and `scope["user"]`, as Channels' AuthMiddlewareStack does.

    It reads both in one hop to a thread and one query each, and without a session cookie does neither. Who comes while
    that is under way is read together with all others who wait, since after a deploy thousands come back at once. It
    never writes a session: after a change of SECRET_KEY, Channels deletes those that SECRET_KEY_FALLBACKS still vouches for.
    """

    def __init__(self, application):
        self.application = application
        self.session_store = import_module(settings.SESSION_ENGINE).SessionStore

    async def __call__(self, scope, receive, send):
        cookies = parse_cookie(get_header(scope, b"cookie") or "")
        key = cookies.get(settings.SESSION_COOKIE_NAME)
        session = self.session_store(key)
        try:
            user = anonymous() if key is None else await load_user(session)
        except DatabaseUnavailable:
            return await accept_and_close(receive, send, 4000)
        scope = dict(scope, cookies=cookies, session=session, user=user)
        return await self.application(scope, receive, send)


async def load_user(session):
    """As get_users() for one, in a thread. Raises DatabaseUnavailable after a while."""
    loader = _loaders.setdefault(asyncio.get_running_loop(), Loader())
    return await outage.patiently(loader.load, session)


class Loader:
    """Calls get_users() in a thread, one call after the other, each for all sessions that have come meanwhile."""

    def __init__(self):
        self._lock = asyncio.Lock()
        self._sessions = []
        self._task = None

    async def load(self, session):
        if self._task is None:
            self._sessions = []
            self._task = asyncio.create_task(self._load(self._sessions))
            # Of an error those who wait are told, if there are any left.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task, number = self._task, len(self._sessions)
        self._sessions.append(session)
        return (await asyncio.shield(task))[number]

    async def _load(self, sessions):
        async with self._lock:
            # Who comes from now on is for the next call.
            self._task = None
            return await query(get_users, sessions)


async def accept_and_close(receive, send, code):
    """Close a socket that has just come. It is accepted first, because a refused handshake carries no code."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code})
    # Not before: of one that is gone already there is nothing to count.
    activity.opened()
    activity.closed(code)


def anonymous():
    # A model, which cannot be imported before the apps are loaded.
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


def get_users(sessions):
    """
    Return who is logged in with each of `sessions`, a list of SessionStores: a user, or AnonymousUser.

    As django.contrib.auth.get_user(), which would give a session a new key, that no WebSocket can tell the browser. With
    Django's own session engine and backend it makes two queries in all.
    """
    read_sessions(sessions)
    logins = [get_login(session) for session in sessions]
    ids = {user_id for user_id, backend, _ in filter(None, logins) if takes_users_by_id(backend)}
    users = get_user_model()._default_manager.in_bulk(ids) if ids else {}
    return [(login and get_user(users, *login)) or anonymous() for login in logins]


def read_sessions(sessions):
    """Read the sessions of Django's default engine in one query; those of others are read when they are asked."""
    if settings.SESSION_ENGINE != "django.contrib.sessions.backends.db":
        return
    keys = [session.session_key for session in sessions]
    rows = sessions[0].get_model_class().objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    found = dict(rows.values_list("session_key", "session_data"))
    for session in sessions:
        # As its load() does.
        if data := found.get(session.session_key):
            session._session_cache = session.decode(data)
        else:
            session._session_cache, session._session_key = {}, None


def get_login(session):
    """Return the user's primary key, the backend and the hash that login() has put into the session, or None."""
    try:
        user_id = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        backend, session_hash = session[BACKEND_SESSION_KEY], session[HASH_SESSION_KEY]
    except KeyError:
        return None
    return (user_id, load_backend(backend), session_hash) if backend in settings.AUTHENTICATION_BACKENDS else None


def takes_users_by_id(backend):
    return type(backend).get_user is ModelBackend.get_user


def get_user(users, user_id, backend, session_hash):
    """Return the user, from the dict `users` if it is read already, or None if it may not log in."""
    if takes_users_by_id(backend):
        # A copy, since two sockets of one user may be read together.
        user = copy(users.get(user_id))
        if user is None or not backend.user_can_authenticate(user):
            return None
    else:
        user = backend.get_user(user_id)
        if user is None:
            return None
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return user if any(constant_time_compare(session_hash, valid) for valid in hashes) else None


def user_group(pk):
    """Return the name of the group of a user's sockets, a str. Whatever the primary key is, the name is allowed."""
    return f"user.{digest(pk)}"


def digest(value):
    """Return a name for `value`, such as a session key, that may be sent and logged."""
    return hashlib.sha256(str(value).encode()).hexdigest()[:32]


@receiver(user_logged_out)
def close_sockets_of_session(sender, request, user, **kwargs):
    """Close them with 4401, wherever they are connected: https://github.com/django/channels/issues/1324"""
    if user is not None and request is not None:
        session = digest(request.session.session_key)
        notify_members({"type": "realtime.logout", "group": user_group(user.pk), "session": session})


@receiver([post_save, post_delete], sender=settings.AUTH_USER_MODEL)
def check_sockets_of_user(sender, instance, created=False, raw=False, update_fields=None, **kwargs):
    """Let the user's sockets look whether their session is still valid: not so after a change of the password."""
    if not created and not raw and update_fields != {"last_login"}:
        notify_members({"type": "realtime.logout", "group": user_group(instance.pk), "session": None})


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
