"""
Database connections of sockets: all of them share one thread of the ORM, and so one connection.

Django closes a connection after each request. Channels does that with a hop to the thread before every handler, also of
those that never touch the database (https://github.com/django/channels/pull/2090). Here it is done when no handler has
used the connection for a second, or when one has failed.
"""

import asyncio
import logging
import time
from contextvars import ContextVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from .health import Outage, Unavailable, ask_database

logger = logging.getLogger(__name__)

IDLE = 1  # seconds

_current = ContextVar("database_use", default=None)
_closers = WeakKeyDictionary()


class DatabaseUnavailable(Unavailable, DatabaseError):
    """Raised instead of OperationalError and InterfaceError."""


# The text of the error is in its line: on SQLite "no such table", a forgotten migration, is an OperationalError, too.
outage = Outage(
    DatabaseUnavailable,
    "The database does not answer",
    "The database answers again",
    sync_to_async(ask_database, thread_sensitive=False),
)


class DatabaseUse:
    """
    A context manager around code that may use the database: in the current task, in its threads and in its tasks.

    If it did, the connection is closed when it is idle, or at once after an error, which may be the connection's own.
    The errors of a database that is away are raised as DatabaseUnavailable.
    """

    def __init__(self):
        self.used = False

    async def __aenter__(self):
        _current.set(self)
        return self

    async def __aexit__(self, error_type, error, traceback):
        if self.used:
            if error is None:
                close_when_idle()
            else:
                await sync_to_async(close_old_connections)()
        if isinstance(error, OperationalError | InterfaceError):
            logger.debug("The database has failed", exc_info=error)
            outage.begin(error)
            raise DatabaseUnavailable from error


async def query(function, *arguments):
    """Call `function`, which uses the database, in the ORM's thread, and return what it returns."""
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


def close_when_idle():
    """Call Django's close_old_connections() in the ORM's thread, IDLE seconds after the last call of this function."""
    loop = asyncio.get_running_loop()
    if loop not in _closers:
        _closers[loop] = IdleCloser()
    _closers[loop].touch()


class IdleCloser:
    # It must not hold the loop, which is its weak key in _closers.

    def __init__(self):
        self.task = None

    def touch(self):
        self.last = time.monotonic()
        if self.task is None:
            self.task = asyncio.create_task(self.close())

    async def close(self):
        while (wait := self.last + IDLE - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self.task = None
        await sync_to_async(close_old_connections)()
