"""
The settings of realtime and their defaults: `conf.MAX_FRAME_SIZE` is settings.REALTIME_MAX_FRAME_SIZE.

They are read at each access, so that tests may override them.
"""

from django.conf import settings

DEFAULTS = {
    # Origins beside the site's own whose pages may open sockets: "https://app.example.com".
    "ALLOWED_ORIGINS": (),
    # Believe X-Forwarded-For: a proxy of ours has written its last entry.
    "TRUST_PROXY": False,
    # Bytes of one frame that a client sends.
    "MAX_FRAME_SIZE": 2**16,
    # Frames that a socket, or all sockets of a user, may send in the long run, and at once. None: no limit.
    "FRAMES_PER_SECOND": 20,
    "FRAME_BURST": 200,
    # Open sockets in one process. Many people may share an address. None: no limit.
    "SOCKETS_PER_USER": 50,
    "SOCKETS_PER_ADDRESS": None,
    # How often to ask whether the login of each socket still holds.
    "RECHECK_SECONDS": 60,
    # The path of an async function (token, scope) that returns a user, (user, expires_at) or None.
    "TOKEN_USER": "realtime.tickets.user_of_ticket",
}


def __getattr__(name):
    if name not in DEFAULTS:
        raise AttributeError(f"realtime has no setting REALTIME_{name}")
    return getattr(settings, f"REALTIME_{name}", DEFAULTS[name])


class Default:
    """A class attribute that has the value of a setting until a subclass sets it."""

    def __init__(self, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return __getattr__(self.name)
