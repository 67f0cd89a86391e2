"""
Another process of a baked project: tells each of the users 10 things a second, as a worker does that has news.

    python notifier.py FILE    (the primary keys, one on each line; ended by its id)
"""

import sys
import time
from pathlib import Path

import django

RATE = 10

sys.path.insert(0, "")
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402

from realtime import notify_user  # noqa: E402

users = list(get_user_model().objects.filter(pk__in=Path(sys.argv[1]).read_text().split()))
due = time.monotonic()
while True:
    for user in users:
        # The time in it is when it was due.
        notify_user(user, {"type": "message", "text": f"~{int(due * 1e9):016x}"})
        due += 1 / RATE / len(users)
        if (wait := due - time.monotonic()) > 0.005:
            time.sleep(wait)
