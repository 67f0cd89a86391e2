"""Sessions over real sockets and between processes: logout, and a change of the secret key."""

import re

import httpx
import pytest
from clients import open_client
from servers import LOCAL_PRODUCTION, Server, run
from websockets.exceptions import ConnectionClosed

# A consumer that says who is there.
CONSUMER = """
from realtime.consumers import RealtimeConsumer


class Who(RealtimeConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json({"type": "you", "name": self.scope["user"].get_username()})
"""
# Notifies again and again from threads and event loops of their own, as tasks and commands do.
NOTIFY = """
from threading import Thread
from django.db import transaction
from realtime import notify

def work(name):
    for number in range(20):
        with transaction.atomic():
            notify("lobby", {"type": "notified", "name": name, "number": number})

work("command")
for number in range(3):
    thread = Thread(target=work, args=[f"thread {number}"])
    thread.start()
    thread.join()
"""


@pytest.fixture(scope="module")
def site(with_consumers):
    """A project with the consumer above and a user, ann."""
    site = with_consumers(CONSUMER, who="Who")
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ann', password='secret')"
    run(site, "manage.py", "shell", "--no-imports", "-c", create)
    return site


def login(server):
    """Return an httpx.Client in which ann is logged in."""
    browser = httpx.Client(base_url=server.url, follow_redirects=True)
    post(browser, "admin/login/", username="ann", password="secret", next="/admin/")
    assert "sessionid" in browser.cookies
    return browser


def post(browser, path, **fields):
    """Send the form of the admin's page."""
    token = re.search('name="csrfmiddlewaretoken" value="(.*?)"', browser.get("admin/").text)[1]
    response = browser.post(path, data=fields | {"csrfmiddlewaretoken": token})
    assert response.status_code == 200


def cookie(browser):
    return {"additional_headers": {"Cookie": f"sessionid={browser.cookies['sessionid']}"}}


def test_row_11_logout_closes_the_sockets_of_the_session_in_every_process(site, redis):
    with (
        Server(site, "uvicorn", {"REDIS_URL": redis.url}) as one,
        Server(site, "daphne", {"REDIS_URL": redis.url}) as two,
    ):
        browser, elsewhere = login(one), login(two)
        with (
            open_client(one, **cookie(browser)) as near,
            open_client(two, **cookie(browser)) as far,
            open_client(two, **cookie(elsewhere)) as other_session,
            open_client(two) as nobody,
        ):
            post(browser, "admin/logout/")

            for client in (near, far):
                with pytest.raises(ConnectionClosed) as closed:
                    client.receive()
                assert closed.value.rcvd.code == 4401
            other_session.ping()
            nobody.ping()


def test_row_12_a_new_secret_key_keeps_sessions_and_users(site):
    old, new = (LOCAL_PRODUCTION["DJANGO_SECRET_KEY"] + number for number in "12")
    run(site, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    with Server(site, "production", LOCAL_PRODUCTION | {"DJANGO_SECRET_KEY": old}) as server:
        browser = login(server)
    rotated = LOCAL_PRODUCTION | {"DJANGO_SECRET_KEY": new, "DJANGO_SECRET_KEY_FALLBACKS": old}
    with Server(site, "production", rotated) as server:
        for _ in range(2):
            with open_client(server, path="ws/who/", greeting=False, **cookie(browser)) as client:
                assert client.receive() == {"type": "you", "name": "ann"}


def test_row_22_notify_from_commands_and_threads(site, redis):
    with Server(site, "uvicorn", {"REDIS_URL": redis.url}) as server, open_client(server) as client:
        output = run(site, "manage.py", "shell", "--no-imports", "-c", NOTIFY, env={"REDIS_URL": redis.url}).stdout

        for name in ("command", "thread 0", "thread 1", "thread 2"):
            for number in range(20):
                assert client.receive() == {"type": "notified", "name": name, "number": number}
        assert "Error" not in output
