"""
Hand the new messages of a room to the sockets of this process: in order, without a gap, each message once.

The database is the truth, and the channel layer only hints that something is new. A message that comes through the
layer and is the next one is handed out as it came. If one is missing, because the layer has dropped it, it is read
from the database, once for all sockets of the process. And OpenRooms in rooms.py polls the last number of each room,
so that a hint that is lost delays a message, and nothing more.
"""

import asyncio
import logging
from collections import deque

from realtime.database import query
from realtime.fanout import Broadcast
from realtime.frames import encode
from realtime.outage import Unavailable

from .frames import StoredMessage
from .models import messages_after

logger = logging.getLogger(__name__)

# Seconds
# How long to wait for a message that has only been overtaken by the next one.
OVERTAKEN = 0.05
# How long a page that was read serves others, too: after a restart many have missed the same.
KEPT = 1

# Messages that are read at a time.
PAGE = 200
# Hints that may wait for the channel layer, or for a message before them; and that are sent at a time.
MAX_HINTS = 1000
MAX_BATCH = 50
# Characters of a replay after which the other sockets have their turn.
TURN = 2**13


class Reader:
    """
    A socket that shows a room. Only this module decides which messages it is sent, and when.

    seq: the number of the last message that it was sent. While that is behind, a task sends what it has missed, from
    the database. Then it is `live`, and the feed hands it what is new.
    """

    def __init__(self, consumer, feed):
        self.consumer, self.feed = consumer, feed
        self.user_id = consumer.scope["user"].pk
        self.seq, self.live = 0, False
        self._replay = None

    def send_after(self, seq):
        """Send all messages above the number `seq`, in order, and then what is new."""
        # A number that is too high comes from another database.
        self.seq = min(seq, max(self.seq, self.feed.newest))
        # During a replay, new messages would overtake those that it sends.
        self.live = self._replay is None and self.seq >= self.feed.seq
        if not self.live and self._replay is None:
            self._replay = self.consumer.start_task(self._send_missed())

    async def is_level(self, seq):
        """Return when all messages up to the number `seq` have been sent, or after a second or two."""
        await self.feed.catch_up(seq)
        if self._replay is not None:
            await asyncio.wait([self._replay], timeout=1)

    def take(self, seq, broadcast):
        """Take the message of number `seq`, a Broadcast, from the feed, unless it was read from the database."""
        if self.live and self.seq < seq:
            self.seq = seq
            self.consumer.deliver(broadcast)

    async def _send_missed(self):
        sent = 0
        try:
            while not self.live:
                seq, handed_out = self.seq, self.feed.seq
                page = await self.feed.read_page(seq)
                for number, text in page:
                    sent += len(text)
                    if sent > TURN:
                        sent = 0
                        await asyncio.sleep(0)
                    # The page may have asked for others meanwhile.
                    if self.seq == seq:
                        self.seq = seq = number
                        await self.consumer.answer(text)
                # If the feed has handed out more than is stored, the database is another one.
                self.live = self.seq == seq and (seq >= self.feed.seq or (not page and self.feed.seq == handed_out))
        finally:
            self._replay = None


class Feed:
    """
    The messages of a room in one process.

    tell_others: a coroutine function that sends a message, a dict, to the feeds of the room in all processes. seq: the
    last number that was handed out, None until `start()`; newest: the last one that was heard of; edits: the most edits
    of texts that were heard of.
    """

    def __init__(self, room_id, tell_others):
        self.room_id = room_id
        self.readers = {}  # As a set, in the order of entering.
        self.seq = None
        self.newest = 0
        self.edits = 0
        self._tell_others = tell_others
        self._early = {}
        self._catching_up = None
        self._hints = deque(maxlen=MAX_HINTS)
        self._hinting = None
        self._pages = {}

    def start(self, seq):
        """Begin after the number `seq`, which was read when hints came already. A second call is like hear_of()."""
        if self.seq is None:
            self.seq = seq
        self.hear_of(seq)

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
                await self._tell_others({"type": "chat.messages", "messages": batch})
        except Unavailable:
            logger.debug("Hints are lost, which polling makes up for", exc_info=True)
        except Exception:
            logger.exception("Hints are lost, which polling makes up for")
        finally:
            self._hinting = None

    def hear(self, seq, text):
        """Take the news that the message `text` has been stored as number `seq`."""
        self._early[seq] = text
        if len(self._early) > MAX_HINTS:
            self._early.clear()
        self.hear_of(seq)

    def hear_of(self, seq):
        """Take the news that some message has been stored as number `seq`."""
        self.newest = max(self.newest, seq)
        if self.seq is not None:
            self._advance()

    def hear_of_edits(self, edits):
        """Take the news that texts of the room were changed or taken back so often: what was read before is old."""
        self.edits = max(self.edits, edits)

    async def catch_up(self, seq):
        """As hear_of(), and return when the messages up to `seq` have been handed out, or after a second."""
        self.hear_of(seq)
        if self._catching_up is not None:
            await asyncio.wait([self._catching_up], timeout=1)

    def _advance(self):
        while text := self._early.pop(self.seq + 1, None):
            self._hand_out(self.seq + 1, text)
        if self.seq >= self.newest:
            self._early.clear()
        elif self._catching_up is None:
            self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self):
        try:
            await asyncio.sleep(OVERTAKEN)
            while self.seq < self.newest:
                page = await query(read_page, self.room_id, self.seq)
                for seq, text in page:
                    # It may have come through the layer after all.
                    if seq > self.seq:
                        self._hand_out(seq, text)
                if not page:
                    self.newest = self.seq
        except Unavailable:
            return logger.debug("The next poll tries again", exc_info=True)
        except Exception:
            return logger.exception("Messages cannot be read; the next poll tries again")
        finally:
            self._catching_up = None
        self._advance()

    def _hand_out(self, seq, text):
        self.seq = seq
        broadcast = Broadcast.of({"group": str(self.room_id), "text": text})
        for reader in list(self.readers):
            reader.take(seq, broadcast)

    async def read_page(self, seq):
        """As read_page() below. Calls for the same page at about the same time share a query."""
        # The numbers of the feed are part of the key: when they are higher, there is more to read, or something else.
        key = (seq, self.seq, self.edits)
        if key not in self._pages:
            self._pages[key] = task = asyncio.create_task(query(read_page, self.room_id, seq))
            asyncio.get_running_loop().call_later(KEPT, self._pages.pop, key)
            # Callers that still wait raise the error; asyncio need not log it.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._pages[key])


def read_page(room_id, seq):
    """Return the next messages of a room after the number `seq`: a list of their numbers and frames as JSON."""
    return [(message.seq, encode(StoredMessage.of(message))) for message in messages_after(room_id, seq, PAGE)]
