"""
Frames: the JSON objects with a string "type" that cross a socket, declared as types.

    class Message(Frame):            # {"type": "message", "text": …, "id": …}
        text: Annotated[str, Text(max_length=2000)]

What a client sends is decoded, checked and typed in one step, before a consumer sees it. A frame that breaks a rule
is answered with an `error` frame, and the socket stays open. https://jcristharif.com/msgspec/structs.html
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime, time, timedelta
from functools import cache
from typing import Annotated, Any, Union, dataclass_transform

import msgspec
from django.core.serializers.json import DjangoJSONEncoder
from msgspec import UNSET, Meta, Raw, Struct, StructMeta, UnsetType, ValidationError, inspect
from msgspec.structs import astuple, fields

MAX_ID_LENGTH = 100
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]

_NO_NUL = r"^[^\0]*$"


def Text(max_length: int, min_length: int = 1) -> Meta:
    """
    Say how long a string may be: `Annotated[str, Text(max_length=2000)]`.

    The lengths are in code points, as `len()` counts them. NUL is refused, since PostgreSQL cannot store it.
    """
    return Meta(min_length=min_length, max_length=max_length, pattern=_NO_NUL)


def size_of(data: str | bytes) -> int:
    """Return the bytes of `data` on the wire."""
    # A str knows whether it is ASCII.
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode(errors="surrogatepass"))


def _snake_case(name):
    # Msgspec calls a class inside another "Outer.Inner".
    name = name.rpartition(".")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class _FrameMeta(StructMeta):
    """Makes the fields of subclasses keyword-only, too: a required one may then follow those of the base class."""

    def __new__(cls, name, bases, namespace, **options):
        return super().__new__(cls, name, bases, namespace, **{"kw_only": True, **options})


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Frame(Struct, metaclass=_FrameMeta, tag_field="type", tag=_snake_case, omit_defaults=True):
    """
    A JSON object with a "type", which is the name of the class in snake_case, or `class Message(Frame, tag="chat")`.

    A field with its default is left out of the JSON, so a page reads `frame.seq ?? 0`. What no type can say is
    checked in `__post_init__()`, which raises FrameError.

    id: str of 1 to 100 characters or None, the client's name for this frame; the answer to it has the same.
    """

    id: Id | None = None


class Ping(Frame):
    """Ask for a pong."""


class WithBounds(Frame):
    """
    What every greeting and pong says, set when it is sent.

    max_size: bytes that a frame may have. crowd: seconds over which pages spread their return. frames_per_second,
    frame_burst: those of the consumer, which all sockets of a user share; null is no limit.
    """

    max_size: int | UnsetType = UNSET
    crowd: float | UnsetType = UNSET
    frames_per_second: float | UnsetType | None = UNSET
    frame_burst: float | UnsetType | None = UNSET


class Pong(WithBounds):
    """Answer a ping."""


class ConnectionEstablished(WithBounds):
    """Greet."""

    # Made by a function, it is no default that is left out.
    message: str = msgspec.field(default_factory=lambda: "You are now connected!")


class Wait(Frame):
    """Tell a page that its greeting takes some more seconds."""

    seconds: float


class Error(Frame):
    """
    Refuse the frame with this id.

    code: for programs. message: for people. retry_after: seconds, or None.
    """

    code: str
    message: str
    retry_after: float | None = None


class FrameError(Exception):
    """
    Raise it in `receive_frame()` to refuse a frame: the client gets `{"type": "error", "code": …, "message": …}`.

    code: str, for programs, such as "text_too_long".
    message: str, for people: what was wrong and what is allowed.
    id: str or None, the "id" of a refused frame that `receive_frame()` has not seen.
    """

    def __init__(self, code: str, message: str, id: str | None = None):
        super().__init__(message)
        self.code, self.message, self.id = code, message, id


_TOO_DEEP = ("too_deep", "The frame is nested too deep.")


# In


class _Head(Struct):
    type: Raw = Raw(b"null")
    id: Raw = Raw(b"null")


class _NoFrame(Frame, tag=""):
    """A second class of each union: msgspec takes objects without a "type" where there is only one."""

    def __post_init__(self):
        raise ValueError


# UnicodeError: of text that UTF-8 cannot carry.
_ERRORS = (msgspec.DecodeError, UnicodeError)
_heads = msgspec.json.Decoder(_Head)
_ids = msgspec.json.Decoder(Id | None)
_strings = msgspec.json.Decoder(str)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def decoder_of(frame_classes: Iterable[type[Frame]]) -> Callable[[str], Frame]:
    """
    Return a function that turns the text of a frame into an object of one of these classes, or of Ping.

    The function raises FrameError for any other text. Keys that no field has are skipped.
    """
    if not isinstance(frame_classes, list | tuple):
        name = getattr(frame_classes, "__name__", "Message")
        raise TypeError(f"`receives` must be a list, such as [{name}], not {frame_classes!r}.")
    classes: dict[Any, type[Frame]] = {"": _NoFrame}
    for frame_class in {id(each): each for each in (Ping, *frame_classes)}.values():
        if not (isinstance(frame_class, type) and issubclass(frame_class, Frame)):
            raise TypeError(f"A consumer takes subclasses of Frame, not {frame_class!r}.")
        tag = frame_class.__struct_config__.tag
        if tag in classes:
            name = frame_class.__name__
            raise TypeError(f'Two frames have the type "{tag}"; give one another: `class {name}(Frame, tag="…")`.')
        classes[tag] = frame_class
    decode_union = msgspec.json.Decoder(Union[tuple(classes.values())]).decode  # noqa: UP007

    def decode(text):
        try:
            return decode_union(text)
        except (*_ERRORS, RecursionError, FrameError) as error:
            # Not in a variable here: the error, its traceback and this text would be a cycle, which waits for the
            # garbage collector.
            raise _refusal(text, error, classes) from None

    return decode


def _refusal(text, error, classes):
    """Return the FrameError for `text`, which the decoder of `classes`, a dict by tag, has refused with `error`."""
    tag, id = _read_head(text)
    if not tag or tag not in classes:
        return FrameError("unknown_type", f'Frames of type "{tag[:50]}" are not understood.', id)
    refused = error if isinstance(error, FrameError) else _explain(error, classes[tag])
    refused.id = refused.id or id
    return refused


def find_id(text: str) -> str | None:
    """Return the "id" of a frame that is refused without being decoded, or None if it has none."""
    try:
        return _read_head(text)[1]
    except FrameError as error:
        return error.id


def _read_head(text):
    """Return the type, a str, and the id, a str or None. Raises FrameError if `text` is no frame."""
    has_halves = False
    try:
        try:
            head = _heads.decode(text)
        except _ERRORS:
            # JSON stays what it is with another character in place of each surrogate, whole pairs too.
            head = _heads.decode(_SURROGATE.sub(r"\\ufffd", text.encode(errors="backslashreplace").decode()))
            has_halves = True
    except RecursionError:
        raise FrameError(*_TOO_DEEP) from None
    except ValidationError:
        raise FrameError("not_an_object", "The frame is not a JSON object.") from None
    except _ERRORS:
        raise FrameError("not_json", "The frame is not JSON (RFC 8259).") from None
    try:
        id = _ids.decode(head.id)
    except _ERRORS:
        raise FrameError("bad_id", f'"id" must be a string of 1 to {MAX_ID_LENGTH} characters.') from None
    if has_halves:
        raise FrameError("not_unicode", "The frame holds half of a surrogate pair, which UTF-8 cannot carry.", id)
    try:
        return _strings.decode(head.type), id
    except _ERRORS:
        raise FrameError("no_type", 'The frame has no "type", or it is not a string.', id) from None


@cache
def _types_of(frame_class):
    """Return {name in JSON: msgspec's description of the type}. One that may be None or unset counts without that."""
    types = {}
    for field in fields(frame_class):
        type = inspect.type_info(field.type)
        parts = [part for part in getattr(type, "types", (type,)) if not isinstance(part, inspect.NoneType)]
        types[field.encode_name] = parts[0] if len(parts) == 1 else None
    return types


def _explain(error, frame_class):
    """Return the FrameError for a ValidationError of a field. The text of msgspec is read here and never sent."""
    what, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if missing := re.match("Object missing required field `(.+)`", what):
        path = f"{path}.{missing[1]}".lstrip(".")
    name = re.split(r"[.\[]", path)[0]
    if not name:
        return FrameError("bad_frame", "The frame does not fit its type.")
    type = _types_of(frame_class).get(name)
    if isinstance(type, inspect.StrType) and name != "id":
        if what.startswith("Expected `str` of length >=") and type.min_length == 1:
            return FrameError(f"{name}_empty", f'"{name}" is empty.')
        if what.startswith("Expected `str` of length <="):
            return FrameError(f"{name}_too_long", f'"{name}" is too long; {type.max_length} characters are allowed.')
        if what.startswith("Expected `str` matching") and type.pattern == _NO_NUL:
            return FrameError(f"{name}_has_nul", f'"{name}" holds a NUL character, which is not allowed.')
        if not what.startswith(("Expected `str` of", "Expected `str` matching")):
            return FrameError(f"no_{name}", f'"{name}" is missing, or it is not a string.')
    if isinstance(type, inspect.IntType | inspect.FloatType):
        kind = "an integer" if isinstance(type, inspect.IntType) else "a number"
        signs = {">": type.gt, ">=": type.ge, "<": type.lt, "<=": type.le}
        limits = " and".join(f" {sign} {limit}" for sign, limit in signs.items() if limit is not None)
        return FrameError("bad_number", f'"{name}" must be {kind}{limits}.')
    return FrameError(f"bad_{name}", f'"{path}" is missing, or it does not fit this type of frame.')


# Out


class _Encoder(DjangoJSONEncoder):
    """Django's encoder, for what msgspec would write otherwise (dates) or not at all (lazy strings)."""

    def default(self, o):
        if isinstance(o, str | int | float):
            # A subclass, which json writes as its base class.
            return json.loads(json.dumps(o))
        try:
            # Django refuses a time with an offset, which a client may have sent.
            return o.isoformat() if isinstance(o, time) and o.tzinfo else super().default(o)
        except TypeError:
            kind = type(o).__name__
            raise TypeError(f"A frame cannot hold a {kind}: put its values in, such as the pk of a model.") from None


# What can be sent: a frame, or what is sent as it is, such as HTML.
Sendable = Frame | dict[str, Any] | str | bytes

_encoder = _Encoder(ensure_ascii=False, allow_nan=False)
_encode_plain = msgspec.json.Encoder().encode
_PLAIN = frozenset((str, int, bool, type(None), UnsetType))
_STR = frozenset((str,))
# Types that msgspec writes in another way than Django.
_DJANGOS = (datetime, time, timedelta, bytes, bytearray, memoryview)


def encode(frame: Sendable) -> str | bytes:
    """
    Return `frame`, a Frame or a dict with a string "type", as JSON, with the values that DjangoJSONEncoder knows.

    A str or bytes is returned unchanged.

    Raises TypeError for anything else, and ValueError for NaN, Infinity and half a surrogate pair, which no browser
    could read. Raises FrameError for a value that is nested too deep, since a client may have sent it.
    """
    if isinstance(frame, (str, bytes)):
        # Of half a surrogate pair each socket of a group would fail.
        return frame if isinstance(frame, bytes) else frame.encode().decode()
    if isinstance(frame, dict):
        if not isinstance(frame.get("type"), str):
            raise ValueError(f'A frame needs a string "type"; this one has the keys {[*frame]}.')
    elif not isinstance(frame, Frame):
        raise TypeError(f'A frame is a Frame or a dict with a string "type", not {frame!r:.100}.')
    try:
        if _is_plain(frame):
            return _encode_plain(frame).decode()
        text = _encoder.encode(msgspec.to_builtins(frame, builtin_types=_DJANGOS, enc_hook=_encoder.default))
    except RecursionError:
        raise FrameError(*_TOO_DEEP) from None
    # Surrogates cannot be encoded.
    text.encode()
    return text


def _is_plain(value):
    """Tell whether msgspec writes this dict, list, struct or float as DjangoJSONEncoder would, only faster."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        if not _STR.issuperset(map(type, value)):
            return False
        values = value.values()
    elif kind is list:
        values = value
    elif kind is float:
        return math.isfinite(value)
    elif isinstance(value, Struct):
        values = astuple(value)
    else:
        return False
    return _PLAIN.issuperset(map(type, values)) or all(map(_is_plain, values))
