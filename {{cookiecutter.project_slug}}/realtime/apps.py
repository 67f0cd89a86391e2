from django.apps import AppConfig

from . import conf


class RealtimeConfig(AppConfig):
    name = "realtime"

    def ready(self):
        conf.set_defaults()
        # They register themselves: checks, and signals of the database and of logins.
        from . import authentication, checks, database  # noqa: F401
