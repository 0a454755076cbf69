# SPDX-License-Identifier: Apache-2.0
"""Where the runs of a sweep or a search are trained: on this machine, or by Dask.

Both engines train a run by `children.train`. They differ in who calls it: a thread of
this process, or a worker of a Dask cluster, which has to find the run directories by
the same path.
"""

import concurrent.futures
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from absl import flags

from augment import workers
from system import cli, errors
from training import children
from training.children import Job, Outcome

FLAGS = flags.FLAGS

Future = concurrent.futures.Future


class Crew(NamedTuple):
    """Those who train: takes a job, and says how many it can have at a time."""

    submit: Callable[[Job], Future]
    size: Callable[[], int]


Engine = Callable[[], contextlib.AbstractContextManager[Crew]]


def run(
    engine: Engine, waiting: deque[Job]
) -> Generator[tuple[Job, Outcome], None, None]:
    """Yields each job and how it ended, in the order in which they end.

    They start in the order in which they wait. The caller may add jobs to those that
    wait, or remove some, between two results. It has to close this generator, which
    ends the runs that are training.
    """
    if not waiting:
        return
    with engine() as crew:
        running: dict[Future, Job] = {}
        while waiting or running:
            while waiting and len(running) < crew.size():
                job = waiting.popleft()
                running[crew.submit(job)] = job
            done, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in [future for future in running if future in done]:
                yield running.pop(future), future.result()


@contextlib.contextmanager
def local(jobs: int) -> Iterator[Crew]:
    """So many processes of train.py at a time, on this machine."""
    stop = threading.Event()
    train = functools.partial(children.train, stopped=stop.is_set)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            yield Crew(functools.partial(pool.submit, train), lambda: jobs)
        finally:
            stop.set()


@contextlib.contextmanager
def dask(address: str) -> Iterator[Crew]:
    """One process of train.py per thread of each worker of a Dask cluster.

    If a worker is killed, its runs are resumed by others. Raises `workers.WorkersError`
    as `workers.cluster` does.
    """
    with workers.cluster(address) as client:
        executor = client.get_executor(pure=False)

        def size() -> int:
            try:
                return max(1, sum(client.nthreads().values()))
            except OSError:
                return 1  # the scheduler is lost, as the next result will say

        yield Crew(functools.partial(executor.submit, train_for_dask), size)


def train_for_dask(job: Job) -> Outcome:
    """Trains a run in a thread of a Dask worker."""
    import distributed

    worker = distributed.get_worker()
    key = worker.get_current_task()
    return children.train(job, functools.partial(_is_dropped, worker, key))


def _is_dropped(worker: Any, key: Any) -> bool:
    """Whether nobody waits for a task any more: its sweep was interrupted or killed."""
    task = worker.state.tasks.get(key)
    over = task is None or task.state == "cancelled"
    return over or worker.status.name not in ("running", "paused")


def define_flags() -> None:
    """Defines the flags that choose an engine."""
    flags.DEFINE_integer(
        "jobs",
        1,
        "Runs to train at a time. Each takes all cores, unless --threads follows"
        " after --.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "dask_scheduler",
        None,
        "Address of a Dask scheduler, tcp://HOST:PORT; its workers train the runs, each"
        " as many at a time as it has threads, and must reach the current folder,"
        " --runs and the data by the same paths.",
    )
    cli.require_together(["jobs", "dask_scheduler"], _check)


def _check(values: Any) -> None:
    workers.check_scheduler(values.dask_scheduler)
    if values.dask_scheduler and values.jobs > 1:
        raise errors.UserError(
            "--jobs starts processes here, but --dask_scheduler has its own workers:"
            " give only one of them"
        )


def from_flags() -> Engine:
    """The engine that the flags choose."""
    if FLAGS.dask_scheduler:
        return functools.partial(dask, FLAGS.dask_scheduler)
    return functools.partial(local, FLAGS.jobs)
