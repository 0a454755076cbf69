# SPDX-License-Identifier: Apache-2.0
"""Scored runs, read back from their directories and grouped by recipe.

Runs that differ only in their seed are one recipe.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from config import Config
from evaluation import predictions, result
from system import console, untrusted
from training import runs


class Table(NamedTuple):
    """A table of a comparison; its cells are text."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __str__(self) -> str:
        return tabulate(self.rows, self.header, disable_numparse=True)


class Run(NamedTuple):
    """A finished run and what it predicts.

    Attributes:
      directory: run directory.
      config: its settings.
      others: what came from other runs, by flag: SHA-256 of the weights that it started
        from, of the teachers that it learned from; "" for none.
      data: hash of each data file.
      split: the digits scored, "test" or "validation".
      labels: uint8 [N].
      predicted: int64 [N], the classes predicted.
      classes: their names.
      binary_accuracy: in %, see `scoring.Scores`.
    """

    directory: Path
    config: Config
    others: Mapping[str, str]
    data: Mapping[str, str]
    split: str
    labels: np.ndarray
    predicted: np.ndarray
    classes: tuple[str, ...]
    binary_accuracy: float

    @property
    def correct(self) -> np.ndarray:
        """Which digits it classifies correctly, bool [N]."""
        return self.predicted == self.labels

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.directory.absolute().name

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.seed

    @property
    def recipe(self) -> dict[str, Any]:
        """What is not the default: settings but the seed, and others' weights."""
        chosen = {k: v for k, v in self.config.chosen().items() if k != "seed"}
        return chosen | {flag: value for flag, value in self.others.items() if value}

    @property
    def errors(self) -> int:
        """Number of misclassified digits."""
        return int((~self.correct).sum())

    @property
    def accuracy(self) -> float:
        """Accuracy in %."""
        return 100 * float(self.correct.mean())


def read(directory: Path) -> Run:
    """Reads a finished run and its predictions.

    Raises:
      RunError: there is no run; it is unfinished, not scored, or damaged.
    """
    run = runs.read_run(directory)
    config = runs.settings_of(directory, run, Config)
    labels, probabilities = predictions.read(directory)
    split, finished, binary_accuracy, errors = _read_result(directory, config.epochs)
    if not finished:
        raise runs.RunError(
            f"{directory} was scored before its training was finished: resume it by"
            f" {runs.resume_command(directory)}"
        )
    scored = Run(
        *(directory, config, _others(run), run["data"]),
        *(split, labels, probabilities.argmax(1), runs.classes_of(run)),
        binary_accuracy,
    )
    if scored.errors != errors:
        raise runs.RunError(
            f"{directory / result.RESULT} has {errors} errors, but"
            f" {predictions.PREDICTIONS} next to it {scored.errors}: run"
            f" {_score_again(directory)} to write both again"
        )
    return scored


def _others(run: Mapping[str, Any]) -> dict[str, str]:
    """The start of each hash of weights that a run took from other runs, by flag."""
    found = {"init_from": "", "teachers": [], **runs.taken(run)}
    taught = ",".join(sha256[:8] for sha256 in found["teachers"])
    return {"init_from": found["init_from"][:8], "teachers": taught}


def _score_again(directory: Path | str) -> str:
    return console.command("eval.py", f"--run_dir={directory}")


def _read_result(directory: Path, epochs: int) -> tuple[str, bool, float, int]:
    """The split scored, whether all epochs are done, binary accuracy in %, errors."""
    path = directory / result.RESULT
    try:
        stored = untrusted.read_json(path)
        split = result.scored_split(stored)
        binary_accuracy = 100 * float(stored[split]["binary_accuracy"])
        errors = stored[split]["errors"]
        if not isinstance(stored["finished"], bool) or not 0 <= binary_accuracy <= 100:
            raise ValueError(path)
        if type(errors) is not int or errors < 0:
            raise ValueError(path)
        # It may have been given more epochs since.
        planned = stored.get("config", {}).get("epochs", epochs)
        finished = stored["finished"] and planned == epochs
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise runs.RunError(
            f"{path} is missing, damaged or of an older version"
            f" ({type(error).__name__}): run {_score_again(directory)} to write it"
            " again"
        ) from None
    return split, finished, binary_accuracy, errors


def check_comparable(compared: Sequence[Run]) -> None:
    """Raises RunError unless the runs differ and were scored on the same digits."""
    for one, other in itertools.combinations(compared, 2):
        both = f"{one.directory} and {other.directory}"
        if one.directory.resolve() == other.directory.resolve():
            raise runs.RunError(f"{both} are the same directory: name each run once")
        if one.data != other.data:
            raise runs.RunError(
                f"{both} have different data: compare runs of one dataset"
            )
        if one.split != other.split:
            raise runs.RunError(
                f"{both} were scored on different digits, {one.split} and"
                f" {other.split}: score both again by {_score_again('RUN')}"
            )
        if not np.array_equal(one.labels, other.labels):
            raise runs.RunError(
                f"{both} were scored on different digits: compare runs that held out"
                " the same ones, with the same --split_seed and --validation_size"
            )
        if one.seed == other.seed and one.recipe == other.recipe:
            raise runs.RunError(
                f"{both} have the same flags and the same seed, and so would count"
                " twice: leave one of them out"
            )


def group(compared: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups runs by recipe, in the order given, each recipe under a name of its own.

    The name is that of the run directory without the seed; if two recipes share it, the
    path is added, and then the seed.
    """
    groups: list[list[Run]] = []
    for run in compared:
        for members in groups:
            if members[0].recipe == run.recipe:
                members.append(run)
                break
        else:
            groups.append([run])
    first = [members[0] for members in groups]
    names = distinct(
        [_without_seed(run.name, run.seed) for run in first],
        [_without_seed(str(run.directory), run.seed) for run in first],
        [str(run.directory) for run in first],
    )
    return {
        name: sorted(members, key=lambda run: run.seed)
        for name, members in zip(names, groups, strict=True)
    }


def _without_seed(name: str, seed: int) -> str:
    return re.sub(rf"(?<=.)[-_.](s|seed)[-_=]?{seed}$", "", name)


def distinct(*candidates: list[str]) -> list[str]:
    """The first list in which no name occurs twice."""
    return next(names for names in candidates if len(set(names)) == len(names))


def differences(groups: Mapping[str, Sequence[Run]]) -> str:
    """A line with the flags in which recipes differ, and their values."""
    first = [members[0] for members in groups.values()]
    settings = [run.config.deciding() | run.recipe for run in first]
    parts = []
    for name in sorted(set().union(*(run.recipe for run in first))):
        values = [values.get(name) for values in settings]
        if any(value != values[0] for value in values):
            parts.append(f"--{name} ({' | '.join(map(_show_value, values))})")
    return f"{' | '.join(groups)} differ in: {', '.join(parts)}."


def _show_value(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)
