# SPDX-License-Identifier: Apache-2.0
"""Signals to a worker that waits for another one, which never starts."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.torture import small
from tests.torture.kills import Report
from tests.torture.table import Row
from training import launch

SIGNAL_SECONDS = 3.5  # latest signal; by then it says which worker it waits for
EXIT_SECONDS = 5  # longest time from signal to exit


def signals(folder: Path, count: int, report: Report) -> Row:
    """SIGTERM and Ctrl-C, `count` times each: it must exit and leave no files."""
    row, draw = Row("SIGTERM, Ctrl-C to a worker that waits"), random.Random(4)
    run_dir = folder / "waiting"
    for i in range(2 * count):
        kind = (signal.SIGTERM, signal.SIGINT)[i % 2]
        delay = draw.uniform(0.5, SIGNAL_SECONDS)
        number = i // 2 % 2
        began = time.monotonic()
        ended = small.run(
            run_dir,
            *("--distribute=multi_worker", "--replicas=2"),
            before=_waits(number, delay, kind),
        )
        seconds = time.monotonic() - began - delay
        lines = [line for line in ended.err.splitlines() if "waiting for" not in line]
        wrong = None
        if ended.code != 128 + kind or len(lines) != 1 or seconds > EXIT_SECONDS:
            wrong = f"exit code {ended.code}, {seconds:.1f} s: {ended.err[-300:]}"
        elif delay > 3 and f"waiting for worker {1 - number} (" not in ended.err:
            wrong = f"does not say which worker it waits for: {ended.err[-300:]}"
        elif run_dir.exists():
            wrong = "there is a run directory"
        name = f"{kind.name} to worker {number} after {delay:.1f} s"
        row.add(name, wrong)
        report(name, wrong)
    return row


def _waits(number: int, delay: float, kind: int) -> Callable[[], None]:
    def strike() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), kind)

    def arm() -> None:
        os.environ["TF_CONFIG"] = launch.tf_config(launch.free_ports(2), number)
        threading.Thread(target=strike, daemon=True).start()

    return arm
