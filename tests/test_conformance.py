"""
RFC 6455 by the cases of the Autobahn test suite against `python -m <project>`, under their numbers.

That suite needs Python 2.7. Each case here sends and expects what its case of the same number does, of an echo. Loads
(9 and 10) stay within what a frame may hold; 12 and 13 are about compression, which is not offered.
"""

import re
import socket
import struct

import pytest
from servers import LOCAL_PRODUCTION, Server, collect_static

ECHO = """
from channels.generic.websocket import AsyncWebsocketConsumer


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)
"""
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# Codes of RFC 6455 §7.4.1.
NORMAL, PROTOCOL_ERROR, INVALID_DATA = 1000, 1002, 1007
HELLO = b"Hello, world!"
GREEK = "κόσμε".encode()
LETTERS = "Hello-µ@ßöäüàá-UTF-8!!".encode()
INVALID = GREEK + b"\xed\xa0\x80edited"
# Far from any answer of a server on this machine.
TIMEOUT = 10


def frame(opcode, payload=b"", fin=True, rsv=0):
    """Return the bytes of a frame that a client sends."""
    length = len(payload)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 2**16:
        head += struct.pack("!BH", 0x80 | 126, length)
    else:
        head += struct.pack("!BQ", 0x80 | 127, length)
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def fragments(opcode, *payloads):
    """Return the frames of a message in parts."""
    last = len(payloads) - 1
    return [frame(CONT if place else opcode, part, fin=place == last) for place, part in enumerate(payloads)]


def close(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def octets(frames):
    """Return the frames in single bytes, as TCP may bring them."""
    return [bytes([byte]) for byte in b"".join(frames)]


def cut(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


class Case:
    """
    What a client sends, and what it must get.

    sends: list of bytes, each sent by itself. messages and pongs: lists of payloads. closed: the server's code, 0 for
    a close without one, or None where the client closes when it has all of that. loose: messages may be missing.
    """

    def __init__(self, sends, messages=(), pongs=(), closed=None, loose=False):
        self.sends = sends
        self.messages = list(messages)
        self.pongs = list(pongs)
        self.closed = closed
        self.loose = loose


def fails(*sends, code=PROTOCOL_ERROR, before=()):
    """A case that the server ends. before: messages that it may have answered."""
    return Case(list(sends), before, closed=code, loose=True)


def cases():
    """Yield (number, Case)."""
    for opcode in (TEXT, BINARY):
        for number, length in enumerate((0, 125, 126, 127, 128, 65535, 65536), start=1):
            yield f"1.{opcode}.{number}", Case([frame(opcode, b"*" * length)], [b"*" * length])
        yield f"1.{opcode}.8", Case(cut(frame(opcode, b"*" * 65536), 997), [b"*" * 65536])
    yield from pings()
    yield from reserved()
    yield from fragmented()
    yield from utf_8()
    yield from closings()
    yield from larger()


def pings():
    binary = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    for number, payload in enumerate((b"", HELLO, binary, b"\xfe" * 125), start=1):
        yield f"2.{number}", Case([frame(PING, payload)], pongs=[payload])
    yield "2.5", fails(frame(PING, b"\xfe" * 126))
    yield "2.6", Case(octets([frame(PING, b"\xfe" * 125)]), pongs=[b"\xfe" * 125])
    yield "2.7", Case([frame(PONG)])
    yield "2.8", Case([frame(PONG, b"unsolicited")])
    yield "2.9", Case([frame(PONG, b"unsolicited"), frame(PING, b"ping")], pongs=[b"ping"])
    payloads = [b"payload-%d" % number for number in range(10)]
    yield "2.10", Case([frame(PING, payload) for payload in payloads], pongs=payloads)
    yield "2.11", Case(octets([frame(PING, payload) for payload in payloads]), pongs=payloads)


def reserved():
    """Bits and opcodes that no extension has given a meaning."""
    yield "3.1", fails(frame(TEXT, HELLO, rsv=1))
    hello, ping = frame(TEXT, HELLO), frame(PING)
    yield "3.2", fails(hello + frame(TEXT, HELLO, rsv=2) + ping, before=[HELLO])
    yield "3.3", fails(hello, frame(TEXT, HELLO, rsv=3), ping, before=[HELLO])
    yield "3.4", fails(*octets([hello, frame(TEXT, HELLO, rsv=4), ping]), before=[HELLO])
    yield "3.5", fails(frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv=5))
    yield "3.6", fails(frame(PING, HELLO, rsv=6))
    yield "3.7", fails(frame(CLOSE, rsv=7))
    for group, first in ((1, 3), (2, 11)):
        yield f"4.{group}.1", fails(frame(first))
        yield f"4.{group}.2", fails(frame(first + 1, b"reserved"))
        yield f"4.{group}.3", fails(hello + frame(first + 2) + ping, before=[HELLO])
        yield f"4.{group}.4", fails(hello + frame(first + 3, HELLO) + ping, before=[HELLO])
        yield f"4.{group}.5", fails(*octets([hello, frame(first + 4, HELLO), ping]), before=[HELLO])


def fragmented():
    yield "5.1", fails(*fragments(PING, b"fragment1", b"fragment2"))
    yield "5.2", fails(*fragments(PONG, b"fragment1", b"fragment2"))
    one, two = fragments(TEXT, b"fragment1", b"fragment2")
    both, ping = b"fragment1fragment2", frame(PING, b"ping")
    for number, frames in {"5.3": [one + two], "5.4": [one, two], "5.5": octets([one, two])}.items():
        yield number, Case(frames, [both])
    between = [one, ping, two]
    for number, frames in {"5.6": [b"".join(between)], "5.7": between, "5.8": octets(between)}.items():
        yield number, Case(frames, [both], [b"ping"])
    for start, fin in ((9, True), (12, False)):
        nothing = [frame(CONT, b"non-continuation payload", fin=fin), frame(TEXT, HELLO)]
        yield f"5.{start}", fails(b"".join(nothing))
        yield f"5.{start + 1}", fails(*nothing)
        yield f"5.{start + 2}", fails(*octets(nothing))
    lost = frame(CONT, b"fragment3", fin=False)
    yield "5.15", fails(one + two + lost + frame(TEXT, b"fragment4"), before=[both])
    yield "5.16", fails(*[frame(CONT, b"fragment1", fin=False), *fragments(TEXT, b"fragment2", b"fragment3")] * 2)
    yield "5.17", fails(*[frame(CONT, b"fragment1"), *fragments(TEXT, b"fragment2", b"fragment3")] * 2)
    yield "5.18", fails(frame(TEXT, b"fragment1", fin=False) + frame(TEXT, b"fragment2"))
    parts = [b"fragment%d" % number for number in range(1, 6)]
    frames = fragments(TEXT, *parts)
    frames.insert(2, frame(PING, b"pongme 1!"))
    frames.insert(5, frame(PING, b"pongme 2!"))
    yield "5.19", Case([b"".join(frames)], [b"".join(parts)], [b"pongme 1!", b"pongme 2!"])
    yield "5.20", Case(frames, [b"".join(parts)], [b"pongme 1!", b"pongme 2!"])


def utf_8():
    yield "6.1.1", Case([frame(TEXT)], [b""])
    yield "6.1.2", Case(fragments(TEXT, b"", b"", b""), [b""])
    yield "6.1.3", Case(fragments(TEXT, b"", b"middle frame payload", b""), [b"middle frame payload"])
    yield "6.2.1", Case([frame(TEXT, LETTERS)], [LETTERS])
    yield "6.2.2", Case(fragments(TEXT, LETTERS[:12], LETTERS[12:]), [LETTERS])
    yield "6.2.3", Case(fragments(TEXT, *cut(LETTERS, 1)), [LETTERS])
    yield "6.2.4", Case(fragments(TEXT, *cut(GREEK, 1)), [GREEK])
    yield "6.3.1", fails(frame(TEXT, INVALID), code=INVALID_DATA)
    yield "6.3.2", fails(*fragments(TEXT, *cut(INVALID, 1)), code=INVALID_DATA)
    # Not before the end of the message, which the suite calls non-strict: RFC 6455 §8.1 asks for no more.
    above = GREEK + b"\xf4\x90\x80\x80edited"
    yield "6.4.1", fails(*fragments(TEXT, above[: len(GREEK)], above[len(GREEK) : -6], above[-6:]), code=INVALID_DATA)
    yield "6.4.2", fails(*fragments(TEXT, above[:12], above[12:13], above[13:]), code=INVALID_DATA)
    whole = frame(TEXT, above)
    yield "6.4.3", fails(whole[:-10], whole[-10:-6], whole[-6:], code=INVALID_DATA)
    yield "6.4.4", fails(whole[:-9], whole[-9:-8], whole[-8:], code=INVALID_DATA)
    for group, sequences in enumerate(SEQUENCES, start=5):
        for number, payload in enumerate(sequences, start=1):
            try:
                payload.decode()
            except UnicodeDecodeError:
                yield f"6.{group}.{number}", fails(frame(TEXT, payload), code=INVALID_DATA)
            else:
                yield f"6.{group}.{number}", Case([frame(TEXT, payload)], [payload])


INCOMPLETE = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
INCOMPLETE += [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
# https://www.cl.cam.ac.uk/~mgk25/ucs/examples/UTF-8-test.txt
SEQUENCES = [
    [b"hello%bworld" % text for text in (b"$", b"\xc2\xa2", b"\xe2\x82\xac", b"\xf0\xa4\xad\xa2")] + [GREEK],
    [GREEK[:end] for end in range(1, len(GREEK) + 1)],
    [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
    [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
    [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
    [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"],
    [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"],
    [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)), bytes(range(0x80, 0xBF))],
    [
        b"".join(b"%c " % byte for byte in range(*ends))
        for ends in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
    ],
    INCOMPLETE,
    [b"".join(INCOMPLETE)],
    [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"],
    [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"],
    [b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"],
    [b"\xed" + end for end in cut(b"\xa0\x80\xad\xbf\xae\x80\xaf\xbf\xb0\x80\xbe\x80\xbf\xbf", 2)],
    [
        b"\xed" + high + b"\xed" + low
        for high in (b"\xa0\x80", b"\xad\xbf", b"\xae\x80", b"\xaf\xbf")
        for low in (b"\xb0\x80", b"\xbf\xbf")
    ],
    [chr(plane << 16 | end).encode() for plane in range(17) for end in (0xFFFE, 0xFFFF)],
    [b"\xef\xbf" + bytes([end]) for end in range(0xB9, 0xC0)],
]


def closings():
    hello, normal = frame(TEXT, HELLO), close(NORMAL)
    yield "7.1.1", Case([hello], [HELLO])
    yield "7.1.2", Case([normal, normal], closed=NORMAL)
    yield "7.1.3", Case([normal, frame(PING)], closed=NORMAL)
    yield "7.1.4", Case([normal, hello], closed=NORMAL)
    one, two = fragments(TEXT, b"fragment1", b"fragment2")
    # The suite wants 1000 here. The library websockets, below uvicorn, takes a message that its sender breaks off for
    # an error of protocol; nothing but the code differs.
    yield "7.1.5", fails(one, normal, two)
    much = b"BAsd7&jh23" * 6553
    yield "7.1.6", Case([frame(TEXT, much), hello, normal, frame(PING)], [much, HELLO], closed=NORMAL, loose=True)
    # No code is answered by none.
    yield "7.3.1", Case([frame(CLOSE)], closed=0)
    yield "7.3.2", fails(frame(CLOSE, b"a"))
    yield "7.3.3", Case([normal], closed=NORMAL)
    yield "7.3.4", Case([close(NORMAL, HELLO)], closed=NORMAL)
    yield "7.3.5", Case([close(NORMAL, b"*" * 123)], closed=NORMAL)
    yield "7.3.6", fails(close(NORMAL, b"*" * 124))
    yield "7.5.1", fails(close(NORMAL, INVALID), code=INVALID_DATA)
    codes = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(codes, start=1):
        yield f"7.7.{number}", Case([close(code)], closed=code)
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), start=1):
        yield f"7.9.{number}", fails(close(code))
    yield "7.13.1", fails(close(5000))
    yield "7.13.2", fails(close(65535))


def larger():
    """As much as a frame may hold, in parts of several sizes, and many messages."""
    payload = b"*" * 65536
    for opcode, group in ((TEXT, 3), (BINARY, 4)):
        for number, size in enumerate((64, 256, 1024, 4096, 16384), start=1):
            yield f"9.{group}.{number}", Case(fragments(opcode, *cut(payload, size)), [payload])
    for opcode, group in ((TEXT, 5), (BINARY, 6)):
        for number, size in enumerate((64, 128, 256, 512, 1024, 2048), start=1):
            yield f"9.{group}.{number}", Case(cut(frame(opcode, payload), size), [payload])
    for opcode, group in ((TEXT, 7), (BINARY, 8)):
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096), start=1):
            yield f"9.{group}.{number}", Case([frame(opcode, b"*" * size)] * 50, [b"*" * size] * 50)
    yield "10.1.1", Case(fragments(TEXT, *cut(payload, 1300)), [payload])


class Connection:
    """A handshake, and the frames of a server."""

    def __init__(self, server, extensions=""):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET /ws/echo/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.url.rstrip('/')}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"{extensions}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        self.head = b"".join(iter(self.stream.readline, b"\r\n")).decode()

    def read(self):
        """Return (opcode, payload) of the next frame, which is never masked or in parts; None at the end."""
        try:
            head = self.stream.read(2)
        except ConnectionResetError:
            head = b""
        if len(head) < 2:
            return None
        assert head[0] & 0xF0 == 0x80, "a frame with reserved bits, or in parts"
        assert head[1] < 128, "a masked frame"
        length = head[1]
        if length >= 126:
            form = "!H" if length == 126 else "!Q"
            length = struct.unpack(form, self.stream.read(struct.calcsize(form)))[0]
        return head[0] & 0x0F, self.stream.read(length)


@pytest.fixture(scope="module")
def server(with_consumers):
    project = with_consumers(ECHO, echo="Echo")
    collect_static(project)
    with Server(project, "production", env=LOCAL_PRODUCTION) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.mark.parametrize(("number", "case"), [pytest.param(*case, id=case[0]) for case in cases()])
def test_case(server, number, case):
    connection = Connection(server)
    got = {TEXT: [], BINARY: [], PONG: []}
    closed = None
    with connection.socket:
        for part in case.sends:
            try:
                connection.socket.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                assert case.closed is not None
                break
        said_goodbye = case.closed is not None

        def is_complete():
            return len(got[TEXT] + got[BINARY]) == len(case.messages) and len(got[PONG]) == len(case.pongs)

        while True:
            if not said_goodbye and is_complete():
                connection.socket.sendall(close(NORMAL))
                said_goodbye = True
            read = connection.read()
            if read is None:
                break
            opcode, payload = read
            assert closed is None, "a frame after a close frame"
            if opcode == CLOSE:
                closed = struct.unpack("!H", payload[:2])[0] if payload else 0
            else:
                got[opcode].append(payload)

    answers = got[TEXT] + got[BINARY]
    if case.loose:
        assert answers == case.messages[: len(answers)]
    else:
        assert answers == case.messages
        assert got[PONG] == case.pongs
    assert closed == (NORMAL if case.closed is None else case.closed)


def test_a_ping_in_a_message_is_answered_before_its_end(server):
    """Case 5.19 waits a second there. A server that holds the pong back would wait for ever here."""
    first, last = fragments(TEXT, b"fragment1", b"fragment2")
    connection = Connection(server)
    with connection.socket:
        connection.socket.sendall(first + frame(PING, b"now"))
        assert connection.read() == (PONG, b"now")
        connection.socket.sendall(last)
        assert connection.read() == (TEXT, b"fragment1fragment2")


def test_an_unmasked_frame_ends_the_connection(server):
    """RFC 6455 §5.1; the suite has no case of it."""
    connection = Connection(server)
    with connection.socket:
        connection.socket.sendall(b"\x81\x05Hello")
        opcode, payload = connection.read()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", PROTOCOL_ERROR))


@pytest.mark.parametrize("offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits, x-webkit-frame"])
def test_no_compression_is_agreed_on(server, offer):
    """Cases 12 and 13: who offers some talks without it."""
    connection = Connection(server, extensions=f"Sec-WebSocket-Extensions: {offer}\r\n")
    with connection.socket:
        assert " 101 " in connection.head
        assert "sec-websocket-extensions" not in connection.head.lower()
        connection.socket.sendall(frame(TEXT, HELLO))
        assert connection.read() == (TEXT, HELLO)


def test_every_group_of_the_suite_is_here():
    numbers = [number for number, _ in cases()]

    assert len(set(numbers)) == len(numbers)
    groups = {re.match(r"\d+", number)[0] for number in numbers}
    assert groups == {"1", "2", "3", "4", "5", "6", "7", "9", "10"}
