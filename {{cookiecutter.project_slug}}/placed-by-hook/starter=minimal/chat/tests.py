import pytest
from django.conf import settings

PATH = "/ws/socket-server/"


async def test_greets(open_socket):
    socket = await open_socket(PATH)

    assert socket.greeting["type"] == "connection_established"
    assert socket.greeting["message"] == "You are now connected!"


async def test_a_message_reaches_everybody(open_socket):
    first, second = await open_socket(PATH), await open_socket(PATH)

    await first.send_json_to({"type": "message", "text": "Hello, 世界!", "id": "1"})

    for socket in (first, second):
        assert await socket.receive_json_from() == {"type": "message", "text": "Hello, 世界!", "id": "1"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "no_text"),
        ("", "text_empty"),
        ("x" * (settings.CHAT_MAX_TEXT_LENGTH + 1), "text_too_long"),
        ("\0", "text_has_nul"),
    ],
)
async def test_bad_texts_are_refused(open_socket, text, code):
    socket = await open_socket(PATH)

    await socket.send_json_to({"type": "message", "text": text, "id": "7"})

    error = await socket.receive_type("error")
    assert (error["code"], error["id"]) == (code, "7")


def test_page_knows_the_socket(client):
    response = client.get("/")

    assert response.status_code == 200
    assert response.context["SITE_NAME"] == settings.SITE_NAME
    assert b'"/ws/socket-server/"' in response.content


def test_page_allows_only_its_own_scripts(client):
    policy = client.get("/").headers["Content-Security-Policy"]

    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
