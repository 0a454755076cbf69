# SPDX-License-Identifier: Apache-2.0
"""metrics.csv: one row per epoch, checked against the checkpoint.

An epoch's figures cannot be computed again once its weights are gone. So we refuse a
history that has lost epochs: a result would cover fewer epochs than were trained.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from system import console, errors, untrusted
from training import runs

METRICS = "metrics.csv"

_MAX_BYTES = 1 << 24  # 100,000 epochs
_REQUIRED = ("epoch", "step", "seconds")
_TRAINING = ("train_loss", "train_accuracy", "learning_rate")


class DivergedError(runs.RunError):
    """A run whose loss is no longer finite."""

    exit_code = errors.DIVERGED


def columns(splits: Iterable[str]) -> list[str]:
    """Columns of metrics.csv, in order, if these splits are scored."""
    metrics = ("loss", "accuracy", "binary_accuracy")
    scores = [f"{split}_{metric}" for split in splits for metric in metrics]
    return ["epoch", "step", "images", "seconds", *_TRAINING, *scores]


def read(run_dir: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv, all of finite numbers; none if there is no file.

    Raises RunError if the file is damaged or cannot be read.
    """
    path = run_dir / METRICS
    try:
        return _parse(untrusted.read(path, _MAX_BYTES).decode("utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise _damaged(path, console.one_line(str(error)[:200])) from None


def _damaged(path: Path, why: str) -> runs.RunError:
    return runs.RunError(
        f"{path} is damaged ({why}): replace it by a good copy, or train again in"
        " another --run_dir"
    )


def _parse(text: str) -> list[dict[str, float]]:
    """Raises ValueError for anything that `write` would not have written."""
    if not text:
        return []
    header, *lines = [line.split(",") for line in text.removesuffix("\n").split("\n")]
    if len(set(header)) < len(header) or not set(_REQUIRED) <= set(header):
        raise ValueError(f"expected one column each of {', '.join(_REQUIRED)}")
    rows = [dict(zip(header, map(float, line), strict=True)) for line in lines]
    for number, row in enumerate(rows):
        for name, value in row.items():
            low = -math.inf if name.endswith("loss") else 0
            high = 1 if name.endswith("accuracy") else math.inf
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} {value:g} in line {number + 2}")
        # All epochs have the same length; none is missing or comes twice.
        if (row["epoch"], row["step"]) != (number, rows[0]["step"] * (number + 1)):
            raise ValueError(f"not epoch {number} in line {number + 2}")
    if rows and not (rows[0]["step"] >= 1 and rows[0]["step"].is_integer()):
        raise ValueError(f"step {rows[0]['step']:g} in line 2")
    return rows


def epochs(
    run_dir: Path,
    step: int,
    needed: Iterable[str] = (),
    epoch_steps: int | None = None,
) -> list[dict[str, float]]:
    """Rows up to the step of a checkpoint; a killed run may have written more.

    Without `epoch_steps`, epochs have as many steps as the first row says. Raises
    RunError if an epoch or a needed column is missing, or metrics.csv is damaged.
    """
    path = run_dir / METRICS
    rows = [row for row in read(run_dir) if row["step"] <= step]
    if rows:
        if missing := [name for name in needed if name not in rows[0]]:
            raise _damaged(path, f"it has no {missing[0]}")
        epoch_steps = epoch_steps or int(rows[0]["step"])
        if rows[0]["step"] != epoch_steps:
            raise _damaged(path, f"an epoch has {epoch_steps:,} steps in this run")
    epochs_done = step // epoch_steps if epoch_steps else 0
    if len(rows) < epochs_done:
        raise runs.RunError(
            f"{path} has lost its history: the checkpoint at step {step:,} comes after"
            f" {epochs_done:,} epochs, but the file has {len(rows):,}; restore a copy"
            " of the file, or train again in another --run_dir"
        )
    return rows


def some_epochs(
    run_dir: Path, step: int, needed: Iterable[str] = ()
) -> list[dict[str, float]]:
    """The epochs up to a checkpoint; at least one. Arguments: see `epochs`.

    Raises:
      RunError: there is none, so that the network has learned next to nothing; one is
        lost; or metrics.csv is damaged.
    """
    rows = epochs(run_dir, step, needed)
    if not rows:
        # A run that was stopped within its first epoch has a checkpoint, too.
        lost = f", or put {METRICS} back if it was lost" * (step > 0)
        raise runs.RunError(
            f"{run_dir} has not finished an epoch yet: train it first{lost}"
        )
    return rows


def best_epoch(rows: Sequence[Mapping[str, float]]) -> int:
    """Number of the first epoch with the best validation accuracy; 0 without any."""
    accuracies = [row.get("validation_accuracy", 0) for row in rows]
    return accuracies.index(max(accuracies))


def stopped_early(rows: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether a run with these epochs, at least one, has stopped early.

    `patience` is --early_stopping.
    """
    return 0 < patience <= len(rows) - 1 - best_epoch(rows)


def write(run_dir: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Replaces metrics.csv.

    Raises DivergedError if the last row has a figure that is not finite, and UserError
    if the file cannot be written.
    """
    for name, value in rows[-1].items():
        if not math.isfinite(value):
            raise DivergedError(
                f"{name} is {value:g} after epoch {rows[-1]['epoch']:.0f} of {run_dir}:"
                " try a lower --learning_rate in another --run_dir"
            )
    lines = [",".join(rows[0])]
    lines += [",".join(map(_text, row.values())) for row in rows]
    runs.write_atomically(run_dir / METRICS, "\n".join(lines) + "\n")


def _text(value: float) -> str:
    return f"{value:.9g}" if value % 1 else f"{value:.0f}"
