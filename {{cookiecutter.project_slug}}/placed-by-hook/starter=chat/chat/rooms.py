"""
The rooms that sockets of this process are in, and who may stay.

A room is one subscription, one feed and one list of who is here, whatever the number of its sockets. One task asks the
database about all rooms together, so that what nobody tells is noticed, too.
"""

import asyncio
import logging
import time
import uuid
from contextlib import suppress

from django.conf import settings

from realtime import Close, notify_consumers
from realtime.batches import Batcher
from realtime.database import query
from realtime.fanout import Broadcast, Subscription
from realtime.frames import encode
from realtime.outage import Unavailable
from realtime.process import process

from . import frames
from .feed import Feed
from .models import get_last_seqs, get_names_present, look_up, post_message
from .presence import LISTED, Present, Recorder

logger = logging.getLogger(__name__)

# Seconds
POLL = 3
# A thousand who come at once are one change of who is present.
SETTLE = 0.5
# Pairs of room and user in one query.
BATCH = 1000


def room_group(room_id):
    """Return the name of the group of a room in all processes, a str."""
    return f"room.{room_id}"


def say(room_id, user, text):
    """
    Store a message of a view, a task or a command, show it when the transaction commits, and return it.

    Raises ValueError for an empty text: pages show one that was taken back.
    """
    if not text:
        raise ValueError("A message has a text.")
    message, _ = post_message(room_id, user, uuid.uuid4(), text)
    hint = (message.seq, encode(frames.StoredMessage.of(message)))
    notify_consumers(room_group(room_id), {"type": "chat.messages", "messages": [hint]})
    return message


class PlaceBatcher(Batcher):
    """Looks up the Places of all who come at about the same time together: after a restart thousands do."""

    def __init__(self, look_up):
        self._look_up = look_up
        super().__init__(self._look_up_all, BATCH, turns=2)

    async def _look_up_all(self, pairs):
        places = await query(self._look_up, list(set(pairs)))
        return [places.get(pair) for pair in pairs]


class OpenRoom:
    """
    A room as this process has it: a member of the room's group.

    heard_at: when it was told last that somebody may have to leave, of time.monotonic().
    """

    def __init__(self, pk):
        self.pk = pk
        self.feed = Feed(pk, self._tell_others)
        self.present = Present()
        self.heard_at = 0
        self._opening = asyncio.Lock()
        self._subscription = None

    @property
    def readers(self):
        return self.feed.readers

    async def enter(self, reader, since):
        """
        Let `reader` in; return False, and close its socket, if its user may not be here any more.

        since: when it was read that they may. Raises Unavailable.
        """
        self.readers[reader] = None
        async with self._opening:
            if self._subscription is None:
                self._subscription = await Subscription.join(room_group(self.pk), self)
                self.heard_at = time.monotonic()
        # Not within the lock, so that all who wait for it ask together.
        if self.feed.seq is None or self.heard_at >= since:
            place = await self.check(reader)
            if place is None:
                return False
            self.feed.start(place.last_seq)
        return True

    async def leave(self):
        if self._subscription is not None:
            await self._subscription.leave()

    async def check(self, reader):
        """Return the Place of `reader`; or close its socket and return None, if its user may not be here any more."""
        place = await process()[PlaceBatcher, look_up].add((self.pk, reader.user_id))
        return place if self.keep(reader, place) else None

    def keep(self, reader, place):
        """Tell whether `reader` may stay by its `place`, a Place or None; close its socket if not."""
        if place is not None and place.may_enter:
            return True
        if reader in self.readers:
            del self.readers[reader]
            code = Close.NOT_FOUND if place is None else Close.NOT_ALLOWED
            reader.consumer.start_task(reader.consumer.close(code))
        return False

    async def tell_typing(self, name):
        """Tell the pages that show the room that somebody is typing, unless so many are here that it never ends."""
        if len(self.present.names) <= LISTED:
            await self.tell_all({"type": "chat.typing", "user": name})

    async def tell_all(self, message):
        """Send a dict that handle() takes to the room in all processes. It may be lost."""
        with suppress(Unavailable):
            await self._tell_others(message)

    async def _tell_others(self, message):
        await self._subscription.send(message)

    def handle(self, message):
        """Take what feeds and signals.py send to the group. The last release does, too."""
        match message["type"]:
            case "chat.messages":
                for seq, text in message["messages"]:
                    self.feed.hear(seq, text)
            case "chat.typing":
                self.tell(frames.SomebodyTypes(user=message["user"]))
            case "chat.taken_back":
                self.feed.hear_of_edits(message["edits"])
                self.tell(frames.TakenBack(seq=message["seq"], edits=message["edits"]))
            case "chat.access":
                self.heard_at = time.monotonic()
                for reader in list(self.readers):
                    if message["user"] in (None, reader.user_id):
                        reader.consumer.start_task(self.check(reader))

    def deliver(self, broadcast):
        """Take what somebody broadcast to the group, which is not numbered."""
        for reader in list(self.readers):
            reader.consumer.deliver(broadcast)

    def show_present(self, names):
        """Tell the sockets of this process who is here: a sorted list."""
        if text := self.present.change(names):
            self.tell(text)

    def tell(self, frame):
        """Send `frame` to the sockets of this process."""
        self.deliver(Broadcast.of({"group": room_group(self.pk), "text": encode(frame)}))


class OpenRooms:
    """All rooms of one process, and the task that asks the database about them: `process()[OpenRooms]`."""

    def __init__(self):
        self._rooms = {}
        self._recorder = Recorder()
        self._changed = set()
        self._wake = asyncio.Event()
        self._task = None
        self._polled_at = 0
        self._checked_at = time.monotonic()

    def open(self, room_id):
        """Return the OpenRoom of this primary key."""
        if room_id not in self._rooms:
            self._rooms[room_id] = OpenRoom(room_id)
        return self._rooms[room_id]

    async def enter(self, room, reader, since):
        """As OpenRoom.enter()."""
        self._look(room)
        return await room.enter(reader, since)

    async def leave(self, room, reader):
        """Forget `reader`."""
        room.readers.pop(reader, None)
        self._look(room)
        if not room.readers and self._rooms.get(room.pk) is room:
            del self._rooms[room.pk]
            await room.leave()

    def _look(self, room):
        """Ask the database soon: somebody came or left."""
        self._changed.add(room.pk)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._watch())

    async def _watch(self):
        while True:
            try:
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
                    await asyncio.sleep(SETTLE)
            except TimeoutError:
                pass
            self._wake.clear()
            changed, self._changed = self._changed, set()
            now = time.monotonic()
            if now >= self._polled_at + POLL:
                changed, self._polled_at = set(self._rooms), now
            ways = [self._ask_for_numbers, self._ask_who_is_here]
            if now >= self._checked_at + settings.REALTIME_RECHECK_SECONDS:
                ways.append(self._check_all)
                self._checked_at = now
            for ask in ways:
                try:
                    await ask(changed & self._rooms.keys())
                except Unavailable:
                    logger.debug("The next poll tries again", exc_info=True)
                except Exception:
                    logger.exception("Rooms could not be polled")
            if not self._rooms and self._recorder.is_empty:
                self._task = None
                return

    async def _ask_for_numbers(self, room_ids):
        for room_id, seq in (await query(get_last_seqs, room_ids)).items():
            if room := self._rooms.get(room_id):
                room.feed.hear_of(seq)

    async def _ask_who_is_here(self, room_ids):
        pairs = {(room.pk, reader.user_id) for room in self._rooms.values() for reader in room.readers}
        await query(self._recorder.record, pairs)
        for room_id, names in (await query(get_names_present, room_ids)).items():
            if room := self._rooms.get(room_id):
                room.show_present(names)

    async def _check_all(self, room_ids):
        readers = [(room, reader) for room in self._rooms.values() for reader in room.readers]
        places = process()[PlaceBatcher, look_up]
        found = await asyncio.gather(*[places.add((room.pk, reader.user_id)) for room, reader in readers])
        for (room, reader), place in zip(readers, found, strict=True):
            room.keep(reader, place)
