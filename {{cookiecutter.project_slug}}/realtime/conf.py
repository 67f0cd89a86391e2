"""
All settings of realtime, with the values for a project that does not set them.

Each is read from django.conf.settings where it is used, so that tests may override it.
"""

from django.conf import settings

DEFAULTS = {
    # Origins beside the site's own whose pages may open sockets: "https://app.example.com".
    "REALTIME_ALLOWED_ORIGINS": (),
    # Believe X-Forwarded-For: a proxy of ours has written its last entry.
    "REALTIME_TRUST_PROXY": False,
    # Bytes of one frame that a client sends.
    "REALTIME_MAX_FRAME_SIZE": 2**16,
    # Frames that a socket, or all sockets of a user, may send in the long run, and at once. None: no limit.
    "REALTIME_FRAMES_PER_SECOND": 20,
    "REALTIME_FRAME_BURST": 200,
    # Open sockets in one process. Many people may share an address. None: no limit.
    "REALTIME_SOCKETS_PER_USER": 50,
    "REALTIME_SOCKETS_PER_ADDRESS": None,
    # How often to ask whether the login of each socket still holds.
    "REALTIME_RECHECK_SECONDS": 60,
    # The path of an async function (token, scope) that returns a user, (user, expires_at) or None.
    "REALTIME_TOKEN_USER": "realtime.tickets.user_of_ticket",
}


def set_defaults():
    for name, value in DEFAULTS.items():
        if not hasattr(settings, name):
            setattr(settings, name, value)
