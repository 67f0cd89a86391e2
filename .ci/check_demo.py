"""
Refuse a wrong `make demo` in one line, before anything is done: `check_demo.py PORT [question=answer ...]`.

cookiecutter ignores an answer to no question, and daphne goes on without a port.
"""

import json
import os
import socket
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent


def check_answers(answers):
    """Stop unless each of `answers`, such as "starter=chat", is a choice of a question of cookiecutter.json."""
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    choices = {name: value for name, value in questions.items() if not name.startswith("_")}
    for answer in answers:
        name, _, value = answer.partition("=")
        if name not in choices:
            sys.exit(f"ARGS: {name} is no question; the questions are {', '.join(choices)}")
        if isinstance(choices[name], list) and value not in choices[name]:
            sys.exit(f"ARGS: {name}={value} is not allowed; allowed are {', '.join(choices[name])}")


def check_port(port):
    """Stop unless a server can listen on `port`, a str, of this machine."""
    try:
        with socket.create_server(("127.0.0.1", int(port))):
            pass
    except (ValueError, OverflowError):
        sys.exit(f"PORT={port} is no port; one from 1024 to 65535 is")
    except OSError as error:
        reason = os.strerror(error.errno)
        sys.exit(f"PORT={port} cannot be used ({reason}); choose another, as in: make demo PORT=8001")


if __name__ == "__main__":
    port, *answers = sys.argv[1:]
    check_answers(answers)
    check_port(port)
