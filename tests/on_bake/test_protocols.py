"""What protocols.py writes to a WebSocket, and when."""

import asyncio
import gc
import importlib
import random
import socket
import weakref
from itertools import pairwise
from unittest import mock

import pytest
from django.conf import settings
from django.utils.safestring import SafeString
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request

protocols = importlib.import_module(f"{settings.SETTINGS_MODULE.partition('.')[0]}.protocols")

HANDSHAKE = {
    "Host": "testserver",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ACCEPT = {"type": "websocket.accept"}
HELLO = {"type": "websocket.send", "text": "Hello"}
CLOSE = {"type": "websocket.close", "code": 4404}


@pytest.fixture
def connect(until):
    """
    Return a coroutine function (application, early=b"", deflate=False, state=None) that returns a protocol, whose
    transport is a mock, after a handshake, which `early` has followed at once. state: the server's, a ServerState.

    "parts" of it are what was written, a list of bytes.
    """

    async def connect(application, early=b"", deflate=False, state=None):
        config = Config(application, ws=protocols.WebSocketProtocol, lifespan="off", ws_per_message_deflate=deflate)
        config.load()
        protocol = protocols.WebSocketProtocol(config, state or ServerState(), {})
        transport = mock.Mock()
        transport.is_closing.return_value = False
        protocol.socket = mock.Mock()
        transport.get_extra_info.side_effect = lambda name: protocol.socket if name == "socket" else ("127.0.0.1", 1)

        def parts():
            return [call.args[0] for call in transport.write.call_args_list if call.args[0]]

        protocol.parts = parts
        protocol.connection_made(transport)
        extensions = {"Sec-WebSocket-Extensions": "permessage-deflate"} if deflate else {}
        protocol.handle_connect(Request("/ws/socket-server/", Headers(HANDSHAKE | extensions)))
        if early:
            protocol.data_received(early)
        await until(parts)
        return protocol

    return connect


@pytest.fixture
def writes(connect):
    """Return a coroutine function: what is written for an application that sends these messages, in how many parts."""

    async def writes(*messages):
        async def application(scope, receive, send):
            for message in messages:
                await (message if asyncio.iscoroutine(message) else send(message))
            while (await receive())["type"] != "websocket.disconnect":
                pass

        writes.protocol = await connect(application)
        return writes.protocol.parts()

    return writes


def masked(text):
    """Return a frame of a client, whose mask changes nothing."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def stream_of(numbers):
    """Return frames of a client, a list of bytes, by random `numbers`; the last may break the protocol, or close."""

    def frame(opcode, data, fin=True):
        return Frame(opcode, data, fin=fin).serialize(mask=True)

    frames, sizes = [], [0, 1, 5, 6, 60, 124, 125, 126, 127, 300]
    for _ in range(numbers.randrange(12)):
        text = "".join(numbers.choices("aé😀", k=numbers.choice(sizes))).encode()
        text = text[: len(text[: numbers.choice(sizes)].decode(errors="ignore").encode())]
        match numbers.randrange(6):
            case 0:
                frames.append(frame(Opcode.BINARY, text))
            case 1:
                frames.append(frame(Opcode.PING, text[:125]))
            case 2:
                kind, parts = numbers.choice([Opcode.TEXT, Opcode.BINARY]), [text[:1], text[1:3], text[3:]]
                kinds = [kind, Opcode.CONT, Opcode.CONT]
                for index, part in enumerate(parts):
                    frames.append(frame(kinds[index], part, fin=index == 2))
                    frames += [frame(Opcode.PING, b"between")] * numbers.randrange(2)
            case _:
                frames.append(frame(Opcode.TEXT, text))
    first, *rest = frame(Opcode.TEXT, b"last")
    last = [
        [frame(Opcode.CLOSE, b"\x03\xe8")],
        [frame(Opcode.TEXT, b"a\xff")],
        [frame(Opcode.CONT, b"of nothing")],
        [frame(Opcode.TEXT, b"begun", fin=False), frame(Opcode.TEXT, b"anew")],
        [bytes([first | 0x40, *rest])],
        [bytes([first | 0x03, *rest])],
        [bytes([first, 4]) + b"bare, and more"],
        [bytes([first, 0xFE, 0, 4, *rest[1:]])],
        [],
    ]
    return [*frames, *numbers.choice(last)]


@pytest.mark.parametrize("seed", range(150))
async def test_packets_do_not_matter(connect, seed):
    """What comes byte by byte, websockets parses all of it."""
    numbers = random.Random(seed)
    frames, outcomes = stream_of(numbers), []
    whole = b"".join(frames[:-2])
    cuts = sorted(numbers.choices(range(len(whole) + 1), k=numbers.randrange(6)))
    packets = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])] + frames[-2:]
    packets.append(masked(b"after"))

    for parts in (packets, [bytes([byte]) for byte in b"".join(packets)]):
        end = asyncio.Event()

        async def application(scope, receive, send, end=end):
            await echo(scope, receive, send, begin=end)

        protocol = await connect(application, deflate=seed % 2)
        for part in filter(None, parts):
            protocol.data_received(part)
        await asyncio.sleep(0)
        items = [item for item in protocol.queue.items if item["type"] != "websocket.disconnect"]
        outcomes.append((items, b"".join(protocol.parts()[1:])))
        protocol.queue.items = [{"type": "websocket.disconnect"}]
        end.set()

    assert outcomes[0] == outcomes[1]


async def test_short_texts_are_parsed_here(connect, until):
    protocol = await connect(echo)
    protocol.conn.receive_data = mock.Mock()

    protocol.data_received(masked(b"one") + masked(b"") + masked(b"t" * 125))

    await until(lambda: len(protocol.parts()) > 1)
    assert protocol.parts()[1] == b"\x81\x03one\x81\x00\x81\x7d" + b"t" * 125
    assert not protocol.conn.receive_data.called


async def test_what_a_frame_carries_is_no_frame(connect):
    protocol, inner = await connect(echo), masked(b"inner")
    protocol.send_receive_event_to_app = mock.Mock()

    # A binary one, whose header is a packet of its own.
    protocol.data_received(bytes([0x82, 0x80 | len(inner), 0, 0, 0, 0]))
    protocol.data_received(inner)

    assert protocol.send_receive_event_to_app.call_count == 1
    assert protocol.frames == [inner]


async def test_none_is_longer_than_the_server_takes(connect, until):
    protocol = await connect(echo)
    protocol.config.ws_max_size = protocol.conn.max_message_size = 3

    protocol.data_received(masked(b"four"))

    await until(lambda: len(protocol.parts()) > 1)
    assert CloseCode.MESSAGE_TOO_BIG.to_bytes(2) in protocol.parts()[1]


async def echo(scope, receive, send, begin=None):
    await send(ACCEPT)
    if begin is not None:
        await begin.wait()
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


def hello_after(begin, outcomes):
    """Return an application that sends HELLO once `begin`, an Event, is set. outcomes: gets "sent", or the OSError."""

    async def application(scope, receive, send):
        await send(ACCEPT)
        await begin.wait()
        try:
            await send(HELLO)
            outcomes.append("sent")
        except OSError as error:
            outcomes.append(error)

    return application


async def never(scope, receive, send):
    await asyncio.Event().wait()


async def test_a_greeting_is_in_the_packet_of_the_response(writes):
    packets = await writes(ACCEPT, HELLO)

    assert len(packets) == 1
    response, frame = packets[0].split(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 101")
    assert frame == b"\x81\x05Hello"


async def test_so_is_a_close(writes):
    (packet,) = await writes(ACCEPT, CLOSE)

    assert packet.split(b"\r\n\r\n")[1] == b"\x88\x02\x11\x34"


async def test_so_are_answers_to_frames_that_came_together(connect, until):
    protocol = await connect(echo)

    protocol.data_received(masked(b"one") + masked(b"two") + masked(b"three"))

    await until(lambda: protocol.parts()[1:])
    assert protocol.parts()[1:] == [b"\x81\x03one\x81\x03two\x81\x05three"]


async def test_text_and_bytes_of_the_same_value_are_different_frames(writes):
    """The last frame is kept for the next who is sent the same, and Python's hash of both is the same."""
    texts = [
        {"text": "one"},
        {"bytes": b"one"},
        {"text": SafeString("one")},
        {"text": "", "bytes": None},
        {"bytes": b""},
    ]

    (packet,) = await writes(ACCEPT, *[{"type": "websocket.send"} | text for text in texts])

    assert packet.split(b"\r\n\r\n")[1] == b"\x81\x03one\x82\x03one\x81\x03one\x81\x00\x82\x00"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("letter", ["a", "ä", "😀", b"a"])
async def test_frames_are_those_of_websockets(size, letter):
    data = letter * size
    opcode, payload = (Opcode.BINARY, data) if isinstance(data, bytes) else (Opcode.TEXT, data.encode())

    assert protocols.frame_of(data) == Frame(opcode, payload).serialize(mask=False)


async def test_half_a_surrogate_pair_is_refused():
    """Browsers close a socket that carries one."""
    with pytest.raises(UnicodeEncodeError):
        protocols.frame_of("\ud83d")


async def test_what_goes_to_many_becomes_a_frame_once(connect, until):
    broadcast, before = asyncio.Event(), protocols.frame_of.cache_info().misses

    async def application(scope, receive, send):
        await send(ACCEPT)
        await broadcast.wait()
        await send({"type": "websocket.send", "text": "to all of them"})
        await receive()

    members = [await connect(application) for _ in range(3)]
    broadcast.set()

    for member in members:
        await until(lambda: member.parts()[1:] == [b"\x81\x0eto all of them"])  # noqa: B023
    assert protocols.frame_of.cache_info().misses == before + 1


async def test_who_has_asked_for_compression_is_sent_it(connect, until):
    async def application(scope, receive, send):
        await send(ACCEPT)
        await send(HELLO)
        await receive()

    protocol = await connect(application, deflate=True)

    await until(lambda: b"\r\n\r\n\xc1" in b"".join(protocol.parts()))
    assert b"Hello" not in b"".join(protocol.parts())


async def test_nothing_can_be_sent_to_a_client_that_is_gone(connect, until):
    """An application learns it by OSError, says ASGI."""
    gone, outcomes = asyncio.Event(), []
    protocol = await connect(hello_after(gone, outcomes))
    protocol.connection_lost(None)
    gone.set()

    await until(lambda: outcomes)
    assert isinstance(outcomes[0], OSError)
    assert len(protocol.parts()) == 1


async def test_nor_after_a_close(connect, until):
    errors = []

    async def application(scope, receive, send):
        await send(ACCEPT)
        await send(CLOSE)
        try:
            await send(HELLO)
        except RuntimeError as error:
            errors.append(error)

    protocol = await connect(application)

    await until(lambda: errors)
    assert b"Hello" not in b"".join(protocol.parts())


async def test_who_sends_to_a_slow_client_waits(connect, until):
    """Its memory would have no bound."""
    begin, outcomes = asyncio.Event(), []
    protocol = await connect(hello_after(begin, outcomes))
    protocol.pause_writing()
    begin.set()
    await asyncio.sleep(0.01)
    assert not outcomes

    protocol.resume_writing()
    await until(lambda: outcomes)
    assert outcomes == ["sent"]
    assert protocol.parts()[1:] == [b"\x81\x05Hello"]


def test_a_loop_that_has_ended_is_forgotten():
    """And with it all that realtime keeps there."""
    loop = asyncio.new_event_loop()
    protocols.of_loop(loop, protocols.Flusher)
    loop.close()
    ended = weakref.ref(loop)
    del loop
    gc.collect()

    assert ended() is None


async def test_a_transport_that_fails_does_not_hold_up_the_others(connect, until):
    first, second = await connect(echo), await connect(echo)
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    first.transport.transport.write.side_effect = RuntimeError("The first fails.")

    for protocol in (first, second):
        protocol.data_received(masked(b"one"))

    await until(lambda: second.parts()[1:] == [b"\x81\x03one"])
    assert [str(error) for error in errors] == ["The first fails."]
    first.transport.transport.write.side_effect = None
    first.data_received(masked(b"two"))
    await until(lambda: first.parts()[-1] == b"\x81\x03two")


async def test_no_more_than_a_little_waits_to_be_written(writes):
    """The transport knows its client and holds the application up; what waits here does not count there."""
    packets = await writes(ACCEPT, *[{"type": "websocket.send", "text": "a" * 1000}] * 100)

    assert sum(map(len, packets)) > 100_000
    assert max(map(len, packets)) < protocols.MAX_UNWRITTEN + 1100


async def test_what_comes_after_much_is_one_packet_again(connect):
    protocol = await connect(echo)
    protocol.transport.write(b"a" * (protocols.MAX_UNWRITTEN + 1))
    packets = len(protocol.parts())

    protocol.transport.write(b"one")
    protocol.transport.write(b"two")
    await asyncio.sleep(0)

    assert protocol.parts()[packets:] == [b"onetwo"]


async def test_little_is_read_at_a_time(connect):
    """All that a client has flooded the kernel with, megabytes, would come in one go, and block the others."""
    protocol = await connect(echo)

    protocol.socket.setsockopt.assert_called_with(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)


async def test_a_response_waits_for_no_greeting(writes):
    (packet,) = await writes(ACCEPT, asyncio.Event().wait(), HELLO)

    assert packet.endswith(b"\r\n\r\n")


async def test_nothing_is_left_unwritten_at_the_end(writes):
    (response,) = await writes({"type": "websocket.close"})

    assert response.startswith(b"HTTP/1.1 403 ")
    calls = [call[0] for call in writes.protocol.transport.method_calls]
    assert calls.index("write") < calls.index("close")


async def test_nor_when_the_client_sends_no_more(connect):
    """The transport is closed then, by itself."""
    protocol = await connect(echo)

    protocol.transport.write(b"the last")
    protocol.eof_received()

    assert protocol.parts()[-1] == b"the last"


async def test_frames_that_come_too_early_wait_for_the_response(connect, until):
    """websockets would answer a ping before it, and fail with a traceback at what is no frame."""
    ping, no_frame = b"\x89\x80\0\0\0\0", b"\xff" * 8
    protocol = await connect(echo, early=masked(b"one") + ping + no_frame)

    assert protocol.transport.pause_reading.called
    await until(lambda: b"invalid opcode" in b"".join(protocol.parts()))
    response, frames = b"".join(protocol.parts()).split(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 101 ")
    assert frames.startswith(b"\x8a\x00\x88")


@pytest.fixture
def serve(monkeypatch):
    """
    Return a function that returns a transport, a mock, whose server has the application, an ASGI callable.

    "protocol" of it is what the server reads with, and sent() what it has written.
    """
    monkeypatch.setattr(protocols, "has_left", lambda transport: False)

    def serve(application):
        config, transport = Config(application, lifespan="off"), mock.Mock()
        config.load()
        transport.is_closing.side_effect = lambda: transport.close.called
        transport.get_extra_info.return_value.getpeername.return_value = ("127.0.0.1", 1)
        transport.set_protocol.side_effect = lambda protocol: setattr(transport, "protocol", protocol)
        transport.sent = lambda: b"".join(call.args[0] for call in transport.write.call_args_list)
        transport.set_protocol(protocols.HttpProtocol(config, ServerState(), {}))
        transport.protocol.connection_made(transport)
        return transport

    return serve


def request(first, headers):
    """Return the bytes of a request without its body."""
    return "\r\n".join([first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


@pytest.mark.parametrize("cut", [1, 40, None])
async def test_so_do_frames_in_the_packet_of_the_handshake(serve, until, cut):
    """uvicorn forgets them. cut: where the first of two packets ends, counted from the end of the handshake."""
    handshake, frames = request("GET /ws/socket-server/ HTTP/1.1", HANDSHAKE), masked(b"one") + masked(b"a" * 100)
    first = handshake + frames[:cut]
    transport = serve(echo)

    for packet in (first, (handshake + frames)[len(first) :]):
        if packet:
            transport.protocol.data_received(packet)

    await until(lambda: transport.sent().endswith(b"\x81\x03one\x81\x64" + b"a" * 100))
    assert transport.sent().startswith(b"HTTP/1.1 101 ")


POST = request("POST / HTTP/1.1", {"Host": "testserver", "Content-Length": 9})


@pytest.mark.parametrize(
    "packets",
    [[], [b"G"], [b"GET / HTTP/1.1\r\n", b"Host:"], [POST], [POST, b"text"], [POST, b"123456789GET /"]],
)
async def test_a_request_that_does_not_go_on_is_dropped(serve, until, monkeypatch, packets):
    """A phone that is gone says nothing, and its connection would be open for ever."""
    monkeypatch.setattr(protocols, "SILENCE", 0.01)
    transport = serve(never)
    for packet in packets:
        transport.protocol.data_received(packet)

    await until(lambda: transport.close.called)


@pytest.mark.parametrize("headers", [{}, HANDSHAKE])
async def test_nothing_of_a_request_waits_for_the_garbage_collector(serve, until, headers):
    """5 KB of each handshake, 7 of each connection of a page."""

    async def application(scope, receive, send):
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    transport = serve(application)
    http = transport.protocol
    gc.disable()
    try:
        http.data_received(request("GET /ws/socket-server/ HTTP/1.1", headers))
        await until(transport.sent)
        if not headers:
            http.connection_lost(None)
        transport.protocol, http = None, weakref.ref(http)
        transport.reset_mock()
        await until(lambda: http() is None)
    finally:
        gc.enable()


async def test_nothing_is_kept_of_a_connection_that_is_reset(serve):
    """Of those of a flood, each would hold its last packet for a minute."""
    server = serve(never).protocol
    server.data_received(b"GET / HTTP/1.1")
    silence = server.timeout_keep_alive_task

    server.connection_lost(ConnectionResetError())

    assert silence.cancelled()
    assert server.packet is None


async def test_a_request_that_is_not_read_is_kept(serve, until, monkeypatch):
    monkeypatch.setattr(protocols, "SILENCE", 0.01)
    transport = serve(never)
    server = transport.protocol
    server.data_received(POST)
    server.flow.pause_reading()
    first = server.timeout_keep_alive_task

    await until(lambda: server.timeout_keep_alive_task is not first)
    assert not transport.close.called

    server.flow.resume_reading()
    await until(lambda: transport.close.called)


@pytest.mark.parametrize(
    "whole", [request("GET / HTTP/1.1", {}), request("GET / HTTP/1.1", HANDSHAKE), POST + b"123456789"]
)
async def test_a_request_that_is_whole_may_take_its_time(serve, whole):
    transport = serve(never)
    server = transport.protocol
    server.data_received(whole[:5])
    assert server.timeout_keep_alive_task is not None

    server.data_received(whole[5:])

    assert server.timeout_keep_alive_task is None


async def test_a_client_that_has_closed_is_not_closed_at_the_end(connect):
    """It may have much to read before it is gone; websockets closes a socket once, or raises InvalidState."""
    protocol = await connect(echo)

    protocol.data_received(b"\x88\x80\0\0\0\0")
    protocol.transport.is_closing.return_value = True
    protocol.close_for_shutdown()

    assert protocol.conn.close_sent.code == 1005


async def test_a_socket_keeps_no_headers(writes):
    """4 KB of 26 for each: the application has those of the request in its scope."""
    await writes(ACCEPT, HELLO)

    assert not writes.protocol.request.headers
    assert not writes.protocol.response.headers
    assert (b"host", b"testserver") in [(name.lower(), value) for name, value in writes.protocol.scope["headers"]]


async def test_reading_goes_on_while_the_application_keeps_up(connect, until):
    """To stop, and to begin again, are two system calls."""
    protocol = await connect(echo)

    for _ in range(3):
        written = len(protocol.parts())
        protocol.data_received(masked(b"one") + masked(b"two"))
        await until(lambda: len(protocol.parts()) > written)  # noqa: B023

    assert not protocol.transport.pause_reading.called


async def test_reading_stops_while_the_application_does_not(connect, until):
    begin = asyncio.Event()

    async def application(scope, receive, send):
        await echo(scope, receive, send, begin)

    protocol = await connect(application)
    protocol.data_received(masked(b"one"))
    protocol.data_received(masked(b"two"))

    await until(lambda: protocol.transport.pause_reading.called)
    assert not protocol.transport.resume_reading.called
    protocol.transport.pause_reading.reset_mock()
    begin.set()
    await until(lambda: protocol.transport.resume_reading.called)
    assert not protocol.transport.pause_reading.called


async def test_nothing_more_is_read_for_an_application_that_does_not_keep_up(connect, until):
    """Also when the last of what was read has been taken: all of it waits in the queue, which has no bound."""

    async def application(scope, receive, send):
        await send(ACCEPT)
        await asyncio.Event().wait()

    protocol = await connect(application)
    protocol.data_received(masked(b"x" * 100) * 200)

    await until(lambda: protocol.turn is None)
    await asyncio.sleep(0)
    calls = [call[0] for call in protocol.transport.method_calls if call[0].endswith("_reading")]
    assert calls[-1] == "pause_reading"
    assert "resume_reading" not in calls


async def test_reading_goes_on_after_a_close(connect, until):
    """Until the client answers it: frames that come before are dropped, and would else hold its answer up for 5 s."""

    async def application(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4404})
        await asyncio.Event().wait()

    protocol = await connect(application)
    await until(lambda: protocol.close_sent)
    protocol.data_received(masked(b"late"))
    await asyncio.sleep(0)

    assert not protocol.transport.pause_reading.called


async def test_nothing_is_read_from_a_transport_that_closes(connect):
    """It raises at that, too."""
    protocol = await connect(echo)
    protocol.transport.is_closing.return_value = True

    protocol.resume_reading()

    assert not protocol.transport.resume_reading.called


@pytest.fixture
def recorded(connect, monkeypatch):
    """Return a coroutine function that returns a protocol. Its application appends "begin" and "end" to its `all`."""
    monkeypatch.setattr(protocols, "ENDS", 5)

    async def application(scope, receive, send):
        recorded.all.append("begin")
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        recorded.all.append("end")

    async def recorded():
        return await connect(application)

    recorded.all = []
    return recorded


async def test_many_that_end_at_once_do_so_in_turns(recorded):
    for protocol in [await recorded() for _ in range(50)]:
        protocol.connection_lost(None)

    before = 0
    for _ in range(20):
        await asyncio.sleep(0)
        assert recorded.all.count("end") - before <= 5
        before = recorded.all.count("end")
    assert before == 50


async def test_who_comes_meanwhile_waits_for_all_who_have_ended(recorded):
    for protocol in [await recorded() for _ in range(50)]:
        protocol.connection_lost(None)
    await asyncio.sleep(0)

    await recorded()

    assert recorded.all[50:] == ["end"] * 50 + ["begin"]


async def test_an_end_is_heard_by_the_next_if_its_receiver_is_cancelled(connect, until):
    ends, received = protocols.of_loop(asyncio.get_running_loop(), protocols.Ends), []
    ends.left = 0

    async def application(scope, receive, send):
        await send(ACCEPT)
        await receive()
        first = asyncio.create_task(receive())
        await until(lambda: ends.waiting)
        first.cancel()
        await asyncio.wait([first])
        ends.begin_turn()
        received.append(await receive())

    protocol = await connect(application)
    protocol.connection_lost(None)

    await until(lambda: received)
    assert received[0]["type"] == "websocket.disconnect"


async def test_a_client_that_has_vanished_is_dropped(connect, until, monkeypatch):
    """uvicorn closes the transport, which waits for as long as something is left that nobody will take."""
    monkeypatch.setattr(protocols, "LINGER", 0.01)
    protocol = await connect(echo)

    protocol.keepalive_timeout()

    await until(lambda: protocol.transport.abort.called)


@pytest.fixture
def collector(monkeypatch):
    """A mock of the garbage collector; no socket has opened or ended."""
    collector = mock.Mock()
    for name in ("collect", "freeze", "unfreeze"):
        monkeypatch.setattr(protocols.gc, name, getattr(collector, name))
    monkeypatch.setattr(protocols.WebSocketProtocol, "opened", 0)
    monkeypatch.setattr(protocols.WebSocketProtocol, "ended", 0)
    return collector


async def test_what_many_sockets_hold_is_left_alone_by_the_garbage_collector(connect, collector, monkeypatch):
    """It took half a second for that, again and again. What is garbage already is not left alone."""
    monkeypatch.setattr(protocols, "FREEZE_EVERY", 2)
    state, called = ServerState(), []
    for _ in range(6):
        await connect(echo, state=state)
        called.append(collector.freeze.call_count)

    # Two may be open before.
    assert called == [0, 0, 0, 1, 1, 2]
    assert collector.mock_calls == [mock.call.collect(), mock.call.freeze()] * 2


async def test_the_garbage_of_many_that_have_ended_is_collected(connect, collector, monkeypatch):
    """Consumers may have made cycles, 25 KB of each, which were left alone while they were none."""
    monkeypatch.setattr(protocols, "MAX_ENDED", 2)
    state = ServerState()
    members = [await connect(echo, state=state) for _ in range(7)]
    called = []

    for protocol in members[1:]:
        protocol.connection_lost(None)
        called.append(collector.collect.call_count)

    # 6, 5, 4, 3, 2 and 1 are open.
    assert called == [0, 0, 0, 0, 1, 1]
    assert collector.mock_calls == [mock.call.unfreeze(), mock.call.collect(), mock.call.freeze()]


async def test_what_is_left_of_a_client_that_has_gone_is_not_taken(connect):
    protocol = await connect(echo)
    protocol.data_received(masked(b"x" * 100) * 200)
    turn = protocol.turn

    protocol.connection_lost(None)

    assert turn.cancelled()


async def test_no_more_is_read_before_all_that_was_read_is_taken(connect, until):
    protocol = await connect(echo)
    left = []
    protocol.transport.resume_reading.side_effect = lambda: left.append(len(protocol.unread))

    protocol.data_received(masked(b"x" * 100) * 200)

    await until(lambda: sum(map(len, protocol.parts())) > 200 * 102)
    assert {*left} == {0}


async def test_what_comes_meanwhile_waits_for_its_turn(connect, until):
    """Else the rest of a frame would follow another one, and the stream would be broken."""
    protocol = await connect(echo)

    protocol.data_received(masked(b"x" * 100) * 200)
    protocol.data_received(masked(b"end"))

    await until(lambda: b"".join(protocol.parts()).endswith(b"\x81\x03end"))


async def test_reading_begins_again_when_all_is_taken(connect, until):
    taking, taken = asyncio.Semaphore(0), []

    async def application(scope, receive, send):
        await send(ACCEPT)
        await receive()
        while True:
            await taking.acquire()
            taken.append(await receive())

    protocol = await connect(application)
    protocol.data_received(masked(b"one") + masked(b"two"))
    await until(lambda: protocol.transport.pause_reading.called)

    taking.release()
    await until(lambda: len(taken) == 1)
    assert not protocol.transport.resume_reading.called

    taking.release()
    await until(lambda: protocol.transport.resume_reading.called)


async def test_pings_count_from_one_of_ours_to_the_next(connect, until):
    """A client that pings each second would else be cut off after a quarter of an hour."""
    protocol = await connect(echo)
    ping = b"\x89\x80\0\0\0\0"
    for _ in range(2):
        protocol.send_keepalive_ping()
        protocol.data_received(ping * protocols.MAX_CONTROL_FRAMES)
        await until(lambda: not protocol.unread)
    assert not protocol.transport.abort.called

    protocol.data_received(ping)

    assert protocol.transport.abort.called


async def test_nothing_is_written_to_a_transport_that_closes(connect):
    """uvloop's raises at that, which would be a traceback for each client that leaves in the middle of a turn."""
    protocol = await connect(echo)
    protocol.transport.write(b"late")
    protocol.transport.is_closing.return_value = True

    await asyncio.sleep(0)

    assert b"late" not in b"".join(protocol.parts())
    assert protocol.transport.waiting == []


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


# Requests of pages


@pytest.fixture
def ask(monkeypatch):
    """
    Return a coroutine function (application, *messages) that lets one answer a request, and the Semaphore of turns,
    which has one. messages: types of what the server receives; after the last, nothing more comes.
    """
    turns = asyncio.Semaphore(1)
    monkeypatch.setattr(protocols.Turn, "turns", turns)

    async def ask(application, *messages):
        waiting = [{"type": type} for type in messages]

        async def receive():
            return waiting.pop(0) if waiting else await asyncio.Event().wait()

        async def send(message):
            pass

        await protocols.Turn(application)({"path": "/admin/login/"}, receive, send)

    return ask, turns


async def test_a_turn_lasts_from_the_end_of_the_body_to_the_response(ask):
    ask, turns = ask
    seen = []

    async def application(scope, receive, send):
        seen.append(turns.locked())
        await receive()
        seen.append(turns.locked())
        await send({"type": "http.response.start"})
        seen.append(turns.locked())

    await ask(application, "http.request")

    assert seen == [False, True, False]
    # Nor are there more of them than before.
    await turns.acquire()
    assert turns.locked()


async def test_a_turn_ends_with_the_request(ask):
    """As when the view fails, or the client has left."""
    ask, turns = ask

    async def application(scope, receive, send):
        await receive()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(application, "http.request")

    assert not turns.locked()


async def test_a_client_that_leaves_while_it_waits_takes_no_turn(ask):
    """Which nobody would give back: after some such clients no page would be answered any more."""
    ask, turns = ask
    await turns.acquire()
    received = []

    async def application(scope, receive, send):
        received.append((await receive())["type"])

    await ask(application, "http.request", "http.disconnect")
    turns.release()
    for _ in range(3):
        await asyncio.sleep(0)

    assert received == ["http.disconnect"]
    assert not turns.locked()


def test_what_has_no_thread_waits_for_none():
    """That of /healthz is answered by middleware: a platform would take a busy server for an ill one."""
    assert [protocols.has_thread(path) for path in ("/admin/login/", "/nowhere/", "/healthz")] == [True, True, False]
