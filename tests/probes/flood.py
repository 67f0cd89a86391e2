"""Send `count` pings as fast as possible, read meanwhile, and print what came back: `flood.py port count`."""

import contextlib
import socket
import sys
import threading

port, count = map(int, sys.argv[1:])
payload = b'{"type":"ping"}'
frame = bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload
client = socket.create_connection(("127.0.0.1", port))
client.sendall(
    f"GET /ws/socket-server/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
)
while b"connection_established" not in client.recv(4096):
    pass


def send():
    with contextlib.suppress(OSError):
        for _ in range(count // 1000):
            client.sendall(frame * 1000)


sending = threading.Thread(target=send)
sending.start()
pongs, code, tail = 0, None, b""
with contextlib.suppress(OSError):
    while pongs < count and code is None and (data := client.recv(2**20)):
        pongs += data.count(b'"pong"')
        tail = tail[-3:] + data
        if (close := tail.find(b"\x88\x02")) >= 0:
            code = int.from_bytes(tail[close + 2 : close + 4], "big")
sending.join()
print(pongs, code)
