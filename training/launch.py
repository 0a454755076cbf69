# SPDX-License-Identifier: Apache-2.0
"""Starts the workers of a run on this machine, each a process of train.py.

    python -m training.launch --workers=2 -- --flagfile=lenet.flags

What follows -- are train.py's flags. Each worker gets its TF_CONFIG, with a free port.
Ctrl-C and SIGTERM are passed on to all. The exit code is that of the first worker that
failed. The others find out by themselves that it is gone, and leave; if one does not,
it is ended, and named.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from system import cli, console, errors
from training import interruption

PROGRAM = Path(__file__).resolve().parent.parent / "train.py"
HOST = "127.0.0.1"
PORTS = 20_000, 32_768  # from there on Linux gives any
MOST_WORKERS = 1000
GRACE_SECONDS = 30  # for a worker that is left over, and again after SIGTERM
POLL_SECONDS = 0.1


class LaunchError(errors.UserError):
    """The workers cannot be started here."""


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens to now.

    They are not of those that the system gives to whoever wants any: another process
    could have one before the worker opens it, which takes seconds.

    Raises:
      LaunchError: there are not so many.
    """
    found: list[int] = []
    for port in random.sample(range(*PORTS), PORTS[1] - PORTS[0]):
        if len(found) == count:
            return found
        with contextlib.suppress(OSError):
            socket.create_server((HOST, port)).close()
            found.append(port)
    raise LaunchError(
        f"only {len(found)} of the ports {PORTS[0]} to {PORTS[1] - 1} of this machine"
        f" are free, and {count} workers want one each: end what has them"
    )


def tf_config(ports: Sequence[int], number: int) -> str:
    """TF_CONFIG of a worker.

    Args:
      ports: of all workers, on this machine.
      number: of this one.
    """
    addresses = [f"{HOST}:{port}" for port in ports]
    task = {"type": "worker", "index": number}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def start(workers: int, arguments: Sequence[str]) -> Iterator[subprocess.Popen]:
    """Starts workers, each in a process group of its own: Ctrl-C is for the launcher.

    Args:
      workers: how many.
      arguments: for train.py.
    """
    command = [sys.executable, str(PROGRAM), *arguments, "--distribute=multi_worker"]
    ports = free_ports(workers)
    for number in range(workers):
        environment = {**os.environ, "TF_CONFIG": tf_config(ports, number)}
        yield subprocess.Popen(command, env=environment, start_new_session=True)


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """Waits for the end of all workers.

    Returns:
      The exit code of the first that failed, 0 if none did; of one that was killed
      128 and the signal's number.
    """
    worst, deadline, ask = 0, float("inf"), signal.SIGTERM
    running = dict(enumerate(processes))
    while running:
        for number, process in list(running.items()):
            if (code := process.poll()) is None:
                continue
            del running[number]
            code = errors.SIGNALLED - code if code < 0 else code
            if code and not worst:
                worst, deadline = code, time.monotonic() + GRACE_SECONDS
        if running and time.monotonic() > deadline:
            left = ", ".join(str(number) for number in running)
            console.warn(
                f"a worker ended with exit code {worst}, and {left} goes on, after"
                f" {GRACE_SECONDS} s: sending {ask.name}"
            )
            for process in running.values():
                process.send_signal(ask)
            deadline, ask = time.monotonic() + GRACE_SECONDS, signal.SIGKILL
        time.sleep(POLL_SECONDS)
    return worst


def main(argv: list[str]) -> None:
    """Starts what the command line says, and leaves as it left."""
    processes: list[subprocess.Popen] = []

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            process.send_signal(number)

    for number in interruption.SIGNALS:
        signal.signal(number, pass_on)
    for process in start(flags.FLAGS.workers, argv[1:]):
        processes.append(process)
    sys.exit(wait(processes))


if __name__ == "__main__":
    flags.DEFINE_integer(
        "workers", 2, "How many to start.", lower_bound=1, upper_bound=MOST_WORKERS
    )
    cli.run(main, arguments=True)
