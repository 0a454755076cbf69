# SPDX-License-Identifier: Apache-2.0
"""This process among the workers of a run: TF_CONFIG, cores, directories.

Only worker 0 writes to the run directory, prints and scores. The others do the same
work in a scratch directory, which is as fast as waiting.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from system import console, device, errors, untrusted
from training import rendezvous, runs

KINDS = ("none", "mirrored", "multi_worker")
WAIT_SECONDS = 300  # for other workers to start

# What TensorFlow raises when a worker is gone depends on what this one was doing.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class ClusterError(errors.UserError):
    """The workers of a run cannot train together, or no longer can."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A worker's place among all workers of a run."""

    workers: int = 1  # how many
    number: int = 0  # this worker's
    # host:port of every worker, by number; none if this one is alone
    addresses: tuple[str, ...] = ()
    on_host: int = 1  # number of workers on this one's host; they share its cores

    @property
    def address(self) -> str:
        """This worker's address; "" if it is alone."""
        return self.addresses[self.number] if self.addresses else ""

    def cores(self) -> int:
        """Number of cores that this worker may use."""
        return max(1, device.cores() // self.on_host)


def find_place(kind: str, tf_config: str | None) -> Place:
    """Finds the place of this process; `kind` is one of `KINDS`.

    Raises ClusterError if TF_CONFIG is needed, but is missing or makes no sense.
    """
    if kind != "multi_worker":
        return Place()
    if not tf_config:
        raise ClusterError(
            "--distribute=multi_worker needs TF_CONFIG, which is not set: set it for"
            " each worker, leave --distribute out, or start workers on this machine by "
            + console.command("-m", "training.launch", "--", "--flagfile=lenet.flags")
        )
    try:
        return _parse(tf_config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ClusterError(
            f"TF_CONFIG is {tf_config[:500]!r} ({console.one_line(str(error))}):"
            ' expected JSON such as {"cluster": {"worker": ["10.0.0.1:7000",'
            ' "10.0.0.2:7000"]}, "task": {"type": "worker", "index": 0}}'
        ) from None


def _parse(tf_config: str) -> Place:
    """Raises AttributeError, KeyError, TypeError or ValueError if it makes no sense."""
    parsed = untrusted.parse_json(tf_config.encode())
    cluster, task = parsed["cluster"], parsed["task"]
    if not cluster.keys() <= {"chief", "worker"}:
        raise ValueError("jobs other than chief and worker")
    if task["type"] not in cluster:
        raise ValueError(f"no job of the cluster is called {task['type']}")
    tasks = [(job, n) for job in sorted(cluster) for n in range(len(cluster[job]))]
    number = tasks.index((task["type"], int(task["index"])))
    addresses = tuple(str(cluster[job][n]) for job, n in tasks)
    if len(set(addresses)) < len(addresses):
        raise ValueError("an address twice")
    hosts = [rendezvous.host_and_port(address)[0] for address in addresses]
    return Place(len(tasks), number, addresses, hosts.count(hosts[number]))


def check_alone(tf_config: str | None) -> None:
    """Raises UsageError if TF_CONFIG names other processes, or makes no sense.

    Clusters set it for every job, even if it is a single process.
    """
    what = "makes no sense"
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        parsed = untrusted.parse_json((tf_config or "{}").encode())
        jobs, task = parsed.get("cluster") or {}, parsed.get("task") or {}
        count = sum(len(addresses) for addresses in jobs.values())
        if count <= 1 and task.get("type") != "evaluator":
            return
        what = f"makes this process {task.get('type')} {task.get('index')} of {count}"
        what = console.one_line(what)
    raise errors.UsageError(
        f"TF_CONFIG {what}, and --distribute is not given: give"
        " --distribute=multi_worker to train with the others, or --distribute=none to"
        " train in this process alone"
    )


def check(config: Any, place: Place) -> None:
    """Raises UsageError if the batch cannot be shared as the flags say."""
    replicas, workers = config.replicas, place.workers
    if replicas > config.batch_size:
        raise errors.UsageError(
            f"--batch_size={config.batch_size} is less than one image for each of"
            f" {replicas} replicas on {workers} workers: raise it"
        )
    if replicas % workers:
        raise errors.UsageError(
            f"--replicas={replicas} cannot be split evenly over {workers} workers: give"
            f" a multiple of {workers}"
        )
    in_graph = 1 if config.distribute == "mirrored" else replicas // workers
    if config.sync_batch_norm and in_graph > 1:
        raise errors.UsageError(
            f"--sync_batch_norm does not work with --distribute={config.distribute} and"
            f" {in_graph} replicas per process: give --replicas={workers}, or"
            " --distribute=mirrored"
        )


@contextlib.contextmanager
def quiet_unless_first(place: Place) -> Iterator[None]:
    """Silences standard output on every worker but worker 0."""
    if place.number == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        with contextlib.redirect_stdout(nowhere):
            yield


@contextlib.contextmanager
def own_directory(place: Place, run_dir: Path) -> Iterator[Path]:
    """Directory that this worker writes to; for worker 0 it is the run directory.

    Other workers get a temporary folder, but their errors name the run directory.
    """
    if place.number == 0:
        yield run_dir
        return
    with tempfile.TemporaryDirectory(prefix="worker-") as scratch:
        own = Path(scratch) / run_dir.name
        try:
            yield own
        except errors.UserError as error:
            error.args = (str(error).replace(str(own), str(run_dir)),)
            raise


@contextlib.contextmanager
def reporting_lost_workers(place: Place, run_dir: Path) -> Iterator[None]:
    """Raises ClusterError in place of TensorFlow's errors when a worker is gone."""
    try:
        yield
    except _LOST as error:
        if place.workers == 1:
            raise
        raise ClusterError(
            f"worker {place.number} of {place.workers} ({place.address}) has lost"
            " another worker, which has ended or cannot be reached"
            f" ({type(error).__name__}): see what the other worker printed, then start"
            " all again with the same flags; they resume from the last checkpoint in"
            f" {run_dir}"
        ) from None


def resume_command(place: Place, run_dir: Path) -> str:
    """Shell command that resumes a run, with all its workers if they are on this host.

    If they are not, each worker has to be started as it was the first time.
    """
    if place.workers == 1 or place.on_host < place.workers:
        return runs.resume_command(run_dir)
    launch = ("-m", "training.launch", f"--workers={place.workers}", "--")
    return console.command(*launch, f"--flagfile={run_dir / runs.FLAGS}")
