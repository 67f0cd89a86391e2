"""
A hostile client: `attack.py kind port seconds [cookie]`. Prints what became of it, as JSON.

It speaks WebSocket by hand, since a library would not send what is sent here.
"""

import json
import selectors
import socket
import sys
import threading
import time
from collections import Counter

TEXT, BINARY, PING, PONG, CONTINUATION, FINAL = 0x1, 0x2, 0x9, 0xA, 0x0, 0x80


def frame(payload, opcode=TEXT | FINAL):
    """Return a frame (RFC 6455, section 5.2) whose mask is zero, which leaves the payload as it is."""
    length = len(payload)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 2**16:
        size = bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return bytes([opcode]) + size + bytes(4) + payload


def connect(port, cookie="", receive_buffer=None):
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    client.sendall(
        f"GET /ws/socket-server/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        f"Cookie: {cookie}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    # Nothing may be sent before the answer is here. What follows it is left in the socket.
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(1)
    return client


class Reader(threading.Thread):
    """Reads all that comes, and finds the code with which the socket is closed."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.code, self.size = client, None, 0
        self.start()

    def run(self):
        tail = b""
        try:
            while data := self.client.recv(2**18):
                self.size += len(data)
                tail = tail[-300:] + data
                # A close frame of the server is the last: 0x88, its length, and the code.
                at = tail.rfind(b"\x88")
                if at >= 0 and at + 4 <= len(tail) and tail[at + 1] < 126:
                    self.code = int.from_bytes(tail[at + 2 : at + 4], "big")
        except OSError:
            self.code = self.code or "reset"


def flood(data, port, seconds, cookie, reads=True, opening=b""):
    """Send `data` again and again until the socket is closed, then come back; return how often, and the codes."""
    ends, sent, deadline = Counter(), 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            client = connect(port, cookie, None if reads else 4096)
        except OSError:
            continue
        client.settimeout(seconds)
        reader = Reader(client) if reads else None
        end = "open"
        try:
            client.sendall(opening)
            while time.monotonic() < deadline:
                client.sendall(data)
                sent += len(data)
        except TimeoutError:
            end = "stuck"
        except OSError:
            end = "reset"
        if reader is not None:
            reader.join(1)
            end = reader.code or end
        ends[str(end)] += 1
        client.close()
    return {"ends": ends, "megabytes": round(sent / 2**20, 1)}


def heads(opening, data, port, seconds, cookie):
    """Send a request without an end until the connection is closed, then another; return how often, and the ends."""
    ends, deadline = Counter(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(max(0.1, deadline - time.monotonic()))
            end = "open"
            try:
                client.sendall(opening)
                while time.monotonic() < deadline:
                    client.sendall(data)
            except TimeoutError:
                end = "stuck"
            except OSError:
                end = "reset"
            ends[end] += 1
    return {"ends": ends}


def handshakes(headers, port, seconds, cookie):
    """Open one socket after the other with these headers, bytes, and return how often, and the answers."""
    answers, deadline = Counter(), time.monotonic() + seconds
    request = (
        f"GET /ws/socket-server/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ).encode()
    while time.monotonic() < deadline:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(30)
            try:
                client.sendall(request + headers + b"\r\n")
                answers[client.recv(12).decode()] += 1
            except TimeoutError:
                answers["none"] += 1
            except OSError:
                answers["reset"] += 1
    return {"answers": answers}


def many_sockets(count, port, seconds, cookie):
    """Send 20 messages a second on each of so many sockets; those that are closed come back at once."""
    data = frame(b'{"type":"message","text":"' + b"x" * 100 + b'"}')
    selector = selectors.DefaultSelector()
    closed, received, sent = Counter(), 0, 0

    def open_one():
        client = connect(port, cookie)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)

    for _ in range(count):
        open_one()
    deadline, turn = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < deadline:
        for key, _ in selector.select(max(0, turn - time.monotonic())):
            try:
                data_in = key.fileobj.recv(2**18)
            except OSError:
                data_in = b""
            received += len(data_in)
            at = data_in.rfind(b"\x88\x02")
            if at >= 0 or not data_in:
                closed[int.from_bytes(data_in[at + 2 : at + 4], "big") if data_in else "end"] += 1
                selector.unregister(key.fileobj)
                key.fileobj.close()
                open_one()
        if time.monotonic() >= turn:
            turn += 1 / 20
            for key in list(selector.get_map().values()):
                try:
                    key.fileobj.send(data)
                    sent += 1
                except OSError:
                    pass
    return {"sent": sent, "closed": {str(code): number for code, number in closed.items()}, "received": received}


def pages(count, waits, port, seconds, cookie):
    """Ask for so many pages at a time, again and again; return how many were answered. waits: for the answers."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    asked = answered = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        while len(selector.get_map()) < count:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(request)
            selector.register(client, selectors.EVENT_READ)
            asked += 1
        if not waits:
            time.sleep(0.1)
        for client in [key.fileobj for key, _ in selector.select(1)] if waits else list(selector.get_map().values()):
            client = client if waits else client.fileobj
            answered += waits and client.recv(2**16)[9:12] == b"200"
            selector.unregister(client)
            client.close()
    return {"asked": asked, "answered": answered}


GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES = (b"X: " + b"a" * 60_000 + b"\r\n") * 10
NESTED = {size: frame(b"[" * (size // 2) + b"]" * (size // 2)) for size in (2**16, 2**20)}
KINDS = {
    "nested-64": lambda *options: flood(NESTED[2**16], *options),
    "nested-1024": lambda *options: flood(NESTED[2**20], *options),
    "objects-64": lambda *options: flood(frame(b'{"type":' * (2**13)), *options),
    "pings-unread": lambda *options: flood(frame(b"x" * 125, PING | FINAL) * 100, *options, reads=False),
    "pings": lambda *options: flood(frame(b"x" * 125, PING | FINAL) * 100, *options),
    "pongs": lambda *options: flood(frame(b"x" * 125, PONG | FINAL) * 100, *options),
    "fragments": lambda *options: flood(frame(b"x", CONTINUATION) * 1000, *options, opening=frame(b'"', TEXT)),
    "empty-fragments": lambda *options: flood(frame(b"", CONTINUATION) * 1000, *options, opening=frame(b"", TEXT)),
    "binary-fragments": lambda *options: flood(frame(b"", CONTINUATION) * 1000, *options, opening=frame(b"", BINARY)),
    "headers": lambda *options: heads(GET, LINES, *options),
    "header": lambda *options: heads(GET + b"X: ", b"a" * 600_000, *options),
    "path": lambda *options: heads(b"GET /", b"a" * 600_000, *options),
    "trailers": lambda *options: heads(CHUNKED + b"0\r\n", LINES, *options),
    "pipelined": lambda *options: heads(b"", (GET + b"\r\n") * 10_000, *options),
    "cookies": lambda *options: handshakes((b"Cookie: " + b"a;" * 30_000 + b"\r\n") * 100, *options),
    "protocols": lambda *options: handshakes(b"Sec-WebSocket-Protocol: " + b"a," * 30_000 + b"a\r\n", *options),
    "pages": lambda *options: pages(300, True, *options),
    "pages-given-up": lambda *options: pages(50, False, *options),
    "sockets-200": lambda *options: many_sockets(200, *options),
}

if __name__ == "__main__":
    kind, port, seconds, cookie = (*sys.argv[1:], "")[:4]
    print(json.dumps(KINDS[kind](int(port), float(seconds), cookie)))
