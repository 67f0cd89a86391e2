"""Uses what realtime/ calls public, for mypy: whatever it takes wrongly, or not at all, is an error there."""

from typing import Annotated

from realtime import Close, anotify, notify, notify_consumers, notify_user
from realtime.consumers import RealtimeConsumer
from realtime.database import query
from realtime.fanout import Broadcast, Subscription
from realtime.frames import Frame, FrameError, Pong, Text


class Message(Frame):
    text: Annotated[str, Text(max_length=10)]


class Answer(Pong):
    seq: int


class Room:
    def deliver(self, broadcast: Broadcast) -> None:
        print(broadcast.size)

    def handle(self, message: dict[str, object]) -> None:
        print(message)


class Consumer(RealtimeConsumer):
    receives = [Message]
    sends = [Message, Answer]
    frames_per_second = 60

    async def connect(self) -> None:
        await self.accept()
        await self.join("room")
        length: int = await query(len, "abc")
        await self.send({"type": "length", "length": length})
        subscription = await Subscription.join("room", Room())
        await subscription.leave()

    async def receive_frame(self, frame: Message) -> None:
        await self.broadcast("room", frame, to_self=False)
        await self.send("<p>")
        await self.send(b"bytes")
        await self.close(Close.NOT_ALLOWED)
        raise FrameError("no", "Not this one.")

    async def pong(self) -> Answer:
        return Answer(seq=1)

    def deliver(self, broadcast: Broadcast) -> None:
        super().deliver(broadcast)


async def tell() -> None:
    await anotify("room", Message(text="Hello"))


def tell_all() -> None:
    notify("room", {"type": "news"})
    notify_consumers("room", {"type": "room.renamed"})
    notify(1, 2)  # type: ignore[arg-type]
    notify_user("ann", "<p>")
