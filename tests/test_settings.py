"""The variables of the contract: what they do, and the line that names a missing or wrong one."""

import json
import re
import shutil
import socket

import httpx
import pytest
from servers import WINDOWS, Server, run

PRODUCTION = {
    "DJANGO_SECRET_KEY": "a long random key of production 0123456789 0123456789",
    "DJANGO_ALLOWED_HOSTS": "example.com, www.example.com",
    "DATABASE_URL": "postgres://user:p%40ss@db.example.com:5433/name",
    "REDIS_URL": "redis://redis.example.com:6379/1",
}


@pytest.fixture
def fresh_clone(project, tmp_path):
    """The project without its .env."""
    return shutil.copytree(project, tmp_path / "clone", ignore=shutil.ignore_patterns(".env"))


def setting(project, expression, **variables):
    """Return `expression` of the project's settings, as JSON has it."""
    code = f"import json; from django.conf import settings; print(json.dumps({expression}, default=str))"
    return json.loads(run(project, "manage.py", "shell", "--no-imports", "-c", code, env=variables).stdout)


@pytest.mark.parametrize("command", ["check", "migrate", "runserver"])
def test_a_fresh_clone_says_what_to_do(fresh_clone, command):
    result = run(fresh_clone, "manage.py", command, check=False)

    assert result.returncode == 1
    assert result.stdout.count("\n") == 1, result.stdout
    assert "copy .env.example to .env" in result.stdout


@pytest.mark.parametrize("options", [[], ["--noreload"]])
def test_runserver_ends_when_its_port_is_taken(project, options):
    """As Django's own does. daphne's alone would go on to watch files, and serve nothing."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        result = run(project, "manage.py", "runserver", f"127.0.0.1:{port}", *options, check=False)

    assert result.returncode == 1
    assert f"Couldn't listen on 127.0.0.1:{port}" in result.stdout
    assert "Traceback" not in result.stdout


def test_the_key_of_the_example_is_refused_in_production(project):
    result = run(project, "manage.py", "check", env={"DJANGO_DEBUG": "false"}, check=False)

    assert result.returncode == 1
    assert result.stdout.count("\n") == 1, result.stdout
    assert "public one of .env.example" in result.stdout


@pytest.mark.parametrize("url", ["nonsense", "postgres://host:port/name", "mysql://user:p@host/name"])
def test_a_wrong_database_url_is_refused_in_one_line(project, url):
    result = run(project, "manage.py", "check", env={"DATABASE_URL": url}, check=False)

    assert result.returncode == 1
    assert result.stdout.startswith("DATABASE_URL names no SQLite and no PostgreSQL, or is not understood. Examples: ")
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:s3cret#s3cret@host", "is not understood"),
        ("redis://:s3cret@host:6379/0?sockettimeout=5", "has an option that redis-py does not know, sockettimeout"),
        ("redis+sentinel://:s3cret@host:26379", "is not understood"),
        ("rediss://:s3cret@host:6379/0?ssl_cert_reqs=s3cret", "is not understood"),
        # redis-py alone would take database 0, and forget the second host.
        ("redis://:s3cret@one:6379/0, two", "is not understood"),
        ("redis://host:6379/0?password=s3cret#s3cret", "is not understood"),
    ],
)
def test_a_wrong_redis_url_is_refused_in_one_line(project, url, says):
    result = run(project, "manage.py", "check", env={"REDIS_URL": url}, check=False)

    assert result.returncode == 1
    assert result.stdout.startswith(f"REDIS_URL {says}. Allowed: ")
    assert result.stdout.count("\n") == 1
    assert "s3cret" not in result.stdout


def test_what_is_no_address_of_redis(project):
    """redis-py takes all of them, and the first broadcast would fail, again and again."""
    code = "import sys; from my_realtime_site.channel_layer import channel_layer\nfor url in sys.argv[1:]:"
    code += "\n try: channel_layer(url, 'site', 100)\n except ValueError: continue\n print(url)"
    urls = [
        "redis://",
        "redis://host:6379/0#1",
        "redis://host/one",
        "redis://one,",
        "redis://one:6379,two:6379",
        "redis://${REDIS_HOST}:6379/0",
        "redis://host?decode_responses=true",
        "unix://?db=1",
        "redis+sentinel://:26379/main",
        "redis+sentinel://one:26379/main?decode_responses=true",
        "redis+sentinel://one:26379,two:99999/main",
        "redis+sentinel://one:0/main",
        "redis+sentinel://one:26379/main#1",
        "redis+sentinel://:pass#word@one:26379/main",
        "redis+sentinel://:pass?word@one:26379/main",
        "unix+sentinel://one:26379/main",
        "redis+sentinel://one:26379/main?sentinel_password",
        "redis+sentinel://one:26379/main?sentinelpassword=1",
    ]

    assert run(project, "-c", code, *urls).stdout == ""


def test_addresses_of_redis(project):
    """One, several with commas, also where a password has one, and those of Sentinel."""

    def hosts(url):
        code = "import json, sys; from my_realtime_site.channel_layer import channel_layer;"
        code += " print(json.dumps(channel_layer(sys.argv[1], 'site', 100)['CONFIG']['hosts']))"
        return json.loads(run(project, "-c", code, url).stdout)

    two = hosts("redis://:a,b@one:6379/0 , unix:///run/redis.sock")
    assert len(hosts("redis://my_redis-1:6379,redis://[fe80::1%25eth0]:6379/1,redis://例え.example/")) == 3
    assert [host["address"] for host in two] == ["redis://:a,b@one:6379/0", "unix:///run/redis.sock"]
    assert hosts(" redis://one\n") == [two[0] | {"address": "redis://one"}]
    # More than the 5 s for which channels_redis waits; without any, a machine that vanishes is waited for for ever.
    (plain,) = hosts("redis+sentinel://one:26379/main")
    (host,) = hosts(
        "rediss+sentinel://s%40te:p%40ss@one:26379,[::1]:26380/m%20in/3"
        "?sentinel_username=me&sentinel_password=s%2F&ssl_ca_certs=/a&client_name=b"
    )
    assert all(10 < host["socket_timeout"] <= 20 for host in (*two, plain, host))
    # redis-py alone stops at 100.
    assert all(host["max_connections"] == 1000 for host in (*two, plain, host))
    assert (plain["db"], plain["username"], plain["password"]) == (0, None, None)
    assert "ssl" not in plain.keys() | plain["sentinel_kwargs"].keys()
    assert host["sentinels"] == [["one", 26379], ["::1", 26380]]
    # One that is gone is asked while sockets wait.
    assert all(0 < host["sentinel_kwargs"][f"socket_{part}timeout"] <= 1 for part in ("", "connect_"))
    assert host["ssl_ca_certs"] == host["sentinel_kwargs"]["ssl_ca_certs"] == "/a"
    assert (host["master_name"], host["db"], host["ssl"], host["client_name"]) == ("m in", 3, True, "b")
    assert (host["username"], host["password"]) == ("s@te", "p@ss")
    assert {"username": "me", "password": "s/", "ssl": True}.items() <= host["sentinel_kwargs"].items()


@pytest.mark.parametrize("command", [["manage.py", "check"], ["-m", "daphne", "{}.asgi:application"], ["-m", "{}"]])
def test_every_server_says_what_is_missing(fresh_clone, command):
    slug = next(fresh_clone.glob("*/settings.py")).parent.name

    result = run(fresh_clone, *[word.format(slug) for word in command], check=False)

    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith("DJANGO_SECRET_KEY is not set.")
    assert "Traceback" not in result.stdout


def test_deploy_check_is_free_of_warnings(fresh_clone):
    run(fresh_clone, "-W", "error", "manage.py", "check", "--deploy", "--fail-level", "WARNING", env=PRODUCTION)


def test_deploy_check_explains_the_in_memory_layer(fresh_clone):
    variables = PRODUCTION | {"REDIS_URL": ""}

    result = run(fresh_clone, "manage.py", "check", "--deploy", "--fail-level", "WARNING", env=variables, check=False)

    assert result.returncode == 1
    assert "realtime.W001" in result.stdout
    assert "Set REDIS_URL" in result.stdout


def test_production_variables(fresh_clone):
    assert setting(fresh_clone, "settings.ALLOWED_HOSTS", **PRODUCTION) == ["example.com", "www.example.com"]
    # Without a proxy, anybody could say what it says.
    https_and_proxy = "[settings.SECURE_SSL_REDIRECT, settings.REALTIME_TRUST_PROXY]"
    assert setting(fresh_clone, https_and_proxy, **PRODUCTION) == [True, False]
    # A browser comes back by HTTPS for a month, and no page of another site has a hold on this one's window.
    https = "[settings.SECURE_HSTS_SECONDS, settings.SECURE_CROSS_ORIGIN_OPENER_POLICY]"
    assert setting(fresh_clone, https, **PRODUCTION) == [30 * 24 * 60 * 60, "same-origin"]
    assert setting(fresh_clone, "'daphne' in settings.INSTALLED_APPS", **PRODUCTION) is False
    database = setting(fresh_clone, "settings.DATABASES['default']", **PRODUCTION)
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["PORT"], database["PASSWORD"]) == ("db.example.com", 5433, "p@ss")
    layer = setting(fresh_clone, "settings.CHANNEL_LAYERS['default']", **PRODUCTION)
    assert layer["BACKEND"] == "channels_redis.core.RedisChannelLayer"
    (host,) = layer["CONFIG"]["hosts"]
    assert host["address"] == PRODUCTION["REDIS_URL"]
    # Two projects may share a Redis. 100 messages, Channels' own limit, are too few for all sockets of a process.
    assert (layer["CONFIG"]["prefix"], layer["CONFIG"]["capacity"]) == ("my_realtime_site", 10_000)


@pytest.mark.parametrize(
    ("variable", "value", "expression", "expected"),
    [
        ("DJANGO_SECRET_KEY", "$key beginning with a dollar", "settings.SECRET_KEY", "$key beginning with a dollar"),
        ("DJANGO_SECRET_KEY_FALLBACKS", "one,two", "settings.SECRET_KEY_FALLBACKS", ["one", "two"]),
        pytest.param(
            "DJANGO_ALLOWED_ORIGINS",
            "https://a.b, https://c.d:8443, ",
            "settings.REALTIME_ALLOWED_ORIGINS",
            ["https://a.b", "https://c.d:8443"],
            id="DJANGO_ALLOWED_ORIGINS",
        ),
        ("DJANGO_CSRF_TRUSTED_ORIGINS", "https://a.b", "settings.CSRF_TRUSTED_ORIGINS", ["https://a.b"]),
        # Browsers ignore the header that is None over plain HTTP, and complain.
        pytest.param(
            "DJANGO_HTTPS",
            "false",
            "[settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE, settings.SECURE_SSL_REDIRECT,"
            " settings.SECURE_HSTS_SECONDS, settings.SECURE_CROSS_ORIGIN_OPENER_POLICY]",
            [False, False, False, 0, None],
            id="DJANGO_HTTPS",
        ),
        ("DJANGO_TRUST_PROXY", "true", "settings.SECURE_PROXY_SSL_HEADER", ["HTTP_X_FORWARDED_PROTO", "https"]),
        ("DJANGO_TRUST_PROXY", "false", "settings.SECURE_PROXY_SSL_HEADER", None),
        ("REDIS_URL", "", "settings.CHANNEL_LAYERS['default']['CONFIG']['capacity']", 10_000),
        ("DATABASE_URL", "sqlite:///other.db", "settings.DATABASES['default']['NAME'].name", "other.db"),
        ("DATABASE_URL", "", "settings.DATABASES['default']['NAME'].name", "db.sqlite3"),
        ("DATABASE_URL", "sqlite://:memory:", "settings.DATABASES['default']['NAME']", ":memory:"),
    ],
)
def test_variables(fresh_clone, variable, value, expression, expected):
    assert setting(fresh_clone, expression, **PRODUCTION | {variable: value}) == expected


def test_mail(bake):
    """For passwords that are forgotten, in the chat: without EMAIL_URL it has no such page in production."""
    project = bake(starter="chat")
    code = """if True:
        from django.conf import settings
        from django.core import mail
        mailer = mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()
        print(mailer.host, mailer.port, mailer.username, mailer.password, mailer.use_tls, mailer.timeout)
        print(settings.DEFAULT_FROM_EMAIL)
    """
    mail = {"EMAIL_URL": "smtp+tls://me:p%40ss@mail.example.com:587", "DEFAULT_FROM_EMAIL": "site@example.com"}

    said = run(project, "manage.py", "shell", "--no-imports", "-c", code, env=PRODUCTION | mail).stdout
    wrong = run(project, "manage.py", "check", env=PRODUCTION | {"EMAIL_URL": "s3cret"}, check=False)

    # With a time limit: a request waits for it.
    assert said.splitlines() == ["mail.example.com 587 me p@ss True 10", "site@example.com"]
    assert setting(project, "settings.ACCOUNTS_PASSWORD_RESET", **PRODUCTION) is False
    assert wrong.returncode == 1
    assert wrong.stdout.startswith("EMAIL_URL is not understood. Example: ")
    assert wrong.stdout.count("\n") == 1
    assert "s3cret" not in wrong.stdout


def test_a_forgotten_env_changes_nothing_in_production(project):
    assert setting(project, "settings.DEBUG") is True
    assert setting(project, "settings.DEBUG", **PRODUCTION) is False


@pytest.mark.parametrize("starter", ["minimal", "chat"])
def test_the_settings_of_tests_are_the_same_everywhere(bake, tmp_path, starter):
    """Whatever the shell and .env say; the database is theirs alone."""
    project = shutil.copytree(bake(starter=starter), tmp_path / "project")
    example = (project / ".env.example").read_text(encoding="utf-8")
    variables = {*re.findall(r"(?m)^#?([A-Z_]+)=", example)} - {"DATABASE_URL"}
    others = {
        name: "true" if name.endswith(("DEBUG", "HTTPS", "PROXY")) else "https://example.com" for name in variables
    }
    others["REDIS_URL"] = "redis://127.0.0.1:1"
    others["EMAIL_URL"] = "smtp://127.0.0.1:1"
    code = """if True:
        from my_realtime_site import settings_test
        print({name: value for name, value in vars(settings_test).items() if name.isupper()})
    """
    (project / ".env").unlink()
    expected = re.sub("0x[0-9a-f]+", "", run(project, "-c", code).stdout)

    (project / ".env").write_text("\n".join(f"{name}={value}" for name, value in others.items()), encoding="utf-8")
    assert re.sub("0x[0-9a-f]+", "", run(project, "-c", code, env=others).stdout) == expected
    assert {"DJANGO_SECRET_KEY", "DJANGO_DEBUG", "DJANGO_TRUST_PROXY"} <= variables


def test_without_redis_one_process_is_started_and_a_line_says_why(fresh_clone):
    code = "from my_realtime_site.__main__ import count_workers; print(count_workers())"
    variables = PRODUCTION | {"DJANGO_SETTINGS_MODULE": "my_realtime_site.settings", "WEB_CONCURRENCY": "4"}

    assert run(fresh_clone, "-c", code, env=variables).stdout == "4\n"
    # As compose.yaml and platforms may have it.
    assert run(fresh_clone, "-c", code, env=variables | {"WEB_CONCURRENCY": ""}).stdout == "1\n"
    alone = run(fresh_clone, "-c", code, env=variables | {"REDIS_URL": ""}).stdout
    assert alone.splitlines()[-1] == "1"
    assert "One process is started, not 4: sockets of several meet over Redis. Set REDIS_URL." in alone


def test_a_number_of_processes_that_is_none_is_refused_in_one_line(project):
    result = run(project, "-m", "my_realtime_site", "--port", "0", env={"WEB_CONCURRENCY": "two"}, check=False)

    assert result.returncode == 1
    assert result.stdout == "WEB_CONCURRENCY must be a number of processes, such as 2.\n"


def test_a_port_of_the_environment_is_listened_to_on_all_addresses(project, tmp_path):
    """As platforms need it. The one of a file for development does not count."""
    copy = shutil.copytree(project, tmp_path / "project")
    with (copy / ".env").open("a", encoding="utf-8") as env:
        env.write("\nPORT=5001\n")

    def help(**variables):
        return run(copy, "-m", "my_realtime_site", "--help", env={"COLUMNS": "200"} | variables).stdout

    assert "default: 127.0.0.1;" in help()
    assert "default: 0.0.0.0;" in help(PORT="5000")
    assert "default: 127.0.0.1;" in help(PORT="")
    code = """
import sys, uvicorn
from my_realtime_site.__main__ import main
uvicorn.Config = lambda application, **options: sys.exit(f"{options['host']} {options['port']}")
sys.argv = ["my_realtime_site", *sys.argv[1:]]
main()
"""
    words = ["--host", "127.0.0.2", "--port", "5002"]
    for arguments, expected in (([], "0.0.0.0 5000"), (words, "127.0.0.2 5002")):
        output = run(copy, "-c", code, *arguments, env={"PORT": "5000"}, check=False).stdout
        assert output.splitlines()[-1] == expected


def test_the_server_is_started_for_a_crowd(project):
    code = """
import json, sys, types, uvicorn
from my_realtime_site.__main__ import main

class Server:
    def __init__(self, config):
        self.config = config

    def run(self, listeners):
        ports = [listener.getsockname()[1] for listener in listeners]
        print(json.dumps(vars(self.config) | {"listeners": ports}, default=str))

uvicorn.Server = Server
sys.argv = ["my_realtime_site", "--port", "0"]
main()
"""
    config = json.loads(run(project, "-c", code).stdout.splitlines()[-1])

    # As many may wait as Linux allows, and uvloop takes one for each of its listeners in a turn.
    assert config["backlog"] >= 4096
    assert len(config["listeners"]) == (1 if WINDOWS else 16)
    assert len({*config["listeners"]}) == 1
    # A browser that has vanished is here for no longer than a minute.
    assert config["ws_ping_interval"] + config["ws_ping_timeout"] <= 60
    # Costs more than short frames are worth; and Django knows no lifespan, which would be a line of each start.
    assert config["ws_per_message_deflate"] is False
    assert config["lifespan"] == "off"


@pytest.mark.parametrize(
    ("port", "says"), [("tcp://10.0.0.7:80", "invalid int value: 'tcp://10.0.0.7:80'"), ("99999", "the number 99999")]
)
def test_a_wrong_port_is_refused_in_one_line(project, port, says):
    result = run(project, "-m", "my_realtime_site", env={"PORT": port}, check=False)

    assert result.returncode == 2
    assert says in result.stdout.splitlines()[-1]
    assert "Traceback" not in result.stdout


def test_the_database_lies_beside_manage_py(project, tmp_path):
    name = setting(project, "settings.DATABASES['default']['NAME']")

    assert name == str(project / "db.sqlite3")


def test_sqlite_lets_a_transaction_write_after_it_has_read(project, tmp_path):
    """Otherwise "database is locked" at once, when another one has written meanwhile."""
    code = """if True:
        import threading, django
        django.setup()
        from django.contrib.auth.models import Group
        from django.db import connection, transaction
        other = threading.Thread(target=Group.objects.create, kwargs={"name": "other"})
        with transaction.atomic():
            Group.objects.count()
            other.start()
            other.join(0.5)  # It waits for the commit.
            Group.objects.create(name="ours")
        other.join()
        print(Group.objects.count())
        # Readers do not wait for a writer, and writers for each other longer than the 5 s of Python's own.
        with connection.cursor() as cursor:
            # With a log no commit has to wait for the disk (synchronous=NORMAL).
            for name in ("journal_mode", "busy_timeout", "synchronous"):
                print(*cursor.execute(f"PRAGMA {name}").fetchone())
    """
    copy = shutil.copytree(project, tmp_path / "project")

    said = run(copy, "-c", code, env={"DJANGO_SETTINGS_MODULE": f"{project.name}.settings"}, check=False).stdout

    assert said.splitlines()[-4:] == ["2", "wal", "20000", "1"], said


def test_runserver_refuses_with_debug_off(fresh_clone):
    result = run(fresh_clone, "manage.py", "runserver", "0.0.0.0:0", "--noreload", env=PRODUCTION, check=False)

    assert result.returncode == 1
    assert result.stdout.count("\n") == 1, result.stdout
    assert "In production: python -m my_realtime_site" in result.stdout


def test_production_does_not_load_twisted(fresh_clone):
    """It costs each worker 27 MB. And what is loaded, the garbage collector leaves alone."""
    code = "import gc, sys; from my_realtime_site.__main__ import load; load()"
    code += "; print('twisted' in sys.modules, gc.get_freeze_count() > 10_000)"

    env = PRODUCTION | {"DJANGO_SETTINGS_MODULE": "my_realtime_site.settings"}
    assert run(fresh_clone, "-c", code, env=env).stdout == "False True\n"


def test_scripts_are_scripts_whatever_the_system_says(project):
    """Some registries of Windows call them text/plain, and then browsers run no module."""
    code = (
        "import mimetypes; mimetypes.add_type('text/plain', '.js');"
        " import my_realtime_site.settings; print(mimetypes.guess_type('socket.js')[0])"
    )

    assert run(project, "-c", code).stdout == "text/javascript\n"


def test_https(project, tmp_path):
    project = shutil.copytree(project, tmp_path / "project")
    variables = PRODUCTION | {"DATABASE_URL": "", "REDIS_URL": "", "DJANGO_TRUST_PROXY": "true"}
    run(project, "manage.py", "collectstatic", "--no-input", env=variables)
    with Server(project, "production", env=variables) as server, httpx.Client(base_url=server.url) as browser:
        plain = browser.get("/", headers={"Host": "example.com"})
        behind_tls = browser.get("/", headers={"Host": "example.com", "X-Forwarded-Proto": "https"})
        health = browser.get("/healthz", headers={"Host": "example.com"})

    assert (plain.status_code, plain.headers["Location"]) == (301, "https://example.com/")
    assert behind_tls.status_code == 200
    assert "max-age" in behind_tls.headers["Strict-Transport-Security"]
    assert health.status_code == 200
