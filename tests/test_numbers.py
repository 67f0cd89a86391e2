"""
Numbers that the documentation promises, or that must fit numbers elsewhere.

The tests of what they do wait for less, and put shorter ones in their place: a number that is wrong would break none.
"""

import ast

import pytest
from servers import REPOSITORY

TEMPLATE = REPOSITORY / "{{cookiecutter.project_slug}}"
CHAT = TEMPLATE / "placed-by-hook" / "starter=chat" / "chat"

# The least and the most of each, and why. Seconds, unless it says otherwise.
BOUNDS = {
    # daphne gives up after 5.
    "socket.ANSWER_TIMEOUT": (1, 4.5),
    # docs/pitfalls.md: "given up after 3 seconds".
    "socket.CLOSE_TIMEOUT": (1, 3),
    # docs/pitfalls.md: "after 8 s". The page waits 10.
    "outage.PATIENCE": (8, 8),
    "outage.ANSWER_TIMEOUT": (1, 4),
    "outage.RETRY_EVERY": (0.1, 1),
    # Within PATIENCE, and what is tried twice.
    "fanout.ANSWER_TIMEOUT": (1, 4),
    # channels_redis forgets memberships after a day, a Redis that restarts at once.
    "fanout.RENEW_EVERY": (1, 300),
    # Members of a group: broadcasts to more of them would take a turn of the loop that others notice.
    "fanout.TURN": (2, 100),
    # The contract: a request waits 1 s at most.
    "broadcasts.ANSWER_TIMEOUT": (0.1, 1),
    "authentication.LISTEN_TIMEOUT": (0.1, 1),
    # Longer than a request takes from the signal of its logout to its end.
    "authentication.RECENT": (30, 600),
    # The contract: a ticket holds for 60 s; docs/production.md: /healthz answers within 2 and asks once a second.
    "tickets.TICKET_SECONDS": (60, 60),
    "health.TIMEOUT": (2, 2),
    "health.VALID": (1, 1),
    # Pages take 10 s of silence for a loss.
    "limits.TELL_EVERY": (1, 8),
    "limits.TURN": (0.1, 2),
    # Sockets, people, bytes, members.
    "limits.AT_A_TIME": (10, 200),
    "limits.PEOPLE": (10, 10),
    "limits.CHARGED": (4096, 4096),
    "limits.CHARGED_MEMBERS": (100, 100),
    # Messages and bytes of one call: a queue of channels_redis has room for hundreds.
    "layers.BATCH": (10, 100),
    "layers.BATCH_SIZE": (2**14, 2**18),
    # Frames of one socket in a row, and bytes that wait for a slow reader.
    "consumers.TURN": (8, 128),
    "consumers.outbox_limit": (2**18, 2**20),
    "activity.REPORT_EVERY": (60, 60),
    # Claims in one query, of which each is a parameter or two: SQLite takes 32,766.
    "users.BATCH": (100, 5000),
    # docs/pitfalls.md: 20 in a second, 200 at once, 50 sockets, within a minute, frames of 64 KiB.
    "conf.REALTIME_FRAMES_PER_SECOND": (20, 20),
    "conf.REALTIME_FRAME_BURST": (200, 200),
    "conf.REALTIME_SOCKETS_PER_USER": (50, 50),
    "conf.REALTIME_RECHECK_SECONDS": (60, 60),
    "conf.REALTIME_MAX_FRAME_SIZE": (2**16, 2**16),
    # How long a lost hint delays a message, and a change of who is here.
    "chat.rooms.POLL": (1, 3),
    "chat.rooms.SETTLE": (0.1, 1),
    "chat.unread.POLL": (1, 3),
    "chat.unread.SETTLE": (0.1, 1),
    # A process is taken for dead after 25: two of its signs may be late.
    "chat.presence.BEAT": (5, 12),
    "chat.presence.LISTED": (10, 50),
    # Messages.
    "chat.consumers.PAGE": (20, 100),
    "chat.consumers.MAX_MISSED": (1000, 1000),
    "chat.feed.PAGE": (50, 500),
    "chat.feed.KEPT": (0.1, 2),
    # Characters.
    "chat.feed.TURN": (2**12, 2**15),
}


def numbers_of(path):
    """Return the constants of a module whose value is an expression of numbers; those of a dict of them, too."""
    numbers = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            numbers[node.targets[0].id] = node.value
        elif isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
            numbers |= {key.value: value for key, value in zip(node.keys, node.values, strict=True)}
    return numbers


@pytest.mark.parametrize("name", BOUNDS)
def test_numbers(name):
    module, _, constant = name.rpartition(".")
    folder = CHAT if module.startswith("chat.") else TEMPLATE / "realtime"
    expression = numbers_of(folder / f"{module.removeprefix('chat.')}.py")[constant]
    least, most = BOUNDS[name]

    assert least <= eval(ast.unparse(expression)) <= most
