"""
The users who are in a room. They are in the database, since a killed process cannot say that its users have left.

Each process stores the users of its sockets, and says again and again that it is alive. It reads the names of all
users in its rooms, and tells its sockets of the changes.
"""

import time
import uuid

from realtime.frames import encode

from . import frames
from .models import record_presence

# How often a process says that it is alive, in seconds; see PRESENCE_LIFETIME in models.py.
BEAT = 10
# Up to so many people, everybody is sent the whole list at each change. With more that would be quadratic.
LISTED = 30


class Present:
    """The sorted names of the users in a room, as the sockets of this process know them."""

    def __init__(self):
        self.names = []
        # What most sockets are greeted with, as JSON, once it was asked for.
        self._greeting = None

    def greet(self, name):
        """Return the frame for a socket that begins, as JSON. name: its own user, who may not be stored yet."""
        if name not in self.names:
            return encode(frames.Presence(users=sorted({*self.names, name})))
        if self._greeting is None:
            self._greeting = encode(frames.Presence(users=self.names))
        return self._greeting

    def change(self, names):
        """Take the `names` of who is here now, sorted; return the frame that tells of it, as JSON, or None."""
        before, self.names, self._greeting = self.names, names, None
        came, left = (sorted({*a} - {*b}) for a, b in ((names, before), (before, names)))
        if not came and not left:
            return None
        if len(names) <= LISTED or len(came) + len(left) >= len(names):
            return encode(frames.Presence(users=names))
        return encode(frames.PresenceChange(came=came, left=left))


class Recorder:
    """Stores who has a socket in this process."""

    def __init__(self):
        self._process = uuid.uuid4()
        # The primary keys of what is stored, by those of room and user.
        self._stored = {}
        self._beat_at = 0

    @property
    def is_empty(self):
        return not self._stored

    def record(self, pairs):
        """
        Store who is here, a set of pairs of the primary keys of room and user. This uses the database.

        Only changes are written, and the sign of life: thousands may be here.
        """
        beats = time.monotonic() >= self._beat_at + BEAT
        came = pairs - self._stored.keys()
        left = [self._stored[pair] for pair in self._stored.keys() - pairs]
        if came or left or beats:
            self._stored = record_presence(self._process, self._stored, pairs, beats)
        if beats:
            self._beat_at = time.monotonic()
