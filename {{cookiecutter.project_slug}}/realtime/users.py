"""Who it is: the users of cookies and tokens, read together, since after a deploy thousands of sockets come back at once."""

import logging
import re
from copy import copy
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import base, cache, db, signed_cookies
from django.core.exceptions import ValidationError
from django.db import OperationalError
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from .batches import Batcher
from .database import DatabaseOutage, DatabaseUse, query
from .outage import Unavailable

# Claims that are read in one query.
BATCH = 500
# Of the users of tickets and tokens.
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
# Wider than Django's own keys, without characters that break a query, such as NUL.
SESSION_KEY_FORMAT = re.compile(r"[A-Za-z0-9_.:-]{8,128}")


async def authenticate_cookie(socket, cookies):
    """
    Return the user of the session that `cookies`, a dict, name, and its SessionStore. Raises Unavailable.

    Without a login it is an AnonymousUser.
    """
    session, user = session_store(cookies.get(settings.SESSION_COOKIE_NAME)), None
    if session.session_key is not None:
        try:
            user = await socket.process[DatabaseOutage].retry(socket.process[UserBatcher].add, session)
        except Unavailable:
            raise
        except Exception:
            socket.log(logging.ERROR, "has a session that cannot be read", exc_info=True)
            session._session_key, session._session_cache = None, {}
    return user or AnonymousUser(), session


async def authenticate_token(socket, scope):
    """
    Return the user of the socket's token or None, a session that is empty, and when the token expires, or None.

    Raises Unavailable, and whatever REALTIME_TOKEN_USER does.
    """
    async with DatabaseUse():
        answer = await import_string(settings.REALTIME_TOKEN_USER)(socket.token, scope)
    user, expires_at = answer if isinstance(answer, tuple) else (answer, None)
    if user is not None and not (user.is_active and (expires_at is None or expires_at > timezone.now())):
        user = None
    return user, session_store(), expires_at


class UserBatcher(Batcher):
    """Reads the users of many claims together, each as get_users() does."""

    def __init__(self):
        super().__init__(lambda claims: query(get_users, claims), BATCH, turns=2)


def get_users(claims):
    """
    Return a list with the user of each of `claims`, or None where nobody is logged in.

    claims: SessionStores, which are read; (primary key, path of a backend, session hash); None. As
    django.contrib.auth.get_user(), but a session never gets a new key, which no WebSocket could tell the browser. Of
    Django's own engines and backend, db, cached_db and cache make two queries in all.
    """
    sessions = [claim for claim in claims if isinstance(claim, base.SessionBase)]
    read_sessions([session for session in sessions if session.session_key])
    claims = [claim_of(claim) if isinstance(claim, base.SessionBase) else claim for claim in claims]
    backends = {claim: load_backend(claim[1]) for claim in {*claims} - {None}}
    by_id = {claim: each for claim, each in backends.items() if type(each).get_user is ModelBackend.get_user}
    rows = get_user_model()._default_manager.in_bulk({claim[0] for claim in by_id})
    found = [(claim, rows[claim[0]], backend) for claim, backend in by_id.items() if claim[0] in rows]
    users = {claim: with_hash(user, claim[2]) for claim, user, backend in found if backend.user_can_authenticate(user)}
    # Each socket has a user of its own, which its consumer may change.
    return [copy(users.get(claim)) if claim in by_id else claim and get_user(*claim) for claim in claims]


def session_store(key=None):
    """Return a SessionStore of the project's engine, which is empty if `key`, a str or None, cannot be a session's."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    # A signed cookie is the session itself, and never looked up.
    is_key = key and (issubclass(store, signed_cookies.SessionStore) or SESSION_KEY_FORMAT.fullmatch(key))
    return store(key if is_key else None)


def read_sessions(sessions):
    """Read `sessions`, SessionStores that have a key, as their load() does; with db, cached_db and cache together."""
    store, keys = session_store(), {session.session_key for session in sessions}
    if isinstance(store, db.SessionStore):
        rows = store.get_model_class().objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
        found = {key: store.decode(data) for key, data in rows.values_list("session_key", "session_data")}
    elif isinstance(store, cache.SessionStore):
        names = {store.cache_key_prefix + key: key for key in keys}
        try:
            found = {names[name]: data for name, data in store._cache.get_many(names).items()}
        except Exception as error:
            # load() takes an error of the cache for a session that has ended.
            raise OperationalError(f"the cache of the sessions: {error!r}") from error
    else:
        found = {session.session_key: session.load() for session in sessions}
    for session in sessions:
        session._session_cache = dict(found.get(session.session_key, ()))
        session._session_key = session.session_key if session.session_key in found else None


def claim_of(session):
    """Return the primary key, the path of the backend and the hash that login() has put into `session`, or None."""
    try:
        user_id = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        backend, session_hash = session[BACKEND_SESSION_KEY], str(session[HASH_SESSION_KEY])
    except (KeyError, ValidationError):
        return None
    return (user_id, backend, session_hash) if backend in settings.AUTHENTICATION_BACKENDS else None


def get_user(user_id, backend, session_hash):
    """Return the user that a backend of the owner's finds, or None if it may not log in."""
    return with_hash(load_backend(backend).get_user(user_id), session_hash)


def with_hash(user, session_hash):
    """Return `user`, or None if there is none, or if its password has changed since the login with this hash."""
    if user is None:
        return None
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return user if any(constant_time_compare(session_hash, valid) for valid in hashes) else None
