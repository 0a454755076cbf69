# SPDX-License-Identifier: Apache-2.0
"""A comparison of runs as a page: their curves, tables and tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from evaluation import page
from evaluation.comparison import Comparison, Table
from evaluation.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    WIDTH,
    log_if_wide,
    shorten,
    stretch_towards_one,
    styled,
)
from system import files
from training import history, runs

TEMPLATE = "comparison.html.j2"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9", GREY)  # of recipes


def write(path: Path, comparison: Comparison) -> None:
    """Writes the page.

    Raises:
      RunError: the metrics.csv of a run is damaged or lost.
      UserError: the file cannot be written.
    """
    groups = comparison.groups
    split = next(iter(groups.values()))[0].split
    curves = {
        name: [_rows(run.directory, split) for run in members]
        for name, members in groups.items()
    }
    content = page.render(
        TEMPLATE,
        split=split,
        names=list(groups),
        runs=sum(map(len, groups.values())),
        parts=[(isinstance(part, Table), part) for part in comparison.parts],
        curves=page.svg_uri(draw_curves(curves, split)),
    )
    # The user chose this name, so it may be a link.
    files.write(path, content.encode(), follow=True)


def _rows(run_dir: Path, split: str) -> list[dict[str, float]]:
    """Rows of a run's metrics.csv, with the split's columns."""
    rows = history.read(run_dir)
    needed = {"images", f"{split}_loss", f"{split}_accuracy"}
    if not rows or not needed <= rows[0].keys():
        raise runs.RunError(
            f"{run_dir / history.METRICS} has no {split} curves to draw: put the run's"
            " own file back, or leave --report out"
        )
    return rows


@styled
def draw_curves(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], split: str
) -> Figure:
    """Loss and accuracy on a split against the images seen: a colour for each recipe.

    `runs` has, by the name of their recipe, the rows of metrics.csv of some runs.
    """
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    loss, accuracy = figure.subplots(2, sharex=True)
    for number, (name, recipe) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = "-" if number < len(COLOURS) else "--"
        for seed, rows in enumerate(recipe):
            images = [row["images"] for row in rows]
            for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
                values = [row[f"{split}_{metric}"] for row in rows]
                label = None if seed else shorten(name, 40)
                axes.plot(
                    *(images, values, line),
                    **{"color": colour, "linewidth": 1, "label": label},
                    marker="." if len(rows) == 1 else None,  # one epoch is a point
                )
    log_if_wide(loss, ticks=(1, 2, 5))
    stretch_towards_one(accuracy)
    loss.set_ylabel(f"{split} loss")
    accuracy.set_ylabel(f"{split} accuracy")
    accuracy.set_xlabel("images seen")
    accuracy.xaxis.set_major_formatter(EngFormatter(sep=""))
    loss.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return figure
