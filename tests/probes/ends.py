"""Notify in processes that end at once, each in its way, and at last in this one, which does too: `ends.py group`."""

import multiprocessing
import os
import sys

from django.db import transaction

from realtime import notify


def message(text):
    return sys.argv[1], {"type": "notified", "text": text, "number": 0}


def main():
    for method in ("fork", "forkserver", "spawn"):
        child = multiprocessing.get_context(method).Process(target=notify, args=message(method))
        child.start()
        child.join()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.starmap(notify, [message("pool")])
    if os.fork() == 0:
        with transaction.atomic():
            for text in ("first", "second", "third"):
                notify(*message(text))
        os._exit(0)
    os.wait()
    notify(*message("last"))


if __name__ == "__main__":
    main()
