"""
Database connections of sockets: all of them share one thread of the ORM, and so one connection.

Django closes a connection after each request. Channels does that with a hop to the thread before every handler, also
of those that never touch the database (https://github.com/django/channels/pull/2090). Here it is done when no handler
has used the connection for a second, or when one has failed.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from .outage import Outage, Unavailable, ask_database
from .process import process

logger = logging.getLogger(__name__)

T = TypeVar("T")

IDLE = 1  # seconds
# SQLITE_ERROR and SQLITE_MISUSE: a statement that is wrong, such as one with a column that is missing.
# https://www.sqlite.org/rescode.html
SQLITE_MISTAKES = {1, 21}

_current = ContextVar("database_use", default=None)


class DatabaseUnavailable(Unavailable, DatabaseError):
    """Raised instead of the errors of a database that cannot be reached."""


class DatabaseUse:
    """
    Whether the current task, its threads or the tasks that it starts have used the database. A context manager.

    If they have, the connection is closed when it is idle, or at once after an error, which may be the connection's
    own. The errors of a database that is away are raised as DatabaseUnavailable.
    """

    def __init__(self):
        self.used = False

    def begin(self):
        _current.set(self)
        return self

    async def settle(self, error=None):
        """Close the connection after some work: soon, or now if it ended with `error`. Raises DatabaseUnavailable."""
        if self.used:
            self.used = False
            if error is None:
                return process()[IdleCloser].touch()
            await sync_to_async(close_old_connections)()
        if is_outage(error):
            logger.debug("The database has failed", exc_info=error)
            process()[DatabaseOutage].begin(error)
            raise DatabaseUnavailable from error

    async def __aenter__(self):
        self._token = _current.set(self)
        return self

    async def __aexit__(self, error_type, error, traceback):
        _current.reset(self._token)
        await self.settle(error)


class DatabaseOutage(Outage):
    def __init__(self):
        lost, back = "The database does not answer", "The database answers again"
        super().__init__(DatabaseUnavailable, lost, back, sync_to_async(ask_database, thread_sensitive=False))


def is_outage(error):
    """Tell whether `error`, an exception or None, means that the database is away, not that a statement is wrong."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    # SQLite reports a table that is missing, a forgotten migration, in the same class.
    return getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF not in SQLITE_MISTAKES


async def query(function: Callable[..., T], *arguments: Any) -> T:
    """
    Call `function`, which uses the database, in the ORM's thread, and return what it returns.

    Raises Unavailable when the database is away; the consumer may let it pass.
    """
    async with DatabaseUse():
        return await sync_to_async(function)(*arguments)


@receiver(connection_created)
def watch(connection, **kwargs):
    if note_use not in connection.execute_wrappers:
        connection.execute_wrappers.append(note_use)


def note_use(execute, sql, params, many, context):
    use = _current.get()
    if use is not None:
        use.used = True
    return execute(sql, params, many, context)


class IdleCloser:
    """Calls Django's close_old_connections() in the ORM's thread, IDLE seconds after the last touch()."""

    def __init__(self):
        self._task = None

    def touch(self):
        self._last = time.monotonic()
        if self._task is None:
            self._task = asyncio.create_task(self._close())

    async def _close(self):
        while (wait := self._last + IDLE - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self._task = None
        await sync_to_async(close_old_connections)()
