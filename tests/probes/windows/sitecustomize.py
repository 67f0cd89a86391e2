"""
Make a Python of Linux or macOS lack what that of Windows has not, in each process whose PYTHONPATH has this folder.

What the standard library needs of the system it was built for is imported first.
"""

import asyncio
import concurrent.futures.process  # noqa: F401
import mimetypes
import multiprocessing.popen_spawn_posix
import multiprocessing.resource_tracker  # noqa: F401
import os
import signal
import sys
import time

for name in ("fork", "forkpty", "getpgid", "getppid", "killpg", "mkfifo", "sched_getaffinity", "setsid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name in ("grp", "pwd", "resource", "uvloop"):
    sys.modules[name] = None


def refuse(loop, *arguments):
    raise NotImplementedError


asyncio.SelectorEventLoop.add_signal_handler = refuse
asyncio.SelectorEventLoop.remove_signal_handler = refuse

# As some registries have it.
mimetypes.add_type("text/plain", ".js")

# Its clock stands still for 16 ms.
fine = time.monotonic
time.monotonic = lambda: fine() // 0.016 * 0.016
