# SPDX-License-Identifier: Apache-2.0
"""A trained run, loaded from its directory: its settings and the network to score.

A command reads run.json once, here, and hands the `TrainedRun` on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
from config import Config
from evaluation import scoring
from training import checkpoints, runs, weights
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
    """Loads a run at its last good checkpoint; errors are those of `weights.load`."""
    record, config, network, step = weights.load(run_dir, Config)
    try:
        return TrainedRun(run_dir, record, config, scoring.Predict(network), step)
    except (TypeError, ValueError) as error:  # a bad rate shows only in the graph
        raise weights.no_network(run_dir, error) from None


def after_training(
    run: Session, config: Config, predict: scoring.Predict
) -> TrainedRun:
    """The run that was just trained, with its network still in memory."""
    step = max(checkpoints.steps(run.run_dir / checkpoints.FOLDER), default=0)
    return TrainedRun(run.run_dir, run.record, config, predict, step)
