# SPDX-License-Identifier: Apache-2.0
"""A trained run, loaded from its directory: its settings and the network to score.

A command reads run.json once, here, and hands the `TrainedRun` on.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import data
import models
from config import Config
from evaluation import scoring
from system import errors
from training import checkpoints, history, runs
from training.session import Session

# Images uint8 [N, 28, 28, 1] and labels uint8 [N], by "test" and "validation".
Scored = Mapping[str, tuple[np.ndarray, np.ndarray]]


class TrainedRun(NamedTuple):
    """A run with at least one epoch.

    Attributes:
      directory: run directory.
      record: contents of run.json.
      config: its settings.
      predict: the network with the weights to score.
      step: step of the checkpoint that these come from.
    """

    directory: Path
    record: dict[str, Any]
    config: Config
    predict: scoring.Predict
    step: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return runs.classes_of(self.record)

    def scored(self, dataset: data.Dataset, *, optional: bool = False) -> Scored:
        """The digits to score the run on: see `data.scored`.

        Args:
          dataset: the dataset of the run.
          optional: whether there may be none.

        Raises:
          RunError: there are none.
        """
        size, seed = self.config.validation_size, self.config.split_seed
        found = data.scored(dataset, size, seed)
        if not (found or optional):
            raise runs.RunError(
                f"{self.directory} has nothing to be scored on: its test set has no"
                " labels, and no images were held out; give --submission alone, or"
                " train with --validation_size"
            )
        return found


def load(run_dir: Path) -> TrainedRun:
    """Loads a run at its last good checkpoint.

    Raises:
      RunError: the directory holds no run, one without a checkpoint or an epoch, a
        damaged one, or a link.
      CheckpointError: the checkpoint is damaged or belongs to another network.
    """
    runs.check_contents(run_dir)
    record = runs.read_run(run_dir)
    config = runs.settings_of(run_dir, record, Config)
    try:
        network = models.build(**vars(config), classes=len(runs.classes_of(record)))
    except (LookupError, TypeError, ValueError) as error:
        raise _no_network(run_dir, error) from None
    state = tf.train.Checkpoint(**{checkpoints.scored(config): network})
    folder = run_dir / checkpoints.FOLDER
    step = checkpoints.restore(state, folder, runs.identity(record), partial=True)
    if step is None:
        raise runs.RunError(f"{run_dir} has no checkpoint yet: train it first")
    # A run writes a checkpoint before its first step, which is of no use here.
    epochs(run_dir, step)
    try:
        return TrainedRun(run_dir, record, config, scoring.Predict(network), step)
    except (TypeError, ValueError) as error:  # a bad rate shows only in the graph
        raise _no_network(run_dir, error) from None


def after_training(
    run: Session, config: Config, predict: scoring.Predict
) -> TrainedRun:
    """The run that was just trained, with its network still in memory."""
    step = max(checkpoints.steps(run.run_dir / checkpoints.FOLDER), default=0)
    return TrainedRun(run.run_dir, run.record, config, predict, step)


def _no_network(run_dir: Path, error: Exception) -> runs.RunError:
    return runs.RunError(
        f"{run_dir / 'run.json'} is damaged, no network can be built from it"
        f" ({errors.reason(error)}): train again"
    )


def epochs(
    run_dir: Path, step: int, needed: Iterable[str] = ()
) -> list[dict[str, float]]:
    """The epochs up to a checkpoint; at least one. Arguments: see `history.epochs`.

    Raises:
      RunError: there is none, so that the network has learned next to nothing; one is
        lost; or metrics.csv is damaged.
    """
    rows = history.epochs(run_dir, step, needed)
    if not rows:
        # A run that was stopped within its first epoch has a checkpoint, too.
        lost = f", or put {history.METRICS} back if it was lost" * (step > 0)
        raise runs.RunError(
            f"{run_dir} has not finished an epoch yet: train it first{lost}"
        )
    return rows
