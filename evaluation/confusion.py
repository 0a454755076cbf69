# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix as a picture, of any number of classes.

Like `evaluation.figures`, this module loads matplotlib.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from evaluation.figures import WIDTH, shorten, styled

MAX_LABELLED = 30  # classes whose names and counts have room
MAX_CELLS = 250  # on a side
GAP, INK = "#ffffff", "#000000"  # on cells, which are as light on a dark page


@styled
def draw(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts [C, C] by true class (rows) and predicted class, coloured by errors alone.

    The diagonal is grey: its counts are a hundred times larger. Up to `MAX_LABELLED`
    classes have their names, and their counts; more have numbers on the axes.
    """
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    axes.set(aspect="equal", xlabel="predicted", ylabel="true")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(matrix) > MAX_LABELLED:
        axes.set(xlabel="number of the predicted class", ylabel="of the true class")
        axes.imshow(_colours(_coarse(matrix)), extent=(0, len(matrix), len(matrix), 0))
        return figure
    colours = _colours(matrix)
    axes.pcolormesh(colours, edgecolors=GAP, linewidth=1)
    size = min(9, 150 / len(matrix))
    short = [shorten(name) for name in names]
    ticks, upright = np.arange(len(matrix)) + 0.5, max(map(len, short)) > 2
    axes.set_xticks(ticks, short, fontsize=size, rotation=90 if upright else 0)
    axes.set_yticks(ticks, short, fontsize=size)
    axes.invert_yaxis()
    for (true, predicted), count in np.ndenumerate(matrix):
        if count:
            wrong = true != predicted
            dark = colours[true, predicted, :3].mean() < 0.5
            axes.text(
                predicted + 0.5,
                true + 0.5,
                str(count),
                ha="center",
                va="center",
                color="#ffffff" if dark else INK,
                fontsize=size if wrong else 0.9 * size,
                fontweight="bold" if wrong else "normal",
            )
    return figure


def _colours(matrix: np.ndarray) -> np.ndarray:
    """Colours of a confusion matrix [C, C]: float [C, C, 4]."""
    diagonal = np.eye(len(matrix), dtype=bool)
    errors = np.where(diagonal, 0, matrix)
    colours = matplotlib.colormaps["YlOrRd"](Normalize(0, max(errors.max(), 1))(errors))
    colours[errors == 0] = matplotlib.colors.to_rgba("#f7f7f7")
    colours[diagonal] = matplotlib.colors.to_rgba("#d9dce1")
    return colours


def _coarse(matrix: np.ndarray) -> np.ndarray:
    """Sums up blocks of a large matrix, so that no cell is smaller than a pixel."""
    block = -(-len(matrix) // MAX_CELLS)
    starts = np.arange(0, len(matrix), block)
    return np.add.reduceat(np.add.reduceat(matrix, starts, 0), starts, 1)
