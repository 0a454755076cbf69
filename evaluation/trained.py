# SPDX-License-Identifier: Apache-2.0
"""A trained run, loaded from its directory: its settings and the network to score.

A command reads run.json once, here, and hands the `TrainedRun` on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

import data
from config import Config
from evaluation import calibration, combined, scoring
from system import console, untrusted
from training import checkpoints, runs, weights

if TYPE_CHECKING:  # a program that uses a network does not load what trains one
    from training.session import Session

TEMPERATURE_FILE = "temperature.json"  # written by evaluation.temperature

# Images uint8 [N, 28, 28, 1] and labels uint8 [N], by "test" and "validation".
Scored = Mapping[str, tuple[np.ndarray, np.ndarray]]


class TrainedRun(NamedTuple):
    """A run with at least one epoch.

    Attributes:
      directory: run directory.
      record: contents of run.json.
      config: its settings.
      network: the network with the weights to score, as it was trained.
      predict: what reads, exports and submits: the network with its temperature and
        averaged over shifts, if it is.
      step: step of the checkpoint that the weights come from.
      temperature: of temperature.json; None if there is none for this step.
      shifts: pixels by which `predict` shifts images, to average; 0: not at all.
    """

    directory: Path
    record: dict[str, Any]
    config: Config
    network: tf.Module
    predict: scoring.Predict
    step: int
    temperature: float | None = None
    shifts: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return runs.classes_of(self.record)

    @property
    def members(self) -> "tuple[TrainedRun, ...]":
        """The runs whose networks predict: this one; an ensemble has several."""
        return (self,)

    @property
    def origin(self) -> dict[str, Any]:
        """Where the predictions come from, for JSON."""
        ways = {"temperature": self.temperature, "shifts": self.shifts}
        return {"run": self.record} | {k: v for k, v in ways.items() if v}

    def averaged(self, shifts: int) -> "TrainedRun":
        """The run with predictions averaged over shifts by up to so many pixels."""
        return self._replace(predict=average(self.predict, shifts), shifts=shifts)

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


def as_trained(run: Any) -> scoring.Predict:
    """The network of a run or of an ensemble without averaging over shifts."""
    if run.predict.network is run.network:
        return run.predict
    return scoring.Predict(run.network)


def average(predict: scoring.Predict, shifts: int) -> scoring.Predict:
    """A network averaged over shifts by up to so many pixels; as it is for 0."""
    if not shifts:
        return predict
    return scoring.Predict(combined.Shifted(predict.network, shifts))


def load(run_dir: Path, *, calibrated: bool = True) -> TrainedRun:
    """Loads a run at its last good checkpoint.

    Args:
      run_dir: run directory.
      calibrated: whether its temperature, if it has one, is used.

    Raises:
      RunError: its temperature.json is damaged, or one of the errors of `weights.load`.
      CheckpointError: as by `weights.load`.
    """
    record, config, network, step = weights.load(run_dir, Config)
    temperature = read_temperature(run_dir, step) if calibrated else None
    try:
        predict = _predict(network, temperature)
    except (TypeError, ValueError) as error:  # a bad rate shows only in the graph
        raise weights.no_network(run_dir, error) from None
    return TrainedRun(run_dir, record, config, network, predict, step, temperature)


def after_training(
    run: "Session", config: Config, predict: scoring.Predict
) -> TrainedRun:
    """The run that was just trained, with its network still in memory.

    Its predictions are averaged over shifts, if its settings say so.
    """
    step = max(checkpoints.steps(run.run_dir / checkpoints.FOLDER), default=0)
    network = predict.network
    if temperature := read_temperature(run.run_dir, step):
        predict = _predict(network, temperature)
    trained = TrainedRun(
        run.run_dir, run.record, config, network, predict, step, temperature
    )
    return trained.averaged(config.shifts)


def _predict(network: tf.Module, temperature: float | None) -> scoring.Predict:
    if temperature:
        network = combined.Tempered(network, temperature)
    return scoring.Predict(network)


def read_temperature(run_dir: Path, step: int) -> float | None:
    """The temperature in temperature.json; None if it is missing or of another step.

    Raises RunError if the file is damaged: without it, all probabilities would be
    others.
    """
    path = run_dir / TEMPERATURE_FILE
    low, high = calibration.TEMPERATURES
    try:
        found = untrusted.read_json(path)
        temperature, fitted_step = found["temperature"], found["step"]
        if type(temperature) is not float or not low <= temperature <= high:
            raise ValueError(f"expected a temperature from {low:g} to {high:g}")
        if type(fitted_step) is not int:
            raise ValueError("its step is not a number")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise runs.RunError(
            f"{path} is damaged ({console.one_line(str(error))}): delete it, or fit the"
            " temperature again with --calibrate"
        ) from None
    if fitted_step != step:
        console.warn(
            f"{path} is not used, it is of step {fitted_step:,} and the run at step"
            f" {step:,}: delete it, or fit the temperature again with --calibrate"
        )
        return None
    return temperature


def load_data(members: Sequence[TrainedRun], data_dir: str | None) -> data.Dataset:
    """Loads the dataset that runs were trained on, which must be the same.

    Raises:
      RunError: a run was trained on other data, or reads them otherwise.
      DataError: the data is missing or damaged.
    """
    first, *others = members
    names = ("dataset", *data.OPTIONS)
    for run in others:
        for name in names:
            here, there = getattr(first.config, name), getattr(run.config, name)
            if here != there:
                raise runs.RunError(
                    f"{first.directory} has --{name}={here} and {run.directory}"
                    f" --{name}={there}: give runs that were trained on the same data"
                )
    dataset = data.load_for(first.config, data_dir)
    for run in members:
        runs.check_data(run.directory, run.record, dataset.hashes)
    return dataset
