# SPDX-License-Identifier: Apache-2.0
"""Trials of a search: their values, their medians, their table and their record."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from training import children, history
from training.children import Outcome, Rows

# With fewer values, a median says too little to end a run by it.
MEDIAN_TRIALS = 4

SIGNS = {"accuracy": 1, "loss": -1}  # of an objective: 1 if more is better
NONE = "–"


class Score(NamedTuple):
    """What one seed of a trial came to, at the epoch whose weights are kept."""

    seed: int
    epochs: int  # that were trained
    accuracy: float  # on the held-out digits, in [0, 1]
    loss: float


class Trial(NamedTuple):
    """Settings, trained with one seed after another.

    Attributes:
      number: from 0.
      settings: values as on a command line, by setting.
      state: finished, pruned or diverged.
      scores: of each seed that was trained.
      curve: the objective after each epoch of the first seed, the second, …; the keys
        are numbers of epochs, and each seed has room for all epochs that are planned.
    """

    number: int
    settings: dict[str, str]
    state: str
    scores: list[Score]
    curve: dict[int, float]

    def value(self, objective: str) -> float:
        """Mean of the objective over the seeds."""
        return statistics.mean(getattr(score, objective) for score in self.scores)


def trial(
    number: int,
    settings: dict[str, str],
    seeds: Sequence[int],
    outcomes: Sequence[Outcome],
    config: Any,
    objective: str,
) -> Trial:
    """A trial whose seeds, or the first of them, ended so; `config` is a Config.

    A seed that diverged has no score.
    """
    scores, curve = [], {}
    for place, (seed, outcome) in enumerate(zip(seeds, outcomes)):
        if not outcome.rows or outcome.state == children.DIVERGED:
            break
        scores.append(_score(seed, outcome.rows, config.keep_best))
        for row in outcome.rows:
            key = place * config.epochs + int(row["epoch"])
            curve[key] = row[column(objective)]
    return Trial(number, settings, outcomes[-1].state, scores, curve)


def _score(seed: int, rows: Rows, keep_best: bool) -> Score:
    row = rows[history.best_epoch(rows) if keep_best else -1]
    measured = row["validation_accuracy"], row["validation_loss"]
    return Score(seed, len(rows), *measured)


def column(objective: str) -> str:
    """Column of metrics.csv with an objective."""
    return f"validation_{objective}"


def rule(
    earlier: Sequence[Trial], place: int, epochs: int, after: int, objective: str
) -> children.Rule | None:
    """Median rule for the seed at some place, from the trials of earlier generations.

    A run ends after an epoch, of the first `after` none and never the last, if all its
    values so far are worse than the median of theirs at that epoch. Only finished
    trials count, as in Optuna's median pruner (Golovin et al., "Google Vizier: A
    Service for Black-Box Optimization", 2017). None for no limits.
    """
    curves = [trial.curve for trial in earlier if trial.state == children.FINISHED]
    limits = {}
    for epoch in range(after - 1, epochs - 1) if after else ():
        key = place * epochs + epoch
        values = [curve[key] for curve in curves if key in curve]
        if len(values) >= MEDIAN_TRIALS:
            limits[epoch] = statistics.median(values)
    return (
        children.Rule(column(objective), SIGNS[objective], limits) if limits else None
    )


def best(trials: Sequence[Trial], objective: str) -> Trial | None:
    """The best of the finished trials, the first of equals; None if there is none."""
    finished = [trial for trial in trials if trial.state == children.FINISHED]
    sign = SIGNS[objective]
    return max(finished, key=lambda t: sign * t.value(objective), default=None)


def accuracy(trial: Trial, seeds: int, images: int) -> str:
    """Validation accuracy in %, with its standard error: see `uncertainty`.

    There is none if all seeds but one are missing, as the trial was pruned.
    """
    values = [100 * score.accuracy for score in trial.scores]
    mean = statistics.mean(values)
    if seeds > 1:
        return _mean(values, 2)
    return f"{mean:.2f} ± {math.sqrt(mean * (100 - mean) / images):.2f}"


def loss(trial: Trial) -> str:
    """Validation loss, with the standard error of its mean over two seeds or more."""
    return _mean([score.loss for score in trial.scores], 4)


def _mean(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) < 2:
        return text
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{text} ± {error:.{digits}f}"


def uncertainty(seeds: int, images: int) -> str:
    """What the figures after ± mean."""
    if seeds > 1:
        return f"± standard error over {seeds} seeds, on the same {images:,} digits."
    return (
        f"± binomial standard error of {images:,} digits; other seeds may differ more."
    )


def table(trials: Sequence[Trial], objective: str, seeds: int, images: int) -> str:
    """Table of all trials, the best first, then those that were not finished."""
    order = [children.FINISHED, children.PRUNED, children.DIVERGED]

    def key(trial: Trial) -> tuple[float, float]:
        worse = -SIGNS[objective] * trial.value(objective) if trial.scores else math.inf
        return order.index(trial.state), worse

    rows = []
    for trial in sorted(trials, key=key):
        epochs = sum(score.epochs for score in trial.scores)
        figures = [NONE, NONE]
        if trial.scores:
            figures = [accuracy(trial, seeds, images), loss(trial)]
        settings = trial.settings.values()
        rows.append([trial.number, *settings, *figures, trial.state, epochs])
    header = ["trial", *trials[0].settings, "validation accuracy %"]
    header += ["validation loss", "state", "epochs"]
    return tabulate(rows, header, disable_numparse=True)


def record(trials: Sequence[Trial], objective: str) -> list[dict[str, Any]]:
    """The trials as JSON."""
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "value": trial.value(objective) if trial.scores else None,
            "settings": trial.settings,
            "seeds": [score._asdict() for score in trial.scores],
        }
        for trial in trials
    ]


def stored(trial: Trial) -> dict[str, Any]:
    """What `restored` needs, as JSON."""
    scores = [list(score) for score in trial.scores]
    return {"settings": trial.settings, "state": trial.state, "scores": scores}


def restored(number: int, entry: Mapping[str, Any], curve: dict[int, float]) -> Trial:
    """A trial that was stored."""
    scores = [Score(*score) for score in entry["scores"]]
    return Trial(number, dict(entry["settings"]), entry["state"], scores, dict(curve))
