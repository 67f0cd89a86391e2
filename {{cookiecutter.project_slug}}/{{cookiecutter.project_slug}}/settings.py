"""
Django settings for {{ cookiecutter.project_slug }}.

What differs from machine to machine is an environment variable, explained in .env.example.
No variable set means production's rules.
https://docs.djangoproject.com/en/stable/ref/settings/
"""

import logging
import mimetypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

{% if cookiecutter.starter == "chat" -%}
import django
{% endif -%}
import environ
from csp.constants import NONE, SELF
{%- if cookiecutter.starter == "chat" %}
from django.core.exceptions import ImproperlyConfigured
{%- endif %}

from .channel_layer import channel_layer

BASE_DIR = Path(__file__).resolve().parent.parent

SITE_NAME = {{ cookiecutter.__project_name_literal }}


# Environment

env = environ.Env()

# Where the secret key comes from the environment, as in production, a forgotten .env changes nothing.
if "DJANGO_SECRET_KEY" not in os.environ:
    env.read_env(BASE_DIR / ".env")


def env_list(name):
    """Return the comma separated values of the variable, without spaces around them."""
    return [value.strip() for value in env.list(name, default=[]) if value.strip()]


DEBUG = env.bool("DJANGO_DEBUG", default=False)

# Not env.str(): django-environ takes a leading "$" for the name of another variable.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "")
SECRET_KEY_FALLBACKS = env_list("DJANGO_SECRET_KEY_FALLBACKS")

if not SECRET_KEY:
    sys.exit(
        "DJANGO_SECRET_KEY is not set. To develop: copy .env.example to .env."
        " In production: set the variables that .env.example lists."
    )
if not DEBUG and SECRET_KEY.startswith("django-insecure-"):
    sys.exit(
        "DJANGO_SECRET_KEY is the public one of .env.example, and DJANGO_DEBUG is off."
        " In production: set a long random key. To develop: DJANGO_DEBUG=true."
    )

ALLOWED_HOSTS = env_list("DJANGO_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env_list("DJANGO_CSRF_TRUSTED_ORIGINS")
# Further origins whose pages may open sockets.
REALTIME_ALLOWED_ORIGINS = env_list("DJANGO_ALLOWED_ORIGINS")


# Applications

INSTALLED_APPS = [
    # Before staticfiles, so that its runserver refuses where daphne's is missing.
    "realtime",
    # For its runworker.
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
    "csp",
    "accounts",
    "chat",
]
if DEBUG:
    # runserver's ASGI server comes first, or runserver stays WSGI and every WebSocket is a 404.
    # Production runs uvicorn, whose workers need not load Twisted.
    if find_spec("daphne") is None:
        sys.exit(
            "daphne is not installed, and DJANGO_DEBUG is on."
            " To develop: `uv sync`, or `python -m pip install --group dev`. In production: DJANGO_DEBUG=false."
        )
    if "daphne" in INSTALLED_APPS:
        sys.exit("Take daphne out of INSTALLED_APPS: settings.py puts it first while DJANGO_DEBUG is on.")
    INSTALLED_APPS.insert(0, "daphne")

MIDDLEWARE = [
    # First, so that it answers whatever host and scheme it is asked by.
    "realtime.health.healthz",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
{%- if cookiecutter.starter == "chat" %}
    "accounts.middleware.limit_requests",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "accounts.middleware.private_pages",
{%- else %}
    "django.contrib.sessions.middleware.SessionMiddleware",
{%- endif %}
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "{{ cookiecutter.project_slug }}.urls"

# Step 1 of 4: the server enters the project here, for HTTP and for WebSockets.
ASGI_APPLICATION = "{{ cookiecutter.project_slug }}.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "{{ cookiecutter.project_slug }}.context_processors.site",
            ],
        },
    },
]


# Database
# https://docs.djangoproject.com/en/stable/ref/settings/#databases

database_url = os.environ.get("DATABASE_URL") or "sqlite:///db.sqlite3"
try:
    if not database_url.startswith(("sqlite:", "postgres:", "postgresql:")):
        raise ValueError
    database = env.db_url_config(database_url)
except ValueError:
    sys.exit(
        "DATABASE_URL names no SQLite and no PostgreSQL, or is not understood."
        " Examples: sqlite:///db.sqlite3 or postgres://user:password@host:5432/name"
    )
if "postgres" in database["ENGINE"] and not (find_spec("psycopg") or find_spec("psycopg2")):
    sys.exit(
        "DATABASE_URL names PostgreSQL, and psycopg is not installed:"
        " `uv sync --extra postgres`, or `python -m pip install -e '.[postgres]'`."
    )
if database["ENGINE"] == "django.db.backends.sqlite3":
    if database["NAME"] != ":memory:":
        # The file lies beside manage.py, wherever a command is started.
        database["NAME"] = BASE_DIR / database["NAME"]
    # Readers beside one writer, and writers that wait for each other (seconds) instead of failing.
    database["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
    }

DATABASES = {"default": database}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


# Channel layer: how sockets in different processes reach each other
# https://channels.readthedocs.io/en/stable/topics/channel_layers.html

# Messages that may wait for one process. Channels' default of 100 would be for one socket.
CHANNEL_CAPACITY = 10_000

try:
    layer = channel_layer(
        os.environ.get("REDIS_URL", ""),
        "{{ cookiecutter.project_slug }}",
        CHANNEL_CAPACITY,
    )
except ValueError as error:
    sys.exit(f"REDIS_URL {error}")

CHANNEL_LAYERS = {"default": layer}


# Limits of a socket

# Frames that it may send in the long run, and at once. Clients over it are told to wait; None: no limit.
REALTIME_FRAMES_PER_SECOND = 20
REALTIME_FRAME_BURST = 200
# Bytes of a frame that a client sends; a larger one is refused.
REALTIME_MAX_FRAME_SIZE = 2**16
# Open sockets of a user in one process, and of an address that is not logged in. Many people may share an address.
REALTIME_SOCKETS_PER_USER = 50
REALTIME_SOCKETS_PER_ADDRESS = None
# Seconds between two checks whether the login of each open socket still holds.
REALTIME_RECHECK_SECONDS = {{ 10 if cookiecutter.starter == "chat" else 60 }}
# Characters of a message.
CHAT_MAX_TEXT_LENGTH = 2000
{%- if cookiecutter.starter == "chat" %}
# Rooms that one user may make.
CHAT_ROOMS_PER_USER = 50
{%- endif %}


# Accounts
# https://docs.djangoproject.com/en/stable/ref/settings/#auth

AUTH_USER_MODEL = "accounts.User"
{%- if cookiecutter.starter == "chat" %}
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"

# Requests that a process answers at a time, each with one connection to the database; others wait. PostgreSQL has 100
# connections for all processes, unless told otherwise, and fails above that.
ACCOUNTS_REQUESTS_AT_A_TIME = 20
# Wrong passwords in so many seconds for one account, and from one address; accounts made from one address. A browser
# that has logged in to the account before has a count of its own.
ACCOUNTS_PERIOD = 15 * 60
ACCOUNTS_GUESSES_PER_ACCOUNT = 10
ACCOUNTS_GUESSES_PER_ADDRESS = 100
ACCOUNTS_SIGN_UPS_PER_ADDRESS = 30
# Mails for a forgotten password in the same time, to one mail address, and asked for from one address.
ACCOUNTS_MAILS_PER_RECIPIENT = 3
ACCOUNTS_MAILS_PER_ADDRESS = 30
# Characters of a name, and names that nobody may choose, nor one that looks alike.
ACCOUNTS_MAX_NAME_LENGTH = 40
ACCOUNTS_RESERVED_NAMES = ["admin", "administrator", "moderator", "root", "security", "staff", "support", "system"]
{%- endif %}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

{%- if cookiecutter.starter == "chat" %}


# Mail, for passwords that are forgotten. Without EMAIL_URL there is no such page in production.
# https://docs.djangoproject.com/en/stable/topics/email/

email_url = os.environ.get("EMAIL_URL") or ("consolemail://" if DEBUG else "")
ACCOUNTS_PASSWORD_RESET = bool(email_url)
if ACCOUNTS_PASSWORD_RESET:
    try:
        email = env.email_url_config(email_url)
    except (ImproperlyConfigured, ValueError):
        sys.exit("EMAIL_URL is not understood. Example: smtp+tls://user:password@mail.example.com:587")
    if django.VERSION < (6, 1):
        vars().update(email, EMAIL_TIMEOUT=10)
    else:
        # In place of the settings EMAIL_…, which Django 6.1 deprecates.
        names = {"host": "HOST", "port": "PORT", "username": "HOST_USER", "password": "HOST_PASSWORD"}
        names |= {"use_tls": "USE_TLS", "use_ssl": "USE_SSL", "file_path": "FILE_PATH"}
        options = {option: email[f"EMAIL_{name}"] for option, name in names.items() if email.get(f"EMAIL_{name}")}
        if "host" in options:
            options["timeout"] = 10
        MAILERS = {"default": {"BACKEND": email["EMAIL_BACKEND"], "OPTIONS": options}}
DEFAULT_FROM_EMAIL = os.environ.get("DEFAULT_FROM_EMAIL") or "webmaster@localhost"
{%- endif %}


# Internationalization

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
{%- if cookiecutter.starter == "chat" %}
# Translations of the texts of this project: manage.py makemessages and compilemessages.
LOCALE_PATHS = [BASE_DIR / "locale"]
{%- endif %}


# Static files
# https://docs.djangoproject.com/en/stable/howto/static-files/

# Some registries of Windows say text/plain, and browsers run no such module.
mimetypes.add_type("text/javascript", ".js")

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "{{ cookiecutter.project_slug }}.storage.HashedStaticFilesStorage",
    },
}


# Security
# https://docs.djangoproject.com/en/stable/topics/security/

HTTPS = env.bool("DJANGO_HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = HTTPS
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
# Over plain HTTP browsers ignore this header, and complain.
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin" if HTTPS else None
SECURE_HSTS_SECONDS = 30 * 24 * 3600 if HTTPS else 0
# Subdomains and browsers' preload lists are decisions about a whole domain, not about this site.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# Believe what the proxy in front says of its clients. Without a proxy, anybody could say it.
REALTIME_TRUST_PROXY = env.bool("DJANGO_TRUST_PROXY", default=False)
if REALTIME_TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# connect-src "self" is what lets the page open a WebSocket to its own host.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "connect-src": [SELF],
        "font-src": [SELF],
        "img-src": [SELF, "data:"],
        "script-src": [SELF],
        "style-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    },
}

# No page of this site asks for these, so that a script which breaks into one cannot either.
PERMISSIONS_POLICY: dict[str, list] = {
    feature: [] for feature in ("camera", "display-capture", "geolocation", "microphone", "payment", "serial", "usb")
}


# Logging
# https://docs.djangoproject.com/en/stable/topics/logging/


def without_traceback(record):
    """Log what clients cause, such as a foreign Host, in one line. Return True, as a filter of the log must."""
    if getattr(record, "status_code", 500) < 500:
        record.exc_info = None
    return True


class LastWords(logging.StreamHandler):
    """Ends the process after a record: when its port is taken, daphne's runserver would go on watching files."""

    def emit(self, record):
        super().emit(record)
        os._exit(1)


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "without_traceback": {"()": "django.utils.log.CallbackFilter", "callback": without_traceback},
    },
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["without_traceback"]},
        "last_words": {"()": LastWords, "formatter": "line", "level": "CRITICAL"},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        # Without Django's own handler, which would write each line a second time.
        "django": {"level": "INFO"},
        "daphne.server": {"handlers": ["last_words"]},
        # Sockets: opened, closed with code and seconds, refused.
        "realtime": {"level": "INFO"},
        # Messages of Channels' own group_send() that found no room in Redis: "… over capacity …".
        "channels_redis": {"level": "INFO"},
    },
}
