"""
Find the user of a socket, by session cookie or bearer token, and check that the login still holds while it is open.

Each process is told at once of a logout, a deleted session and a saved user. All other ends, such as that of a session
by age, it finds by re-checking all of its logins together, every REALTIME_RECHECK_SECONDS.
"""

import asyncio
import logging
import math
import time
from collections import defaultdict

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.http import parse_cookie
from django.utils import timezone

from . import limits
from .broadcasts import digest, send_on_commit, user_group
from .close import Close
from .fanout import get_fanout
from .outage import Unavailable
from .process import process
from .socket import NO_SOCKETS
from .users import BATCH, MODEL_BACKEND, UserBatcher, authenticate_cookie, authenticate_token, session_store

logger = logging.getLogger(__name__)

# Each process is in it once.
GROUP = "realtime.logins"
# Seconds. A session is read for the last time between the signal of its logout and its deletion.
RECENT = 60
# Seconds that a handshake waits for a channel layer that is away.
LISTEN_TIMEOUT = 1


class Authentication:
    """
    ASGI middleware: fills `scope["cookies"]`, `scope["session"]` and `scope["user"]`, as Channels'
    AuthMiddlewareStack.

    If a bearer token is offered, it decides alone: REALTIME_TOKEN_USER returns its user. An exception of that function
    is a bug, not a refusal: it is logged with its traceback, and the client comes back after 1011.

    Otherwise the session of the cookie is read. It is never written: Channels deletes sessions that only a key of
    SECRET_KEY_FALLBACKS has signed.
    """

    def __init__(self, application: object):
        self.application = application

    async def __call__(self, scope, receive, send):
        if "realtime" not in scope:
            raise ImproperlyConfigured(NO_SOCKETS)
        socket = scope["realtime"]
        await socket.process[limits.Admission].enter(socket)
        logins, since = socket.process[Logins], time.monotonic()
        # A proxy that speaks HTTP/2 may send each cookie in a line of its own.
        header = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
        if not logins.listens and (header or socket.token is not None):
            await logins.listen()
        cookies, expires_at = parse_cookie(header.decode("latin-1")), None
        if socket.token is None:
            user, session = await authenticate_cookie(socket, cookies)
        else:
            user, session, expires_at = await authenticate_token(socket, scope)
        if user is None:
            return await socket.close(Close.NOT_LOGGED_IN)
        socket.user, socket.owner = user, limits.owner_of(user, socket.address)
        login = Login(socket, user, session.session_key if user.is_authenticated else None, expires_at)
        owners = socket.process[limits.Owners]
        if not owners.enter(socket.owner):
            socket.log(logging.WARNING, "refused: its user or address has too many sockets, or sends too much")
            return await socket.close(Close.TOO_MANY_MESSAGES)
        try:
            await logins.watch(login, since)
            if not socket.outbox.closed:
                scope = dict(scope, cookies=cookies, session=session, user=user)
                await self.application(scope, receive, send)
        finally:
            logins.forget(login)
            owners.leave(socket.owner)


class Login:
    """
    The login of one socket: a user by the session of this key or by a token, or AnonymousUser.

    names: the digests of primary key and session key, or None, which messages between processes contain.
    """

    def __init__(self, socket, user, key=None, expires_at=None):
        self.socket, self.user, self.key, self.expires_at, self.timer = socket, user, key, expires_at, None
        self.names = [value if value is None else digest(value) for value in (user.pk, key)]
        # A session has the hash. A token may bring a user who is in no table.
        has_hash = key is None and isinstance(user, get_user_model())
        self._hash = user.get_session_auth_hash() if has_hash else None

    @property
    def claim(self):
        """The claim for get_users() that finds the user again."""
        if self.key is not None:
            return session_store(self.key)
        return self._hash and (self.user.pk, MODEL_BACKEND, self._hash)

    def holds(self, user):
        """Tell whether the login still holds, when get_users() has found `user` for its claim, or failed with it."""
        if isinstance(user, Exception):
            if not isinstance(user, Unavailable):
                logger.error("A login cannot be checked", exc_info=user)
            return True
        if self.expires_at is not None and self.expires_at <= timezone.now():
            return False
        is_known = self.key is not None or self._hash is not None
        return not is_known or (user is not None and user.pk == self.user.pk)


class Logins:
    """The logins of all open sockets of this process. As a member of GROUP it is handed the messages of tell()."""

    def __init__(self):
        self._logins = defaultdict(set)  # by each of their names
        self._heard = {}  # when, by name, the oldest first
        self._tasks = set()
        self._rechecking = None
        self._joining, self.listens = None, False
        self._users = process()[UserBatcher]

    async def watch(self, login, since):
        """
        Until `forget()` is called, close the socket of `login` when the login does not hold any more.

        since: the time.monotonic() before the user was read; the login may have ended meanwhile.
        """
        for name in filter(None, login.names):
            self._logins[name].add(login)
        if self._logins and self._rechecking is None:
            self._rechecking = asyncio.create_task(self._recheck_all())
        if login.expires_at is not None:
            seconds = (login.expires_at - timezone.now()).total_seconds()
            login.timer = asyncio.get_running_loop().call_later(seconds, self._start, self._close, [login])
        changed, ended = (self._heard.get(name, -math.inf) for name in login.names)
        if ended > since - RECENT:
            await self._close([login])
        elif changed > since:
            await self._recheck([login])

    def forget(self, login):
        if login.timer is not None:
            login.timer.cancel()
        for name in filter(None, login.names):
            self._logins[name].discard(login)
            if not self._logins[name]:
                del self._logins[name]

    def handle(self, message):
        """Take a message of `tell()`: close the sockets of a session, or re-check those of a user."""
        # The last release names the user in the group only.
        name = message["session"] or message.get("user") or message["group"].removeprefix("user.")
        self._heard.pop(name, None)
        self._heard[name] = now = time.monotonic()
        while self._heard[oldest := next(iter(self._heard))] < now - RECENT:
            del self._heard[oldest]
        if name in self._logins:
            self._start(self._close if message["session"] else self._recheck, [*self._logins[name]])

    def deliver(self, broadcast):
        """Ignore broadcasts, which are for sockets."""

    async def listen(self):
        """Join GROUP. Gives up for now after LISTEN_TIMEOUT; the fan-out has logged why."""
        joining = self._joining = self._joining or asyncio.create_task(get_fanout().join(GROUP, self))
        # Not cancelled: other handshakes wait for the same join.
        await asyncio.wait([joining], timeout=LISTEN_TIMEOUT)
        if joining.done():
            self._joining, self.listens = None, joining.exception() is None

    async def _recheck_all(self):
        while self._logins:
            await asyncio.sleep(settings.REALTIME_RECHECK_SECONDS)
            if not self.listens:
                await self.listen()
            await self._recheck(list({login for logins in self._logins.values() for login in logins}))
        self._rechecking = None

    async def _recheck(self, logins):
        """Close the sockets of `logins` that do not hold any more. While the database is away, they stay open."""
        try:
            for start in range(0, len(logins), BATCH):
                some = logins[start : start + BATCH]
                claims = [login.claim for login in some]
                users = await asyncio.gather(*map(self._users.add, claims), return_exceptions=True)
                await self._close([login for login, user in zip(some, users, strict=True) if not login.holds(user)])
        except Exception:
            logger.exception("Logins cannot be checked")

    async def _close(self, logins):
        await asyncio.gather(*[login.socket.close(Close.NOT_LOGGED_IN) for login in logins])

    def _start(self, function, logins):
        task = asyncio.create_task(function(logins))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def heard(message):
    """Take a message of the last release, which sends it to the group of a user. Remove this in the next release."""
    if "user" not in message:
        process()[Logins].handle(message)


def tell(user=None, session_key=None):
    """Tell every process, at the commit, that a session has ended or, without one, that a user has changed."""
    names = {"user": user and digest(user.pk), "session": session_key and digest(session_key)}
    message = {"type": "realtime.logout", **names}
    send_on_commit(message | {"group": GROUP})
    if user is not None:
        # The last release listens there. Remove this in the next one.
        send_on_commit(message | {"group": user_group(user.pk)})


@receiver(user_logged_out)
def tell_of_logout(sender, request, user, **kwargs):
    """Close the sockets of the session, which Channels leaves open: https://github.com/django/channels/issues/1324"""
    if user is not None and request is not None:
        tell(user, request.session.session_key)


@receiver(user_logged_in)
def tell_of_replaced_session(sender, request, **kwargs):
    """End the sockets of a session that a login replaces: an engine without a table sends no signal for it."""
    key = request and request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if key and key != request.session.session_key:
        tell(session_key=key)


@receiver([post_save, post_delete], sender=settings.AUTH_USER_MODEL)
def tell_of_changed_user(sender, instance, created=False, raw=False, update_fields=None, **kwargs):
    if not created and not raw and update_fields != {"last_login"}:
        tell(instance)


def tell_of_deleted_session(sender, instance, **kwargs):
    # `clearsessions` deletes many that have expired long ago.
    if instance.expire_date > timezone.now():
        tell(session_key=instance.session_key)


# The engines db and cached_db have a table.
if hasattr(session_store(), "get_model_class"):
    post_delete.connect(tell_of_deleted_session, sender=session_store().get_model_class())
