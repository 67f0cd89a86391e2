"""
How much of each room its readers have not read yet, and the lists of rooms on their pages, which show it live.

The count is exact, and the database keeps it: see Reading in models.py. A message writes one row for it, that of its
sender, however many are in the room. Each process polls what has changed, for all rooms and readers together, so that
no count depends on a message between processes.
"""

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from realtime.database import query
from realtime.fanout import Broadcast
from realtime.frames import encode
from realtime.outage import Unavailable

from .frames import RoomState
from .models import Message, Reading, Room, still_there

logger = logging.getLogger(__name__)

# Seconds
POLL = 2
# What comes in so short a time is one change.
SETTLE = 0.5
# What was stored at the time of the last poll may have become visible after it, and clocks of machines differ.
MARGIN = timedelta(seconds=5)
# A page that was away for longer is told of all of its rooms.
RECENT = timedelta(minutes=10)
# Users, rooms or marks in one query.
BATCH = 1000
# Frames after which the other sockets have their turn.
TURN = 50
# More users than that are picked out here: the database would look at all of their rooms, for the few that changed.
FEW = 100


@transaction.atomic
def mark_read(marks, entered=None):
    """
    Store how far users have read. marks: dict of numbers of messages by pairs of the primary keys of room and user.

    entered: the pairs whose room comes into the user's list, if it is not there; all of them unless given.
    """
    now = timezone.now()
    made = enter_rooms(set(marks) if entered is None else entered)
    rooms, users = {room_id for room_id, _ in marks}, {user_id for _, user_id in marks}
    # Locked, so that what is counted below has all messages that store_message() has counted; in one order, as all that
    # lock many of these rows, or PostgreSQL ends one of two that wait for each other.
    stored = Reading.objects.select_for_update().filter(room__in=rooms, user__in=users).order_by("pk")
    stored = {(room_id, user_id): seq for room_id, user_id, seq in stored.values_list("room", "user", "read_seq")}
    # Those who read along in a room have all read the same: one statement for them all.
    same = defaultdict(list)
    for (room_id, user_id), seq in marks.items():
        if (room_id, user_id) in made or stored.get((room_id, user_id), -1) < seq:
            same[room_id, seq].append(user_id)
    for (room_id, seq), user_ids in same.items():
        own = Message.objects.filter(room=room_id, user=OuterRef("user"), seq__gt=seq).order_by()
        own = own.values("room").annotate(count=Count("pk")).values("count")
        readings = Reading.objects.filter(room=room_id, user__in=user_ids, read_seq__lte=seq)
        readings.update(read_seq=seq, own=Coalesce(Subquery(own), 0), changed_at=now)


def enter_rooms(pairs):
    """Put rooms into users' lists. Return those that were not there: a set, as `pairs`, of room and user."""
    rooms, users = {room_id for room_id, _ in pairs}, {user_id for _, user_id in pairs}
    missing = pairs and pairs - set(Reading.objects.filter(room__in=rooms, user__in=users).values_list("room", "user"))
    if missing:
        readings = [Reading(room_id=room, user_id=user) for room, user in sorted(still_there(missing))]
        Reading.objects.bulk_create(readings, ignore_conflicts=True)
    return missing


def find_changes(since, user_ids):
    """
    Return the rooms of these users in which something has been written or read since: a dict of RoomState by pair.

    since: an aware datetime. user_ids: a set of primary keys.
    """
    as_of = int(timezone.now().timestamp() * 1000)
    room_ids = list(Room.objects.filter(last_at__gt=since).values_list("pk", flat=True)[:BATCH])
    # So many that to name them takes longer than to join them.
    is_written = Q(room__in=room_ids) if len(room_ids) < BATCH else Q(room__last_at__gt=since)
    readings = Reading.objects.permitted().filter(is_written | Q(changed_at__gt=since))
    if len(user_ids) <= FEW:
        readings = readings.filter(user__in=user_ids)
    # All of the count in one statement, so that it is that of one moment.
    rows = readings.values_list("room", "user", "room__last_seq", "read_seq", "own")
    rows = [row for row in rows if row[1] in user_ids]
    room_ids = list({room_id for room_id, *_ in rows})
    rooms, messages = {}, {}
    for start in range(0, len(room_ids), BATCH):
        batch = Room.objects.filter(pk__in=room_ids[start : start + BATCH])
        rooms |= batch.in_bulk()
        last = Message.objects.filter(room__in=batch, seq=F("room__last_seq")).select_related("user")
        messages |= {message.room_id: message for message in last}
    return {
        (room_id, user_id): RoomState.of(rooms[room_id], messages.get(room_id), max(0, last - read - own), as_of)
        for room_id, user_id, last, read, own in rows
        if room_id in rooms
    }


class Lists:
    """The sockets of this process whose pages have a list of rooms: `process()[Lists]`."""

    def __init__(self):
        self._consumers = defaultdict(set)  # By the primary key of their user.
        self._arrived = {}
        self._marks = {}
        self._entered = set()
        self._told = {}
        self._polled_at = None
        self._sent = 0
        self._wake = asyncio.Event()
        self._task = None

    def enter(self, consumer, since):
        """Tell a page what has changed in its user's list since, an aware datetime, and what does from now on."""
        self._consumers[consumer.scope["user"].pk].add(consumer)
        self._arrived[consumer] = since
        self.look()

    def leave(self, consumer):
        user_id = consumer.scope["user"].pk
        self._arrived.pop(consumer, None)
        self._consumers[user_id].discard(consumer)
        if not self._consumers[user_id]:
            del self._consumers[user_id]

    def mark(self, room_id, user_id, seq, enters):
        """
        Store soon that a user has read a room up to the number `seq`.

        enters: whether the room comes into the user's list. Who has left it meanwhile does not want it back.
        """
        if enters:
            self._entered.add((room_id, user_id))
        self._marks[room_id, user_id] = max(seq, self._marks.get((room_id, user_id), 0))
        self.look()

    def look(self):
        """Ask the database soon: something has changed."""
        self._wake.set()
        if self._task is None and (self._consumers or self._marks):
            self._task = asyncio.create_task(self._watch())

    async def _watch(self):
        self._polled_at = timezone.now()
        while self._consumers or self._marks:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
                    await asyncio.sleep(SETTLE)
            self._wake.clear()
            try:
                await self._store_marks()
                await self._greet()
                await self._tell_of_changes()
            except Unavailable:
                logger.debug("The next poll tries again", exc_info=True)
            except Exception:
                logger.exception("The lists of rooms could not be polled")
        self._task = None

    async def _store_marks(self):
        marks, self._marks = list(self._marks.items()), {}
        entered, self._entered = self._entered, set()
        for start in range(0, len(marks), BATCH):
            try:
                batch = dict(marks[start : start + BATCH])
                await query(mark_read, batch, entered & batch.keys())
            except Unavailable:
                self._entered |= entered
                for (room_id, user_id), seq in marks[start:]:
                    self._marks[room_id, user_id] = max(seq, self._marks.get((room_id, user_id), 0))
                raise

    async def _greet(self):
        """Tell pages that have come what they have missed: those that were away for a moment together."""
        earliest = timezone.now() - RECENT
        for is_recent in (True, False):
            arrived = {c: since for c, since in self._arrived.items() if (since > earliest) is is_recent}
            while arrived:
                batch = dict(list(arrived.items())[: BATCH if is_recent else FEW])
                users = {consumer.scope["user"].pk for consumer in batch}
                changes = await query(find_changes, min(batch.values()) - MARGIN, users)
                by_user = defaultdict(list)
                for consumer in batch:
                    del arrived[consumer]
                    self._arrived.pop(consumer, None)
                    by_user[consumer.scope["user"].pk].append(consumer)
                for (_, user_id), state in changes.items():
                    await self._send(state, by_user[user_id], is_answer=True)

    async def _tell_of_changes(self):
        if not self._consumers:
            return
        now = timezone.now()
        changes = await query(find_changes, self._polled_at - MARGIN, set(self._consumers))
        self._polled_at = now
        before, self._told = self._told, {pair: state.count for pair, state in changes.items()}
        for pair, state in changes.items():
            if before.get(pair) != state.count:
                await self._send(state, self._consumers.get(pair[1], ()))

    async def _send(self, state, consumers, is_answer=False):
        """Send a RoomState. is_answer: to pages that have asked for it, which counts as frames of theirs by its size."""
        if consumers:
            broadcast = Broadcast.of({"group": "", "text": encode(state)})
            for consumer in list(consumers):
                consumer.deliver(broadcast)
                if is_answer:
                    consumer.charge(broadcast.size)
            self._sent += len(consumers)
            if self._sent > TURN:
                self._sent = 0
                await asyncio.sleep(0)


def parse_time(text):
    """Return the aware datetime that `text` tells in milliseconds since 1970, or None. It is from 1970 to now."""
    try:
        return min(datetime.fromtimestamp(max(0, int(text)) / 1000, UTC), timezone.now())
    except (ValueError, OverflowError, OSError):
        return None
