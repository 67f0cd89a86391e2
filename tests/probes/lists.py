"""The queries and milliseconds of the chat's lists of rooms, as rows of a table, for benchmarks/lists.py."""

import statistics
import time
import uuid
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.models import Reading, Room, find_places, post_message
from chat.unread import find_changes, mark_read

ROOMS, USERS, ROOMS_PER_USER, ROUNDS = 10_000, 1_000, 50, 7

user_model = get_user_model()
users = user_model.objects.bulk_create(user_model(username=f"user{number}") for number in range(USERS))
rooms = Room.objects.bulk_create(
    [Room(name=f"Room {number}", slug=f"room-{number}") for number in range(ROOMS)], batch_size=1000
)
big = Room.objects.get(slug="lobby")
long_ago = timezone.now() - timedelta(days=1)
Room.objects.update(last_at=long_ago)
readings = [
    Reading(room=room, user=user, changed_at=long_ago)
    for number, user in enumerate(users)
    for room in [big, *(rooms[(number * 7 + k * 199) % ROOMS] for k in range(ROOMS_PER_USER))]
]
Reading.objects.bulk_create(readings, batch_size=1000, ignore_conflicts=True)
for room in rooms[::10]:
    post_message(room.pk, users[0], uuid.uuid4(), "hello")
Room.objects.update(last_at=long_ago)
Reading.objects.update(changed_at=long_ago)
with connection.cursor() as cursor:
    cursor.execute("ANALYZE")
client = Client(headers={"host": "127.0.0.1"})
client.force_login(users[1])
everybody = {user.pk for user in users}


def report(name, act):
    counts, times = [], []
    for number in range(ROUNDS):
        with CaptureQueriesContext(connection) as queries:
            begin = time.perf_counter()
            act(number)
            times.append((time.perf_counter() - begin) * 1000)
        statements = [query["sql"] for query in queries]
        counts.append(sum(not sql.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")) for sql in statements))
    print(f"| {name} | {statistics.median(counts):.0f} | {statistics.median(times):.1f} |")


def read_all(number):
    mark_read({(big.pk, pk): number + 1 for pk in everybody})


def post(number):
    post_message(big.pk, users[0], uuid.uuid4(), "hello")


before = long_ago - timedelta(days=1)
recently = timezone.now() - timedelta(seconds=5)
report("a process polls, and nothing has happened", lambda _: find_changes(recently, everybody))
report("50 users connect, whose lists have not changed", lambda _: find_changes(recently, {*list(everybody)[:50]}))
report(
    "50 users connect, who were away for long",
    lambda _: find_changes(long_ago - timedelta(days=1), {*list(everybody)[:50]}),
)
report("the page of the list", lambda _: client.get("/"))
report("the page of the list, looking for a name", lambda _: client.get("/?part=list&q=oom+99"))
report("50 users enter the room", lambda _: find_places([("lobby", pk) for pk in list(everybody)[:50]]))
report("a message in the room of 1,000", post)
report("a process polls, and the list of 1,000 has changed", lambda _: find_changes(recently, everybody))
report("1,000 have read it", read_all)
