#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import os
import subprocess
import sys


def main():
    """Run administrative tasks."""
    if sys.argv[1:2] == ["test"]:
        # The tests are pytest's, which has settings of its own: settings_test.py.
        sys.exit(subprocess.call([sys.executable, "-m", "pytest", *sys.argv[2:]]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings")
    try:
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError as error:
        if error.name != "django":
            raise
        sys.exit(
            f"Django is not installed for {sys.executable}."
            " Begin with `uv run`, or activate the project's environment: README.md, Start."
        )
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
