# SPDX-License-Identifier: Apache-2.0
"""The result of a finished run: on the console, in its directory, in TensorBoard."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import scoring
from system import errors, untrusted
from training import checkpoints, events, history, losses, runs, summaries

RESULT = "result.json"

# The flags of a run that scoring looks at, and how JSON gives them.
_NEEDED: dict[str, tuple[type, ...]] = {
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


def evaluate(
    run_dir: Path,
    predict: scoring.Predict,
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]],
    step: int | None = None,
) -> None:
    """Scores a run at its last checkpoint and stores all there is to say about it.

    Args:
      run_dir: gets result.json, predictions.npz, report.html and TensorBoard events.
      predict: of the network with the weights that are to be scored.
      scored: images uint8 [N, 28, 28, 1] and labels uint8 [N] by name; "test" is
        taken or, where the test set has no labels, "validation".
      step: of the checkpoint that the weights come from; None for the last.

    Raises:
      RunError: the run has no history, or its directory cannot be written.
    """
    # Load Jinja and plugins of TensorBoard: not when training begins.
    from evaluation import report, tensorboard

    run = runs.read_run(run_dir)
    config = run["config"]
    split = scored_split(scored)
    if step is None:
        step = max(checkpoints.steps(run_dir / checkpoints.FOLDER), default=0)
    columns = ("loss", "accuracy")
    needed = [f"{name}_{column}" for name in ("train", split) for column in columns]
    rows = epochs(run_dir, step, [*needed, "learning_rate"])
    images, labels = scored[split]
    scores = scoring.score(predict, images, labels, config["loss"])
    if not (np.isfinite(scores.probabilities).all() and np.isfinite(scores.loss)):
        raise runs.RunError(
            f"the network of {run_dir} gives no numbers for some {split} digits: train"
            " again with a lower --learning_rate in another --run_dir"
        )
    summary = scoring.summarise(scores)
    weights = predict.network.trainable_variables
    result = {
        split: summary,
        "parameters": sum(w.shape.num_elements() for w in weights),
        **_progress(config, rows, step),
        f"{split}_accuracy_by_epoch": [row[f"{split}_accuracy"] for row in rows],
        **run,
    }
    # In this order: what is finished has its predictions.
    scoring.write_predictions(run_dir, scores)
    runs.write_atomically(run_dir / RESULT, json.dumps(result, indent=1) + "\n")
    pictures = report.write(
        run_dir, split, result, rows, scores, images, predict.network
    )
    text = scoring.show(summary)
    summaries.write_score(
        run_dir,
        result["steps"],
        text,
        {**summary, "training_seconds": result["training_seconds"]},
        pictures,
        tensorboard.tabs(_trial(config), split, config, scores),
    )
    tensorboard.write_projector(
        run_dir / summaries.FINAL, scores, images, predict.network
    )
    print(text)
    print(run_dir / report.REPORT)


def _trial(config: Mapping[str, Any]) -> str:
    """Name of a run among all in HParams, wherever its directory is."""
    recipe = checkpoints.fingerprint(config)[:8]
    return f"{config['network']}-s{config['seed']}-{recipe}"


def _progress(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, float]], step: int
) -> dict[str, Any]:
    """How far a run had come at a checkpoint, and of which epoch its weights are.

    A run that was stopped within an epoch is scored within it: that epoch's number is
    that of `epochs`, the whole ones. The seconds are those of the whole ones, too.
    """
    best = max(rows, key=lambda row: row.get("validation_accuracy", 0))
    since_best = len(rows) - 1 - rows.index(best)
    last = int(rows[-1]["epoch"]) + (step > rows[-1]["step"])
    return {
        "epochs": len(rows),
        "steps": step,
        "finished": len(rows) == config["epochs"]
        or 0 < config["early_stopping"] <= since_best,
        "scored_epoch": int(best["epoch"]) if config["keep_best"] else last,
        "training_seconds": rows[-1]["seconds"],
    }


def finished(run_dir: Path) -> str:
    """Says that a run is trained to its end and scored there; "" unless it is."""
    try:
        result = untrusted.read_json(run_dir / RESULT)
        folder = run_dir / checkpoints.FOLDER
        step = max(checkpoints.steps(folder), default=0)
        last = epochs(run_dir, step)[-1]
        scoring.read_predictions(run_dir)
        if events.lost(run_dir, checkpoints.progress(folder, step)["events"]):
            return ""
        if not result["finished"] or not step == result["steps"] == last["step"]:
            return ""
        summary = result[scored_split(result)]
        return (
            f"{run_dir} is trained to its last step, {step:,}, and scored:"
            f" {summary['errors']:,} errors of {summary['images']:,}"
        )
    except (OSError, ValueError, LookupError, TypeError, errors.UserError):
        return ""  # whatever is missing, training says so or makes it again


def scored_split(scored: Iterable[str]) -> str:
    """Which of the sets that have labels a run's score is of."""
    return "test" if "test" in scored else "validation"


def read_config(run_dir: Path) -> dict[str, Any]:
    """The flags of a run, of which those that a score depends on have their types.

    Raises:
      RunError: there is no run, or its run.json is damaged.
    """
    config = runs.read_run(run_dir)["config"]
    for name, kinds in _NEEDED.items():
        if type(config.get(name)) not in kinds:
            raise runs.RunError(
                f"{run_dir / 'run.json'} is damaged, {name!r} is missing or of another"
                " kind: train again"
            )
    sound = {
        "loss": config["loss"] in losses.LOSSES,
        "weight_average": 0 <= config["weight_average"] < 1,
        **{name: config[name] > 0 for name in ("epochs", "batch_size")},
        **{name: config[name] >= 0 for name in ("early_stopping", "seed")},
        **{name: config[name] >= 0 for name in ("split_seed", "validation_size")},
    }
    for name in sound:
        if not sound[name]:
            raise runs.RunError(
                f"{run_dir / 'run.json'} is damaged, {name!r} is none there can be:"
                " train again"
            )
    return config


def epochs(
    run_dir: Path, step: int, needed: Iterable[str] = ()
) -> list[dict[str, float]]:
    """The epochs up to a checkpoint, of which there is one at least.

    Args:
      run_dir, step, needed: see `history.epochs`.

    Raises:
      RunError: there is none, so that the checkpoint is of a network which has learned
        next to nothing; one is lost; or metrics.csv is damaged.
    """
    rows = history.epochs(run_dir, step, needed)
    if not rows:
        # A run that was stopped within its first epoch has a checkpoint, too.
        lost = f", unless {history.METRICS} was lost: then put a copy back" * (step > 0)
        raise runs.RunError(
            f"{run_dir} has no epoch behind it yet: train it first{lost}"
        )
    return rows
