# SPDX-License-Identifier: Apache-2.0
"""Starts the workers of a run on this machine, each a process of train.py.

    python -m training.launch --workers=2 -- --flagfile=lenet.flags

The flags after -- are train.py's. Each worker gets a TF_CONFIG with a free port. Ctrl-C
and SIGTERM are passed on to all workers. The exit code is that of the first worker that
fails. The other workers notice that it is gone, and exit; if one does not, we name it
and end it.
"""

if __name__ == "__main__":  # first, since the other imports take a while
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
PORTS = 20_000, 32_768  # Linux gives higher ones to any process
MAX_WORKERS = 1000
GRACE_SECONDS = 30  # to exit after another worker has failed, and again after SIGTERM
POLL_SECONDS = 0.1


class LaunchError(errors.UserError):
    """The workers cannot be started on this machine."""


def free_ports(count: int) -> list[int]:
    """Finds free ports of this machine; raises LaunchError if there are not enough.

    They are below the range from which the system gives ports to any process: a worker
    takes seconds to open its port, and another process could get it before.
    """
    ports: list[int] = []
    for port in random.sample(range(*PORTS), PORTS[1] - PORTS[0]):
        if len(ports) == count:
            return ports
        with contextlib.suppress(OSError):
            socket.create_server((HOST, port)).close()
            ports.append(port)
    raise LaunchError(
        f"only {len(ports)} of the ports {PORTS[0]} to {PORTS[1] - 1} of this machine"
        f" are free, but {count} workers need one each: end the programs that use them"
    )


def tf_config(ports: Sequence[int], number: int) -> str:
    """Makes the TF_CONFIG of a worker; `ports` are those of all workers."""
    addresses = [f"{HOST}:{port}" for port in ports]
    task = {"type": "worker", "index": number}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def start(workers: int, arguments: Sequence[str]) -> Iterator[subprocess.Popen]:
    """Starts workers, each in its own process group, so that only we receive Ctrl-C.

    The arguments are those of train.py.
    """
    command = [sys.executable, str(PROGRAM), *arguments, "--distribute=multi_worker"]
    ports = free_ports(workers)
    for number in range(workers):
        environment = {**os.environ, "TF_CONFIG": tf_config(ports, number)}
        yield subprocess.Popen(command, env=environment, start_new_session=True)


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """Waits until all workers have ended.

    Returns the exit code of the first worker that failed, or 0. If a signal killed it,
    that is 128 plus the signal's number.
    """
    failure, deadline, ask = 0, float("inf"), signal.SIGTERM
    running = dict(enumerate(processes))
    while running:
        for number, process in list(running.items()):
            if (code := process.poll()) is None:
                continue
            del running[number]
            code = errors.SIGNALLED - code if code < 0 else code
            if code and not failure:
                failure, deadline = code, time.monotonic() + GRACE_SECONDS
        if running and time.monotonic() > deadline:
            names = ", ".join(str(number) for number in running)
            console.warn(
                f"a worker ended with exit code {failure}, and {names} did not exit"
                f" within {GRACE_SECONDS} s: sending {ask.name}"
            )
            for process in running.values():
                process.send_signal(ask)
            deadline, ask = time.monotonic() + GRACE_SECONDS, signal.SIGKILL
        time.sleep(POLL_SECONDS)
    return failure


def main(argv: list[str]) -> None:
    """Starts the workers, and exits with their exit code."""
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
        "workers", 2, "Number of workers.", lower_bound=1, upper_bound=MAX_WORKERS
    )
    cli.run(main, arguments=True)
