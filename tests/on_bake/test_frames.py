"""What crosses a socket: decoded, checked and typed on the way in, as DjangoJSONEncoder writes it on the way out."""

import collections
import datetime
import gc
import json
import math
import subprocess
import sys
import time
import uuid
import weakref
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest
from django.contrib.auth import get_user_model
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import TextChoices
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from realtime.frames import (
    ConnectionEstablished,
    Error,
    Frame,
    FrameError,
    Ping,
    Pong,
    Text,
    Wait,
    decoder_of,
    encode,
    find_id,
)

# Deeper than any stack: Python 3.14 goes down 260,000 levels, 3.13 ten thousand.
DEEP = 500_000
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Message(Frame):
    text: Annotated[str, Text(max_length=5)]


class HTTPResume(Frame):
    after: Number


class Everything(Frame):
    text: Annotated[str, Text(max_length=5)] | None = None
    name: Annotated[str, msgspec.Meta(min_length=3, max_length=5, pattern="^[a-z]*$")] = "ada"
    count: Number | None = None
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    size: int = 0
    done: bool = False
    either: int | str = 0
    kind: Literal["a", "b"] = "a"
    when: datetime.datetime | None = None
    who: uuid.UUID | None = None
    many: list[int] = msgspec.field(default_factory=list)
    scores: dict[str, int] = msgspec.field(default_factory=dict)
    inner: Message | None = None
    rest: Any = None


class Checked(Frame):
    low: int
    high: int

    def __post_init__(self):
        if self.low > self.high:
            raise FrameError("wrong_order", '"low" is above "high".')
        if self.low < 0:
            raise ValueError("only for the log")


class Renamed(Frame, tag="other", rename="camel"):
    first_name: Annotated[str, Text(max_length=5)]


class Posted(Frame):
    id: Annotated[str, msgspec.Meta(min_length=3, pattern="^[0-9a-f-]+$")]


decode = decoder_of([Posted, Message, HTTPResume, Everything, Checked, Renamed])


def refused(text, decode=decode):
    """Return the FrameError for a text."""
    with pytest.raises(FrameError) as error:
        decode(text)
    return error.value


def measure(function):
    """Return the seconds of this thread that a call takes, in the best of some tries."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return min(times)


def frame(type, **fields):
    return json.dumps({"type": type, **fields})


# In


def test_a_frame_is_an_object_with_types():
    message = decode('{"text": "h\\u00e9\\ud83d\\ude00", "type": "message", "id": "7", "unknown": [1]}')

    assert message == Message(text="hé😀", id="7")
    assert decode('{"type": "message", "text": "a", "id": null}').id is None
    assert decode(frame("http_resume", after=2**53)) == HTTPResume(after=2**53)
    assert decode(frame("other", firstName="Ada")) == Renamed(first_name="Ada")
    assert decode(frame("everything", when="2026-01-01T00:00:00Z")).when.year == 2026
    assert decode('{"type": "ping"}') == Ping()


@pytest.mark.parametrize(
    ("text", "code", "id"),
    [
        ("", "not_json", None),
        ("{", "not_json", None),
        ('{"type": "ping"} {}', "not_json", None),
        ('{"type": "ping", "n": NaN}', "not_json", None),
        ('{"type": "unknown", "n": NaN}', "not_json", None),
        ('{"type": "ping", "s": "\\ud83d\\ude00", "n": Infinity}', "not_json", None),
        ('{"type": "ping", "s": "\t"}', "not_json", None),
        ('{"type": "ping", "s": "\\\\ud800}', "not_json", None),
        ("\ufeff{}", "not_json", None),
        ("[]", "not_an_object", None),
        ("null", "not_an_object", None),
        ('"\\ud800"', "not_an_object", None),
        ("[" * 20_000, "not_an_object", None),
        ("{}", "no_type", None),
        ('{"id": "7"}', "no_type", "7"),
        ('{"type": ["message"], "id": "7"}', "no_type", "7"),
        ('{"type": null, "id": "7"}', "no_type", "7"),
        ('{"type": "unknown", "id": "7"}', "unknown_type", "7"),
        ('{"type": "", "id": "7"}', "unknown_type", "7"),
        ('{"type": "pong", "id": "7"}', "unknown_type", "7"),
        ('{"type": "unknown", "type": "message", "text": "a", "id": "7"}', "bad_type", "7"),
        ('{"type": "message", "text": "a", "id": ""}', "bad_id", None),
        ('{"type": "message", "text": "a", "id": 7}', "bad_id", None),
        ('{"type": "message", "text": "a", "id": {"a": 1}}', "bad_id", None),
        ('{"type": "unknown", "id": 7}', "bad_id", None),
        ('{"type": "message", "text": "a", "id": "' + "é" * 101 + '"}', "bad_id", None),
        # Half a pair: first, second, before others, doubled, in a name, skipped, not escaped.
        ('{"type": "message", "id": "7", "text": "\\ud800"}', "not_unicode", "7"),
        ('{"type": "message", "id": "7", "text": "\\uDFFF and more than five"}', "not_unicode", "7"),
        ('{"type": "message", "id": "7", "text": "\\ud800 and more than five"}', "not_unicode", "7"),
        ('{"type": "message", "id": "7", "text": "\\ud800\\ud800 and more"}', "not_unicode", "7"),
        ('{"type": "message", "id": "7", "text": "a", "\\ud800": 1}', "not_unicode", "7"),
        ('{"type": "message", "id": "7", "text": "a", "skipped": ["\\ud800"]}', "not_unicode", "7"),
        ('{"type": "message", "id": "7", "text": "\ud800"}', "not_unicode", "7"),
        ('{"id": "7", "text": "\\udfff"}', "not_unicode", "7"),
        ('{"type": "message", "id": 7, "text": "\\udfff"}', "bad_id", None),
        (
            '{"type": "message", "id": "7", "text": "a", "skipped": ' + DEEP * "[" + DEEP * "]" + "}",
            "too_deep",
            None,
        ),
        ('{"type": "everything", "id": "7", "rest": ' + DEEP * '{"a":' + "1" + DEEP * "}" + "}", "too_deep", None),
        ('{"type": "message", "text": "\\ud800", "skipped": ' + DEEP * "[" + DEEP * "]" + "}", "too_deep", None),
    ],
)
def test_what_is_no_frame_is_refused(text, code, id):
    error = refused(text)

    assert (error.code, error.id) == (code, id)
    assert find_id(text) == id


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"type": "message"}', '{"type": "unknown"}', '{"type": "message", "id": 7}']
)
def test_a_refused_frame_is_freed_at_once(text):
    """In a cycle it would wait for the garbage collector: a client that sends thousands of 64 KiB fills the memory."""
    decode = decoder_of([Message])
    gc.collect()
    gc.disable()
    try:
        try:
            decode(text)
        except FrameError as error:
            refused = weakref.ref(error)
        assert refused() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        # A string
        ({"text": None}, "no_text", '"text" is missing, or it is not a string.'),
        ({"text": 1}, "no_text", '"text" is missing, or it is not a string.'),
        ({"text": ["a"]}, "no_text", '"text" is missing, or it is not a string.'),
        ({"text": ""}, "text_empty", '"text" is empty.'),
        ({"text": "123456"}, "text_too_long", '"text" is too long; 5 characters are allowed.'),
        ({"text": "a\0b"}, "text_has_nul", '"text" holds a NUL character, which is not allowed.'),
        ({"text": "\n\0\n"}, "text_has_nul", '"text" holds a NUL character, which is not allowed.'),
        # A number
        ({"type": "http_resume"}, "bad_number", '"after" must be an integer >= 0 and <= 9007199254740992.'),
        ({"type": "http_resume", "after": None}, "bad_number", None),
        ({"type": "http_resume", "after": "3"}, "bad_number", None),
        ({"type": "http_resume", "after": True}, "bad_number", None),
        ({"type": "http_resume", "after": 1.0}, "bad_number", None),
        ({"type": "http_resume", "after": 1.5}, "bad_number", None),
        ({"type": "http_resume", "after": -1}, "bad_number", None),
        ({"type": "http_resume", "after": 2**53 + 1}, "bad_number", None),
        ({"type": "http_resume", "after": 10**400}, "bad_number", None),
        ({"type": "http_resume", "after": []}, "bad_number", None),
        ({"type": "everything", "count": "1"}, "bad_number", None),
        ({"type": "everything", "share": 1}, "bad_number", '"share" must be a number > 0 and < 1.'),
        ({"type": "everything", "share": "1"}, "bad_number", '"share" must be a number > 0 and < 1.'),
        ({"type": "everything", "size": "1"}, "bad_number", '"size" must be an integer.'),
        # The rest
        ({"type": "everything", "done": 1}, "bad_done", '"done" is missing, or it does not fit this type of frame.'),
        (
            {"type": "everything", "name": "ab"},
            "bad_name",
            '"name" is missing, or it does not fit this type of frame.',
        ),
        ({"type": "everything", "name": "ABC"}, "bad_name", None),
        ({"type": "everything", "either": []}, "bad_either", None),
        ({"type": "everything", "kind": "c"}, "bad_kind", None),
        ({"type": "everything", "when": "today"}, "bad_when", None),
        ({"type": "everything", "who": "me"}, "bad_who", None),
        ({"type": "everything", "many": {}}, "bad_many", None),
        (
            {"type": "everything", "many": [1, "<b>"]},
            "bad_many",
            '"many[1]" is missing, or it does not fit this type of frame.',
        ),
        (
            {"type": "everything", "scores": {"<b>": "<b>"}},
            "bad_scores",
            '"scores[...]" is missing, or it does not fit this type of frame.',
        ),
        (
            {"type": "everything", "inner": {"type": "message"}},
            "bad_inner",
            '"inner.text" is missing, or it does not fit this type of frame.',
        ),
        ({"type": "everything", "inner": {"type": "message", "text": ""}}, "bad_inner", None),
        ({"type": "other"}, "no_firstName", '"firstName" is missing, or it is not a string.'),
        # What a class checks itself
        ({"type": "checked", "low": 2, "high": 1}, "wrong_order", '"low" is above "high".'),
        ({"type": "checked", "low": -2, "high": 1}, "bad_frame", "The frame does not fit its type."),
    ],
)
def test_a_field_that_does_not_fit_is_refused(fields, code, message):
    error = refused(frame(**{"type": "message", "id": "7", **fields}))

    assert (error.code, error.id) == (code, "7")
    assert message in (None, error.message)


@pytest.mark.parametrize("fields", [{}, {"id": "a"}, {"id": "ABC"}])
def test_a_class_may_ask_more_of_an_id(fields):
    error = refused(frame("posted", **fields))

    assert (error.code, error.id) == ("bad_id", fields.get("id"))
    assert decode(frame("posted", id="abc")).id == "abc"


def test_a_missing_field_is_refused():
    error = refused(frame("message"))

    assert (error.code, error.message) == ("no_text", '"text" is missing, or it is not a string.')


def test_a_class_that_is_alone_needs_its_type_too():
    """Msgspec takes `{}` for the only class of a decoder."""
    assert decoder_of([])('{"type": "ping"}') == Ping()
    assert refused("{}", decoder_of([])).code == "no_type"
    assert refused(frame("message", text="a"), decoder_of([])).code == "unknown_type"


def test_a_long_type_is_cut():
    assert refused(frame("x" * 10_000)).message == f'Frames of type "{"x" * 50}" are not understood.'


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("not_an_object", "[" * 500_000 + "]" * 500_000),
        ("too_deep", '{"type": "message", "a": ' + "[" * 500_000 + "]" * 500_000 + "}"),
        ("no_text", '{"type": "message", "a": [' + "[]," * 330_000 + "[]]}"),
        ("unknown_type", '{"type": "unknown", "a": [' + "[]," * 330_000 + "[]]}"),
        ("bad_id", '{"id": [' + "[]," * 330_000 + "[]]}"),
        ("not_unicode", '{"type": "message", "text": "\\ud800", "a": [' + "[]," * 330_000 + "[]]}"),
        ("not_unicode", '{"type": "message", "a": "\\ud800' + "\\ud83d\\ude00" * 85_000 + '"}'),
        ("not_json", '{"type": "message", "a": "' + "\\ud83d\\ude00" * 85_000),
    ],
)
def test_a_megabyte_is_refused_in_no_time(what, text):
    """The json module needs above 100 ms for such lists."""
    assert refused(text).code == what
    assert measure(lambda: refused(text)) < 0.06


def test_what_no_field_asks_for_takes_no_time_either():
    text = '{"type": "message", "text": "a", "a": [' + "[]," * 330_000 + "[]]}"

    assert measure(lambda: decode(text)) < 0.03


@pytest.mark.parametrize("classes", [[dict], [Message, "message"], [msgspec.Struct], [Message(text="a")]])
def test_only_frames_are_declared(classes):
    with pytest.raises(TypeError, match="subclasses of Frame"):
        decoder_of(classes)


def test_a_required_field_may_follow_those_of_a_built_in_frame():
    class Greeting(ConnectionEstablished, tag="connection_established"):
        room: str

    assert json.loads(encode(Greeting(room="lobby"))) == {
        "type": "connection_established",
        "message": "You are now connected!",
        "room": "lobby",
    }


@pytest.mark.parametrize("receives", [Message, Message | Ping, {Message}, None])
def test_what_is_no_list_is_told_so(receives):
    """`manage.py frames` goes through it, too, and in its order."""
    with pytest.raises(TypeError, match=r"\[Message\]"):
        decoder_of(receives)


def test_two_frames_of_one_type_are_refused():
    Other = type("Message", (Frame,), {})

    with pytest.raises(TypeError, match=r'the type "message"; .* `class Message\(Frame, tag="…"\)`'):
        decoder_of([Message, Other])
    assert decoder_of([Message, Message, Ping])(frame("message", text="a")) == Message(text="a")


def test_the_type_of_a_class_in_a_class_is_its_own_name():
    class Outer:
        class InnerFrame(Frame):
            pass

    assert Outer.InnerFrame.__struct_config__.tag == "inner_frame"


@pytest.mark.parametrize(
    ("name", "tag"),
    [("Message", "message"), ("ConnectionEstablished", "connection_established"), ("HTTPError2", "http_error2")],
)
def test_the_type_is_the_name_in_snake_case(name, tag):
    frame_class = type(name.rpartition(".")[2], (Frame,), {"__qualname__": name})

    assert frame_class.__struct_config__.tag == tag


class Limited(msgspec.Struct):
    text: Annotated[str, Text(max_length=5)]
    inner: list[dict[str, int]] = msgspec.field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{}", msgspec.ValidationError, "Object missing required field `text`"),
        ('{"text": ""}', msgspec.ValidationError, "Expected `str` of length >= 1 - at `$.text`"),
        ('{"text": "123456"}', msgspec.ValidationError, "Expected `str` of length <= 5 - at `$.text`"),
        ('{"text": "\\u0000"}', msgspec.ValidationError, "Expected `str` matching regex '^[^\\\\0]*$' - at `$.text`"),
        ('{"text": 1}', msgspec.ValidationError, "Expected `str`, got `int` - at `$.text`"),
        ('{"text": 1e400}', msgspec.ValidationError, "Number out of range - at `$.text`"),
        (
            '{"text": "a", "inner": [{"b": "c"}]}',
            msgspec.ValidationError,
            "Expected `int`, got `str` - at `$.inner[0][...]`",
        ),
        ("[]", msgspec.ValidationError, "Expected `object`, got `array`"),
        ("{", msgspec.DecodeError, "Input data was truncated"),
        ('{"a": "\ud800"}', UnicodeEncodeError, "surrogates not allowed"),
        ('{"a": ' + DEEP * "[", RecursionError, ""),
    ],
)
def test_what_is_relied_on_of_msgspec(text, error, message):
    """The words by which frames.py tells errors apart. After an upgrade that fails here, change them there."""
    with pytest.raises(error) as caught:
        msgspec.json.decode(text, type=Limited)

    assert type(caught.value) is error
    assert message in str(caught.value)


# Out


class Suit(TextChoices):
    HEARTS = "h", "Hearts"


class Words(str):
    def __str__(self):
        return "not what json writes"


class Whole(int):
    def __repr__(self):
        return "not what json writes"


NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_912)
ROME = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "é😀\u2028",
        7,
        2**70,
        1.5,
        1e300,
        True,
        None,
        [],
        [1, ["a", {"b": None}]],
        (1, "a"),
        {"a": {"b": 1}},
        {1: "a", "2": "b"},
        {None: 1, True: 2},
        collections.OrderedDict(b=1, a=2),
        collections.Counter("aab"),
        Words("words"),
        Whole(7),
        type("Share", (float,), {})(0.5),
        mark_safe("<b>"),
        gettext_lazy("Password"),
        [gettext_lazy("Password")],
        Suit.HEARTS,
        Suit.HEARTS.label,
        NOW,
        NOW.replace(tzinfo=datetime.UTC),
        NOW.replace(tzinfo=ROME),
        type("Fake", (datetime.datetime,), {})(2026, 1, 2),
        NOW.date(),
        NOW.time(),
        datetime.timedelta(days=1, seconds=2, microseconds=3),
        datetime.timedelta(seconds=-1),
        uuid.UUID(int=7),
        Decimal("1.10"),
    ],
)
def test_values_cross_as_with_django(value):
    expected = json.loads(json.dumps({"type": "x", "value": value}, cls=DjangoJSONEncoder))

    class Holder(Frame, tag="x"):
        value: Any

    class Outer(Frame, tag="x"):
        value: Any
        more: Any = None

    assert json.loads(encode({"type": "x", "value": value})) == expected
    assert json.loads(encode(Holder(value=value))) == expected
    # What holds a date is not written by msgspec, and the rest of it stays the same.
    assert json.loads(encode(Outer(value=value, more=NOW)))["value"] == expected["value"]


def test_dates_have_milliseconds_and_durations_are_djangos():
    text = encode({"type": "x", "at": NOW.replace(tzinfo=datetime.UTC), "for": datetime.timedelta(seconds=1)})

    assert json.loads(text) == {"type": "x", "at": "2026-01-02T03:04:05.678Z", "for": "P0DT00H00M01S"}


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (datetime.time, "12:30:00+02:00"),
        (datetime.time, "12:30:00.000001Z"),
        (datetime.datetime, "0001-01-01T00:00:00+23:59"),
        (datetime.timedelta, "-P999999999D"),
        (Decimal, "NaN"),
        (Decimal, "1e999999"),
        (set[datetime.time], ["12:30:00Z"]),
    ],
)
def test_what_a_client_may_send_can_be_sent_back(kind, sent):
    class Holder(Frame, tag="x"):
        value: kind

    decode = decoder_of([Holder])
    frame = decode(json.dumps({"type": "x", "value": sent}))

    assert str(decode(encode(frame))) == str(frame)


@pytest.mark.parametrize("more", [None, NOW])
def test_characters_are_not_escaped(more):
    assert "é😀" in encode({"type": "x", "text": "é😀", "more": more})


@pytest.mark.parametrize("more", [None, NOW])
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "\ud800", "a\udfff", [math.nan], {"a": [math.nan]}, {"\ud800": 1}]
)
def test_what_no_browser_reads_is_an_error(value, more):
    class Holder(Frame):
        value: Any
        more: Any = None

    with pytest.raises(ValueError, match=r"Out of range|surrogates"):
        encode({"type": "x", "value": value, "more": more})
    with pytest.raises(ValueError, match=r"Out of range|surrogates"):
        encode(Holder(value=value, more=more))
    with pytest.raises(ValueError, match=r"Out of range|surrogates"):
        encode({"type": "x", "frames": [Holder(value=value, more=more)]})


def test_half_a_pair_in_html_is_an_error():
    with pytest.raises(ValueError, match="surrogates"):
        encode("<p>\ud800</p>")
    assert encode("<p>é😀</p>") == "<p>é😀</p>"


@pytest.mark.parametrize(
    "value", [object(), b"bytes", bytearray(b"a"), memoryview(b"a"), Message, range(3), msgspec.UNSET]
)
def test_what_json_does_not_know_is_an_error(value):
    with pytest.raises(TypeError):
        encode({"type": "x", "value": value})


def test_a_model_in_a_frame_is_told_what_to_send_instead():
    with pytest.raises(TypeError, match="hold a User: put its values in"):
        encode({"type": "x", "user": get_user_model()(username="ann")})


@pytest.mark.parametrize("frame", [None, ["type"], Message, Limited(text="a")])
def test_what_is_no_frame_is_an_error(frame):
    with pytest.raises(TypeError, match='A frame is a Frame or a dict with a string "type", not '):
        encode(frame)


@pytest.mark.parametrize("frame", [{}, {"text": "a"}, {"type": None}, {"type": 7}])
def test_a_dict_without_a_type_is_an_error(frame):
    with pytest.raises(ValueError, match='A frame needs a string "type"; this one has the keys'):
        encode(frame)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (Message(text="a"), {"type": "message", "text": "a"}),
        (Message(text="a", id="7"), {"type": "message", "text": "a", "id": "7"}),
        (Message(text=Words("a"), id="7"), {"type": "message", "text": "a", "id": "7"}),
        (Renamed(first_name="Ada"), {"type": "other", "firstName": "Ada"}),
        (Pong(), {"type": "pong"}),
        (Pong(max_size=10, crowd=0.5), {"type": "pong", "max_size": 10, "crowd": 0.5}),
        (ConnectionEstablished(), {"type": "connection_established", "message": "You are now connected!"}),
        (
            ConnectionEstablished(max_size=10, crowd=0, message=gettext_lazy("Hello")),
            {"type": "connection_established", "message": "Hello", "max_size": 10, "crowd": 0},
        ),
        (Wait(seconds=2.5), {"type": "wait", "seconds": 2.5}),
        (Error(code="a", message="b"), {"type": "error", "code": "a", "message": "b"}),
        (
            Error(code="a", message="b", retry_after=0.5, id="7"),
            {"type": "error", "code": "a", "message": "b", "retry_after": 0.5, "id": "7"},
        ),
        (
            {"type": "many", "frames": [Message(text="a")]},
            {"type": "many", "frames": [{"type": "message", "text": "a"}]},
        ),
        (
            {"type": "many", "frames": [Message(text="a")], "on": NOW.date()},
            {"type": "many", "frames": [{"type": "message", "text": "a"}], "on": "2026-01-02"},
        ),
        ({"type": "one", "inner": Limited(text="a")}, {"type": "one", "inner": {"text": "a", "inner": []}}),
    ],
)
def test_frames_are_written(frame, expected):
    assert json.loads(encode(frame)) == expected


def test_what_a_client_nests_is_never_an_error_of_the_server():
    depth = 100
    with pytest.raises(FrameError, match="too deep"):
        while depth < 10**6:
            text = '{"type": "everything", "rest": ' + "[" * depth + "]" * depth + "}"
            frame = decode(text)
            assert json.loads(encode(frame))["type"] == "everything"
            depth = depth * 5 // 4


def test_it_is_imported_before_the_apps_are_ready():
    check = "import realtime.frames, django.apps; assert not django.apps.apps.models_ready"
    subprocess.run([sys.executable, "-W", "error", "-c", check], check=True)
