"""The frames that cross a socket of a room, declared once; chat/README.md says what they are for."""

import uuid
from typing import Annotated

from django.conf import settings
from msgspec import Meta

from realtime import frames
from realtime.frames import Frame, FrameError, Text

# Characters of a message in a list.
PREVIEW = 100
# The number of a message. JavaScript has no larger ones.
Number = Annotated[int, Meta(ge=0, le=2**53)]


# From the page


class Message(Frame):
    """Store a text. id: a UUID, under which it is stored once, however often it is sent; without one it gets one."""

    text: Annotated[str, Text(max_length=settings.CHAT_MAX_TEXT_LENGTH)]

    def __post_init__(self):
        if self.id is None:
            self.id = str(uuid.uuid4())
        elif not is_uuid(self.id):
            raise FrameError("bad_id", '"id" must be a UUID in lower case, as crypto.randomUUID() makes it.')


class Resume(Frame):
    """Ask for all messages above a number again."""

    after: Number


class History(Frame):
    """Ask for the messages before a number."""

    before: Number


class Read(Frame):
    """Store that the user has seen all messages up to a number."""

    seq: Number


class TakeBack(Frame):
    """Take back the text of a message, of one's own or in a room of one's own."""

    seq: Number


class Typing(Frame):
    """Tell the others in the room that the user is typing."""


# From the server


class Greeting(frames.ConnectionEstablished, kw_only=True, tag="connection_established"):
    """
    Greet. last_seq: the number of the newest message, or -1 if the page has missed too many and starts anew.

    user_id: the user's primary key, since the name may have changed. edits: how often the text of a message was changed
    or taken back; a page that has missed one starts anew.
    """

    room: str
    user: str
    user_id: str
    last_seq: int
    edits: int


class StoredMessage(Frame, tag="message"):
    """
    Show a message.

    user: "" when the account is gone. text: "" when somebody has taken it back. sent_at: ISO 8601, in UTC.
    """

    seq: int
    user: str
    text: str
    sent_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

    @classmethod
    def of(cls, message):
        """Return the frame of `message`, a models.Message."""
        return cls(
            id=str(message.id),
            seq=message.seq,
            user=message.user.get_username() if message.user else "",
            text=message.text,
            sent_at=message.sent_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )


class HistoryPage(Frame, tag="history"):
    """Answer a History: the messages, oldest first, and whether there are more before them."""

    before: int
    more: bool
    messages: list[StoredMessage]


class Presence(Frame):
    """Tell who is here: all of them, sorted."""

    users: list[str]


class PresenceChange(Frame):
    """Tell who has come and who has left since the last Presence or PresenceChange."""

    came: list[str]
    left: list[str]


class SomebodyTypes(Frame, tag="typing"):
    """Tell that somebody is typing, for some seconds."""

    user: str


class TakenBack(Frame):
    """Tell that the text of a message was taken back. edits: how many such changes the room has seen."""

    seq: int
    edits: int


class ListGreeting(frames.ConnectionEstablished, kw_only=True, tag="connection_established"):
    """Greet a page that shows the list of rooms, and no room."""

    user: str


class RoomState(Frame, tag="room"):
    """
    Tell how a room stands in the user's list: how many messages are unread, and the beginning of the last one.

    as_of: milliseconds since 1970, for `?listed=` when the page comes back. sent_at: "" where there is no message.
    """

    slug: str
    name: str
    is_open: bool
    last_seq: int
    unread: int
    user: str
    text: str
    sent_at: str
    as_of: int

    @classmethod
    def of(cls, room, message, unread, as_of):
        """Return the frame of `room`, a models.Room, and its last `message`, a models.Message or None."""
        last = StoredMessage.of(message) if message else None
        return cls(
            slug=room.slug,
            name=room.name,
            is_open=room.is_open,
            last_seq=last.seq if last else 0,
            unread=unread,
            user=last.user if last else "",
            text=" ".join(last.text.split())[:PREVIEW] if last else "",
            sent_at=last.sent_at if last else "",
            as_of=as_of,
        )

    @property
    def count(self):
        """What pages have to be told when it changes."""
        return self.last_seq, self.unread, self.text


class RoomPong(frames.Pong, kw_only=True, tag="pong"):
    """Answer a ping. last_seq: the number of the newest message; a page that has less asks with Resume."""

    last_seq: int
    edits: int


def is_uuid(id):
    """Tell whether `id`, a str, is a UUID as the server writes it, since the answer must carry the same string."""
    try:
        return str(uuid.UUID(id)) == id
    except ValueError:
        return False
