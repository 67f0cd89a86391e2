"""
Database connections of sockets: closed when they are old or broken, as Django does after each request.

Channels does that with a hop to a thread before every handler, also of those that never touch the database
(https://github.com/django/channels/pull/2090). Here it is done after those that did.
"""

from contextvars import ContextVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

_current = ContextVar("database_use", default=None)


class DatabaseUse:
    """Notes whether queries are made from now on in this context: in the current task, its threads and its tasks."""

    def __init__(self):
        self.used = False
        _current.set(self)

    async def close_old_connections(self):
        """Call Django's close_old_connections() in the ORM's thread, if queries have been made since the last call."""
        if self.used:
            self.used = False
            await sync_to_async(close_old_connections)()


@receiver(connection_created)
def watch(connection, **kwargs):
    if note_use not in connection.execute_wrappers:
        connection.execute_wrappers.append(note_use)


def note_use(execute, sql, params, many, context):
    use = _current.get()
    if use is not None:
        use.used = True
    return execute(sql, params, many, context)
