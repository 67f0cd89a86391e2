from contextlib import contextmanager
from threading import BoundedSemaphore

from django.conf import settings
from django.db import connection
from django.utils.cache import add_never_cache_headers

_places = BoundedSemaphore(settings.ACCOUNTS_REQUESTS_AT_A_TIME)


def limit_requests(get_response):
    """
    Let so many requests in at a time: each has a thread and a connection to the database of its own.

    It belongs above SessionMiddleware, which is the first to need the database.
    """

    def middleware(request):
        with _places:
            try:
                return get_response(request)
            finally:
                close_connection()

    return middleware


@contextmanager
def place_for_others():
    """Let another request in while this one waits."""
    close_connection()
    _places.release()
    try:
        yield
    finally:
        _places.acquire()


def close_connection():
    # As Django does when the response is sent; not in a transaction around everything, which tests have.
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def private_pages(get_response):
    """
    Keep a page that depends on who asks in no cache, and out of reach of the back button after a logout.

    It belongs right below SessionMiddleware, since such a page is one that has read the session.
    """

    def middleware(request):
        response = get_response(request)
        if request.session.accessed:
            add_never_cache_headers(response)
        return response

    return middleware
