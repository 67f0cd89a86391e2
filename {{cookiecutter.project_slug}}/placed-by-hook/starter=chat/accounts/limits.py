"""
Guesses at passwords, and sign-ups, are counted before anything is hashed, for each account and for each address.

A browser that has logged in before has a count of its own, so that a stranger who guesses locks nobody out:
https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
The counts are in the database, where all processes see them.
"""

import hashlib
import math
from datetime import timedelta
from functools import wraps
from threading import BoundedSemaphore

from django.conf import settings
from django.db.models import F
from django.shortcuts import render
from django.utils import timezone
from django.utils.crypto import get_random_string

from realtime.limits import network_of

from .middleware import place_for_others
from .models import Attempts, User

COOKIE = "known_browser"
COOKIE_AGE = timedelta(days=365)
# Accounts that one browser can be known to.
MAX_ACCOUNTS = 10
# A hash takes a core for the better part of a second. So many run at a time, for strangers and known browsers each.
HASHES = 2
# Seconds that a request waits for its turn, and the Retry-After of one that waited in vain.
PATIENCE = 10

_turns = {is_known: BoundedSemaphore(HASHES) for is_known in (False, True)}


def limit_guesses(view):
    """
    Decorate a view that checks a password, of the "username" in its form and of who is logged in: 429 after too many.

    The view redirects when the password is right, and only then.
    """

    @wraps(view)
    def limited(request, *args, **kwargs):
        if request.method != "POST":
            return view(request, *args, **kwargs)
        # Both: whose password a view checks is not known here, and a name in the form must not hide who is logged in.
        given = request.POST.get("username"), request.user.get_username()
        names = {User.normalize_username(name) for name in given if name}
        browser, accounts = known_browser(request)
        is_known = bool(names) and all(digest(browser, name) in accounts for name in names)
        if is_known:
            limits = {digest("browser", browser): settings.ACCOUNTS_GUESSES_PER_ACCOUNT}
        else:
            # The address first: one that has tried too much counts, and fills the table, no further.
            limits = {digest("address", address_of(request)): settings.ACCOUNTS_GUESSES_PER_ADDRESS}
            limits |= {digest("account", name): settings.ACCOUNTS_GUESSES_PER_ACCOUNT for name in names}
        if seconds := take(limits):
            return refuse(request, "guesses", seconds)
        response = in_turn(request, lambda: view(request, *args, **kwargs), is_known)
        if response.status_code != 200:
            give_back(limits)
        return remember_browser(request, response)

    return limited


def limit_sign_ups(view):
    """Decorate a view that makes an account, and then redirects: 429 for an address that has made too many."""

    @wraps(view)
    def limited(request, *args, **kwargs):
        if request.method != "POST":
            return view(request, *args, **kwargs)
        limits = {digest("sign-up", address_of(request)): settings.ACCOUNTS_SIGN_UPS_PER_ADDRESS}
        if seconds := take(limits):
            return refuse(request, "accounts", seconds)
        response = in_turn(request, lambda: view(request, *args, **kwargs), is_known=False)
        if response.status_code != 302:
            give_back(limits)
        return remember_browser(request, response)

    return limited


def limit_mails(view):
    """Decorate a view that sends a mail to the "email" in its form: 429 after too many, whoever has an account."""

    @wraps(view)
    def limited(request, *args, **kwargs):
        if request.method == "POST":
            limits = {
                digest("mails", address_of(request)): settings.ACCOUNTS_MAILS_PER_ADDRESS,
                digest("mail", request.POST.get("email", "").strip().lower()): settings.ACCOUNTS_MAILS_PER_RECIPIENT,
            }
            if seconds := take(limits):
                return refuse(request, "mails", seconds)
        return view(request, *args, **kwargs)

    return limited


def in_turn(request, view, is_known):
    """Return the response of `view()`, which hashes, when it is its turn; 503 after PATIENCE."""
    give_turn_away(request)
    with place_for_others():
        is_its_turn = _turns[is_known].acquire(timeout=PATIENCE)
    if not is_its_turn:
        return refuse(request, "busy", PATIENCE)
    try:
        return view()
    finally:
        _turns[is_known].release()


def give_turn_away(request):
    """Let the production server (MAX_REQUESTS in its protocols.py) answer others: HASHES bounds what comes now."""
    if turn := getattr(request, "scope", {}).get("turn"):
        turn.give_away()


def take(limits):
    """
    Count an attempt for each key. Return the seconds until there may be another, 0 if there may be one now.

    limits: dict of the most attempts in ACCOUNTS_PERIOD by key. The attempt is counted before it is known whether it
    fails, since many may come at the same moment.
    """
    now = timezone.now()
    Attempts.objects.filter(until__lte=now).delete()
    for key, limit in limits.items():
        until = now + timedelta(seconds=settings.ACCOUNTS_PERIOD)
        Attempts.objects.bulk_create([Attempts(key=key, until=until)], ignore_conflicts=True)
        Attempts.objects.filter(key=key).update(count=F("count") + 1)
        attempts = Attempts.objects.filter(key=key, count__gt=limit).first()
        if attempts:
            return max(1, math.ceil((attempts.until - now).total_seconds()))
    return 0


def give_back(limits):
    """Forget the last attempt, which was no guess."""
    Attempts.objects.filter(key__in=limits, count__gt=0).update(count=F("count") - 1)


def refuse(request, what, seconds):
    """Return a page that says why, and how long to wait. what: "guesses", "accounts", "mails" or "busy"."""
    context = {"what": what, "seconds": seconds, "minutes": math.ceil(seconds / 60)}
    response = render(request, "accounts/too_many.html", context, status=503 if what == "busy" else 429)
    response.headers["Retry-After"] = str(seconds)
    return response


def known_browser(request):
    """Return the name of the browser, and a list with the digests of the accounts that it has logged in to."""
    value = request.get_signed_cookie(COOKIE, default="", salt=COOKIE, max_age=COOKIE_AGE)
    browser, *accounts = value.split(".")
    return browser, accounts


def remember_browser(request, response):
    """Let the browser keep that it has logged in to this account, if `response` says so by a redirect. Return it."""
    if response.status_code == 302 and request.user.is_authenticated:
        browser, accounts = known_browser(request)
        browser = browser or get_random_string(22)
        # Not the name in the form: a view may redirect because another user is logged in.
        account = digest(browser, request.user.get_username())
        accounts = [account, *(other for other in accounts if other != account)][:MAX_ACCOUNTS]
        response.set_signed_cookie(
            COOKIE,
            ".".join([browser, *accounts]),
            salt=COOKIE,
            max_age=COOKIE_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
    return response


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
