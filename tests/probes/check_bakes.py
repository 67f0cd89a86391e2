"""
Check many baked projects in one process: reads lines of JSON, [path, name], and answers each with a line of JSON.

Runs with the Python of a baked project. The answer is "" if `manage.py check` is content and the page shows the name
as it was typed, otherwise what is wrong.
"""

import importlib
import io
import json
import multiprocessing
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import django
import django.core.management
import django.test
from django.utils.html import escape


def look(project, name, answer):
    """Send what is wrong with the project, a path, and the modules that looking took, through the pipe `answer`."""
    try:
        os.chdir(project)
        sys.path.insert(0, project)
        os.environ["DJANGO_SETTINGS_MODULE"] = f"{Path(project).name}.settings"
        django.setup()
        django.core.management.call_command("check", fail_level="WARNING", stdout=io.StringIO())
        page = django.test.Client(headers={"host": "localhost"}).get("/", follow=True)
        shown = page.status_code == 200 and escape(name) in page.content.decode()
        wrong = "" if shown else f"the page does not show the name: {page.content.decode()}"
    except BaseException:
        wrong = traceback.format_exc()
    answer.send((wrong, [name for name, module in list(sys.modules.items()) if is_installed(module)]))


def is_installed(module):
    """Return whether the module comes with this Python: it is the same for each project."""
    return (getattr(module, "__file__", None) or "").startswith((sys.prefix, sys.base_prefix))


if __name__ == "__main__":
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    for line in sys.stdin:
        project, name = json.loads(line)
        ours, theirs = context.Pipe()
        process = context.Process(target=look, args=[project, name, theirs])
        process.start()
        theirs.close()
        wrong, modules = ours.recv()
        process.join()
        print(json.dumps(wrong), flush=True)
        # So that the next process, a copy of this one, finds them imported; some cannot be, without a project.
        for module in modules:
            if module not in sys.modules:
                with suppress(Exception):
                    importlib.import_module(module)
