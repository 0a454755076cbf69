# SPDX-License-Identifier: Apache-2.0
"""Result of a run: on the console, in the run directory, in TensorBoard."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data
from config import Config
from data import kaggle
from evaluation import combined, predictions, score_text, scoring, trained
from evaluation.trained import Scored, TrainedRun
from models import structure
from system import errors, untrusted
from training import checkpoints, events, history, runs, summaries

RESULT = "result.json"
UNREPORTED = "unreported"  # an empty file, there until the report of a score is


def evaluate(run: TrainedRun, scored: Scored) -> None:
    """Scores a run, stores the score and prints it, and then draws the report.

    The run directory gets predictions.npz, result.json, report.html and TensorBoard
    events, in this order. All of them are of the network as it was trained; result.json
    and the report have the figures with its temperature and averaged over shifts next
    to these. The report takes as long as a short training run, so the score does not
    wait for it. Until all of it is there, the run does not count as `finished`.

    Args:
      run: the run.
      scored: the digits; "test", or "validation" if the test set has no labels.

    Raises:
      RunError: the run has no history, gives no numbers, or cannot be written to.
    """
    split = scored_split(scored)
    columns = ("loss", "accuracy")
    needed = [f"{name}_{column}" for name in ("train", split) for column in columns]
    rows = history.some_epochs(run.directory, run.step, [*needed, "learning_rate"])
    scores = score(run, trained.as_trained(run), split, scored[split])
    others = {
        name: facts | scoring.figures(score(run, predict, split, scored[split]))
        for name, predict, facts in _other_ways(run, split)
    }
    result = _result(run, split, rows, scores, others)
    unreported = run.directory / UNREPORTED
    runs.write_atomically(unreported, "")
    # In this order, so that a result always has its predictions.
    predictions.write(run.directory, scores)
    runs.write_atomically(run.directory / RESULT, json.dumps(result, indent=1) + "\n")
    print(score_text.show(result[split]))
    for name, figures in score_text.ways(split, result)[1:]:
        print(f"{name}: {score_text.show_line(figures)}")
    sys.stdout.flush()  # it may be a pipe, which would wait for the report
    _publish(run, split, result, rows, scores, scored[split][0])
    unreported.unlink()


def score(
    run: TrainedRun,
    predict: scoring.Predict,
    split: str,
    digits: tuple[np.ndarray, np.ndarray],
) -> scoring.Scores:
    """Scores a network of a run on images and labels.

    Raises RunError, which names the split, if it gives NaN or infinity.
    """
    scores = scoring.score(predict, *digits, run.config.loss, classes=run.classes)
    if not (np.isfinite(scores.probabilities).all() and np.isfinite(scores.loss)):
        raise runs.RunError(
            f"the network of {run.directory} gives NaN or infinity for some {split}"
            " digits: train again with a lower --learning_rate in another --run_dir"
        )
    return scores


def _other_ways(
    run: TrainedRun, split: str
) -> Iterator[tuple[str, scoring.Predict, dict[str, Any]]]:
    """Other ways to use a run's network: entry of result.json, network, facts."""
    temperature = {"temperature": run.temperature} if run.temperature else {}
    if run.temperature:
        network = combined.Tempered(run.network, run.temperature)
        yield f"{split}_calibrated", scoring.Predict(network), temperature
    if run.shifts:
        facts = {"shifts": run.shifts, **temperature}
        yield f"{split}_shifts{run.shifts}", run.predict, facts


def submit(run: Any, dataset: data.Dataset, path: str) -> None:
    """Writes what a run or an ensemble predicts for the test digits as Kaggle wants it.

    Raises:
      UserError: the file cannot be written.
    """
    logits = scoring.predict_all(run.predict, dataset.test_images)
    kaggle.write_submission(path, logits.argmax(1), run.classes)
    print(path)


def _result(
    run: TrainedRun,
    split: str,
    rows: Sequence[Mapping[str, float]],
    scores: scoring.Scores,
    others: Mapping[str, Any],
) -> dict[str, Any]:
    """Contents of result.json."""
    weights = run.network.trainable_variables
    found = {
        split: scoring.summarise(scores),
        **others,
        "parameters": sum(w.shape.num_elements() for w in weights),
        **_progress(run.config, rows, run.step),
        f"{split}_accuracy_by_epoch": [row[f"{split}_accuracy"] for row in rows],
    }
    # Whatever run.json says of scores, these were computed.
    record = run.record.items()
    return found | {k: v for k, v in record if k not in found and not _scores(k)}


def _scores(name: str) -> bool:
    return name.startswith(("test", "validation"))


def _publish(
    run: TrainedRun,
    split: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    scores: scoring.Scores,
    images: np.ndarray,
) -> None:
    """Writes the report and TensorBoard's events."""
    # These load matplotlib, Jinja and TensorBoard's plugins: not before the score.
    from evaluation import activations, report, tensorboard

    network = run.network
    first, last = activations.compute(network, images, scores)
    layers = structure.layers(network)
    pictures = report.write(
        run.directory, split, result, rows, scores, images, first, layers
    )
    summaries.write_score(
        run.directory,
        result["steps"],
        score_text.show(result[split]),
        {**result[split], "training_seconds": result["training_seconds"]},
        pictures,
        tensorboard.tabs(_trial(run.config), split, run.config.deciding(), scores),
    )
    tensorboard.write_projector(run.directory / summaries.FINAL, scores, images, last)
    print(run.directory / report.REPORT)


def _trial(config: Config) -> str:
    """Name of a run in HParams, wherever its directory is."""
    recipe = checkpoints.fingerprint(config.chosen())[:6]
    return f"{config.network}-s{config.seed}-{recipe}"


def _progress(
    config: Config, rows: Sequence[Mapping[str, float]], step: int
) -> dict[str, Any]:
    """How far training had come at a checkpoint, and which epoch its weights are from.

    `epochs` and the seconds count complete epochs. A run that was stopped within an
    epoch is scored there, and `scored_epoch` is that epoch.
    """
    best = history.best_epoch(rows)
    last = int(rows[-1]["epoch"]) + (step > rows[-1]["step"])
    from_best = checkpoints.scored(config) == checkpoints.BEST
    return {
        "epochs": len(rows),
        "steps": step,
        "finished": is_finished(config, rows),
        "scored_epoch": best if from_best else last,
        "training_seconds": rows[-1]["seconds"],
    }


def is_finished(config: Config, rows: Sequence[Mapping[str, float]]) -> bool:
    """Whether training is over after these rows of metrics.csv."""
    stopped = history.stopped_early(rows, config.early_stopping)
    return len(rows) == config.epochs or stopped


def finished(run_dir: Path, config: Config) -> str:
    """What to say of a run that is scored at its last step, with its report; or "".

    Args:
      run_dir: run directory.
      config: settings of the run; it may have been scored with fewer epochs.
    """
    try:
        result = untrusted.read_json(run_dir / RESULT)
        folder = run_dir / checkpoints.FOLDER
        step = max(checkpoints.steps(folder), default=0)
        last = history.some_epochs(run_dir, step)[-1]
        predictions.read(run_dir)
        if (run_dir / UNREPORTED).exists():
            return ""  # interrupted while it drew the report
        if events.lost(run_dir, checkpoints.progress(folder, step)["events"]):
            return ""
        if not result["finished"] or not step == result["steps"] == last["step"]:
            return ""
        if result["config"]["epochs"] != config.epochs:
            return ""
        split = scored_split(result)
        if config.shifts and f"{split}_shifts{config.shifts}" not in result:
            return ""
        summary = result[split]
        return (
            f"{run_dir} is trained to its last step, {step:,}, and scored:"
            f" {summary['errors']:,} errors of {summary['images']:,}; to score it"
            f" again: {runs.score_command(run_dir, config.data_dir)}"
        )
    except (OSError, ValueError, LookupError, TypeError, errors.UserError):
        return ""  # training will report what is missing, or write it again


def scored_split(scored: Iterable[str]) -> str:
    """The split that is scored: "test" if it has labels, otherwise "validation"."""
    return "test" if "test" in scored else "validation"
