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
from evaluation import scoring
from system import errors
from training import checkpoints, history, losses, runs

# Images uint8 [N, 28, 28, 1] and labels uint8 [N], by "test" and "validation".
Scored = Mapping[str, tuple[np.ndarray, np.ndarray]]

# The settings that an evaluation uses, and their types in JSON.
NEEDED: dict[str, tuple[type, ...]] = {
    "batch_size": (int,),
    "dataset": (str,),
    "early_stopping": (int,),
    "epochs": (int,),
    "keep_best": (bool,),
    "loss": (str,),
    "network": (str,),
    "schedule": (str,),
    "seed": (int,),
    "split_seed": (int,),
    "validation_size": (int,),
    "weight_average": (int, float),
}


class TrainedRun(NamedTuple):
    """A run with at least one epoch.

    Attributes:
      directory: run directory.
      record: contents of run.json.
      predict: the network with the weights to score.
      step: step of the checkpoint that these come from.
    """

    directory: Path
    record: dict[str, Any]
    predict: scoring.Predict
    step: int

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the run."""
        return self.record["config"]

    def scored(self, dataset: data.Dataset, *, optional: bool = False) -> Scored:
        """The digits to score the run on: see `data.scored`.

        Args:
          dataset: the dataset of the run.
          optional: whether there may be none.

        Raises:
          RunError: there are none.
        """
        config = self.config
        found = data.scored(dataset, config["validation_size"], config["split_seed"])
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
    record = read(run_dir)
    config = record["config"]
    try:
        network = models.build(**config)
    except (LookupError, TypeError, ValueError) as error:
        raise _no_network(run_dir, error) from None
    state = tf.train.Checkpoint(**{checkpoints.scored(config): network})
    folder = run_dir / checkpoints.FOLDER
    step = checkpoints.restore(state, folder, config, partial=True)
    if step is None:
        raise runs.RunError(f"{run_dir} has no checkpoint yet: train it first")
    # A run writes a checkpoint before its first step, which is of no use here.
    epochs(run_dir, step)
    try:
        return TrainedRun(run_dir, record, scoring.Predict(network), step)
    except (TypeError, ValueError) as error:  # a bad rate shows only in the graph
        raise _no_network(run_dir, error) from None


def after_training(run_dir: Path, predict: scoring.Predict) -> TrainedRun:
    """The run that was just trained in a directory, with its network still in memory.

    Raises:
      RunError: run.json is gone or damaged.
    """
    step = max(checkpoints.steps(run_dir / checkpoints.FOLDER), default=0)
    return TrainedRun(run_dir, runs.read_run(run_dir), predict, step)


def _no_network(run_dir: Path, error: Exception) -> runs.RunError:
    return runs.RunError(
        f"{run_dir / 'run.json'} is damaged, no network can be built from it"
        f" ({errors.reason(error)}): train again"
    )


def read(run_dir: Path) -> dict[str, Any]:
    """Contents of run.json, with the settings that an evaluation uses checked.

    Raises:
      RunError: there is no run, or its run.json is damaged.
    """
    record = runs.read_run(run_dir)
    config = record["config"]
    for name, kinds in NEEDED.items():
        if type(config.get(name)) not in kinds:
            raise runs.RunError(
                f"{run_dir / 'run.json'} is damaged, {name!r} is missing or of the"
                " wrong type: train again"
            )
    valid = {
        "loss": config["loss"] in losses.LOSSES,
        "weight_average": 0 <= config["weight_average"] < 1,
        **{name: config[name] > 0 for name in ("epochs", "batch_size")},
        **{name: config[name] >= 0 for name in ("early_stopping", "seed")},
        **{name: config[name] >= 0 for name in ("split_seed", "validation_size")},
    }
    for name in valid:
        if not valid[name]:
            raise runs.RunError(
                f"{run_dir / 'run.json'} is damaged, {name!r} has an impossible value:"
                " train again"
            )
    return record


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
