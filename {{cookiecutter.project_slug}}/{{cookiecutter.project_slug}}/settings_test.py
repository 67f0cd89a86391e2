"""
Settings of the tests: the same on every machine, whatever its .env or its shell says.

Only DATABASE_URL is taken over, so that the tests can run on PostgreSQL too.
"""

import os

from django.db import connections

os.environ["DJANGO_SECRET_KEY"] = "for tests only"
os.environ["DJANGO_DEBUG"] = "false"
os.environ["DJANGO_HTTPS"] = "false"
# The hosts of Django's test client and of live servers, which may be processes of their own.
os.environ["DJANGO_ALLOWED_HOSTS"] = "testserver,localhost"
{%- if cookiecutter.starter == "chat" %}
os.environ["EMAIL_URL"] = "memorymail://"
os.environ["DEFAULT_FROM_EMAIL"] = ""
{%- endif %}
for name in ("SECRET_KEY_FALLBACKS", "ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS", "TRUST_PROXY"):
    os.environ.pop(f"DJANGO_{name}", None)
os.environ.pop("REDIS_URL", None)

from .settings import *  # noqa: E402, F403
from .settings import BASE_DIR, database  # noqa: E402

# A file: connections of several threads to one in-memory database lock each other out.
if database["ENGINE"] == "django.db.backends.sqlite3":
    database["TEST"] = {"NAME": BASE_DIR / "test.sqlite3"}

# Without `collectstatic`, as in development.
SERVESTATIC_USE_FINDERS = True
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

{%- if cookiecutter.starter == "chat" %}
# The tests name English texts, whatever the language of the site is.
LANGUAGE_CODE = "en-us"

{%- endif %}
# Slow hashes only slow tests down.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def close_connections():
    """
    Close what a forked process, such as that of ChannelsLiveServerTestCase, must not take over.

    It would believe that it holds SQLite's locks, and go on with a log (WAL) that its parent has deleted.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=close_connections)
