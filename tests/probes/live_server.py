"""Tests of an owner's with Channels' own live server, a process of its own: rows and logins of each test are seen."""

import json

import pytest
from channels.testing import ChannelsLiveServerTestCase
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

User = get_user_model()


class LiveServerTest(ChannelsLiveServerTestCase):
    def open(self, origin=None, **headers):
        url = f"{self.live_server_ws_url}/ws/probe/"
        return connect(url, origin=origin or self.live_server_url, additional_headers=headers)

    def see_rows(self, count):
        for number in range(count):
            User.objects.create(username=f"user {number}")
        ann = User.objects.create(username="ann")
        client = Client()
        client.force_login(ann)
        cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
        with self.open(Cookie=cookie) as socket:
            assert json.loads(socket.recv(10))["user"] == "ann"
            socket.send('{"type": "count"}')
            assert json.loads(socket.recv(10)) == {"type": "count", "count": count + 1}
            User.objects.create(username="another")
            socket.send('{"type": "count"}')
            assert json.loads(socket.recv(10)) == {"type": "count", "count": count + 2}
            client.logout()
        with self.open(Cookie=cookie) as socket:
            assert json.loads(socket.recv(10))["user"] == ""

    def test_first(self):
        self.see_rows(1)

    def test_second(self):
        self.see_rows(2)

    def test_third(self):
        self.see_rows(3)

    def test_a_foreign_page_is_refused(self):
        with pytest.raises(InvalidStatus), self.open(origin="http://evil.example"):
            pass
