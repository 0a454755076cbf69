# SPDX-License-Identifier: Apache-2.0
"""--find_rate: the loss while the learning rate grows, drawn, with a suggestion.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3, with a
rate that grows exponentially: as many steps for each factor of ten.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

import data
from system import errors, files
from training import sets, teachers, trial, weights

STEPS = 400
LOWEST_RATE, HIGHEST_RATE = 1e-6, 10.0
DIVERGED = 4.0  # times the lowest loss so far, both smoothed
DECAY = 0.9  # of the average that notices divergence
STEPS_EACH_SIDE = 10  # of the average that is drawn
SAFETY = 10.0  # the suggestion is so many times below the rate of the lowest loss
SUFFIXES = (".png", ".svg")


def run(config: Any, path: str, make_train_steps: trial.MakeTrainSteps) -> None:
    """Trains with growing rates, draws the losses, and prints a suggestion.

    Args:
      config: settings of a run, a `config.Config`; nothing is written to its directory.
      path: picture to write; the losses go to a CSV file next to it.
      make_train_steps: see `trial`.

    Raises:
      UserError: the files cannot be written, or whatever a run is refused for.
    """
    picture, table = Path(path), Path(path).with_suffix(".csv")
    if picture.suffix not in SUFFIXES:
        raise errors.UsageError(
            f"--find_rate={path}: expected the name of a {' or '.join(SUFFIXES)} file"
        )
    for output in (picture, table):
        files.check_writable(output, "find_rate")
    config = trial.settled(config).config
    losses = measure(config, make_train_steps)
    tried, smooth = rates(config)[: len(losses)], smoothed(losses)
    suggestion = suggest(tried, smooth)
    print(describe(tried, suggestion))
    if not len(losses):
        return
    rows = (map("{:.6g}".format, row) for row in zip(tried, losses, smooth))
    lines = ["learning_rate,loss,smoothed_loss", *map(",".join, rows), ""]
    files.write(table, "\n".join(lines), follow=True)
    _draw(picture, tried, losses, smooth, suggestion, config.learning_rate)
    print(picture, table, sep="\n")


def _draw(picture: Path, *curves: Any) -> None:
    from evaluation import figures  # loads matplotlib

    figure = figures.range_test(*curves)
    as_svg = picture.suffix == ".svg"
    drawn = figures.svg(figure) if as_svg else figures.png(figures.raster(figure))
    files.write(picture, drawn, follow=True)


def rates(config: Any) -> np.ndarray:
    """Learning rates of the steps, float64 [STEPS]; weight decay may lower the last."""
    highest = HIGHEST_RATE
    if config.weight_decay:  # a step must leave something of each kernel
        highest = min(highest, 0.5 / config.weight_decay)
    return np.geomspace(LOWEST_RATE, highest, STEPS)


def measure(config: Any, make_train_steps: trial.MakeTrainSteps) -> np.ndarray:
    """Loss of each step before the weights diverge, float64 [up to STEPS]."""
    run_dir = Path(config.run_dir)
    start = weights.start(run_dir, config)
    dataset = data.load_for(config, config.data_dir)
    first = start or weights.whitened(config, dataset)
    known = teachers.load(run_dir, config, dataset.classes)
    data_sets = sets.load(dataset, config)
    teach = teachers.build(config, known, data_sets)
    # The schedule plateau multiplies the rate by a variable, which we assign.
    config = dataclasses.replace(config, schedule="plateau", learning_rate=1.0)
    found: list[float] = []
    average = lowest = 0.0
    with sets.feed(data_sets, config, STEPS) as feed:
        images, labels, _ = feed.at(0)
        classes = len(dataset.classes)
        given = (config, images, labels, classes, make_train_steps, first, teach)
        tried = trial.begin(*given)
        for step, rate in enumerate(rates(config)):
            tried.state.watch.factor.assign(rate)
            images, labels, _ = feed.at(step)
            loss = float(tried.steps(step, 1, True, images, labels).loss)
            average += (1 - DECAY) * (loss - average)
            unbiased = average / (1 - DECAY ** (step + 1))
            lowest = min(lowest, unbiased) if step else unbiased
            if not math.isfinite(loss) or unbiased > DIVERGED * lowest:
                break
            found.append(loss)
    return np.array(found)


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Mean of each loss and its neighbours, `STEPS_EACH_SIDE` before and after."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    places = np.arange(len(losses))
    first = np.maximum(0, places - STEPS_EACH_SIDE)
    end = np.minimum(len(losses), places + STEPS_EACH_SIDE + 1)
    return (sums[end] - sums[first]) / (end - first)


def suggest(tried: np.ndarray, smooth: np.ndarray) -> float | None:
    """A tenth of the rate of the lowest loss; None if the loss has hardly fallen.

    That factor is a habit of practitioners (Gugger, "How Do You Find A Good Learning
    Rate", 2018), not a result: the loss is lowest where rates begin to be too high.
    """
    if not len(smooth) or smooth.min() > 0.95 * smooth[0]:
        return None
    return float(tried[smooth.argmin()]) / SAFETY


def describe(tried: np.ndarray, suggestion: float | None) -> str:
    """Sentences on what was found."""
    diverged = len(tried) < STEPS
    end = f"; the loss diverged at {tried[-1]:.2g}" if diverged and len(tried) else ""
    if suggestion is None:
        return f"no suggestion: the loss has hardly fallen at any rate{end}"
    return (
        f"suggestion: --learning_rate={suggestion:.1g}, a tenth of"
        f" {suggestion * SAFETY:.2g}, where the smoothed loss was lowest; a schedule"
        f" that peaks, such as one_cycle, may do with more, up to that{end}"
    )
