# SPDX-License-Identifier: Apache-2.0
"""Runs a program that stops when the process that started it is gone.

    leash.py PROGRAM ARGUMENTS…

A sweep or a worker that is killed cannot end the train.py that it has started, which
would train on, unwatched, and keep its run directory locked. But the kernel closes the
pipe between the two. The program then gets SIGTERM, at which train.py saves and exits.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 10.0  # for the program to save and exit


def _follow() -> None:
    """Waits for the end of standard input, which nobody writes to."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    threading.Thread(target=_follow, daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")
