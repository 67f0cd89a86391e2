"""uvicorn's protocols, HTTP and WebSocket, with the bounds on memory and work that they lack."""

import asyncio
import gc
import logging
import random
import select
import socket
import struct
import sys
from collections import deque
from functools import lru_cache

from asgiref.sync import iscoroutinefunction
from django.urls import Resolver404, resolve
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Opcode, apply_mask
from websockets.http11 import Request
from websockets.protocol import Protocol, State

# realtime logs that a socket opens and closes, with address and code. Of uvicorn's own lines about WebSockets, this
# logger shows warnings and errors.
logger = logging.getLogger("{{ cookiecutter.project_slug }}.protocols")


def without_traceback(record):
    """A filter: uvicorn logs a traceback for bytes that are not UTF-8, which any client can send."""
    if "Invalid UTF-8" in str(record.msg):
        record.exc_info = None
    return True


logger.addFilter(without_traceback)


def is_news(record):
    """A filter: a health check that was content, four times a minute for years, is no line of the access log."""
    *_, path, _, status = record.args
    return (path.partition("?")[0], status) != ("/healthz", 200)


logging.getLogger("uvicorn.access").addFilter(is_news)

# Bytes of a request before its body: its path and headers. nginx takes 32 KiB and less.
MAX_HEAD = 2**16
# Bytes of a body, as nginx allows. Django would write all of it to the disk. Raise both for uploads.
MAX_BODY = 2**20
# Seconds in which more must come of a request, and something of the first one, as nginx wants it: a client that has
# vanished would stay connected for ever.
SILENCE = 60
# Requests that may wait for the answer to the one before. Browsers and proxies send none before that.
MAX_PIPELINE = 10
# Requests that are answered at a time, of those that have a thread each, as all have whose views are no `async def`. Many
# threads would hold up the event loop, and with it all sockets.
MAX_REQUESTS = 8
# Headers of a handshake, and commas and semicolons in them. Each cookie and each protocol is parsed in the event loop.
MAX_ITEMS = 1000
# Pings and pongs of a client between two keepalive pings of ours (20 s). Each of its pings is answered, read or not.
MAX_CONTROL_FRAMES = 1000
# Parts of one message; each costs more memory and time than its bytes.
MAX_FRAGMENTS = 1024
# Bytes of one socket that are taken before the others have their turn: hundreds of frames, if they are small.
TURN = 2**12
# Sockets that are closed in a second when the server is stopped, and seconds that this takes at most: it has 10.
CLOSED_PER_SECOND = 4000
MAX_SPREAD = 5
# Sockets that end in a turn of the event loop. Thousands do at once when a proxy restarts, and others would wait for all.
ENDS = 20
# Bytes of the longest frame whose size is in the second byte of its header.
MAX_SHORT = 125
# Bytes for one socket that are written at once, and not at the end of a turn of the event loop.
MAX_UNWRITTEN = 2**14
# Handshakes after which the garbage collector is told to leave alone what there is, if more sockets than that are open; and
# sockets that may end, beside as many as are open, before it goes through all of it.
FREEZE_EVERY = 500
MAX_ENDED = 5000
# Seconds after the end in which a client may read what is left. One that reads nothing would stay connected for ever.
LINGER = 5


def has_left(transport):
    """Tell whether the client has gone again, where the system says so: it may have waited long to be accepted."""
    if not hasattr(select, "POLLRDHUP"):
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLRDHUP)
    return bool(poll.poll(0))


class Turn:
    """
    ASGI middleware for one request: its turn lasts from the end of its body to the beginning of its response, so that no
    slow client keeps one. A client that leaves while it waits costs no thread. An asynchronous view needs neither.
    """

    turns = asyncio.Semaphore(MAX_REQUESTS)
    is_on = False
    gone = None

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if not has_thread(scope["path"]):
            return await self.app(scope, receive, send)

        async def send_after_turn(message):
            self.end()
            await send(message)

        self.loop, self.server_receive = asyncio.get_running_loop(), receive
        try:
            await self.app(scope | {"turn": self}, self.receive, send_after_turn)
        finally:
            self.end()

    async def receive(self):
        if self.gone is not None:
            return await self.gone
        message = await self.server_receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self.gone = asyncio.create_task(self.server_receive())
            begun = asyncio.create_task(self.begin())
            await asyncio.wait([begun, self.gone], return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                begun.cancel()
                return await self.gone
        return message

    async def begin(self):
        await self.turns.acquire()
        self.is_on = True

    def end(self):
        if self.is_on:
            self.is_on = False
            self.turns.release()

    def give_away(self):
        """End it from the thread of a view, which will wait for something that is no work."""
        self.loop.call_soon_threadsafe(self.end)


def has_thread(path):
    """Return whether Django answers a request for this path in a thread."""
    try:
        return not iscoroutinefunction(resolve(path).func)
    except Resolver404:
        # /healthz is answered by middleware: that many requests wait is no illness.
        return path != "/healthz"


class HttpProtocol(HttpToolsProtocol):
    # Bytes that have come since the last request, or since the last part of its body.
    unread = 0
    answering = None
    is_whole = False

    def connection_made(self, transport):
        super().connection_made(transport)
        self.expect_more()

    def expect_more(self):
        # uvicorn cancels it when something comes, and has no other use for it before the response.
        self.timeout_keep_alive_task = self.loop.call_later(SILENCE, self.end_silence)

    def end_silence(self):
        if self.flow.read_paused:
            # It is the application that does not go on.
            self.expect_more()
        else:
            self.timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle, app):
        self.answering = cycle
        super()._start_asgi_task(cycle, Turn(app))

    def connection_lost(self, exc):
        super().connection_lost(exc)
        # After a reset uvicorn keeps it, and with it all that this connection holds.
        self._unset_keepalive_if_required()
        if self.answering is not None:
            # uvicorn tells only the last request that came, and others would fail with a traceback.
            self.answering.disconnected = True

    def data_received(self, data):
        self.unread += len(data)
        self.packet = data
        super().data_received(data)
        self.packet = None
        if self.unread > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The header of the request is too large.")
        if not self.is_whole and not self.transport.is_closing():
            self.expect_more()

    def on_message_begin(self):
        self.is_whole = False
        super().on_message_begin()

    def on_headers_complete(self):
        # uvicorn answers an exception with 400.
        if len(self.pipeline) >= MAX_PIPELINE:
            raise ValueError("The client does not wait for answers.")
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            raise ValueError("The header of the request is too large.")
        # As a path and a cookie may hold NUL, at which PostgreSQL fails. No page has a use for it.
        if b"%00" in self.url or any(rb"\000" in value for name, value in self.headers if name == b"cookie"):
            raise ValueError("The request holds a NUL character.")
        self.body_left = MAX_BODY
        super().on_headers_complete()

    def on_body(self, body):
        self.unread = 0
        self.body_left -= len(body)
        if self.body_left >= 0:
            super().on_body(body)
        elif not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def on_message_complete(self):
        self.unread = 0
        self.is_whole = True
        super().on_message_complete()

    def handle_websocket_upgrade(self):
        if has_left(self.transport):
            return self.transport.abort()
        if sum(1 + value.count(b",") + value.count(b";") for _, value in self.headers) > MAX_ITEMS:
            return self.send_400_response("The header of the request has too many lines, or too long lists.")
        if self.cycle is not None and not self.cycle.response_complete:
            # Its response would come in the middle of frames.
            return self.send_400_response("The client does not wait for the answer to the request before.")
        # httptools leaves spaces at the end, which belong to no value (RFC 9110, section 5.5).
        headers = Headers((name.decode(), value.strip(b" \t").decode("latin-1")) for name, value in self.headers)
        if "Transfer-Encoding" in headers or not set(headers.get_all("Content-Length")) <= {"0"}:
            return self.send_400_response("A handshake has no body.")
        if not self.url.isascii():
            return self.send_400_response("The path of the request is not ASCII.")
        self.connections.discard(self)
        protocol = WebSocketProtocol(self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        # uvicorn's own writes the request anew, and websockets parses it once more: a tenth of a handshake.
        protocol.handle_connect(Request(self.url.decode(), headers, self.scope["method"]))
        # uvicorn calls this where it catches HttpParserUpgrade, which says where the request ends. It forgets what follows
        # in the same packet: the client would wait for ever.
        if early := self.packet[sys.exception().args[0] :]:
            protocol.data_received(early)
        # The two have each other, and would wait for the garbage collector. uvicorn's connection_lost() is not called here.
        self.parser = None


def freeze():
    """
    Let the garbage collector leave alone what there is now, less what is garbage.

    To go through what 4,000 logged-in sockets hold takes it half a second, several times while they come and every ten
    seconds afterwards, and nothing else runs meanwhile. What nobody refers to any more is freed without it.
    """
    gc.collect()
    gc.freeze()


@lru_cache(maxsize=1)
def frame_of(data):
    """
    Return the frame that carries `data`, a str or bytes (RFC 6455, section 5.2).

    The members of a group are sent the same frame one after the other, so the last one is kept. To make one by websockets
    takes a third of a delivery.
    """
    opcode, payload = (Opcode.BINARY, data) if isinstance(data, bytes) else (Opcode.TEXT, data.encode())
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 2**16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


class Queue:
    """What the server has for the application. An asyncio.Queue takes 3 KB of each socket, however empty it is."""

    def __init__(self):
        self.items, self.waiters = [], []

    def empty(self):
        return not self.items

    def put_nowait(self, item):
        self.items.append(item)
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def get(self):
        while not self.items:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            try:
                await waiter
            finally:
                self.waiters.remove(waiter)
        return self.items.pop(0)


class Flusher:
    """Flushes the Writers of an event loop at the end of a turn: a callback for each would cost a fifth of a broadcast."""

    def __init__(self, loop):
        self.loop, self.writers = loop, deque()

    def add(self, writer):
        if not self.writers:
            self.loop.call_soon(self.flush)
        self.writers.append(writer)

    def flush(self):
        try:
            while self.writers:
                self.writers.popleft().flush()
        finally:
            # What is wrong with one is not the others' fault.
            if self.writers:
                self.loop.call_soon(self.flush)


class Ends:
    """Lets ENDS tasks of an event loop go on in each of its turns, in order."""

    def __init__(self, loop):
        # left: those who may still go on in this turn.
        self.loop, self.waiting, self.left = loop, deque(), ENDS

    async def wait(self):
        if self.left == ENDS:
            self.loop.call_soon(self.begin_turn)
        if self.left:
            self.left -= 1
        else:
            self.waiting.append(turn := self.loop.create_future())
            await turn

    def begin_turn(self):
        self.left = ENDS
        while self.waiting and self.left:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.left -= 1
        if self.left < ENDS:
            self.loop.call_soon(self.begin_turn)


def of_loop(loop, kind):
    """Return the Flusher or the Ends of `loop`, which is kept there, and goes with it."""
    if not hasattr(loop, name := f"_{kind.__name__.lower()}"):
        setattr(loop, name, kind(loop))
    return getattr(loop, name)


class Writer:
    """
    A transport that writes once in a turn of the event loop what is sent to its socket meanwhile: a greeting with the
    response of the handshake, answers to frames that came together. A write costs as much as all else of a short message.
    """

    __slots__ = ("flusher", "size", "transport", "waiting")

    def __init__(self, transport, flusher):
        self.transport, self.flusher = transport, flusher
        self.waiting, self.size = [], 0

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def write(self, data):
        if not self.waiting:
            self.flusher.add(self)
        self.waiting.append(data)
        self.size += len(data)
        if self.size > MAX_UNWRITTEN:
            self.flush()

    def flush(self):
        waiting, self.waiting, self.size = self.waiting, [], 0
        if waiting and not self.transport.is_closing():
            self.transport.write(b"".join(waiting))

    def close(self):
        self.flush()
        self.transport.close()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    # In this process: all that have opened, and those that have ended since the garbage collector went through all.
    opened = ended = 0

    def connection_made(self, transport):
        self.queue, self.ends = Queue(), of_loop(self.loop, Ends)
        self.logger = self.conn.logger = logger
        self.control_frames = 0
        self.abort_timer = self.turn = None
        self.unread = b""
        # uvicorn reads all that the kernel holds in one go: from a client that floods, megabytes, which block the
        # others.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        super().connection_made(Writer(transport, of_loop(self.loop, Flusher)))

    def connection_lost(self, exc):
        super().connection_lost(exc)
        for timer in (self.abort_timer, self.turn):
            if timer is not None:
                timer.cancel()
        WebSocketProtocol.ended += 1
        if self.ended > len(self.connections) + MAX_ENDED:
            # What was frozen may be garbage now: a consumer, and an object of it that refers to the consumer.
            WebSocketProtocol.ended = 0
            gc.unfreeze()
            freeze()

    def eof_received(self):
        # The transport closes now, without asking its Writer.
        self.transport.flush()

    def data_received(self, data):
        if self.turn is None and len(data) <= TURN and self.handshake_complete:
            return self.parse(data)
        self.unread += data
        if not self.handshake_complete:
            # A client waits for the response (RFC 6455, section 4.1). websockets can answer no frame before it.
            self.transport.pause_reading()
        elif self.turn is None:
            self.take_turn()

    def take_turn(self):
        """Take a part of what has been read. Nothing more is read before all of it is taken."""
        part, self.unread = self.unread[:TURN], self.unread[TURN:]
        self.turn = self.loop.call_soon(self.take_turn) if self.unread else None
        self.parse(part)
        if self.unread:
            self.transport.pause_reading()
        elif not self.read_paused:
            self.resume_reading()

    def parse(self, data):
        """
        Take the frames of `data`: short texts at its beginning here, all that follows by websockets.

        Most frames of a client are short texts, and to parse one by websockets takes a fifth of an echo. One has a first
        byte of 0x81, a second of its size and 0x80, four bytes of a mask, and its text (RFC 6455, section 5.2).
        """
        start, longest = 0, min(MAX_SHORT, self.config.ws_max_size)
        # Not within a message that comes in fragments.
        while not self.frames and len(data) - start >= 6 and self.conn.state is State.OPEN:
            size, text = data[start + 1] ^ 0x80, start + 6
            end = text + size
            is_short = data[start] == 0x81 and size <= longest and end <= len(data)
            # Within a frame, websockets' parser waits for the rest of it instead.
            if not is_short or self.conn.parser.gi_yieldfrom.__name__ != "at_eof":
                break
            self.curr_msg_data_type = "text"
            self.frames = [apply_mask(data[text:end], data[start + 2 : text])]
            self.send_receive_event_to_app()
            start = end
        if start < len(data):
            super().data_received(data[start:])

    def handle_connect(self, event):
        # From here on frames are parsed, no request.
        self.conn.parser = Protocol.parse(self.conn)
        next(self.conn.parser)
        super().handle_connect(event)

    def send(self, message):
        match message["type"]:
            case "websocket.send" if self.handshake_complete and not self.conn.extensions:
                return self.send_frame(message)
            case "websocket.accept":
                return self.accept(message)
        return super().send(message)

    async def send_frame(self, message):
        if not self.writable.is_set():
            await self.writable.wait()
        data = message.get("text") if message.get("bytes") is None else message["bytes"]
        is_open = self.conn.state is State.OPEN and not self.close_sent and not self.disconnected
        if is_open and type(data) in (str, bytes):
            self.transport.write(frame_of(data))
        else:
            await super().send(message)

    async def accept(self, message):
        await super().send(message)
        # uvicorn and websockets keep them, 4 KB, and never look at them again.
        self.request.headers.clear()
        self.response.headers.clear()
        WebSocketProtocol.opened += 1
        if self.opened % FREEZE_EVERY == 0 and len(self.connections) > FREEZE_EVERY:
            freeze()
        if self.unread and self.handshake_complete:
            self.take_turn()

    def shutdown(self):
        """Close with 1012, sockets of a large crowd one after the other: all at once they would come back at once."""
        spread = min(MAX_SPREAD, len(self.connections) / CLOSED_PER_SECOND)
        self.loop.call_later(random.uniform(0, spread), self.close_for_shutdown)

    def close_for_shutdown(self):
        # A client that has closed may have much to read before it is gone.
        if not self.disconnected and not self.transport.is_closing():
            super().shutdown()

    def send_receive_event_to_app(self):
        if self.read_paused or self.close_sent:
            return super().send_receive_event_to_app()
        # uvicorn stops reading before each message, and begins again when it is taken. Nearly all are taken in the next
        # turn: two system calls for nothing.
        self.read_paused = True
        super().send_receive_event_to_app()
        self.loop.call_soon(self.pause_reading)

    def pause_reading(self):
        if self.read_paused:
            self.transport.pause_reading()

    async def run_asgi(self):
        # Those who have ended give back their places first, to those who come back for one.
        if self.ends.waiting:
            await self.ends.wait()
        await super().run_asgi()

    async def receive(self):
        # As uvicorn's, which would read more although there is something left.
        message = await self.queue.get()
        if message["type"] == "websocket.disconnect":
            # It stays there for the next one if this one is cancelled meanwhile.
            self.queue.items.insert(0, message)
            await self.ends.wait()
            message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self.resume_reading()
        return message

    def resume_reading(self):
        if not self.unread and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_task_complete(self, task):
        super().on_task_complete(task)
        self.abort_soon()

    def keepalive_timeout(self):
        super().keepalive_timeout()
        self.abort_soon()

    def abort_soon(self):
        """Drop the connection if the client has not closed it after LINGER seconds."""
        if self.abort_timer is None and not self.disconnected:
            self.abort_timer = self.loop.call_later(LINGER, self.transport.abort)

    def send_keepalive_ping(self):
        self.control_frames = 0
        super().send_keepalive_ping()

    def handle_ping(self):
        if self.takes_control_frame():
            super().handle_ping()

    def handle_pong(self, event):
        if self.takes_control_frame():
            super().handle_pong(event)

    def takes_control_frame(self):
        self.control_frames += 1
        if self.control_frames > MAX_CONTROL_FRAMES:
            self.transport.abort()
        return self.control_frames <= MAX_CONTROL_FRAMES

    def handle_cont(self, event):
        if len(self.frames) < MAX_FRAGMENTS:
            return super().handle_cont(event)
        self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"more than {MAX_FRAGMENTS} fragments")
        self.handle_parser_exception()
        self.frames = []
