# SPDX-License-Identifier: Apache-2.0
"""All that training changes: variables and progress, and the checkpoint of both."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import models
from models import structure
from system import console, errors
from training import (
    checkpoints,
    events,
    history,
    optimizers,
    rules,
    runs,
    schedules,
    summaries,
    weights,
)
from training.workers import Workers


class TrainingError(errors.UserError):
    """Training cannot continue."""

    exit_code = errors.DIVERGED


class Totals(NamedTuple):
    """What one call of the training graph returns.

    Attributes:
      step: int64 [], the next step; earlier than asked for if a loss or a gradient was
        not finite.
      loss: float32 [], summed over the steps.
      correct: int64 [], images classified correctly.
      gradient_norms: float32 [weights that change], of the last step.
      rate: float32 [], learning rate of the last step.
    """

    step: tf.Tensor
    loss: tf.Tensor
    correct: tf.Tensor
    gradient_norms: tf.Tensor
    rate: tf.Tensor


@dataclasses.dataclass
class Progress:
    """How far a run has come; each checkpoint stores it.

    Attributes:
      step: steps taken.
      loss: summed over the steps of this epoch.
      correct: images of this epoch that were classified correctly.
      seconds: time spent in the graph.
    """

    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= number < math.inf for number in dataclasses.astuple(self)):
            raise ValueError("a negative or infinite number")

    def add(self, totals: Totals, seconds: float) -> None:
        """Adds one call of the training graph."""
        self.step = int(totals.step)
        self.loss += float(totals.loss)
        self.correct += int(totals.correct)
        self.seconds += seconds

    def end_epoch(
        self, epoch: int, epoch_steps: int, batch_size: int
    ) -> dict[str, float]:
        """Returns the epoch's part of metrics.csv, and starts the sums again from 0."""
        row = {
            "epoch": epoch,
            "step": self.step,
            "images": self.step * batch_size,
            "seconds": self.seconds,
            "train_loss": self.loss / epoch_steps,
            "train_accuracy": self.correct / (epoch_steps * batch_size),
        }
        self.loss, self.correct = 0.0, 0
        return row


class Resumed(NamedTuple):
    """Where a run continues.

    Attributes:
      progress: at the last checkpoint.
      rows: metrics.csv up to there.
      event_lengths: bytes of each split's TensorBoard events at that time; later ones
        are removed.
    """

    progress: Progress
    rows: list[dict[str, float]]
    event_lengths: dict[str, int]


class State:
    """The network in training, with its weight average and best copy if asked for.

    Args:
      config: the run's `config.Config`.
      recorded: its `runs.identity`, whose hash each checkpoint carries, so that no
        other run resumes from it. Default: the settings of `config`.
      classes: number of classes.
      start: weights to start from, in place of drawn ones.

    Attributes:
      network: the network in training.
      trained: its weights that change: all but those of frozen layers.
      average: the average of its weights; None without --weight_average.
      optimizer: the update rule and its slots.
      watch: validation accuracy so far, for --schedule=plateau and early stopping.
      best: a copy of the best weights so far; None without --keep_best.
      parts: all these that there are, by their names in a checkpoint.
      checkpoint: the checkpoint of the parts.
      progress: how far the run has come, which each checkpoint stores, too.
    """

    def __init__(
        self,
        config: Any,
        recorded: Mapping[str, Any] | None = None,
        classes: int = 10,
        start: weights.Start | weights.Whitened | None = None,
    ):
        self._config, settings = config, {**vars(config), "classes": classes}
        self._recorded = recorded or config.deciding()
        self.network, self.watch = models.build(**settings), schedules.Watch()
        self.average = models.build(**settings) if config.weight_average else None
        self.best = models.build(**settings) if config.keep_best else None
        self.trained = structure.freeze(self.network, config.freeze)
        averaged = structure.freeze(self.average, config.freeze) if self.average else ()
        for network in filter(None, (self.network, self.average, self.best)):
            if start:
                start.assign(network)
        # Now, as it may copy weights.
        self.optimizer = optimizers.build(
            *(config, self.trained, averaged),
            ends=functools.partial(structure.ends, self.network),
        )
        parts = {
            checkpoints.NETWORK: self.network,
            checkpoints.AVERAGE: self.average,
            "optimizer": self.optimizer,
            "watch": self.watch,
            checkpoints.BEST: self.best,
        }
        self.parts = {name: part for name, part in parts.items() if part}
        self.checkpoint = tf.train.Checkpoint(**self.parts)
        self.progress, self._saved = Progress(), -1

    @property
    def scored(self) -> tf.Module:
        """The network that is scored after each epoch: the average, if there is one."""
        return self.parts[checkpoints.followed(self._config)]

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of all parts."""
        return [v for part in self.parts.values() for v in part.variables]

    def average_statistics(self, step: tf.Tensor) -> None:
        """Averages batch-norm statistics; the optimizer averages the weights."""
        if not self.average:
            return
        decay = self._config.weight_average
        pairs = zip(self.average.variables, self.network.variables, strict=True)
        for slow, fast in pairs:
            if not fast.trainable:
                value = rules.weight_average(slow, fast, step=step, decay=decay)
                slow.assign(value)

    def after_epoch(self, row: Mapping[str, float]) -> bool:
        """Lowers the rate and keeps the best weights; returns whether to stop early."""
        config = self._config
        if "validation_accuracy" in row:
            better = self.watch.update(row["validation_accuracy"])
            if config.schedule == "plateau":
                self.watch.plateau(
                    config.plateau_patience,
                    config.decay_factor,
                    config.plateau_floor / config.learning_rate,  # as a factor
                )
            if better and self.best:
                _copy(self.scored, self.best)
        return self.stopped_early()

    def stopped_early(self) -> bool:
        """Whether validation accuracy has not improved for --early_stopping epochs."""
        patience = self._config.early_stopping
        return bool(patience and self.watch.waited >= patience)

    def take_best(self) -> None:
        """Returns to the best weights, with --keep_best."""
        if self.best:
            _copy(self.best, self.scored)

    def check_finite(self, totals: Totals, run_dir: Path) -> None:
        """Raises TrainingError if a loss, gradient or weight is no longer finite."""
        if not np.isfinite(totals.loss):
            offence = "the loss"
        elif not np.isfinite(totals.gradient_norms).all():
            offence = "a gradient"
        elif not np.isfinite(tf.linalg.global_norm(self.network.variables)):
            offence = "a weight"
        else:
            return
        folder = run_dir / checkpoints.FOLDER
        kept = checkpoints.steps(folder)
        last = checkpoints.path(folder, kept[-1]) if kept else "none yet"
        raise TrainingError(
            f"{offence} became NaN or infinite at step {int(totals.step) - 1} of"
            f" {run_dir}; last good checkpoint: {last}; try a lower --learning_rate in"
            " another --run_dir"
        )

    def save(self, run_dir: Path, log: summaries.Summaries | None = None) -> None:
        """Writes a checkpoint, with all that the loop needs to resume.

        Does nothing if this step has one already.
        """
        entries = dataclasses.asdict(self.progress)
        step = entries.pop("step")
        if step == self._saved:
            return
        entries["events"] = log.flush() if log else {}  # see `Resumed.event_lengths`
        folder = run_dir / checkpoints.FOLDER
        checkpoints.save(self.checkpoint, folder, step, self._recorded, entries)
        self._saved = step

    def resume(
        self,
        run_dir: Path,
        splits: Iterable[str],
        epoch_steps: int,
        workers: Workers,
    ) -> Resumed:
        """Restores the last checkpoint; a new run saves its first one here.

        That one is written before anything else, so that a run that has lost all its
        checkpoints can be told from a new one, and is not silently started over.

        Raises:
          CheckpointError, RunError: the checkpoint, or the history that belongs to it,
            is damaged or lost.
        """
        folder = run_dir / checkpoints.FOLDER
        with contextlib.suppress(OSError):  # saving reports it, if need be
            checkpoints.tidy(folder)
        step = checkpoints.restore(self.checkpoint, folder, self._recorded)
        if step is None:
            _refuse_traces(run_dir)
            self.save(run_dir)
            resumed = Resumed(Progress(), [], {})
        else:
            resumed = _read(run_dir, step, splits, epoch_steps)
        # All workers continue where the first one does.
        progress = workers.gather(dataclasses.asdict(resumed.progress))[0]
        workers.follow_first(self.variables)
        self.progress = Progress(**progress)
        self._saved = self.progress.step
        return resumed._replace(progress=self.progress)


def _refuse_traces(run_dir: Path) -> None:
    """Raises CheckpointError if a run has left files here, but no checkpoint."""
    for name in runs.TRACES:
        if (run_dir / name).exists():
            raise checkpoints.CheckpointError(
                f"{run_dir} holds a run, for there is {name}, but"
                f" {run_dir / checkpoints.FOLDER} no checkpoint: put one back, or train"
                " again in another --run_dir"
            )


def _read(run_dir: Path, step: int, splits: Iterable[str], epoch_steps: int) -> Resumed:
    """Reads what belongs to the checkpoint of a step."""
    folder = run_dir / checkpoints.FOLDER
    entries = checkpoints.progress(folder, step)
    lengths = entries.pop("events", {})
    try:
        progress = Progress(step, **entries)
        lost = events.lost(run_dir, lengths)
    except (TypeError, ValueError) as error:
        raise checkpoints.CheckpointError(
            f"{checkpoints.path(folder, step)} is not of this version ({error}):"
            " train again in another --run_dir"
        ) from None
    columns = history.columns(splits)
    rows = history.epochs(run_dir, step, columns, epoch_steps)
    for split in lost:
        console.warn(
            f"{run_dir / split} has lost TensorBoard's events from before step"
            f" {step:,}, and its curves lack them; nothing else depends on them"
        )
    return Resumed(
        progress, [{name: row[name] for name in columns} for row in rows], lengths
    )


def _copy(source: tf.Module, target: tf.Module) -> None:
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(value)
