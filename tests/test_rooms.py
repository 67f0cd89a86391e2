"""The chat's rooms under a real server, on both databases."""

import re
import threading
import time
import uuid

import httpx
import pytest
from clients import log_in_all, open_client
from servers import LOCAL_PRODUCTION, Server, collect_static, run
from services import Postgres

MAKE_ADMIN = """
from django.contrib.auth import get_user_model
get_user_model().objects.filter(username="ada").update(is_staff=True, is_superuser=True)
"""
# A database of the last release: ada is a member of a closed room, and has written in the lobby, grace has not.
FILL_OLD = """
import uuid
from datetime import UTC, datetime
from django.db import connection
from django.db.migrations.loader import MigrationLoader
apps = MigrationLoader(connection).project_state([("chat", "0003_room_owner"), ("accounts", "0002_attempts")]).apps
User, Room, Membership, Message = (
    apps.get_model(name) for name in ("accounts.User", "chat.Room", "chat.Membership", "chat.Message")
)
ada, grace = (User.objects.create(username=name) for name in ("ada", "grace"))
lobby, closed = Room.objects.get(slug="lobby"), Room.objects.create(name="Closed", slug="closed", is_open=False)
Membership.objects.create(room=closed, user=ada)
for seq, user in enumerate([ada, None, ada], 1):
    at = datetime(2026, 1, seq, tzinfo=UTC)
    Message.objects.create(id=uuid.uuid4(), room=lobby, seq=seq, user=user, text="old", sent_at=at)
Room.objects.filter(slug="lobby").update(last_seq=3)
"""
READ_NEW = """
from accounts.models import User
from chat.models import Reading, list_rooms
for reading in Reading.objects.order_by("room__slug"):
    print(reading.room.slug, reading.user, reading.read_seq, reading.own)
print(*[(room.slug, room.unread) for room in list_rooms(User.objects.get(username="ada"))])
print(list_rooms(User.objects.get(username="grace")).get().last_at.date())
"""
# Each function meets a transaction that has the first of many rows, and takes the rest once it is waited for.
TAKE_IN_ORDER = """
import threading
import uuid
from django.db import connection, transaction
from django.utils import timezone
from accounts.models import User
from chat.models import Reading, Room, post_message, take_back
from chat.unread import mark_read

users = User.objects.bulk_create(User(username=f"user{n}") for n in range(30))
room, new = (Room.objects.create(name=name, slug=name) for name in ("room", "new"))
post_message(room.pk, users[0], uuid.uuid4(), "rude")
# The first one is where PostgreSQL finds it last, by an index or without.
Reading.objects.bulk_create(Reading(room=room, user=user) for user in reversed(users))
Reading.objects.filter(room=room, user=users[-1]).update(changed_at=timezone.now())

def run(function):
    try:
        function()
    except Exception as error:
        print(error)
    connection.close()

def is_waited_for():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]

def lock(user):
    Reading.objects.select_for_update().get(room=room, user=user)

def make(user):
    Reading.objects.create(room=new, user=user)

for take, (first, *rest), function in [
    (lock, users[::-1], lambda: take_back(room.pk, users[0], 1)),
    (lock, users[::-1], lambda: mark_read({(room.pk, user.pk): 1 for user in users})),
    (make, users, lambda: mark_read({(new.pk, user.pk): 1 for user in users})),
]:
    with transaction.atomic():
        take(first)
        other = threading.Thread(target=run, args=[function])
        other.start()
        while not is_waited_for():
            assert other.is_alive()
        for user in rest:
            take(user)
    other.join()
print(Reading.objects.filter(read_seq=1).count())
"""
# The last rooms that a user may make are made while another request of theirs is under way.
MAKE_ROOMS = """
import threading
import time
from django.conf import settings
from django.db import connection, transaction
from django.test import Client
from accounts.models import User
from chat.models import Room

user = User.objects.create(username="user")
client = Client(headers={"Host": "127.0.0.1"})
client.force_login(user)

def make():
    print(client.post("/", {"name": "One too many", "is_open": "on"}).status_code)
    connection.close()

with transaction.atomic():
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    other = threading.Thread(target=make)
    other.start()
    with connection.cursor() as cursor:
        while other.is_alive() and not cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            time.sleep(0.01)
    names = [f"room-{n}" for n in range(settings.CHAT_ROOMS_PER_USER)]
    Room.objects.bulk_create(Room(name=name, slug=name, owner=user) for name in names)
other.join()
print(user.owned_rooms.count())
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_database_of_the_last_release_is_migrated(bake, request, tmp_path, database):
    """What has been written so far counts as read. A row that the last release still makes fits, too."""
    project = bake(starter="chat")
    postgresql = database == "postgresql"
    url = (
        request.getfixturevalue("postgres").create_database() if postgresql else f"sqlite:///{tmp_path / 'db.sqlite3'}"
    )
    env = LOCAL_PRODUCTION | {"DATABASE_URL": url}
    run(project, "manage.py", "migrate", env=env)
    run(project, "manage.py", "migrate", "chat", "0003", env=env)
    run(project, "manage.py", "shell", "--no-imports", "-c", FILL_OLD, env=env)

    run(project, "manage.py", "migrate", env=env)
    output = run(project, "manage.py", "shell", "--no-imports", "-c", READ_NEW, env=env).stdout

    assert output.splitlines() == ["closed ada 0 0", "lobby ada 3 0", "('closed', 0) ('lobby', 0)", "2026-01-03"]
    by_last_release = FILL_OLD.partition("ada, grace")[0] + 'Room.objects.create(name="New", slug="new")'
    run(project, "manage.py", "shell", "--no-imports", "-c", by_last_release, env=env)


def test_processes_do_not_wait_for_each_other_without_end(bake, postgres):
    """PostgreSQL would end one of them, and all sockets of its process would take the database for lost."""
    project = bake(starter="chat")
    env = LOCAL_PRODUCTION | {"DATABASE_URL": postgres.create_database()}
    run(project, "manage.py", "migrate", env=env)

    result = run(project, "manage.py", "shell", "--no-imports", "-c", TAKE_IN_ORDER, env=env, check=False)

    assert result.stdout == "60\n"


def test_rooms_that_are_made_at_the_same_moment_are_counted(bake, postgres):
    """Of 84 requests, 14 at a time, 55 made a room where 50 are allowed."""
    project = bake(starter="chat")
    env = LOCAL_PRODUCTION | {"DATABASE_URL": postgres.create_database()}
    run(project, "manage.py", "migrate", env=env)
    collect_static(project, env)

    result = run(project, "manage.py", "shell", "--no-imports", "-c", MAKE_ROOMS, env=env, check=False)

    assert result.stdout == "200\n50\n"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(bake, request, tmp_path_factory):
    """A server of the chat, and the Cookie header of ada, who is an administrator."""
    project = bake(starter="chat")
    env = dict(LOCAL_PRODUCTION)
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        env["DATABASE_URL"] = postgres.create_database()
    else:
        env["DATABASE_URL"] = f"sqlite:///{tmp_path_factory.mktemp('rooms') / 'db.sqlite3'}"
    run(project, "manage.py", "migrate", env=env)
    collect_static(project, env)
    cookies = log_in_all(project, ["ada"], env)
    run(project, "manage.py", "shell", "--no-imports", "-c", MAKE_ADMIN, env=env)
    with Server(project, "production", env=env) as server:
        yield server, cookies["ada"]


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as postgres:
        yield postgres


def test_a_room_that_is_saved_in_the_admin_goes_on(site):
    """Saved 12 times, at 19 messages a second: the number of the last message is no field of a form."""
    server, cookie = site
    saved = threading.Event()

    def save():
        with httpx.Client(base_url=server.url, cookies=dict([cookie.split("=")])) as admin:
            page = admin.get("admin/chat/room/")
            url = re.search(r'href="/(admin/chat/room/\d+/change/)">Lobby<', page.text)[1]
            for number in range(12):
                page = admin.get(url)
                form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
                form |= {"name": "Lobby", "slug": "lobby", "is_open": "on", "_continue": "1"}
                # As long as somebody needs to press the button, so that messages come in between.
                time.sleep(0.2 + number * 0.01)
                response = admin.post(url, data=form)
                assert response.status_code == 302, response.text
        saved.set()

    ids, sent, seqs = iter(lambda: str(uuid.uuid4()), None), [], []
    with open_client(
        server, path="ws/socket-server/lobby/", greeting=False, additional_headers={"Cookie": cookie}
    ) as client:
        saving = threading.Thread(target=save)
        saving.start()
        while saving.is_alive() or not sent:
            sent.append(next(ids))
            client.send({"type": "message", "id": sent[-1], "text": "hello"})
            time.sleep(1 / 19)
        while len(seqs) < len(sent):
            frame = client.receive()
            assert frame["type"] != "error", frame
            if frame["type"] == "message":
                seqs.append(frame["seq"])

    assert saved.is_set()
    assert seqs == list(range(1, len(sent) + 1))
    assert "Traceback" not in server.log
