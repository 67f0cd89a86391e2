"""
Pitfalls of docs/pitfalls.md that need a project with a mistake, or a consumer of its own.

Those that every socket meets are in test_sockets.py, those of variables in test_settings.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import httpx
import pytest
from clients import open_client
from servers import LOCAL_PRODUCTION, PROBES, WINDOWS, Server, clean_environ, free_port, python_of, run, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture
def copy(project, tmp_path):
    """A migrated project, which a test may change."""
    return shutil.copytree(project, tmp_path / "project")


@pytest.fixture(scope="module", params=["runserver", "uvicorn"])
def probes(request, with_probe):
    """A server of a project that has the consumers of pitfalls.py."""
    with Server(with_probe("pitfalls.py"), request.param) as server:
        yield server


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_idle_socket_on_redis_stays_open(project, redis):
    with Server(project, "uvicorn", env={"REDIS_URL": redis.url}) as server:
        wait_until(lambda: httpx.get(server.url + "healthz").status_code == 200, "Redis answers")
        with open_client(server) as client, open_client(server) as other:
            with pytest.raises(TimeoutError):
                client.receive(timeout=12)
            other.send({"type": "message", "text": "still there?"})
            assert client.receive()["text"] == "still there?"
        assert "is lost" not in server.log


def test_redis_reaches_the_other_process(project, redis):
    env = {"REDIS_URL": redis.url}
    with (
        Server(project, "uvicorn", env) as one,
        Server(project, "daphne", env) as other,
        open_client(one) as first,
        open_client(other) as second,
    ):
        for sender in (first, second):
            sender.send({"type": "message", "text": "hello"})
            assert first.receive() == second.receive() == {"type": "message", "text": "hello"}


def test_healthz_says_which_part_does_not_answer(project):
    with Server(project, "uvicorn", env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}) as server:
        health = httpx.get(server.url + "healthz", timeout=10)

    assert health.status_code == 503
    assert health.json() == {"database": "ok", "channel_layer": "ConnectionError"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('    INSTALLED_APPS.insert(0, "daphne")', "    pass", "daphne is not in INSTALLED_APPS"),
        ("INSTALLED_APPS.insert(0,", "INSTALLED_APPS.insert(1,", "daphne is not the first of INSTALLED_APPS"),
    ],
    ids=["removed", "moved"],
)
def test_without_daphne_runserver_says_why(copy, old, new, says):
    replace(copy / "my_realtime_site" / "settings.py", old, new)

    check = run(copy, "manage.py", "check", check=False)
    assert check.returncode == 1
    assert "realtime.E001" in check.stdout
    assert says in check.stdout
    assert "404" in check.stdout
    runserver = run(copy, "manage.py", "runserver", str(free_port()), "--noreload", check=False)
    assert runserver.returncode == 1
    assert "daphne" in runserver.stdout


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("my_realtime_site.asgi.app", "has no attribute 'app'"),
        ("my_realtime_site.nowhere.application", "No module named 'my_realtime_site.nowhere'"),
        ("my_realtime_site.asgi.django_asgi_app", "takes HTTP only"),
        ("application", "must be the path of the ProtocolTypeRouter"),
    ],
)
def test_a_wrong_asgi_application_is_explained(copy, path, says):
    settings = copy / "my_realtime_site" / "settings.py"
    replace(settings, '"my_realtime_site.asgi.application"', f'"{path}"')

    check = run(copy, "manage.py", "check", check=False)

    assert check.returncode == 1
    assert "realtime.E002" in check.stdout
    assert says in check.stdout
    # One mistake is one complaint.
    assert "identified 1 issue " in check.stdout


DAPHNE_IS_MISSING = "daphne is not installed, and DJANGO_DEBUG is on. To develop: `uv sync`, or"
DAPHNE_TWICE = "Take daphne out of INSTALLED_APPS: settings.py puts it first"
POSTGRESQL = {"DATABASE_URL": "postgres://ann@localhost/db"}
DRIVER_IS_MISSING = "DATABASE_URL names PostgreSQL, and psycopg is not installed: `uv sync --extra"


@pytest.mark.parametrize(
    ("before", "after", "env", "says"),
    [
        ('find_spec("daphne")', 'find_spec("daphne_is_not_here")', None, DAPHNE_IS_MISSING),
        # As every guide to Channels puts it in.
        ("INSTALLED_APPS = [\n", 'INSTALLED_APPS = [\n    "daphne",\n', None, DAPHNE_TWICE),
        # The environment may have it.
        ('find_spec("psycopg', 'find_spec("not_psycopg', POSTGRESQL, DRIVER_IS_MISSING),
    ],
    ids=["daphne-is-missing", "daphne-twice", "driver-is-missing"],
)
def test_what_settings_refuse_is_said_in_one_line(copy, before, after, env, says):
    replace(copy / "my_realtime_site" / "settings.py", before, after)

    result = run(copy, "manage.py", "migrate", env=env, check=False)

    assert result.returncode == 1
    assert result.stdout.startswith(says)
    assert result.stdout.count("\n") == 1


def test_a_forgotten_environment_is_named(copy):
    """-S: without site-packages, as the Python of the system has none of the project's."""
    result = run(copy, "-S", "manage.py", "migrate", check=False)

    assert result.returncode == 1
    assert result.stdout.startswith("Django is not installed for ")
    assert "activate the project's environment" in result.stdout
    assert result.stdout.count("\n") == 1


def test_an_app_that_is_not_installed_is_named(copy):
    """Without it no check could say so, and each socket would get a 500 for a setting that is missing."""
    replace(copy / "my_realtime_site" / "settings.py", '    "realtime",\n', "")

    imported = run(copy, "-c", "import my_realtime_site.asgi", check=False)

    assert imported.stdout.rstrip().endswith('ImproperlyConfigured: "realtime" is not in INSTALLED_APPS.')


def test_import_sorters_keep_the_order(copy):
    """Every server start in test_sockets.py proves the order itself."""
    asgi = copy / "my_realtime_site" / "asgi.py"
    before = asgi.read_text(encoding="utf-8")

    command = [sys.executable, "-m", "ruff", "check", "--select", "I,E402,F401", "--fix", "--unsafe-fixes", asgi]
    subprocess.run(command, check=True, capture_output=True)

    assert asgi.read_text(encoding="utf-8") == before


def test_a_slow_call_in_a_thread_of_its_own_stalls_nobody(probes):
    with (
        open_client(probes, path="ws/threads/") as slow,
        open_client(probes, path="ws/threads/") as other,
    ):
        slow.send({"type": "wait"})
        assert slow.receive() == {"type": "waiting"}
        other.send({"type": "count"})
        assert other.receive(timeout=20) == {"type": "users", "count": 0}
        assert slow.receive(timeout=20) == {"type": "waited", "in vain": False}


def test_a_code_before_accept_reaches_the_client(probes):
    with open_client(probes, path="ws/closing/", greeting=False) as client, pytest.raises(ConnectionClosed) as closed:
        client.receive()

    assert closed.value.rcvd.code == 4401


def test_a_failing_socket_leaves_its_groups(probes):
    for _ in range(3):
        with open_client(probes, path="ws/failing/", greeting=False) as client:
            assert client.receive() == {"type": "members", "count": 1}
            client.send({"type": "anything"})
            with pytest.raises(ConnectionClosed):
                client.receive()
    wait_until(lambda: "WebSocket /ws/failing/ of 127.0.0.1 closed with 1011" in probes.log, "a log line")


def test_nothing_is_sent_after_a_close(probes):
    with open_client(probes, path="ws/late/") as client:
        client.send({"type": "anything"})
        assert client.receive() == {"type": "last"}
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
    assert closed.value.rcvd.code == 4000
    wait_until(lambda: "WebSocket /ws/late/ of 127.0.0.1 closed with 4000" in probes.log, "a log line")


def test_a_forgotten_await_is_in_the_log(probes):
    """daphne's runserver would throw Python's warning away."""
    with open_client(probes, path="ws/forgetful/"):
        wait_until(lambda: "coroutine 'RealtimeConsumer.join' was never awaited" in probes.log, "a warning")


def test_a_connect_that_neither_accepts_nor_closes_is_refused(probes):
    with pytest.raises(InvalidStatus) as refusal, open_client(probes, path="ws/undecided/", greeting=False):
        pass
    assert refusal.value.response.status_code == 403
    assert probes.log.count("its consumer's connect() has neither accepted nor closed it") == 1


def test_the_log_of_production(with_probe):
    """A line when a socket opens and one when it closes, with errors, and without uvicorn's own lines."""
    project = with_probe("pitfalls.py")
    run(project, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    with Server(project, "production", env=LOCAL_PRODUCTION) as server:
        with open_client(server):
            pass
        with pytest.raises(InvalidStatus), open_client(server, path="ws/refusing/", greeting=False):
            pass
        wait_until(lambda: "closed with 1000" in server.log and "not accepted" in server.log, "the log lines")
        lines = [line for line in server.log.splitlines() if "ebSocket" in line or "connection" in line]
        assert {re.sub(".*: | after .*", "", line) for line in lines} == {
            "WebSocket /ws/socket-server/ of 127.0.0.1 opened",
            "WebSocket /ws/socket-server/ of 127.0.0.1 closed with 1000",
            "WebSocket /ws/refusing/ of 127.0.0.1 not accepted",
        }
        assert len(lines) == 3
        with open_client(server, path="ws/failing/", greeting=False) as client:
            client.receive()
            client.send({"type": "anything"})
            wait_until(lambda: "ZeroDivisionError" in server.log, "a traceback")


def test_slow_work_is_cancelled_when_the_socket_closes(probes):
    with open_client(probes, path="ws/slow/") as client:
        assert client.receive() == {"type": "working"}
        client.ping()
        assert "work cancelled" not in probes.log

    wait_until(lambda: "work cancelled" in probes.log, "the task ends", timeout=5)
    wait_until(lambda: "disconnect called" in probes.log, "disconnect() runs", timeout=5)


def test_the_fixtures_of_the_tests_neither_leak_nor_lock(copy):
    shutil.copy(PROBES / "rows.py", copy / "chat" / "test_rows.py")

    result = run(copy, "-m", "pytest", "chat/test_rows.py")

    assert "4 passed" in result.stdout


def test_disconnect_after_a_refused_connect(probes):
    with pytest.raises(InvalidStatus) as refusal, open_client(probes, path="ws/refusing/", greeting=False):
        pass
    assert refusal.value.response.status_code == 403

    # A complaint of the refused consumer stands in the log before the end of a later socket.
    with open_client(probes):
        pass
    wait_until(lambda: "/ws/socket-server/ of 127.0.0.1 closed" in probes.log, "a log line")
    assert "AttributeError" not in probes.log


def test_a_forgotten_collectstatic_is_named(copy):
    # With debug on it is the same: then the list of the files is not written.
    run(copy, "manage.py", "collectstatic", "--no-input", env={"DJANGO_DEBUG": "true"})
    with Server(copy, "production", env=LOCAL_PRODUCTION) as server:
        assert "run `manage.py collectstatic --no-input` with DJANGO_DEBUG=false" in server.log
        assert httpx.get(server.url).status_code == 500
        wait_until(lambda: "Run `manage.py collectstatic` with DJANGO_DEBUG=false" in server.log, "the remedy")


def test_static_files_under_the_daphne_command(copy):
    run(copy, "manage.py", "collectstatic", "--no-input", env=LOCAL_PRODUCTION)
    with Server(copy, "daphne", env=LOCAL_PRODUCTION) as server, httpx.Client(base_url=server.url) as browser:
        script = browser.get("static/chat/chat.js")
        page = browser.get("/").text

        # The files that a script imports have a hash, too, and may be cached for ever.
        path = page.partition('type="module" src="')[2].partition('"')[0]
        assert re.fullmatch(r"/static/chat/chat\.[0-9a-f]{12}\.js", path)
        imported = re.search(r'from "\.\./(realtime/socket\.[0-9a-f]{12}\.js)"', browser.get(path).text)
        assert imported
        response = browser.get(f"static/{imported[1]}")

    assert script.status_code == response.status_code == 200
    assert "immutable" in response.headers["Cache-Control"]


def test_static_files_without_warnings(copy):
    """ASGI and WhiteNoise warn of synchronous iterators; here warnings would be errors."""
    with Server(copy, "uvicorn", env={"PYTHONWARNINGS": "error"}) as server:
        assert httpx.get(server.url + "static/chat/chat.js").status_code == 200
        assert "Warning" not in server.log


def test_runserver_reloads(copy):
    """runserver as people start it, with the process that watches the files: a saved file is served."""
    if WINDOWS:
        pytest.skip("the reloader's processes are ended by their group, which Windows has not")
    port = free_port()
    command = [python_of(copy), "manage.py", "runserver", str(port)]
    log = (copy / "log").open("wb")
    process = subprocess.Popen(command, cwd=copy, env=clean_environ(), stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until(lambda: answers(url, "My Realtime Site"), "the first page", timeout=60)
        time.sleep(1.1)  # The reloader compares times of whole seconds.
        replace(copy / "my_realtime_site" / "settings.py", '"My Realtime Site"', '"Another name"')
        wait_until(lambda: answers(url, "Another name"), "the changed page", timeout=60)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def answers(url, text):
    try:
        return text in httpx.get(url).text
    except httpx.TransportError:
        return False
