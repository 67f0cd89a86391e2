"""Who is at the other end of a connection."""

from django.conf import settings


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
