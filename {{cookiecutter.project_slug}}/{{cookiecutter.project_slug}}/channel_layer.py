"""REDIS_URL, as settings.CHANNEL_LAYERS needs it: how sockets in different processes reach each other."""

import re
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

EXAMPLES = (
    "redis://host:6379/0, rediss://:password@host:6379/0,"
    " redis+sentinel://:password@host:26379,host:26379/service/0?sentinel_password=…, or several URLs with commas"
)

# Seconds. A machine that vanishes closes no connection: without a limit, its readers would wait for ever.
READ_TIMEOUT = 15
# A sentinel may be gone, too: the next is asked while sockets wait. redis-py would try the first one four times.
SENTINEL = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": None}

# A name or an address: no variable that nobody has filled in, and no comma before a URL that is missing.
HOST = re.compile(r"[\w.:%-]+")


def channel_layer(url, prefix, capacity):
    """
    Return the value of CHANNEL_LAYERS["default"], a dict: Redis at `url`, or in memory if that is empty.

    url: as .env.example explains it. prefix: of the keys in Redis. capacity: messages that may wait for one process.
    Raises ValueError for a URL that is not understood, with a text that does not show the password.
    """
    if not url:
        # Reaches the sockets of one process only.
        return {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": capacity}}
    hosts = [redis_host(each) for each in re.split(r"\s*,\s*(?=\w+(?:\+sentinel)?://)", url.strip())]
    return {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": hosts, "prefix": prefix, "capacity": capacity},
    }


def redis_host(url):
    """Return an entry of the "hosts" of channels_redis for `url`. Raises ValueError."""
    # redis-py 8 gives up a read after 5 s, as long as channels_redis waits for the next message, and an idle socket would
    # close with 1011. It also stops at 100 connections, fewer than many sockets that use Channels' own groups may need at
    # a time. https://github.com/django/channels_redis/issues/422
    options = {"socket_timeout": READ_TIMEOUT, "max_connections": 1000}
    # Imported here, since it takes a tenth of a second.
    from redis import asyncio as redis

    try:
        if "+sentinel://" in url:
            return sentinel_host(url) | options
        parts, where = urlsplit(url), redis.connection.parse_url(url)
        if parts.scheme == "unix":
            is_whole = where.get("path")
        else:
            # redis-py would take database 0 for one that is no number.
            is_whole = HOST.fullmatch(where.get("host", "")) and re.fullmatch(r"(/\d*)?", parts.path)
        # What follows a # would be left out, and the messages of the layer are bytes.
        if not is_whole or "#" in url or where.get("decode_responses"):
            raise ValueError("it is no address")
        pool = redis.ConnectionPool.from_url(url, **options)
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, AttributeError, redis.RedisError) as error:
        # The text of a ValueError may hold a part of the password; that of a TypeError names an option.
        option = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        what = f"has an option that redis-py does not know, {option[1]}" if option else "is not understood"
        raise ValueError(
            f"{what}. Allowed: {EXAMPLES}. In a password write @ / : # % as %40 %2F %3A %23 %25."
        ) from None
    return {"address": url, **options}


def sentinel_host(url):
    """Return the options of channels_redis for `redis+sentinel://user:password@host:port,host:port/service/db?…`."""
    from redis.asyncio.connection import Connection, parse_url

    # Some Pythons' urlsplit() takes an address of IPv6 alone, without another one beside it.
    scheme, _, rest = url.partition("://")
    netloc, _, rest = rest.partition("/")
    parts = urlsplit(f"{scheme}://host/{rest}")
    login, _, addresses = netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or scheme not in ("redis+sentinel", "rediss+sentinel") or parts.fragment or set("#?") & set(netloc):
        raise ValueError("it names no service")
    sentinels = []
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        if not HOST.fullmatch(host.strip("[]")) or not 0 < int(port) < 2**16:
            raise ValueError("it names no address of a sentinel")
        sentinels.append((host.strip("[]"), int(port)))
    username, _, password = login.partition(":")
    query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    sentinel = {name: query.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    # What is left is for redis-py, as in a URL of one Redis. The sentinels have the same certificates.
    further = parse_url(f"{parts.scheme.partition('+')[0]}://host?{urlencode(query)}")
    connection_class = further.pop("connection_class", Connection)
    connection_class(**further)
    if further.pop("decode_responses", False):
        raise ValueError("the messages of the layer are bytes")
    del further["host"]
    tls = {"ssl": True} if connection_class is not Connection else {}
    sentinel |= tls | {name: value for name, value in further.items() if name.startswith("ssl_")}
    return {
        "sentinels": sentinels,
        "master_name": unquote(service),
        "sentinel_kwargs": sentinel | SENTINEL,
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "db": int(db or 0),
        **tls,
        **further,
    }
