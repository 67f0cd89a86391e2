"""
Count how often a reader of a baked project changes files to follow a handshake, a broadcast and an outage.

    cd <a baked project> && python <this file>

Each is played once, in one process, and every call of a function in the project's own files is noted with
sys.setprofile(). A jump is a call, or a return, that leads to another file. Prints the files and the jumps of each.
"""

import os
import sys
import threading
from collections import Counter
from pathlib import Path

PROJECT = Path.cwd()
sys.path.insert(0, str(PROJECT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"{next(PROJECT.glob('*/settings.py')).parent.name}.settings_test")

import django  # noqa: E402

django.setup()


class Route:
    """The files that were gone through while it was followed."""

    def __init__(self):
        self.files = []

    def note(self, frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and PROJECT in path.parents:
            name = path.relative_to(PROJECT).as_posix()
            if not self.files or self.files[-1] != name:
                self.files.append(name)

    def __enter__(self):
        threading.setprofile(self.note)
        sys.setprofile(self.note)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)
        threading.setprofile(None)

    def __str__(self):
        counts = ", ".join(f"{name} {count}" for name, count in Counter(self.files).most_common())
        return f"{len(self.files) - 1} jumps between {len(set(self.files))} files ({counts})"
