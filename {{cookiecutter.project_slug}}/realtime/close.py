"""The codes that a socket is closed with."""

from enum import IntEnum


class Close(IntEnum):
    """
    Why the application closed a socket (RFC 6455, section 7.4): 4000 to 4999 are ours.

    The page comes back after all but 4400 to 4499, of which it comes back after 4429 only; `Close` in socket.js is the same.
    """

    NORMAL = 1000
    INTERNAL_ERROR = 1011
    # It reads too slowly, or a service does not answer.
    COME_BACK = 4000
    # Not logged in, or not any more.
    NOT_LOGGED_IN = 4401
    NOT_ALLOWED = 4403
    NOT_FOUND = 4404
    # It goes on sending although it is told to wait, or it has too many sockets.
    TOO_MANY_MESSAGES = 4429
