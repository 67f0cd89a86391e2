"""What protocols.py writes to a WebSocket, and when."""

import asyncio
import importlib
from unittest import mock

import pytest
from django.conf import settings
from uvicorn import Config
from uvicorn.server import ServerState

protocols = importlib.import_module(f"{settings.SETTINGS_MODULE.partition('.')[0]}.protocols")

HANDSHAKE = (
    b"GET /ws/socket-server/ HTTP/1.1\r\nHost: testserver\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = {"type": "websocket.accept"}
HELLO = {"type": "websocket.send", "text": "Hello"}
CLOSE = {"type": "websocket.close", "code": 4404}


@pytest.fixture
def writes(until):
    """Return a coroutine function: what is written for an application that sends these messages, in how many parts."""

    async def writes(*messages):
        async def application(scope, receive, send):
            for message in messages:
                await (message if asyncio.iscoroutine(message) else send(message))
            while (await receive())["type"] != "websocket.disconnect":
                pass

        config = Config(application, ws=protocols.WebSocketProtocol, lifespan="off")
        config.load()
        writes.protocol = protocol = protocols.WebSocketProtocol(config, ServerState(), {})
        transport = mock.Mock()
        transport.is_closing.return_value = False
        transport.get_extra_info.side_effect = lambda name: mock.Mock() if name == "socket" else ("127.0.0.1", 1)

        def parts():
            return [call.args[0] for call in transport.write.call_args_list if call.args[0]]

        protocol.connection_made(transport)
        protocol.data_received(HANDSHAKE)
        await until(parts)
        return parts()

    return writes


async def test_a_greeting_is_in_the_packet_of_the_response(writes):
    packets = await writes(ACCEPT, HELLO)

    assert len(packets) == 1
    response, frame = packets[0].split(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 101")
    assert frame == b"\x81\x05Hello"


async def test_so_is_a_close(writes):
    (packet,) = await writes(ACCEPT, CLOSE)

    assert packet.split(b"\r\n\r\n")[1] == b"\x88\x02\x11\x34"


async def test_a_response_waits_for_no_greeting(writes):
    (packet,) = await writes(ACCEPT, asyncio.Event().wait(), HELLO)

    assert packet.endswith(b"\r\n\r\n")


async def test_a_socket_keeps_no_headers(writes):
    """4 KB of 26 for each: the application has those of the request in its scope."""
    await writes(ACCEPT, HELLO)

    assert not writes.protocol.request.headers
    assert not writes.protocol.response.headers
    assert (b"host", b"testserver") in [(name.lower(), value) for name, value in writes.protocol.scope["headers"]]


async def test_queue():
    """Whoever stops waiting loses nothing for who waits next, and several may wait, as with an asyncio.Queue."""
    queue = protocols.Queue()
    first, second, third = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.put_nowait("a")
    first.cancel()
    queue.put_nowait("b")

    assert [await second, await third] == ["a", "b"]
    assert first.cancelled()
    assert queue.empty()
    assert queue.waiters == []
