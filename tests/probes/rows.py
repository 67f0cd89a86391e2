"""Tests of an owner's: a consumer sees the rows of a test and writes its own, and nothing is left."""

import pytest
from django.contrib.auth import get_user_model

from chat.consumers import ChatConsumer

User = get_user_model()


async def receive_frame(self, frame):
    await User.objects.acreate(username=frame.text)
    await self.send({"type": "names", "names": [user.username async for user in User.objects.order_by("pk")]})


@pytest.mark.parametrize("attempt", range(3))
async def test_a_consumer_sees_and_writes_rows(open_socket, attempt, monkeypatch):
    monkeypatch.setattr(ChatConsumer, "receive_frame", receive_frame)
    await User.objects.acreate(username="by the test")
    sockets = [await open_socket("/ws/socket-server/") for _ in range(5)]
    for number, socket in enumerate(sockets):
        await socket.send_json_to({"type": "message", "text": f"by socket {number}"})
        names = (await socket.receive_type("names"))["names"]
        assert names[0] == "by the test"
        assert len(names) == number + 2


def test_nothing_is_left(db):
    assert not User.objects.exists()
