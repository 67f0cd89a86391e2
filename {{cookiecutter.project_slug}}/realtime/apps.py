from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    name = "realtime"

    def ready(self):
        # They register themselves: checks, and signals of the database and of logins.
        from . import authentication, checks, database  # noqa: F401
