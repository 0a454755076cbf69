# SPDX-License-Identifier: Apache-2.0
"""Several trained runs as one network: the mean of their probabilities.

Members are named on the command line, before any score: an ensemble whose members were
chosen by their test errors is no result. The folder of --ensemble_dir gets
result.json, predictions.npz, report.html and, with --corruptions, corruptions.json.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from tabulate import tabulate

import data
from config import Config
from evaluation import (
    combined,
    corruptions,
    predictions,
    result,
    score_text,
    scoring,
    trained,
)
from evaluation.trained import Scored, TrainedRun
from system import cli, console, errors, untrusted
from training import runs, weights
from training.environment import current_environment

REPORT = "report.html"
CONTENTS = (
    *(result.RESULT, predictions.PREDICTIONS, corruptions.CORRUPTIONS_FILE),
    REPORT,
)


class Ensemble(NamedTuple):
    """Runs whose probabilities are averaged; what it has in common with a `TrainedRun`
    means the same.

    Attributes:
      members: two runs or more, with different weights and the same classes.
      hashes: SHA-256 of each member's weights.
      network: mean of their probabilities, each with its own temperature.
      predict: `network`, averaged over shifts if it is.
      directory: folder for the score; None: it is only printed.
      shifts: pixels by which `predict` shifts images, to average; 0: not at all.
    """

    members: tuple[TrainedRun, ...]
    hashes: tuple[str, ...]
    network: tf.Module
    predict: scoring.Predict
    directory: Path | None = None
    shifts: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes

    @property
    def config(self) -> Config:
        """Settings of the first member, for what all have in common: the data."""
        return self.members[0].config

    @property
    def step(self) -> None:
        """None: each member has its own."""

    @property
    def names(self) -> list[str]:
        """Names of the members' run directories."""
        return [run.directory.absolute().name for run in self.members]

    @property
    def origin(self) -> dict[str, Any]:
        each = [
            {"name": name, "step": run.step, "weights_sha256": digest, **run.origin}
            for name, run, digest in zip(
                self.names, self.members, self.hashes, strict=True
            )
        ]
        return {"members": each} | ({"shifts": self.shifts} if self.shifts else {})

    def averaged(self, shifts: int) -> "Ensemble":
        """The ensemble, averaged over shifts by up to so many pixels."""
        predict = trained.average(self.predict, shifts)
        return self._replace(predict=predict, shifts=shifts)

    def scored(self, dataset: data.Dataset, *, optional: bool = False) -> Scored:
        """The digits to score it on: those of `TrainedRun.scored` that no member saw.

        Held-out digits are among them only if all members held out the same.

        Raises:
          RunError: there are none, unless `optional`.
        """
        splits = {
            (run.config.validation_size, run.config.split_seed) for run in self.members
        }
        if len(splits) == 1:
            return self.members[0].scored(dataset, optional=optional)
        found = data.scored(dataset, 0, 0)
        if not (found or optional):
            raise runs.RunError(
                "this ensemble has nothing to be scored on: the test set has no labels,"
                " and its members did not hold out the same digits; give runs with the"
                " same --validation_size and --split_seed"
            )
        return found


def load(run_dirs: Sequence[Path], directory: Path | None = None) -> Ensemble:
    """Loads the members of an ensemble.

    Args:
      run_dirs: two run directories or more.
      directory: folder for its score, new or of the same ensemble; None for none.

    Raises:
      UsageError: there are fewer than two.
      RunError: one is no run or damaged, two are the same or have other classes, or
        the folder holds something else.
    """
    if len(run_dirs) < 2:
        raise errors.UsageError(
            "--ensemble needs two runs or more: "
            + console.command("eval.py", "--ensemble", "RUN", "RUN")
        )
    for run_dir, other_dir in itertools.combinations(run_dirs, 2):
        if run_dir.resolve() == other_dir.resolve():
            raise runs.RunError(
                f"{run_dir} and {other_dir} are the same directory: name each run once"
            )
    members = tuple(trained.load(run_dir) for run_dir in run_dirs)
    hashes = tuple(weights.sha256(weights.by_layer(run.network)) for run in members)
    _check_members(members, hashes)
    if directory:
        _open_folder(directory, hashes)
    network = combined.Mean([run.predict.network for run in members])
    return Ensemble(members, hashes, network, scoring.Predict(network), directory)


def _check_members(members: Sequence[TrainedRun], hashes: Sequence[str]) -> None:
    """Raises RunError if two have other classes or the same weights."""
    pairs = itertools.combinations(zip(members, hashes, strict=True), 2)
    for (one, here), (other, there) in pairs:
        both = f"{one.directory} and {other.directory}"
        if one.classes != other.classes:
            raise runs.RunError(
                f"{both} have different classes: an ensemble needs runs that answer the"
                " same question"
            )
        if here == there:
            raise runs.RunError(
                f"{both} have the same weights, and so would count twice: leave one of"
                " them out"
            )


def _open_folder(folder: Path, hashes: Sequence[str]) -> None:
    """Creates a folder, or checks that it holds nothing but the score of an ensemble.

    Raises RunError if it holds anything else, or has other members.
    """
    another = "choose another --ensemble_dir, or empty it"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if foreign := {path.name for path in folder.iterdir()} - {*CONTENTS}:
            raise runs.RunError(
                f"{folder} holds {min(foreign)!r}, which is not of an ensemble:"
                f" {another}"
            )
        stored = untrusted.read_json(folder / result.RESULT)
        known = [member["weights_sha256"] for member in stored["members"]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise runs.RunError(
            f"{folder} is no folder with the score of an ensemble"
            f" ({errors.reason(error)}): {another}"
        ) from None
    if known != [*hashes]:
        raise runs.RunError(
            f"{folder} holds the score of an ensemble of other members: {another}"
        )


def evaluate(ensemble: Ensemble, scored: Scored) -> None:
    """Scores an ensemble and its members, prints the scores, and stores them.

    Raises:
      RunError: a network gives NaN or infinity, or the folder cannot be written to.
    """
    split = result.scored_split(scored)
    digits, classes = scored[split], ensemble.classes
    each = [result.score(run, run.predict, split, digits) for run in ensemble.members]
    scores = scoring.score(trained.as_trained(ensemble), *digits, classes=classes)
    found = {split: scoring.summarise(scores)}
    if ensemble.shifts:
        shifted = scoring.score(ensemble.predict, *digits, classes=classes)
        facts = {"shifts": ensemble.shifts}
        found[f"{split}_shifts{ensemble.shifts}"] = facts | scoring.figures(shifted)
    found |= _facts(ensemble, each)
    text = f"{score_text.show(found[split])}\n\n{tabulate_members(split, found)}"
    if not ensemble.directory:
        print(text)
        return
    from evaluation import ensemble_page  # loads matplotlib

    # In this order, so that a result always has its predictions.
    predictions.write(ensemble.directory, scores)
    stored = json.dumps(found, indent=1) + "\n"
    runs.write_atomically(ensemble.directory / result.RESULT, stored)
    ways, name = rows(split, found), plain(found)
    ensemble_page.write(ensemble.directory, split, found, ways, name, scores, digits[0])
    print(text)
    print(ensemble.directory / REPORT)


def _facts(ensemble: Ensemble, each: Sequence[scoring.Scores]) -> dict[str, Any]:
    """Entries of result.json besides the score of the ensemble."""
    members = [
        {
            "name": name,
            "network": run.config.network,
            "seed": run.config.seed,
            "step": run.step,
            "parameters": sum(
                w.shape.num_elements() for w in run.network.trainable_variables
            ),
            "temperature": run.temperature,
            "weights_sha256": digest,
            **scoring.figures(scores),
        }
        for name, run, digest, scores in zip(
            ensemble.names, ensemble.members, ensemble.hashes, each, strict=True
        )
    ]
    return {
        "members": members,
        "parameters": sum(member["parameters"] for member in members),
        "version": cli.VERSION,
        "data": ensemble.members[0].record["data"],
        "classes": list(ensemble.classes),
        "environment": current_environment(),
    }


def rows(split: str, found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and `scoring.figures` of each member, then of the ensemble."""
    members = [(member["name"], member) for member in found["members"]]
    return [*members, *score_text.ways(split, found, plain(found))]


def plain(found: Mapping[str, Any]) -> str:
    """What to call the ensemble, not averaged over shifts."""
    return f"mean of the {len(found['members'])}"


def tabulate_members(split: str, found: Mapping[str, Any]) -> str:
    """The members and the ensemble as a table for the console."""
    table = [
        [
            name,
            one["errors"],
            f"{one['accuracy']:.2%}",
            f"{one['nll']:.4f}",
            f"{one['calibration_error']:.2%}",
            f"{one['accuracy_99']:.2%}",
        ]
        for name, one in rows(split, found)
    ]
    header = ["network", "errors", "accuracy", "NLL", "calibration error"]
    align = ["left", *["right"] * len(header)]
    header = [*header, "1% left unread"]
    return tabulate(table, header, colalign=align, disable_numparse=True)
