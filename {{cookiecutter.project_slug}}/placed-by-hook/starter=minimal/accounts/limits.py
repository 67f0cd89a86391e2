"""
Guesses at passwords are counted before anything is hashed, for each account and for each address.

A browser that has logged in before has a count of its own, so that a stranger who guesses locks nobody out:
https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
The counts are in the memory of each process: two processes allow twice as many, and a restart forgets them.
"""

import hashlib
import math
import time
from datetime import timedelta
from functools import wraps
from threading import BoundedSemaphore, Lock

from django.conf import settings
from django.http import HttpResponse

from realtime.limits import network_of

# Wrong passwords in so many seconds, for an account or a known browser, and from an address.
PERIOD = 15 * 60
GUESSES_PER_ACCOUNT = 10
GUESSES_PER_ADDRESS = 100
# A hash takes a core for the better part of a second. So many run at a time, for strangers and known browsers each.
HASHES = 2
# Seconds that a request waits for its turn, and the Retry-After of one that waited in vain.
PATIENCE = 10
COOKIE = "known_browser"
COOKIE_AGE = timedelta(days=365)

_turns = {is_known: BoundedSemaphore(HASHES) for is_known in (False, True)}


class Attempts:
    """How often each key has been tried, until when that counts."""

    def __init__(self):
        self._lock = Lock()
        self._counts = {}  # Pairs of count and end, the oldest first.

    def take(self, key, limit):
        """Count an attempt. Return the seconds until there may be another, 0 if there may be one now."""
        now = time.monotonic()
        with self._lock:
            while self._counts and (oldest := next(iter(self._counts))) and self._counts[oldest][1] <= now:
                del self._counts[oldest]
            count, until = self._counts.get(key, (0, now + PERIOD))
            self._counts[key] = min(count, limit) + 1, until
        return math.ceil(until - now) if count >= limit else 0

    def give_back(self, key):
        """Forget the last attempt, which was no guess."""
        with self._lock:
            if key in self._counts:
                count, until = self._counts[key]
                self._counts[key] = count - 1, until


attempts = Attempts()


def limit_guesses(view, name_of):
    """
    Decorate a view that checks a password, and that redirects when it is right: 429 after too many wrong ones.

    name_of: a function of the request that returns the name of the account, a str.
    """

    @wraps(view)
    def limited(request, *args, **kwargs):
        if request.method != "POST":
            return view(request, *args, **kwargs)
        account = digest("account", name_of(request))
        is_known = request.get_signed_cookie(COOKIE, default="", salt=COOKIE, max_age=COOKIE_AGE) == account
        if is_known:
            limits = {digest("browser", request.COOKIES[COOKIE]): GUESSES_PER_ACCOUNT}
        else:
            limits = {digest("address", address_of(request)): GUESSES_PER_ADDRESS, account: GUESSES_PER_ACCOUNT}
        for key, limit in limits.items():
            if seconds := attempts.take(key, limit):
                minutes = math.ceil(seconds / 60)
                return refuse(429, f"There were too many wrong passwords. Try again in {minutes} minutes.", seconds)
        # The database has not been asked yet: a request that waits here holds no connection.
        give_turn_away(request)
        if not _turns[is_known].acquire(timeout=PATIENCE):
            return refuse(503, "Too many people are logging in at this moment.", PATIENCE)
        try:
            response = view(request, *args, **kwargs)
        finally:
            _turns[is_known].release()
        if response.status_code == 302 and request.user.is_authenticated:
            for key in limits:
                attempts.give_back(key)
            remember_browser(response, digest("account", request.user.get_username()))
        return response

    return limited


def give_turn_away(request):
    """Let the production server (MAX_REQUESTS in its protocols.py) answer others: HASHES bounds what comes now."""
    if turn := getattr(request, "scope", {}).get("turn"):
        turn.give_away()


def refuse(status, text, seconds):
    return HttpResponse(text, "text/plain; charset=utf-8", status, headers={"Retry-After": str(seconds)})


def remember_browser(response, account):
    """Let the browser keep that it has logged in to `account`, a digest."""
    options = {"max_age": COOKIE_AGE, "secure": settings.SESSION_COOKIE_SECURE, "httponly": True, "samesite": "Lax"}
    response.set_signed_cookie(COOKIE, account, salt=COOKIE, **options)


def address_of(request):
    """
    Return the address of the client, a str; of an IPv6 one the network.

    With DJANGO_TRUST_PROXY it is the last entry of X-Forwarded-For, which our own proxy wrote.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if settings.REALTIME_TRUST_PROXY:
        address = request.headers.get("X-Forwarded-For", address).rpartition(",")[2].strip()
    return network_of(address)


def digest(*parts):
    """Return a key for `parts`, strs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
