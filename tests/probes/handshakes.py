"""
Run `manage.py handshake` several times in one process, without the steps that look into the project.

The argument is a JSON list of lists of arguments; printed is a JSON list of what each run prints with --json.
"""

import json
import socket
import sys
from contextlib import suppress
from io import StringIO

from django.core.management import call_command

from realtime.management.commands.handshake import Command

PROJECT = ("INSTALLED_APPS", "ASGI_APPLICATION", "routes", "channel layer", "database")

step = Command.step
Command.step = lambda self, name: name in PROJECT or step(self, name)
# A process of its own.
Command.import_application = lambda self: ""

getaddrinfo = socket.getaddrinfo


def resolve(host, *arguments, **options):
    # A name that nobody has (RFC 6761, section 6.4), for which a resolver may take longer than a run waits.
    if host.endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return getaddrinfo(host, *arguments, **options)


socket.getaddrinfo = resolve

results = []
for arguments in json.loads(sys.argv[1]):
    out = StringIO()
    with suppress(SystemExit):
        call_command("handshake", *arguments, "--json", stdout=out)
    results.append(json.loads(out.getvalue()))
print(json.dumps(results))
