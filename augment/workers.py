# SPDX-License-Identifier: Apache-2.0
"""Who builds the shards of a set: threads, processes, or the workers of a Dask cluster.

Each is an executor of `concurrent.futures`, so that all are used alike.
"""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator

from system import cli, errors

Executor = concurrent.futures.Executor
Engine = Callable[[], contextlib.AbstractContextManager[Executor]]

# scipy and hashlib let go of the interpreter lock, so threads suffice for what takes
# seconds. Each holds a few copies of one part: more would cost memory on large
# machines.
THREADS = min(4, os.cpu_count() or 1)

MAX_PROCESSES = 256
CONNECT_SECONDS = 10  # to reach a scheduler, and then for a worker to be there

_SCHEDULER = re.compile(r"(tcp|tls)://[^\s/]+:\d{1,5}")


class WorkersError(errors.UserError):
    """Those who should build cannot be had, or have gone."""


@contextlib.contextmanager
def threads() -> Iterator[Executor]:
    """Threads of this process, a few."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        yield pool


@contextlib.contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Processes of this machine.

    Not a Dask cluster of one machine, because they are told what to do by pipes: no
    port is opened, by which others who are on the machine could tell them too. And
    they need no package that is not there anyway.
    """
    # Spawned: a fork would hold this one's locks, and TensorFlow's threads not at all.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, context, _attend) as pool:
        # A child takes this over: else Ctrl-C meets some before they can look away.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(int)  # starts them
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pool


def _attend() -> None:
    """Lets a worker end with the process that started it, and not by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave_with(parent) -> None:
        parent.join()
        os._exit(1)  # what it is writing has no name yet

    parent = multiprocessing.parent_process()
    threading.Thread(target=leave_with, args=[parent], daemon=True).start()


def check_scheduler(address: str | None) -> None:
    """Raises UserError unless it is None or can be the address of a scheduler."""
    if address is not None and not _SCHEDULER.fullmatch(address):
        raise errors.UserError(
            f"dask_scheduler must be like tcp://127.0.0.1:8786, got {address!r}"
        )


@contextlib.contextmanager
def dask(address: str) -> Iterator[Executor]:
    """The workers of a Dask cluster, which goes on when one of them is lost.

    Args:
      address: of its scheduler.

    Raises:
      WorkersError: Dask is not installed, nobody answers, there is no worker, the
        scheduler lacks this project, or is lost on the way.
    """
    try:
        import distributed
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise WorkersError(
            "--dask_scheduler needs Dask distributed, which is not installed: install"
            " the extra named dask, or build with --workers"
        ) from None
    # What it says of lost connections, in tracebacks, is said here in a line.
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
    try:
        client = distributed.Client(
            address, timeout=CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkersError(
            f"no Dask scheduler answers at {address} ({cli.reason(error)}); start one"
            " by `dask scheduler --host=127.0.0.1 --dashboard-address=127.0.0.1:0`, or"
            " check --dask_scheduler"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, CONNECT_SECONDS)
            yield client.get_executor(pure=False)
        except TimeoutError as error:
            raise WorkersError(
                f"the Dask scheduler at {address} has no worker; start some with `dask"
                f" worker {address}`"
            ) from error
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise WorkersError(
                f"the Dask scheduler at {address} does not know this project: start it"
                " and its workers in an environment where it is installed"
            ) from error
        except KilledWorker as error:
            raise WorkersError(
                "several Dask workers, one after the other, died of the same shard:"
                " give them more memory, and start again to go on"
            ) from error
        except concurrent.futures.CancelledError as error:
            raise WorkersError(
                f"the Dask scheduler at {address} was lost; start it and its workers"
                " again, then this, to go on"
            ) from error
