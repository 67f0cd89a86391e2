"""
Stands in for runserver where daphne's is missing.

Django takes a command from the first app of INSTALLED_APPS that has it, and with debug on that is daphne.
"""

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Refuses: runserver is for development, and needs daphne as the first of INSTALLED_APPS."
    requires_system_checks = ()

    def run_from_argv(self, argv):
        # Whatever options the other runservers know.
        super().run_from_argv(argv[:2])

    def handle(self, *args, **options):
        if settings.DEBUG:
            raise CommandError("runserver needs daphne as the first of INSTALLED_APPS; see `manage.py check`.")
        project = settings.SETTINGS_MODULE.partition(".")[0]
        raise CommandError(
            "runserver is for development, and DJANGO_DEBUG is off."
            f" In production: python -m {project}. To develop: DJANGO_DEBUG=true, as in .env.example."
        )
