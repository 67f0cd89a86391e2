"""Channels' own ways go on working beside ours: its tutorial, its workers, its tests, and what others built on it."""

import shutil

import pytest
from clients import log_in_all, open_client
from servers import (
    LOCAL_PRODUCTION,
    PROBES,
    Process,
    Server,
    clean_environ,
    collect_static,
    python_of,
    run,
    slug_of,
    wait_until,
)
from servers import with_packages as add_packages
from websockets.exceptions import ConnectionClosed, InvalidStatus


def change_asgi(project, changes):
    """Replace texts of the project's asgi.py. changes: what stands there instead, by old text."""
    path = project / slug_of(project) / "asgi.py"
    text = path.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def collect(project):
    collect_static(project)
    return project


def open_plain(server, path, **options):
    """Open a socket of a consumer that does not greet."""
    return open_client(server, path=path, greeting=False, **options)


def cookie_of(project, name="ann", env=LOCAL_PRODUCTION):
    return {"additional_headers": {"Cookie": log_in_all(project, [name], env)[name]}}


def close_code(client):
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    return closed.value.rcvd.code


# The tutorial


@pytest.fixture(scope="module")
def tutorial(with_probe):
    return collect(with_probe("tutorial"))


@pytest.fixture(scope="module", params=["production", "runserver"])
def server(request, tutorial):
    env = LOCAL_PRODUCTION if request.param == "production" else {}
    with Server(tutorial, request.param, env=env) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_tutorials_consumers_run_unchanged(server, kind):
    path = f"ws/{kind}/lobby/"
    with (
        open_plain(server, path) as first,
        open_plain(server, path) as second,
        open_plain(server, f"ws/{kind}/elsewhere/") as elsewhere,
    ):
        for sender in (first, second):
            sender.send({"message": "Hello, 世界!"})
            assert first.receive() == second.receive() == {"message": "Hello, 世界!"}
        elsewhere.send({"message": "only here"})
        assert elsewhere.receive() == {"message": "only here"}
    line = f"WebSocket /{path} of 127.0.0.1"
    wait_until(lambda: f"{line} opened" in server.log and f"{line} closed with 1000" in server.log, "the log lines")
    with pytest.raises(InvalidStatus) as refusal, open_plain(server, path, origin="https://evil.example"):
        pass
    assert refusal.value.response.status_code == 403


def test_the_tutorials_consumers_meet_over_redis(tutorial, redis):
    env = LOCAL_PRODUCTION | {"REDIS_URL": redis.url}
    with (
        Server(tutorial, "production", env) as one,
        Server(tutorial, "daphne", env) as other,
        open_plain(one, "ws/sync/lobby/") as first,
        open_plain(other, "ws/sync/lobby/") as second,
    ):
        for sender in (first, second):
            sender.send({"message": "hello"})
            assert first.receive() == second.receive() == {"message": "hello"}


def test_a_code_before_accept_reaches_the_client_of_any_consumer(server):
    with open_plain(server, "ws/closing/") as client:
        assert close_code(client) == 4403
    with pytest.raises(InvalidStatus) as refusal, open_plain(server, "ws/refusing/"):
        pass
    assert refusal.value.response.status_code == 403


def test_nothing_is_sent_after_a_close_of_any_consumer(server):
    """On uvicorn that would be a RuntimeError and a traceback: the fixture looks for it."""
    with open_plain(server, "ws/tasks/") as client:
        client.send("go")
        assert close_code(client) == 4000
    wait_until(lambda: "work is done" in server.log, "the task has sent and closed")


def test_every_frame_of_every_way_to_send_is_counted(tutorial, tmp_path):
    project = shutil.copytree(tutorial, tmp_path / "project")
    with (project / "chat" / "probes" / "__init__.py").open("a", encoding="utf-8") as probes:
        probes.write("\nimport realtime.activity\n\nrealtime.activity.REPORT_EVERY = 1\n")
    with Server(project, "production", env=LOCAL_PRODUCTION) as server, open_plain(server, "ws/json/") as client:
        client.send({"type": "anything"})
        assert client.receive() == {"user": "AnonymousUser"}
        assert [client.connection.recv(10) for _ in range(2)] == ["text", b"bytes"]
        wait_until(lambda: " frames_in=1 frames_out=3 " in server.log, "the line of the log")


# AuthMiddlewareStack


def test_auth_middleware_stack_in_place_of_authentication(with_probe):
    project = collect(with_probe("who.py"))
    change_asgi(
        project,
        {
            "                Authentication(": "                AuthMiddlewareStack(",
            "from chat.routing import": "from channels.auth import AuthMiddlewareStack\nfrom chat.routing import",
        },
    )
    ann = cookie_of(project)
    with Server(project, "production", env=LOCAL_PRODUCTION) as server:
        with open_plain(server, "ws/who/", **ann) as client:
            assert client.receive() == {"type": "you", "name": "ann", "has_session": True}
            client.ping()
        with open_plain(server, "ws/who/") as client:
            assert client.receive() == {"type": "you", "name": "", "has_session": False}
        # It knows no tokens, and must not take a client with one for somebody without.
        token = {"additional_headers": {"Authorization": "Bearer token"}}
        with open_plain(server, "ws/who/", **token) as client:
            assert close_code(client) == 4401
        assert "asgi.py has no realtime.asgi.Authentication" in server.log
        assert "Traceback" not in server.log


# runworker


class Worker(Process):
    """`manage.py runworker`, which listens on no port."""

    def __init__(self, project, names, env):
        self.command = [python_of(project), "manage.py", "runworker", *names]
        self.directory, self.env = project, clean_environ(**env)
        self.log_file = project / "worker.log"

    def _is_up(self):
        assert self.process.poll() is None, self.log
        return "Running worker for channels" in self.log


def test_runworker_works_for_sockets(with_probe, redis):
    project = collect(with_probe("workers.py"))
    change_asgi(
        project,
        {
            '"http": django_asgi_app,': '"http": django_asgi_app,\n        "channel": ChannelNameRouter(workers),',
            "from channels.routing import": "from channels.routing import ChannelNameRouter,",
            "from chat.routing import": "from chat.probes import workers\nfrom chat.routing import",
        },
    )
    env = LOCAL_PRODUCTION | {"REDIS_URL": redis.url}
    with (
        Worker(project, ["thumbnails", "thumbnails-sync"], env) as worker,
        Server(project, "production", env) as server,
        open_client(server, path="ws/asking/") as client,
    ):
        client.send({"type": "generate", "name": "cat.png"})
        frames = [client.receive() for _ in range(4)]
        assert sorted(frames, key=str) == [
            {"type": "generated", "by": "async", "name": "cat.png"},
            {"type": "generated", "by": "sync", "name": "cat.png"},
            {"type": "reply", "name": "cat.png"},
            {"type": "reply", "name": "cat.png"},
        ]
        assert "Traceback" not in worker.log + server.log


# ChannelsLiveServerTestCase


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
def test_channels_live_server_in_tests_of_an_owner(with_probe, start_method):
    """The start method of processes is that of the system and of the Python: forkserver on Linux from 3.14 on."""
    project = with_probe("outages.py")
    shutil.copy(PROBES / "live_server.py", project / "chat" / "test_live_server.py")
    with (project / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(f'\nimport multiprocessing\n\nmultiprocessing.set_start_method("{start_method}")\n')

    assert "4 passed" in run(project, "-m", "pytest", "chat/test_live_server.py").stdout


# Packages


@pytest.fixture
def with_packages(with_probe):
    """Return a function that adds a probe and packages to a project, which its own environment then has."""

    def with_packages(probe, *packages, settings=()):
        project = with_probe(probe, *settings)
        add_packages(project, *packages)
        return collect(project)

    return with_packages


@pytest.mark.long
def test_djangochannelsrestframework(with_packages):
    settings = ['INSTALLED_APPS += ["rest_framework", "djangochannelsrestframework"]']
    project = with_packages("rest_framework_sockets.py", "djangochannelsrestframework", settings=settings)
    cookies = log_in_all(project, ["ann", "bob"], LOCAL_PRODUCTION)
    ann, bob = ({"additional_headers": {"Cookie": cookies[name]}} for name in ("ann", "bob"))
    with (
        Server(project, "production", env=LOCAL_PRODUCTION) as server,
        open_plain(server, "ws/live/", **ann) as first,
        open_plain(server, "ws/live/", **bob) as second,
    ):
        first.send({"action": "list", "request_id": 1})
        users = {user["username"]: user["id"] for user in first.receive()["data"]}
        assert {"ann", "bob"} <= {*users}
        first.send({"action": "publish", "pk": users["bob"], "request_id": 2})
        assert first.receive()["data"] == {"published": "bob"}
        first.send({"action": "subscribe_instance", "pk": users["bob"], "request_id": 3})
        assert first.receive()["response_status"] == 201
        second.send({"action": "patch", "pk": users["bob"], "data": {"email": "bob@example.com"}, "request_id": 4})
        assert second.receive()["response_status"] == 200
        # Bob's own socket is still there: saving a user asks whether the login holds, and it does.
        update = first.receive()
        assert (update["action"], update["request_id"], update["data"]["email"]) == ("update", 3, "bob@example.com")
        second.send({"action": "nothing", "request_id": 5})
        assert second.receive()["response_status"] == 405
        with open_plain(server, "ws/live/") as nobody:
            nobody.send({"action": "list", "request_id": 6})
            assert nobody.receive()["response_status"] == 403
        assert "Traceback" not in server.log


@pytest.mark.long
def test_chanx(with_packages):
    settings = ['INSTALLED_APPS += ["rest_framework", "chanx.channels"]']
    project = with_packages("chanx_sockets.py", "chanx[channels]", settings=settings)
    ann = cookie_of(project)
    with (
        Server(project, "production", env=LOCAL_PRODUCTION) as server,
        open_plain(server, "ws/chanx/") as first,
        open_plain(server, "ws/chanx/") as second,
    ):
        first.send({"action": "chat", "payload": {"text": "hi"}})
        for client in (first, second):
            assert client.receive() == {"action": "chat_notification", "payload": {"text": "hi"}}
        first.send({"action": "chat", "payload": {"txt": "hi"}})
        assert first.receive()["action"] == "error"
        with open_plain(server, "ws/members/", **ann) as member:
            assert member.receive()["payload"]["status_code"] == 200
            member.send({"action": "chat", "payload": {"text": "from ann"}})
            assert first.receive()["payload"] == member.receive()["payload"] == {"text": "from ann"}
        with open_plain(server, "ws/members/") as nobody:
            assert nobody.receive()["payload"]["status_code"] in (401, 403)
            close_code(nobody)
        assert "Traceback" not in server.log
