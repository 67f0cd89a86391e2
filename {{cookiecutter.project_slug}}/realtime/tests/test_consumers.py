import asyncio
import logging

import pytest
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator

from realtime.consumers import RealtimeConsumer


class Consumer(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.join("group")

    async def receive_json(self, content):
        match content["type"]:
            case "broadcast":
                await self.broadcast("group", {"type": "news"})
            case "leave":
                await self.leave("group")
                await self.send_json({"type": "left"})
            case "task":
                self.task = self.start_task(asyncio.sleep(60))
                await self.send_json({"type": "started"})
            case "fail":
                raise ZeroDivisionError
            case _:
                await super().receive_json(content)


class Refusing(RealtimeConsumer):
    async def connect(self):
        await self.close()


class Closing(RealtimeConsumer):
    async def connect(self):
        await self.close(4401)


async def connect(consumer=Consumer):
    socket = WebsocketCommunicator(consumer.as_asgi(), "/ws/test/")
    accepted, _ = await socket.connect()
    assert accepted
    return socket


def members():
    return get_channel_layer().groups.get("group", {})


async def test_leave():
    socket = await connect()
    await socket.send_json_to({"type": "leave"})
    assert await socket.receive_json_from() == {"type": "left"}

    await socket.send_json_to({"type": "broadcast"})

    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_a_closed_socket_has_left_its_groups():
    socket = await connect()
    assert len(members()) == 1

    await socket.disconnect()

    assert not members()


async def test_a_failed_socket_has_left_its_groups():
    socket = await connect()

    await socket.send_json_to({"type": "fail"})
    with pytest.raises(ZeroDivisionError):
        await socket.wait()

    assert not members()


async def test_a_task_ends_with_its_socket():
    socket = await connect()
    before = asyncio.all_tasks()
    await socket.send_json_to({"type": "task"})
    await socket.receive_json_from()
    assert asyncio.all_tasks() - before

    await socket.disconnect()

    assert not asyncio.all_tasks() - before


async def test_refused():
    accepted, _ = await WebsocketCommunicator(Refusing.as_asgi(), "/ws/test/").connect()

    assert not accepted


async def test_a_code_before_accept_reaches_the_client():
    socket = await connect(Closing)

    assert await socket.receive_output() == {"type": "websocket.close", "code": 4401}


async def test_only_codes_of_applications():
    with pytest.raises(ValueError, match="1012"):
        await RealtimeConsumer().close(1012)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "not_json"),
        ('{"type": "x", "n": NaN}', "not_json"),
        ("[]", "not_an_object"),
        ("{}", "no_type"),
        ('{"type": ["x"]}', "no_type"),
        ('{"type": "x"}', "unknown_type"),
        ('{"type": "x", "id": 1}', "bad_id"),
        ('{"type": "x", "text": "\\ud800"}', "not_unicode"),
        ('{"type": "x", "n": ' + "[" * 32 + "]" * 32 + "}", "too_deep"),
        ("[" * 20_000, "too_deep"),
    ],
)
async def test_bad_frames_are_answered(frame, code):
    socket = await connect()

    await socket.send_to(text_data=frame)
    error = await socket.receive_json_from()
    await socket.send_json_to({"type": "ping"})

    assert (error["type"], error["code"]) == ("error", code)
    assert await socket.receive_json_from() == {"type": "pong"}
    await socket.disconnect()


async def test_binary_frames_are_answered():
    socket = await connect()

    await socket.send_to(bytes_data=b"\0")

    assert (await socket.receive_json_from())["code"] == "not_text"
    await socket.disconnect()


async def test_log(caplog):
    caplog.set_level(logging.INFO, "realtime")

    socket = await connect()
    await socket.disconnect(4000)

    opened, closed = caplog.messages
    assert opened == "WebSocket /ws/test/ of unknown opened"
    assert closed.startswith("WebSocket /ws/test/ of unknown closed with 4000 after 0.")
