"""
Step 2 of 4: a consumer, Channels' version of a view. Step 3 is chat/routing.py.

chat/README.md tells why nothing is lost. https://channels.readthedocs.io/en/stable/topics/consumers.html
"""

import asyncio
import re
import uuid
from urllib.parse import parse_qs

from django.conf import settings
from django.core.exceptions import PermissionDenied

from realtime.consumers import RealtimeConsumer
from realtime.database import query
from realtime.frames import FrameError, encode_frame, get_text

from .feed import enter_feed
from .models import IdTaken, Room, get_last_seq, get_room, messages_after, messages_before, post_message

# Messages in a page of history; as many are shown to somebody who has seen none.
PAGE = 50
# Messages that are read at a time for somebody who has missed some.
REPLAY_PAGE = 200


class ChatConsumer(RealtimeConsumer):
    """
    A page that shows a room.

    `seq` is the number of the last message that it was sent. While it is behind, a task sends it what it has missed,
    from the database. Then it is `live`, and the room's feed hands it what is new.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.feed = None
        self.seq = 0
        self.live = False
        self.replay = None

    async def connect(self):
        """The handshake. What must be known of the visitor is in self.scope, as in a view's request."""
        if not self.scope["user"].is_authenticated:
            return await self.close(4401)
        room = await self.check_access()
        if room is None:
            return
        await self.accept()
        self.feed = await enter_feed(room.pk, self)
        # The feed may not have heard of all that is stored yet, while the page may have seen it in another process.
        self.seq = max(room.last_seq, self.feed.seq)
        await self.send_json(
            {
                "type": "connection_established",
                "message": "You are now connected!",
                "room": room.slug,
                "user": self.scope["user"].get_username(),
                "last_seq": self.seq,
            }
        )
        present = {*self.feed.present, self.scope["user"].get_username()}
        await self.send_json({"type": "presence", "users": sorted(present)})
        self.send_after(await self.after_of_url())

    async def receive_json(self, content):
        """A frame came in, a dict with a string "type". Add a case for each type that the page sends."""
        match content["type"]:
            case "message":
                await self.post(get_id(content), get_text(content, "text", settings.CHAT_MAX_TEXT_LENGTH))
            case "resume":
                self.send_after(get_number(content.get("after"), "after"))
            case "history":
                await self.send_history(get_number(content.get("before"), "before"))
            case _:
                await super().receive_json(content)

    async def pong(self):
        """A page that hears of a higher number than it has asks for what it has missed: let what is on its way go first."""
        seq = await query(get_last_seq, self.feed.room_id)
        await self.feed.catch_up(seq)
        if self.replay is not None:
            await asyncio.wait([self.replay], timeout=1)
        return {"type": "pong", "last_seq": seq}

    async def clean_up(self):
        await super().clean_up()
        if self.feed is not None:
            await self.feed.leave(self)

    async def check_access(self):
        """Return the Room; or close the socket and return None, if there is none or its user may not enter it."""
        try:
            return await query(get_room, self.scope["user"], self.scope["url_route"]["kwargs"]["room"])
        except Room.DoesNotExist:
            await self.close(4404)
        except PermissionDenied:
            await self.close(4403)

    async def post(self, id, text):
        """Store a message. Whoever is in the room gets it from the feed, this page too."""
        try:
            message, is_new = await query(post_message, self.feed.room_id, self.scope["user"], id, text)
        except IdTaken:
            raise FrameError("id_taken", "Another message has this id; make a new one.") from None
        except Room.DoesNotExist:
            return await self.close(4404)
        if is_new:
            self.feed.tell(message.seq, encode_frame(message.frame()))
        elif message.seq <= self.seq:
            # Its sender did not see it, or not in time. Otherwise it is on its way.
            await self.send_json(message.frame())

    async def send_history(self, before):
        messages = await query(messages_before, self.feed.room_id, before, PAGE + 1)
        await self.send_json(
            {
                "type": "history",
                "before": before,
                "more": len(messages) > PAGE,
                "messages": [message.frame() for message in messages[-PAGE:]],
            }
        )

    async def after_of_url(self):
        """Return the number in `?after=`; without one, that of the message before the last PAGE ones."""
        start = max(0, self.seq - PAGE)
        values = parse_qs(self.scope["query_string"].decode("latin-1")).get("after")
        if not values:
            return start
        try:
            return get_number(int(values[-1]) if re.fullmatch("[0-9]{1,20}", values[-1]) else None, "after")
        except FrameError as error:
            await self.refuse(error)
            return start

    def send_after(self, seq):
        """Send all messages above the number `seq`, in order, and then what is new."""
        # A number that is too high comes from another database.
        self.seq, self.live = min(seq, max(self.seq, self.feed.seq)), False
        if self.replay is None:
            self.replay = self.start_task(self.send_missed())

    async def send_missed(self):
        try:
            while not self.live:
                seq = self.seq
                page = await query(messages_after, self.feed.room_id, seq, REPLAY_PAGE)
                for message in page:
                    # Not so if the page has asked for others meanwhile.
                    if self.seq == seq:
                        self.seq = seq = message.seq
                        await self.send_json(message.frame())
                self.live = self.seq == seq >= self.feed.seq and len(page) < REPLAY_PAGE
        finally:
            self.replay = None


def get_id(frame):
    """
    Return the "id" of a message as a UUID, a new one if it has none.

    Raises FrameError unless it is written as the server would, since the answer has to carry the very same.
    """
    id = frame.get("id")
    if id is None:
        return uuid.uuid4()
    try:
        value = uuid.UUID(id)
    except ValueError:
        value = None
    if str(value) != id:
        raise FrameError("bad_id", '"id" must be a UUID in lower case, as crypto.randomUUID() makes it.')
    return value


def get_number(value, name):
    """Return `value`, the number of a message: an int from 0 to 2**53. Raises FrameError if it is not."""
    # True is an int, too.
    if type(value) is not int or not 0 <= value <= 2**53:
        raise FrameError("bad_number", f'"{name}" must be the number of a message, 0 or more.')
    return value
