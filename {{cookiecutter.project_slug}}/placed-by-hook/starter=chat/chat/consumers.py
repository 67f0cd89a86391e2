"""
Step 2 of 4: a consumer, Channels' version of a view. Step 3 is chat/routing.py.

chat/README.md tells why nothing is lost. https://channels.readthedocs.io/en/stable/topics/consumers.html
"""

import re
import time
from functools import cached_property
from urllib.parse import parse_qsl
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist

from realtime import Close
from realtime.consumers import RealtimeConsumer
from realtime.database import query
from realtime.frames import FrameError, encode
from realtime.process import process

from . import frames
from .feed import Reader
from .models import IdTaken, Room, find_places, messages_before, post_message, take_back
from .rooms import OpenRooms, PlaceBatcher
from .unread import Lists, parse_time

# Messages in a page of history, and at the first visit to a room.
PAGE = 50
# A page that has missed more than this starts anew.
MAX_MISSED = 1000


class ListConsumer(RealtimeConsumer):
    """A page that shows the list of rooms, which is live from the time that `?listed=` names."""

    sends = [frames.ListGreeting, frames.RoomState]

    async def connect(self):
        user = self.scope["user"]
        if not user.is_authenticated:
            return await self.close(Close.NOT_LOGGED_IN)
        await self.accept()
        await self.send(frames.ListGreeting(user=user.get_username()))
        self.show_list()

    def show_list(self):
        if since := parse_time(self.parameters.get("listed", "")):
            process()[Lists].enter(self, since)

    @cached_property
    def parameters(self):
        """The parameters of the query string, a dict of str."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1")))

    async def disconnect(self, code):
        process()[Lists].leave(self)


class ChatConsumer(ListConsumer):
    """A page that shows a room. Its reader in chat/feed.py decides what it is sent, and in which order."""

    # Add a class to these lists for each type of frame that the page sends or receives.
    receives = [frames.Message, frames.Resume, frames.History, frames.Read, frames.TakeBack, frames.Typing]
    sends = [
        frames.Greeting,
        frames.StoredMessage,
        frames.HistoryPage,
        frames.Presence,
        frames.PresenceChange,
        frames.SomebodyTypes,
        frames.TakenBack,
        frames.RoomState,
        frames.RoomPong,
    ]

    room = reader = None
    # The next message that is seen brings the room into the user's list.
    enters = True

    async def connect(self):
        """The handshake. What must be known of the visitor is in self.scope, as in a view's request."""
        user = self.scope["user"]
        if not user.is_authenticated:
            return await self.close(Close.NOT_LOGGED_IN)
        since = time.monotonic()
        slug = self.scope["url_route"]["kwargs"]["room"]
        place = await process()[PlaceBatcher, find_places].add((slug, user.pk))
        if place is None or not place.may_enter:
            # One answer for both, as on the page: nobody learns which closed rooms there are.
            return await self.close(Close.NOT_FOUND)
        await self.accept()
        rooms = process()[OpenRooms]
        self.room = rooms.open(place.room_id)
        self.reader = Reader(self, self.room.feed)
        if await rooms.enter(self.room, self.reader, since):
            # The feed may not have heard of all that is stored yet.
            self.room.feed.hear_of(place.last_seq)
            self.room.feed.hear_of_edits(place.edits)
            await self.greet(slug, place.edits)
            self.show_list()

    async def greet(self, slug, edits):
        """Send what every page gets first, and then what it has missed."""
        newest = self.room.feed.newest
        after = self.parameters.get("after", "")
        seq = int(after) if re.fullmatch("[0-9]{1,16}", after) else None
        has_missed_too_many = seq is not None and newest - seq > MAX_MISSED
        name, user_id = self.scope["user"].get_username(), str(self.scope["user"].pk)
        last_seq = -1 if has_missed_too_many else newest
        await self.send(frames.Greeting(room=slug, user=name, user_id=user_id, last_seq=last_seq, edits=edits))
        await self.send(self.room.present.greet(name))
        if after and seq is None:
            await self.refuse(FrameError("bad_number", '"after" must be the number of a message, 0 or more.'))
        self.reader.send_after(max(0, newest - PAGE) if seq is None or has_missed_too_many else seq)

    async def receive_frame(self, frame):
        """A frame came in, which is checked: an instance of one of `receives`."""
        match frame:
            case frames.Message():
                await self.post(frame)
            case frames.Resume() if self.room.feed.newest - frame.after > MAX_MISSED:
                # The greeting tells the page to start anew.
                await self.close(Close.COME_BACK)
            case frames.Resume():
                self.reader.send_after(frame.after)
            case frames.History():
                await self.send_history(frame.before)
            case frames.Read():
                # Nobody has read what they were not sent.
                seen = min(frame.seq, self.reader.seq)
                process()[Lists].mark(self.room.pk, self.reader.user_id, seq=seen, enters=self.enters)
                self.enters = False
            case frames.TakeBack():
                await self.take_back(frame.seq)
            case frames.Typing():
                await self.room.tell_typing(self.scope["user"].get_username())

    async def pong(self):
        """Return a pong with the last number. Messages on their way go first, or the page would ask for them."""
        place = await self.room.check(self.reader)
        if place is None:
            return frames.RoomPong(last_seq=0, edits=0)
        await self.reader.is_level(place.last_seq)
        return frames.RoomPong(last_seq=place.last_seq, edits=place.edits)

    async def disconnect(self, code):
        """The socket is closed. Clean up here what connect() made."""
        await super().disconnect(code)
        if self.reader is not None:
            await process()[OpenRooms].leave(self.room, self.reader)
            # Each has the other, and would wait for the garbage collector.
            self.reader = None

    async def post(self, frame):
        """Store a message. The feed sends it to everybody in the room, this page too."""
        try:
            message, is_new = await query(post_message, self.room.pk, self.scope["user"], UUID(frame.id), frame.text)
        except IdTaken:
            raise FrameError("id_taken", "Another message has this id; make a new one.") from None
        except Room.DoesNotExist:
            return await self.close(Close.NOT_FOUND)
        except ObjectDoesNotExist:
            return await self.close(Close.NOT_LOGGED_IN)
        stored = frames.StoredMessage.of(message)
        self.enters = True
        if is_new:
            self.room.feed.tell(message.seq, encode(stored))
            process()[Lists].look()
        elif message.seq <= self.reader.seq:
            # The page did not see it, or not in time. Otherwise it is on its way.
            await self.send(stored)

    async def take_back(self, seq):
        edits = await query(take_back, self.room.pk, self.scope["user"], seq)
        if edits is None:
            raise FrameError("not_allowed", "Only its writer and the owner of the room can take back a message.")
        await self.room.tell_all({"type": "chat.taken_back", "seq": seq, "edits": edits})

    async def send_history(self, before):
        messages = await query(messages_before, self.room.pk, before, PAGE + 1)
        page = [frames.StoredMessage.of(message) for message in messages[-PAGE:]]
        await self.answer(encode(frames.HistoryPage(before=before, more=len(messages) > PAGE, messages=page)))

    async def answer(self, text):
        """Send a frame as JSON that the page has asked for. It counts as frames of the user's own, by its size."""
        self.charge(len(text.encode()))
        await self.send(text)
