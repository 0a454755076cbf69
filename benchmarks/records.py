# SPDX-License-Identifier: Apache-2.0
"""Draws error on MNIST's test digits against parameters and against training time.

    python -m benchmarks.records --plot=docs/records.png

Our points are the recipes of results/: the mean over their seeds at the planned last
step. So are those of others, where their logs have it: most print the best test epoch
of many, which takes 0.06 to 0.07 points of error off.
"""

if __name__ == "__main__":  # first, as the other imports take a while
    from system import console

    console.start()

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks import peers, results
from evaluation import figures
from system import cli, errors, files, flagfiles, untrusted

FLAGS = flags.FLAGS


class Record(NamedTuple):
    """Error of a network.

    Attributes:
      name: of the recipe or the author.
      error: mean over the seeds, in % of the test digits.
      spread: standard deviation; 0 if nobody says.
      seeds: number of seeds; 0 if nobody says.
      parameters: of the network; 0 if it is not known.
      seconds: of training; 0 if not measured on two cores.
      best_epoch: whether the epoch was chosen on the test set.
    """

    name: str
    error: float
    spread: float = 0.0
    seeds: int = 0
    parameters: int = 0
    seconds: float = 0.0
    best_epoch: bool = False


# Read in the logs and sources of each: docs/results.md says where.
PUBLISHED = (
    Record("Matuzas77", 0.2525, 0.028, 20, 1_190_000),
    Record("ttdoucet", 0.262, 0.031, 10, 4_730_000),
    Record("ansh941, M3", 0.301, 0.04, 30, 1_100_000),
    Record("cdeotte", 0.359, 0.047, 1500, 327_000),
    Record("small networks", 1.0, parameters=1_936, best_epoch=True),
    Record("", 0.52, parameters=7_784, best_epoch=True),
    Record("", 0.44, parameters=18_990, best_epoch=True),
    Record("", 0.46, parameters=19_898, best_epoch=True),
)


def scored(name: str) -> str:
    """The entry of result.json with a recipe's score.

    That is the score averaged over shifts, if the recipe's flagfile has --shifts.
    """
    path = peers.PROJECT / "flags" / f"{name}.flags"
    words = flagfiles.expand([f"--flagfile={path}"]) if path.exists() else []
    shifts = [word for word in words if word.startswith("--shifts=")]
    return f"test_shifts{shifts[-1].partition('=')[2]}" if shifts else "test"


def ours(folder: Path, names: Sequence[str]) -> list[Record]:
    """Reads the recipes of a folder, `results`, that have such names.

    Raises UserError if one has no result there.
    """
    found = []
    for name in names:
        paths = sorted(folder.glob(f"{name}-s*.json"))
        seeds = [untrusted.read_json(path) for path in paths]
        if not seeds:
            raise errors.UserError(f"{folder} has no results of {name}: train it first")
        entry = scored(name)
        scores = [seed[entry] for seed in seeds]
        wrong = [100 * of["errors"] / of["images"] for of in scores]
        # With one thread, the other core was busy with something else.
        times = [s["training_seconds"] for s in seeds if s["config"]["threads"] != 1]
        found.append(
            Record(
                name,
                statistics.mean(wrong),
                statistics.stdev(wrong) if len(wrong) > 1 else 0.0,
                len(wrong),
                seeds[0]["parameters"],
                statistics.median(times) if times else 0.0,
            )
        )
    return found


def examples(folder: Path) -> list[Record]:
    """Keras' and PyTorch's examples as benchmarks/accuracy.py trained them here."""
    trainings = results.read(folder)["accuracy"]["figures"]["trainings"]
    names = {"keras_convnet": "Keras' example", "pytorch_example": "PyTorch's example"}
    found = []
    for training in trainings:
        if training["peer"] in names and "epochs" in training:
            last = training["epochs"][-1]
            error = 100 * (1 - last["accuracy"])
            name = names[training["peer"]]
            found.append(Record(name, error, seeds=1, seconds=last["seconds"]))
    return found


def plot(own: Sequence[Record], others: Sequence[Record]) -> Figure:
    """Two panels with logarithmic axes: error against parameters, against seconds."""

    @figures.styled
    def draw() -> Figure:
        figure = Figure(figsize=(figures.WIDTH, 7.2), layout="constrained")
        by_size, by_time = figure.subplots(2, 1, sharey=True)
        _draw(by_size, own, others, "parameters")
        _draw(by_time, own, others, "seconds")
        by_size.set_xlabel("parameters")
        by_time.set_xlabel("seconds of training on two cores")
        for axes in (by_size, by_time):
            axes.set_ylabel("error on the test digits, %")
        figure.legend(*by_size.get_legend_handles_labels(), loc="outside upper center")
        return figure

    return draw()


# Where a label begins or ends, in points from its record.
_CORNERS = ((4, 4), (-4, 4), (4, -9), (-4, -9))


def _is_near(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether labels of two records, at (x, y), would overlap at the same corner."""
    across, along = (math.log10(a / b) for a, b in zip(one, other))
    return abs(across) < 0.3 and abs(along) < 0.03


_TICKS = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


def _draw(
    axes: Axes, own: Sequence[Record], others: Sequence[Record], attribute: str
) -> None:
    """Draws those whose number, an attribute, is known."""
    kinds = (
        ("ours, mean of the seeds", figures.BLUE, "o", own),
        (
            "others, the same",
            figures.ORANGE,
            "s",
            [o for o in others if not o.best_epoch],
        ),
        (
            "others, best test epoch",
            figures.GREY,
            "^",
            [o for o in others if o.best_epoch],
        ),
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    labelled: list[tuple[float, float, int]] = []  # x, y and which of `_CORNERS`
    for label, colour, marker, records in kinds:
        known = [record for record in records if getattr(record, attribute)]
        axes.errorbar(
            [getattr(record, attribute) for record in known],
            [record.error for record in known],
            [record.spread for record in known],
            fmt=marker,
            color=colour,
            label=label,
            markersize=5,
            capsize=2,
        )
        for record in known:
            x, y = getattr(record, attribute), record.error
            taken = {corner for *at, corner in labelled if _is_near((x, y), at)}
            corner = min({*range(len(_CORNERS))} - taken, default=0)
            labelled.append((x, y, corner))
            axes.annotate(
                record.name,
                (x, y),
                xytext=_CORNERS[corner],
                ha="left" if _CORNERS[corner][0] > 0 else "right",
                textcoords="offset points",
                fontsize=6.5,
                color=colour,
            )
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def main(_: list[str]) -> None:
    """Draws the recipes that the flags name."""
    own = ours(peers.PROJECT / "results", FLAGS.recipes)
    others = [*PUBLISHED, *examples(peers.PROJECT / "benchmarks")]
    files.write(Path(FLAGS.plot), figures.png(figures.raster(plot(own, others))))
    print(f"written to {FLAGS.plot}")


def define_flags() -> None:
    """Defines the flags."""
    cli.define_path("plot", None, "PNG file for the plot.", required=True)
    flags.DEFINE_list(
        "recipes",
        [
            *("lenet", "lenet_taught", "robust", "tiny8k", "tiny20k"),
            *("fast99", "fast995", "fast997", "compact", "best", "double_conv"),
        ],
        "Recipes of results/ to draw.",
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
