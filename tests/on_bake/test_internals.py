"""
The names that Channels, channels_redis, Django and uvicorn do not promise to keep, and that this project relies on.

An upgrade that renames one of them fails here and says which, and not somewhere as a socket that is silent.
"""

import importlib
import inspect

import pytest
from django.conf import settings

SLUG = settings.SETTINGS_MODULE.partition(".")[0]

# Where it is, and who uses it.
NAMES = {
    "channels.consumer.get_handler_name": "consumers.py and broadcasts.py: the method for a message",
    "channels.utils.await_many_dispatch": "consumers.py: to receive from the server and from a channel",
    "channels.generic.websocket.AsyncWebsocketConsumer.websocket_connect": "consumers.py: joins, greets",
    "channels.generic.websocket.AsyncWebsocketConsumer.websocket_receive": "consumers.py: replaced",
    "channels.generic.websocket.AsyncWebsocketConsumer.websocket_disconnect": "consumers.py: replaced",
    "channels.routing.get_default_application": "checks.py",
    "channels.routing.ProtocolTypeRouter": "checks.py: its application_mapping",
    "channels.layers.BaseChannelLayer.require_valid_group_name": "fanout.py: a bad name is an error where it is used",
    "channels.layers.InMemoryChannelLayer.new_channel": "consumers.py: the channel of a socket",
    "channels_redis.core.RedisChannelLayer.new_channel": "consumers.py: the channel of a socket",
    "channels_redis.core.RedisChannelLayer.connection": "layers.py: calls for many messages, and after an outage",
    "channels_redis.core.RedisChannelLayer._group_key": "layers.py: the channels of a group",
    "channels_redis.core.RedisChannelLayer.consistent_hash": "layers.py: the Redis of a group",
    "channels_redis.core.RedisChannelLayer.non_local_name": "layers.py: the queue of a channel",
    "channels_redis.core.RedisChannelLayer.get_capacity": "layers.py: how many messages may wait in it",
    "channels_redis.core.RedisChannelLayer.serialize": "layers.py",
    "channels_redis.core.RedisChannelLayer.deserialize": "layers.py",
    "django.contrib.sessions.backends.db.SessionStore.get_model_class": "users.py: sessions are read together",
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": "protocols.py: the base class",
    "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol": "protocols.py: the base class",
    "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol.handle_connect": (
        "protocols.py: takes the request"
    ),
    "websockets.protocol.Protocol.parse": "protocols.py: the parser after the handshake",
    "websockets.protocol.Protocol.data_to_send": "protocols.py: is held back until the greeting",
}
# Attributes that only an instance has.
ATTRIBUTES = {
    "channels.generic.websocket.AsyncConsumer": ["base_send", "channel_layer", "channel_name"],
    "channels.routing.ProtocolTypeRouter": ["application_mapping"],
    "channels.layers.InMemoryChannelLayer": ["groups"],
    "channels_redis.core.RedisChannelLayer": [
        *("ring_size", "receive_cleaners", "prefix", "expiry", "group_expiry", "brpop_timeout"),
    ],
    "django.contrib.sessions.backends.cache.SessionStore": ["cache_key_prefix", "_cache"],
    "django.contrib.sessions.backends.base.SessionBase": ["_session_cache", "_session_key"],
}


def find(path):
    """Return the object at `path`, whose first part is a module."""
    module, names = path, []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            assert module, f"{path} is gone"
            names.insert(0, name)
    for name in names:
        assert hasattr(found, name), f"{path} is gone"
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("path", "user"), NAMES.items(), ids=NAMES)
def test_a_name_is_there(path, user):
    assert callable(find(path)), user


@pytest.mark.parametrize(("path", "names"), ATTRIBUTES.items(), ids=ATTRIBUTES)
def test_attributes_are_there(path, names):
    source = inspect.getsource(find(path))

    assert [name for name in names if f"self.{name}" not in source and f"{name} =" not in source] == []


def test_a_message_of_the_channel_layer_names_its_handler():
    get_handler_name = find("channels.consumer.get_handler_name")

    assert get_handler_name({"type": "room.renamed"}) == "room_renamed"
    with pytest.raises(ValueError, match="Incoming message has no 'type' attribute"):
        get_handler_name({})


def test_await_many_dispatch_takes_functions_and_a_handler():
    assert [*inspect.signature(find("channels.utils.await_many_dispatch")).parameters] == [
        "consumer_callables",
        "dispatch",
    ]


def test_channels_redis_logs_what_it_drops():
    """layers.py counts it by these words and the first of these numbers."""
    source = inspect.getsource(find("channels_redis.core.RedisChannelLayer.group_send"))

    assert '"%s of %s channels over capacity in group %s"' in source


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("HttpProtocol", ["url", "headers", "transport", "cycle"]),
        (
            "WebSocketProtocol",
            ["frames", "conn", "transport", "loop", "handle_parser_exception", "logger", "handshake_complete"],
        ),
    ],
)
def test_what_protocols_py_overrides_is_called_by_uvicorn(name, uses):
    """What is not called any more would be a bound that does not hold any more."""
    protocol = find(f"{SLUG}.protocols.{name}")
    (base,) = protocol.__bases__
    overridden = {name for name, value in vars(protocol).items() if callable(value) and hasattr(base, name)}
    source = inspect.getsource(base)
    of_others = {"connection_made", "connection_lost", "data_received", "eof_received", "shutdown"}
    of_httptools = {"on_message_begin", "on_headers_complete", "on_body", "on_message_complete"}

    assert overridden & of_others
    assert [name for name in overridden - of_others - of_httptools if f"self.{name}" not in source] == []
    assert [name for name in uses if f"self.{name}" not in source] == []
