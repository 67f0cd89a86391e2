"""The wiring around the consumers, in asgi.py and settings.py."""

import pytest
from channels.routing import get_default_application
from channels.testing import WebsocketCommunicator
from django.core.management import CommandError, call_command

from realtime.checks import check_asgi_application, check_channel_layer, check_daphne

PATH = "/ws/socket-server/"


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "http://["])
async def test_a_foreign_origin_is_refused_and_logged(caplog, origin):
    headers = [(b"host", b"testserver")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))

    accepted, _ = await WebsocketCommunicator(get_default_application(), PATH, headers).connect()

    assert not accepted
    (line,) = caplog.messages
    assert str(origin or "missing") in line
    assert "testserver" in line
    assert "DJANGO_ALLOWED_HOSTS" in line


async def test_an_unknown_path_is_closed_and_logged(caplog, open_socket):
    socket = await open_socket("/ws/nowhere/")

    assert (await socket.receive_output())["code"] == 4404
    assert caplog.messages == ["WebSocket /ws/nowhere/ of unknown: no such path in routing.py"]


async def test_healthz(async_client, transactional_db):
    response = await async_client.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"database": "ok", "channel_layer": "ok"})


def test_runserver_refuses_with_debug_off():
    with pytest.raises(CommandError, match=r"python -m \w+\."):
        call_command("runserver")


def test_check_explains_a_missing_daphne(settings):
    settings.DEBUG = True

    assert [error.id for error in check_daphne(None)] == ["realtime.E001"]


def test_check_explains_a_moved_daphne(settings):
    settings.DEBUG = True
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "daphne"]

    assert [error.id for error in check_daphne(None)] == ["realtime.E001"]


@pytest.mark.parametrize("path", ["nowhere.application", "realtime.checks.nothing"])
def test_check_explains_a_wrong_asgi_application(settings, path):
    settings.ASGI_APPLICATION = path

    assert [error.id for error in check_asgi_application(None)] == ["realtime.E002"]


def test_check_explains_the_in_memory_layer():
    assert [warning.id for warning in check_channel_layer(None)] == ["realtime.W001"]
