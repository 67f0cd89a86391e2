"""Consumers that declare frames of every kind, some with names that others have too."""

import datetime
import enum
from typing import Annotated, Any, Literal
from uuid import UUID

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.urls import path, re_path
from msgspec import UNSET, Struct, UnsetType, field

from realtime import frames
from realtime.consumers import RealtimeConsumer
from realtime.frames import Frame, Text


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(Struct):
    x: float
    y: float


class Stroke(Frame):
    """
    Draw a line.

    It is kept for a day.
    """

    points: list[Point]
    colour: Colour = Colour.RED
    width: Literal[1, 2] = 1


class Message(Frame):
    """Say something, */ even this | that."""

    text: Annotated[str, Text(max_length=2000)]


class State(Frame, tag="whole-state", rename={"next_one": "next-one"}):
    strokes: list[Stroke]
    latest: Stroke | Message | None
    corner: tuple[float, float]
    names: dict[str, int]
    at: datetime.datetime
    who: UUID | None = None
    done: bool = False
    seq: int | UnsetType = UNSET
    next_one: Any = None
    more: list[dict] = field(default_factory=list)


class ConnectionEstablished(frames.ConnectionEstablished):
    """Greet with the room."""

    room: str


class Board(RealtimeConsumer):
    """A whiteboard for many."""

    receives = [Stroke, Message]
    sends = [Stroke, Message, State, ConnectionEstablished]

    async def receive_frame(self, frame):
        await self.send(frame)


class Other:
    class Message(Frame):
        stars: int


class OtherBoard(RealtimeConsumer):
    receives = [Other.Message]
    sends = [Other.Message]

    async def receive_frame(self, frame):
        await self.send(frame)


# As two apps may call their consumers.
OtherBoard.__name__ = "Board"


class Tutorial(AsyncWebsocketConsumer):
    """Knows nothing of frames."""


class Chat(RealtimeConsumer):
    receives = [Stroke]

    async def receive_frame(self, frame):
        """Has the name of one that knows nothing of frames."""


Tutorial.__name__ = "Chat"


nested = URLRouter(
    [path("<int:number>/", OtherBoard.as_asgi()), re_path(r"^tutorial/(?P<room>[a-z]{1,3})/$", Tutorial.as_asgi())]
)
websocket_urlpatterns = [
    path("ws/board/<slug:room>/", Board.as_asgi()),
    path("ws/other/", nested),
    # In the document its key would be that of the tutorial above.
    path("ws/other-tutorial/<slug:room>/", Tutorial.as_asgi()),
    path("ws/chat/", Chat.as_asgi()),
]
