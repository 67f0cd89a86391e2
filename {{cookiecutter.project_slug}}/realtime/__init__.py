"""What every consumer shares. `notify()` is for the code that is no consumer."""

from .fanout import notify

__all__ = ["notify"]
