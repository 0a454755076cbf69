# SPDX-License-Identifier: Apache-2.0
"""temperature.json: makes the probabilities of a run as true as held-out digits allow.

All logits are divided by one number, the temperature, which keeps the order of the
classes, and so every answer. It is the one with the least negative log-likelihood on
digits that the network was not trained on: Guo, Pleiss, Sun and Weinberger, "On
Calibration of Modern Neural Networks", 2017. A run that was trained on all digits has
none such; its temperature is fitted on a sibling, a run of the same recipe that held
digits out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import data
from evaluation import calibration, result, scoring, trained
from evaluation.trained import TrainedRun
from system import console
from training import history, runs

# Settings in which a sibling may differ.
FREE = ("seed", "validation_size", "split_seed")
# Misclassified digits keep a temperature up. Where one was, of 200, it made the NLL of
# other digits worse.
FEW_ERRORS = 10


def calibrate(run_dir: Path, sibling_dir: Path, data_dir: str | None) -> None:
    """Fits a temperature on the held-out digits of a sibling, and stores it in a run.

    Args:
      run_dir: run directory; it gets temperature.json.
      sibling_dir: directory of a run of the same recipe, or of the same run.
      data_dir: folder of the data; None: where it is found.

    Raises:
      UserError: one of them is no run or damaged, the recipes differ, the sibling is
        unfinished or held no digits out, or no temperature is the best.
    """
    run = trained.load(run_dir, calibrated=False)
    sibling = trained.load(sibling_dir, calibrated=False)
    _check_siblings(run, sibling)
    dataset = trained.load_data((run, sibling), data_dir)
    found = {"temperature": None, "step": run.step, **fit(sibling, dataset)}
    text = json.dumps(found, indent=1) + "\n"
    runs.write_atomically(run_dir / trained.TEMPERATURE_FILE, text)
    fitted = found["fitted_on"]
    print(
        f"temperature {found['temperature']:.4f}, fitted on {fitted['images']:,}"
        f" held-out digits of {fitted['run']}: NLL {fitted['nll_before']:.4f} →"
        f" {fitted['nll_after']:.4f}, calibration error"
        f" {fitted['calibration_error_before']:.2%} →"
        f" {fitted['calibration_error_after']:.2%}"
    )
    if fitted["errors"] < FEW_ERRORS:
        console.warn(
            f"{fitted['errors']} of these digits are misclassified, and below"
            f" {FEW_ERRORS} a temperature is a guess: hold more digits out"
        )


def fit(run: TrainedRun, dataset: data.Dataset) -> dict[str, Any]:
    """Fits a temperature on the digits that a run held out: entries for JSON."""
    config = run.config
    held_out = data.scored(dataset, config.validation_size, config.split_seed)
    if "validation" not in held_out:
        raise runs.RunError(_no_held_out(run, dataset))
    images, labels = held_out["validation"]
    logits = scoring.predict_all(scoring.Predict(run.network), images)
    if not np.isfinite(logits).all():
        raise runs.RunError(
            f"the network of {run.directory} gives NaN or infinity for some digits:"
            " train again with a lower --learning_rate in another --run_dir"
        )
    temperature = calibration.fit_temperature(logits, labels)
    wrong = int((logits.argmax(1) != labels).sum())
    if temperature is None:
        raise runs.RunError(
            f"no temperature fits the {len(labels):,} held-out digits of"
            f" {run.directory} best, of which {wrong:,} are misclassified: train it"
            " with a larger --validation_size in another --run_dir"
        )
    fitted: dict[str, Any] = {"run": run.directory.absolute().name}
    fitted |= {"seed": config.seed, "step": run.step}
    fitted |= {"images": len(labels), "errors": wrong}
    for name, value in (("before", 1.0), ("after", temperature)):
        probabilities = tf.nn.softmax(logits / np.float32(value)).numpy()
        correct = probabilities.argmax(1) == labels
        fitted[f"nll_{name}"] = calibration.mean_nll(logits, labels, value)
        fitted[f"calibration_error_{name}"] = calibration.expected_calibration_error(
            probabilities.max(1), correct
        )
    return {"temperature": temperature, "fitted_on": fitted}


def _no_held_out(run: TrainedRun, dataset: data.Dataset) -> str:
    # Not a name that begins like the run's: --ensemble RUN* should not take it in.
    sibling = run.directory.parent / f"held-out-{run.directory.absolute().name}"
    command = console.command(
        "train.py",
        f"--flagfile={run.directory / runs.FLAGS}",
        f"--validation_size={len(dataset.train_labels) // 10}",
        f"--run_dir={sibling}",
    )
    return (
        f"{run.directory} held no digits out to fit a temperature on: train a sibling"
        f" that does, by {command}, and give --calibrate={sibling}"
    )


def _check_siblings(run: TrainedRun, sibling: TrainedRun) -> None:
    """Raises RunError unless both are of one recipe and the sibling is finished."""
    if run.directory.resolve() == sibling.directory.resolve():
        return
    both = f"{run.directory} and {sibling.directory}"
    here, there = (
        {**one.config.deciding(), **dict.fromkeys(runs.TAKEN), **runs.taken(one.record)}
        for one in (run, sibling)
    )
    machine = run.record.get("chosen", {}) | sibling.record.get("chosen", {})
    for name in sorted(here.keys() - set(FREE) - machine.keys()):
        if here[name] != there[name]:
            raise runs.RunError(
                f"{both} are of different recipes, --{name}={here[name]} and"
                f" {there[name]}: give --calibrate a run that differs in"
                f" {', '.join(FREE[:-1])} and {FREE[-1]} only"
            )
    rows = history.some_epochs(sibling.directory, sibling.step)
    if not result.is_finished(sibling.config, rows):
        raise runs.RunError(
            f"{sibling.directory} is unfinished, and its probabilities are others than"
            f" at the end: resume it by {runs.resume_command(sibling.directory)}"
        )
