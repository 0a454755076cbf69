# SPDX-License-Identifier: Apache-2.0
"""The surroundings of a training loop: locked directory, signals, other workers.

In the order of train.py's `main`: `joined`, `opened`, `Session.begin`, `listening`.
"""

import contextlib
import dataclasses
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

import data
import models
from augment.plan import MAX_NAMED
from system import cli, console, errors
from training import (
    cluster,
    epochs,
    interruption,
    locks,
    machine,
    rules,
    runs,
    schedules,
    sets,
    teachers,
    weights,
)
from training.environment import current_environment
from training.state import State
from training.workers import ALONE, Workers


@dataclasses.dataclass
class Session:
    """The run that this process trains.

    Attributes:
      run_dir: directory that this process writes to.
      workers: the processes that train the run together.
      record: contents of run.json, once the run has begun.
      start: weights of another run that it starts from, with --init_from.
      whitened: kernels that conv1 starts from, with --whiten.
      teach: gives what its teachers say of a batch, with --teachers.
      signal: returns the number of a signal that asks the run to stop, or 0. We call it
        before each call of the graph, and all workers get the same number.
    """

    run_dir: Path
    workers: Workers = ALONE
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    start: weights.Start | None = None
    whitened: weights.Whitened | None = None
    teach: teachers.Teach | None = None
    signal: Callable[[], int] = lambda: 0

    def begin(self, resolved: machine.Resolved) -> tuple[Any, sets.Sets]:
        """Loads the data, and creates the run or makes sure that it is this one.

        `resolved` has the settings, including what the flags left to the machine.

        Returns:
          The `config.Config`, with the C++ kernels only if they compile; the data.

        Raises:
          RunError: the directory holds another run, or cannot be created.
          ClusterError: another worker has other settings, data or versions.
          MachineError: the kernels of the run do not work on this machine.
          data.DataError, UserError: see `sets.load` and `schedules.count_steps`.
        """
        config, start = resolved.config, time.perf_counter()
        if (self.run_dir / runs.RUN).exists():
            # Before the data, as it may refuse: the run may need kernels we lack.
            machine.resume(self.run_dir, config.kernels, resolved.chosen)
        if self.workers.place.number == 0:  # the others follow it
            self.start = weights.start(self.run_dir, config)
        if config.freeze or rules.RULES[config.optimizer].beside:
            State(config)  # refuses layers that there are none of
        dataset = data.load_for(config, config.data_dir)
        known = teachers.load(self.run_dir, config, dataset.classes)
        data_sets = sets.load(dataset, config)
        count = data_sets.train_count
        schedules.count_steps(config, count)  # refuse before a run is made
        if config.continental and dataset.classes != data.DIGITS:
            raise errors.UsageError(
                "--continental draws strokes into ones and sevens: the classes of"
                f" {dataset.source} are not 0 to 9; leave it out"
            )
        # Refuses sizes that do not fit together before a run is made.
        network = models.build(**vars(config), classes=len(dataset.classes))
        if self.start:
            print(self.start.describe(network))
        self.whitened = weights.whitened(config, dataset)
        seconds = time.perf_counter() - start
        print(
            f"{dataset.name}: {dataset.source}; {count:,} images to train on after"
            f" {seconds:.1f} s"
        )
        if missing := dataset.missing:
            console.warn(
                f"no training image of {', '.join(missing[:MAX_NAMED])}"
                f"{', …' * (len(missing) > MAX_NAMED)}: the network will never learn it"
            )
        # The compiler has worked while we read the data; now we wait for it.
        kernels = machine.settle(config.kernels, resolved.chosen)
        resolved = resolved.with_kernels(kernels)
        # Before a run is made, as it may refuse; and while Ctrl-C still ends at once.
        self.teach = teachers.build(config, known, data_sets)
        self._open(resolved, dataset, count, seconds, teachers.hashes(known))
        return resolved.config, data_sets

    def _open(
        self,
        resolved: machine.Resolved,
        dataset: data.Dataset,
        count: int,
        seconds: float,
        taught_by: list[str],
    ) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        facts = {
            "begun": f"{now:%Y-%m-%d %H:%M} UTC",
            "chosen": resolved.chosen,
            "data": dict(dataset.hashes),
            "classes": list(dataset.classes),
            "data_seconds": seconds,
            "environment": current_environment() | self.workers.environment,
        }
        if self.start:
            facts["init_sha256"] = self.start.sha256
        if taught_by:
            facts["teachers_sha256"] = taught_by
        versions = {"version": cli.VERSION, "TensorFlow": tf.__version__}
        same = {
            "files": facts["data"],
            "training images": count,
            "teachers": taught_by,
            **resolved.config.shared(),
        }
        # Before the run is created: nothing is written if workers disagree.
        self.workers.check_alike({**versions, **same})
        self.record = runs.open_run(
            self.run_dir, resolved.config, resolved.flags_text, facts
        )

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Makes SIGINT and SIGTERM ask the training loop to save and stop.

        Raises Stopped if a signal came during the last epoch. Python hears signals in
        its main thread only; in another one, they keep their meaning.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with interruption.Interruption() as asked:
            self.signal = lambda: self.workers.agree(asked.received)
            yield
            signal = self.signal()
        if signal:
            raise self.stopped(
                f"stopped after the last step of {self.run_dir}; to score it",
                signal,
            )

    def stopped(self, what: str, signal: int) -> interruption.Stopped:
        """Error of a run that a signal stopped; `what` is the start of its message."""
        resume = cluster.resume_command(self.workers.place, self.run_dir)
        return interruption.Stopped(f"{what}: {resume}", signal)


@contextlib.contextmanager
def joined(kind: str) -> Iterator[cluster.Place]:
    """Finds the place of this process among the workers of its run: how many, which.

    Only the first worker prints. `kind` is the value of --distribute.

    Raises:
      UserError: it and the environment contradict each other.
    """
    place = cluster.find_place(kind, os.environ.get("TF_CONFIG"))
    alone = place.workers == 1
    signals = contextlib.nullcontext() if alone else interruption.Departure()
    with cluster.quiet_unless_first(place), signals:
        yield place


@contextlib.contextmanager
def opened(config: Any, place: cluster.Place) -> Iterator[Session]:
    """Connects the workers and locks the run directory of a `config.Config`.

    Raises:
      RunError: the directory holds another run, or another process trains it.
      ClusterError: another worker cannot be reached, or is lost later.
    """
    workers = Workers(config.distribute, place, config.replicas, config.wait_seconds)
    directory = Path(config.run_dir)
    with cluster.reporting_lost_workers(place, directory):
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        with cluster.own_directory(place, directory) as run_dir, locks.lock(run_dir):
            # Before we load the data, which may take minutes.
            if run := runs.check_settings(run_dir, config):
                epochs.check(run_dir, run, config)
            yield Session(run_dir, workers)
