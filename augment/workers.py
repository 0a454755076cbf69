# SPDX-License-Identifier: Apache-2.0
"""Workers that build the shards of a set: threads, processes, or a Dask cluster.

Each kind is an executor of `concurrent.futures`, so `run` treats them alike.
`training.engines` has runs trained on a cluster, too.
"""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from system import console, errors

T = TypeVar("T")
Executor = concurrent.futures.Executor
Engine = Callable[[], contextlib.AbstractContextManager[Executor]]

# scipy and hashlib release the interpreter lock, so threads suffice for shifts
# and flips. Each holds a few copies of a shard: more would cost memory.
THREADS = min(4, os.cpu_count() or 1)

MAX_PROCESSES = 256
CONNECT_SECONDS = 10  # to reach a scheduler, and again for its first worker

_SCHEDULER = re.compile(r"(tcp|tls)://[^\s/]+:\d{1,5}")


class WorkersError(errors.UserError):
    """Workers cannot be started or reached, or were lost."""


def run(
    engine: Engine, job: Callable[[int], T], numbers: Collection[int]
) -> Iterator[tuple[int, T]]:
    """Yields each number with its job's result, in the order in which they finish.

    If a worker is killed, new workers take over the jobs that are left. Raises
    WorkersError if workers were killed before any of them finished a job.
    """
    left = set(numbers)
    while left:
        count = len(left)
        try:
            for number, result in _run_once(engine, job, sorted(left)):
                left.remove(number)
                yield number, result
        except concurrent.futures.BrokenExecutor as error:
            # A pool of processes breaks as a whole when one of them is killed.
            if len(left) == count:
                raise WorkersError(
                    "the workers were killed before one of them finished a shard; give"
                    " them more memory or use fewer, and start again to resume"
                ) from error
            console.warn("a worker was killed; starting new ones")


def _run_once(
    engine: Engine, job: Callable[[int], T], numbers: Sequence[int]
) -> Iterator[tuple[int, T]]:
    with engine() as executor:
        jobs = {executor.submit(job, number): number for number in numbers}
        try:
            for done in concurrent.futures.as_completed(jobs):
                yield jobs[done], done.result()
        finally:
            for future in jobs:
                future.cancel()


@contextlib.contextmanager
def threads() -> Iterator[Executor]:
    """A few threads of this process."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        yield pool


@contextlib.contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Processes on this machine.

    We prefer them to a local Dask cluster because they listen on pipes: no port is
    opened that other users of the machine could reach. And no package is needed.
    """
    # Spawned, because a fork would inherit locks that are held, but no threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, context, _attend) as pool:
        # Children inherit the blocked signal: Ctrl-C cannot hit one before it runs
        # `_attend`.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(int)  # starts the processes
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pool


def _attend() -> None:
    """Makes a worker ignore Ctrl-C, and end when its parent process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave_with(parent) -> None:
        parent.join()
        os._exit(1)  # the shard that it is writing has no name yet

    parent = multiprocessing.parent_process()
    threading.Thread(target=leave_with, args=[parent], daemon=True).start()


def check_scheduler(address: str | None) -> None:
    """Raises UserError unless `address` is None or has the form of an address."""
    if address is not None and not _SCHEDULER.fullmatch(address):
        raise errors.UserError(
            f"dask_scheduler must look like tcp://127.0.0.1:8786, got {address!r}"
        )


@contextlib.contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Workers of a Dask cluster, which survives the loss of some of them.

    Errors are those of `cluster`.
    """
    with cluster(address) as client:
        yield client.get_executor(pure=False)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """A `distributed.Client` of a Dask cluster that has workers.

    Raises WorkersError if Dask is not installed, or the scheduler at this address does
    not answer, has no workers, lacks this project, or is lost before the end.
    """
    with _connect(address) as client:
        from distributed.scheduler import KilledWorker

        try:
            client.wait_for_workers(1, CONNECT_SECONDS)
            yield client
        except TimeoutError as error:
            raise WorkersError(
                f"the Dask scheduler at {address} has no workers; start some with"
                f" `dask worker {address}`"
            ) from error
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise WorkersError(
                f"the Dask scheduler at {address} cannot import this project: start it"
                " and its workers in an environment where the project is installed"
            ) from error
        except KilledWorker as error:
            raise WorkersError(
                "several Dask workers died on the same job; give them more memory, and"
                " start again to resume"
            ) from error
        except concurrent.futures.CancelledError as error:
            raise WorkersError(
                f"the Dask scheduler at {address} was lost; start it and its workers"
                " again, then this program, to resume"
            ) from error


def _connect(address: str) -> Any:
    """Returns a `distributed.Client`."""
    try:
        import distributed
    except ImportError:
        raise WorkersError(
            "--dask_scheduler needs Dask distributed, which is not installed: install"
            " the extra named dask, or leave the flag out"
        ) from None
    # It logs lost connections as tracebacks; we report them in one line.
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
    try:
        return distributed.Client(
            address, timeout=CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkersError(
            f"no Dask scheduler answers at {address} ({errors.reason(error)}); start"
            " one with `dask scheduler --host=127.0.0.1"
            " --dashboard-address=127.0.0.1:0`, or check --dask_scheduler"
        ) from error
