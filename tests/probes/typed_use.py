"""Uses what realtime/ calls public, for mypy: whatever it takes wrongly, or not at all, is an error there."""

# mypy: disallow-untyped-calls

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from channels.routing import URLRouter
from django.contrib.auth.base_user import AbstractBaseUser

from realtime import Close, anotify, notify, notify_consumers, notify_user
from realtime.asgi import AllowedOrigins, Authentication, Sockets, unknown_path
from realtime.consumers import RealtimeConsumer
from realtime.database import query
from realtime.fanout import Broadcast, Subscription
from realtime.frames import Frame, FrameError, Pong, Text
from realtime.testing import Socket, assert_broadcast
from realtime.tickets import user_of_ticket


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


application = Sockets(AllowedOrigins(Authentication(URLRouter([unknown_path]))))


async def user_of_token(token: str, scope: dict[str, Any]) -> AbstractBaseUser | None:
    return await user_of_ticket(token, scope)


async def test_it(open_socket: Callable[..., Awaitable[Socket]]) -> None:
    socket = await open_socket("/ws/room/")
    with assert_broadcast("room", type="news") as frames:
        frame: dict[str, Any] = await socket.receive_type("news")
    code: int = await socket.closed_with()
    print(frames[0], frame, code)
