"""
Frames: the JSON objects with a string "type" that cross a socket.

What a client sends is checked here, before a consumer sees it. A frame that breaks a rule is answered with an
`error` frame, and the socket stays open.
"""

import json
import math
import time

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder

MAX_DEPTH = 32
MAX_ID_LENGTH = 100

_TOO_DEEP = ("too_deep", f"The frame is nested more than {MAX_DEPTH} deep.")


class FrameError(Exception):
    """
    Raise it in `receive_json()` to refuse a frame: the client gets `{"type": "error", "code": …, "message": …}`.

    code: str, for programs, such as "text_too_long".
    message: str, for people: what was wrong and what is allowed.
    id: str or None, the "id" of a refused frame that `receive_json()` has not seen.
    """

    def __init__(self, code, message, id=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


class FrameLimit:
    """
    How many frames one socket may send: a bucket of REALTIME_FRAME_BURST tokens, filled at REALTIME_FRAMES_PER_SECOND.

    refused: frames since the bucket was full.
    """

    def __init__(self):
        self.refused = 0
        self._rate = settings.REALTIME_FRAMES_PER_SECOND
        self._burst = self._tokens = settings.REALTIME_FRAME_BURST
        self._then = time.monotonic()

    def take(self):
        """Take a token for one frame. Returns None, or without one the seconds until there will be, above 0."""
        if not self._rate:
            return None
        now = time.monotonic()
        self._tokens += (now - self._then) * self._rate
        self._then = now
        if self._tokens >= self._burst:
            self._tokens = self._burst
            self.refused = 0
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        self.refused += 1
        return math.ceil((1 - self._tokens) / self._rate * 10) / 10

    @property
    def is_abused(self):
        """Whether as many frames were refused as are allowed at once."""
        return self.refused > self._burst


def decode_frame(text):
    """
    Return the frame in `text`, a dict with a string "type".

    Raises FrameError for what is not a frame: not JSON (RFC 8259, so NaN is none), not an object, nested more than
    32 deep, holding a lone surrogate, or with an "id" that is not a string of 1 to 100 characters.
    """
    try:
        frame = _decoder.decode(text)
    except RecursionError:
        raise FrameError(*_TOO_DEEP) from None
    except ValueError as error:
        raise FrameError("not_json", f"The frame is not JSON: {error}.") from None
    if not isinstance(frame, dict):
        raise FrameError("not_an_object", "The frame is not a JSON object.")
    id = frame.get("id")
    if id is not None and not (isinstance(id, str) and 0 < len(id) <= MAX_ID_LENGTH and _is_encodable(id)):
        raise FrameError("bad_id", f'"id" must be a string of 1 to {MAX_ID_LENGTH} characters.')
    if text.count("[") + text.count("{") > MAX_DEPTH < _depth(frame):
        raise FrameError(*_TOO_DEEP, id)
    if "\\u" in text and not _is_encodable(frame):
        raise FrameError("not_unicode", "The frame holds half of a surrogate pair, which UTF-8 cannot carry.", id)
    if not isinstance(frame.get("type"), str):
        raise FrameError("no_type", 'The frame has no "type", or it is not a string.', id)
    return frame


def encode_frame(frame):
    """
    Return `frame`, a dict of what JSON and DjangoJSONEncoder know, as a JSON str.

    Raises TypeError for anything else, and ValueError for NaN and Infinity, which no browser could read.
    """
    return _encoder.encode(frame)


def get_text(frame, key, max_length):
    """
    Return the string `frame[key]`, of 1 to `max_length` characters (code points, as `len()` counts them).

    Raises FrameError when it is missing, no string, empty, too long, or holds NUL, which PostgreSQL cannot store.
    """
    text = frame.get(key)
    if not isinstance(text, str):
        raise FrameError("no_text", f'"{key}" is missing, or it is not a string.')
    if not text:
        raise FrameError("text_empty", f'"{key}" is empty.')
    if len(text) > max_length:
        raise FrameError("text_too_long", f'"{key}" has {len(text)} characters; {max_length} are allowed.')
    if "\0" in text:
        raise FrameError("text_has_nul", f'"{key}" holds a NUL character, which is not allowed.')
    return text


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON value")


_encoder = DjangoJSONEncoder(allow_nan=False)
_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _depth(value):
    """Return how deep lists and dicts are nested in `value`, without recursion."""
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
        ]
        depth += 1
    return depth


def _is_encodable(value):
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
