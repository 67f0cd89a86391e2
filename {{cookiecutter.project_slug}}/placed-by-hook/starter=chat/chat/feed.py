"""
What is new in a room, on its way to the sockets of this process: in order, without a gap, each message once.

The database is the truth, and the channel layer only hints that something is new. A message that comes through the
layer and is the next one is handed out as it came. If one is missing, because the layer has dropped it, it is read from
the database, once for all sockets of the process. And every POLL seconds the process asks for the last number of each
room, so that a hint that is lost delays a message, and nothing more.

Who is present is in the database, too, since a process that is killed cannot say that its users have left.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from weakref import WeakKeyDictionary

from django.db import DatabaseError

from realtime.database import query
from realtime.fanout import ChannelLayerUnavailable, get_fanout
from realtime.frames import encode_frame

from .models import get_last_seq, look_at_rooms, messages_after, say_present

logger = logging.getLogger(__name__)

# Seconds
POLL = 3
# How often a process says who is present in it.
BEAT = 10
# A thousand who come at once are one change of who is present.
SETTLE = 0.5
# How long to wait for a message that has only been overtaken by the next one.
OVERTAKEN = 0.05

# Messages that are read at a time.
PAGE = 200
# Hints that may wait for the channel layer, or for a message before them; and that are sent at a time.
MAX_HINTS = 1000
MAX_BATCH = 50

_feeds = WeakKeyDictionary()


async def enter_feed(room_id, reader):
    """
    Return the Feed of a room, with `reader` in it.

    A reader is a ChatConsumer: `seq` is the last number that it has, and while it is `live` it is handed the next ones.
    """
    feeds = _feeds.setdefault(asyncio.get_running_loop(), Feeds())
    if room_id not in feeds.by_room:
        feeds.by_room[room_id] = Feed(room_id, feeds)
    feed = feeds.by_room[room_id]
    await feed.enter(reader)
    return feed


def room_group(room_id):
    """Return the name of the group of a room's feeds, a str."""
    return f"room.{room_id}"


class Feed:
    """A room in one process. `seq` is the last number that was handed out, `present` the names of who is there."""

    def __init__(self, room_id, feeds):
        self.room_id = room_id
        self.feeds = feeds
        self.group = room_group(room_id)
        self.readers = {}  # As a set, in the order of entering.
        self.seq = None
        self.present = []
        self._newest = 0
        self._early = {}
        self._catching_up = None
        self._hints = deque(maxlen=MAX_HINTS)
        self._hinting = None
        self._opening = asyncio.Lock()

    async def enter(self, reader):
        self.readers[reader] = None
        try:
            async with self._opening:
                if self.seq is None:
                    # In this order: what is stored after the query is heard of.
                    await get_fanout().join(self.group, self)
                    self.seq = await query(get_last_seq, self.room_id)
                    self._advance()
        except BaseException:
            await self.leave(reader)
            raise
        self.feeds.look()

    async def leave(self, reader):
        """Forget `reader`; nothing happens if it is not in here."""
        self.readers.pop(reader, None)
        if not self.readers and self.feeds.by_room.get(self.room_id) is self:
            del self.feeds.by_room[self.room_id]
            await get_fanout().leave(self.group, self)
        self.feeds.look()

    # A member of the fan-out

    def handle(self, message):
        match message["type"]:
            case "chat.messages":
                for seq, text in message["messages"]:
                    self.hear(seq, text)
            case "chat.access":
                for reader in list(self.readers):
                    if message["user"] in (None, reader.scope["user"].pk):
                        reader.start_task(reader.check_access())

    def deliver(self, message, size):
        """Take what somebody broadcast to room_group(), which is not numbered."""
        for reader in list(self.readers):
            reader.deliver(message, size)

    # Messages

    def tell(self, seq, text):
        """Hand out the message `text`, a frame as JSON that has just been stored as number `seq`, in all processes."""
        self.hear(seq, text)
        self._hints.append((seq, text))
        if self._hinting is None:
            self._hinting = asyncio.create_task(self._send_hints())

    async def _send_hints(self):
        # One call after the other, so that they do not overtake each other, each with what has come meanwhile.
        try:
            while self._hints:
                batch = [self._hints.popleft() for _ in range(min(len(self._hints), MAX_BATCH))]
                message = {"type": "chat.messages", "group": self.group, "messages": batch}
                await get_fanout().send(self.group, message)
        except ChannelLayerUnavailable:
            logger.debug("Hints are lost, which polling makes up for", exc_info=True)
        finally:
            self._hinting = None

    def hear(self, seq, text):
        """The message `text` has been stored as number `seq`."""
        self._early[seq] = text
        if len(self._early) > MAX_HINTS:
            self._early.clear()
        self.hear_of(seq)

    def hear_of(self, seq):
        """A message has been stored as number `seq`."""
        self._newest = max(self._newest, seq)
        if self.seq is not None:
            self._advance()

    async def catch_up(self, seq):
        """As hear_of(), and return when the messages up to `seq` have been handed out, or after a second."""
        self.hear_of(seq)
        if self._catching_up is not None:
            await asyncio.wait([self._catching_up], timeout=1)

    def _advance(self):
        while text := self._early.pop(self.seq + 1, None):
            self._hand_out(self.seq + 1, text)
        if self.seq >= self._newest:
            self._early.clear()
        elif self._catching_up is None:
            self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self):
        try:
            await asyncio.sleep(OVERTAKEN)
            while self.seq < self._newest:
                page = await query(messages_after, self.room_id, self.seq, PAGE)
                for message in page:
                    # It may have come through the layer after all.
                    if message.seq > self.seq:
                        self._hand_out(message.seq, encode_frame(message.frame()))
                if not page:
                    self._newest = self.seq
        except DatabaseError:
            logger.debug("Polling tries again", exc_info=True)
            return
        finally:
            self._catching_up = None
        self._advance()

    def _hand_out(self, seq, text):
        self.seq = seq
        message = {"type": "websocket.send", "text": text}
        for reader in list(self.readers):
            # A reader that has read the database itself may be ahead.
            if reader.live and reader.seq < seq:
                reader.seq = seq
                reader.deliver(message, len(text))

    # Presence

    def users(self):
        """Return the primary keys of the users who have a socket in this process, a set."""
        return {reader.scope["user"].pk for reader in self.readers}

    def show_present(self, names):
        if names != self.present:
            self.present = names
            text = encode_frame({"type": "presence", "users": names})
            self.deliver({"type": "websocket.send", "text": text}, len(text))


class Feeds:
    """All feeds of one process, and the task that asks the database for all of them at once."""

    def __init__(self):
        self.by_room = {}
        self.process = uuid.uuid4()
        self._said = {}
        self._said_at = 0
        self._changed = asyncio.Event()
        self._task = None

    def look(self):
        """Ask the database soon: somebody came or left."""
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._watch())

    async def _watch(self):
        while True:
            try:
                async with asyncio.timeout(POLL):
                    await self._changed.wait()
                    await asyncio.sleep(SETTLE)
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self._ask()
            except DatabaseError:
                logger.debug("The next poll tries again", exc_info=True)
            except Exception:
                logger.exception("Rooms could not be polled")
            if not self.by_room and not self._said:
                self._task = None
                return

    async def _ask(self):
        users = {room_id: feed.users() for room_id, feed in self.by_room.items()}
        if users != self._said or time.monotonic() > self._said_at + BEAT:
            await query(say_present, self.process, users)
            self._said, self._said_at = users, time.monotonic()
        for room_id, (seq, names) in (await query(look_at_rooms, list(users))).items():
            if feed := self.by_room.get(room_id):
                feed.hear_of(seq)
                feed.show_present(names)
