"""What every consumer shares. These names are for the code that is no consumer; README.md has the others."""

from .broadcasts import anotify, anotify_user, notify, notify_consumers, notify_user
from .close import Close

__all__ = ["Close", "anotify", "anotify_user", "notify", "notify_consumers", "notify_user"]
