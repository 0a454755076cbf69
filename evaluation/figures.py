# SPDX-License-Identifier: Apache-2.0
"""Pictures of a finished run: pure functions of arrays → matplotlib figures.

Figures are as wide as a phone shows them legibly, about five inches, and keep their
meaning in grey. Loading this module loads matplotlib: import it where a picture is
drawn, not at the top of a file that train.py loads.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from evaluation import calibration, intervals

WIDTH = 4.8  # inches
DPI = 160  # of pictures made of pixels

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8f98"
SPLITS = {
    "train": ("training", GREY, "--", "o"),
    "validation": ("validation", ORANGE, "-", "s"),
    "test": ("test", BLUE, "-", "o"),
}

STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "lenet-selu",  # the same picture, the same bytes
    "xtick.color": "#333333",
    "ytick.color": "#333333",
}
styled = matplotlib.rc_context(STYLE)

# Accuracies near 100 % are what matters and would share one pixel on an even scale.
# The little more than 1 leaves room for an accuracy of exactly 1.
_CEILING = 1.0005
_ACCURACY_TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1)
WIDE = 10  # a curve whose ends differ by this factor is drawn on a log scale
# A rate below this share of its peak is meant for 0, where smooth schedules end: a log
# scale would be about that end alone. Three steps to a tenth are still above it.
ZERO = 0.9e-3

MOST_FILTERS = 64
MOST_MAPS = 16
MOST_WORST = 24
TILE = 84  # screen pixels of a tile's side in a mosaic
GAP = 6  # screen pixels between two tiles


@styled
def learning_curves(
    rows: Sequence[Mapping[str, float]], scored_epoch: float | None = None
) -> Figure:
    """Loss, accuracy and learning rate against the epoch.

    Args:
      rows: of metrics.csv, at least one; `<split>_loss` and `<split>_accuracy` of
        the splits in `SPLITS` that are there.
      scored_epoch: gets a vertical line, if given.
    """
    heights = [2.0, 2.3, 1.1]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    epochs = [row["epoch"] for row in rows]
    loss, accuracy, rate = panels
    for split, (label, colour, line, marker) in SPLITS.items():
        if f"{split}_loss" not in rows[0]:
            continue
        for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(
                epochs,
                [row[f"{split}_{metric}"] for row in rows],
                label=label,
                color=colour,
                linestyle=line,
                linewidth=1.5,
                marker=marker if len(rows) <= 20 else None,
                markersize=3.5,
            )
    rate.plot(epochs, [row["learning_rate"] for row in rows], "k.-", linewidth=1)
    _log_if_wide(loss, ticks=(1, 2, 5))
    _stretch_towards_one(accuracy)
    if not _log_if_wide(rate, ticks=(1, 3), deepest=ZERO):
        rate.set_ylim(bottom=0)
    # Above the panel, where no curve can run through it.
    loss.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    for axes, name in zip(panels, ("loss", "accuracy", "learning rate"), strict=True):
        axes.set_ylabel(name)
        if scored_epoch is not None:
            axes.axvline(scored_epoch, color="black", linewidth=0.8, linestyle=":")
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    panels[-1].xaxis.set_major_locator(
        MaxNLocator(integer=True, steps=(1, 2, 5, 10), min_n_ticks=1)
    )
    return figure


def _log_if_wide(axes: Axes, ticks: Sequence[int], deepest: float = 0) -> bool:
    """A log scale for curves that fall far.

    Args:
      axes: with the curves.
      ticks: in each decade, from 1 to 9; over many decades 1 alone.
      deepest: share of the largest value that the least must exceed.

    Returns:
      Whether the scale is a log one now.
    """
    values = _plotted(axes)
    least, largest = values.min(), values.max()
    wide = bool(least > deepest * largest and largest >= WIDE * least)
    if wide:
        axes.set_yscale("log")
        ticks = ticks if largest < 300 * least else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=ticks, numticks=9))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    return wide


def _plotted(axes: Axes) -> np.ndarray:
    return np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])


def _stretch_towards_one(axes: Axes) -> None:
    """An axis on which 90 %, 99 % and 99.9 % are equally far apart."""
    low, high = _plotted(axes).min(), _plotted(axes).max()
    low, high = _CEILING - 1.2 * (_CEILING - low), _CEILING - (_CEILING - high) / 1.2
    axes.set_ylim(low, high)  # first, or the scale is asked for values above 1
    axes.set_yscale(
        "function",
        functions=(lambda a: -np.log10(_CEILING - a), lambda y: _CEILING - 10.0**-y),
    )
    ticks = [tick for tick in _ACCURACY_TICKS if low <= tick <= high]
    axes.yaxis.set_major_locator(
        FixedLocator(ticks) if len(ticks) > 2 else MaxNLocator(4)
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda a, _: f"{100 * a:.4g} %")


@styled
def confusion_matrix(matrix: np.ndarray) -> Figure:
    """Counts by true class (rows) and read class, coloured by errors alone.

    The diagonal, a hundred times the rest, is grey: as a colour it would drown them.

    Args:
      matrix: integers [C, C].
    """
    classes = len(matrix)
    diagonal = np.eye(classes, dtype=bool)
    errors = np.where(diagonal, 0, matrix)
    norm = Normalize(0, max(errors.max(), 1))
    colours = matplotlib.colormaps["YlOrRd"](norm(errors))
    colours[errors == 0] = matplotlib.colors.to_rgba("#f7f7f7")
    colours[diagonal] = matplotlib.colors.to_rgba("#d9dce1")
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(colours, edgecolors="white", linewidth=1)
    axes.set(aspect="equal", xlabel="read as", ylabel="true digit")
    axes.set_xticks(np.arange(classes) + 0.5, map(str, range(classes)))
    axes.set_yticks(np.arange(classes) + 0.5, map(str, range(classes)))
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (true, read), count in np.ndenumerate(matrix):
        if count:
            dark = colours[true, read, :3].mean() < 0.5
            axes.text(
                read + 0.5,
                true + 0.5,
                str(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontsize=9 if true != read else 8,
                fontweight="bold" if true != read else "normal",
            )
    return figure


@styled
def reliability(
    confidences: np.ndarray, hits: np.ndarray, bins: int = calibration.BINS
) -> Figure:
    """Accuracy against confidence, bin by bin, above the number of answers in each.

    Args as of `calibration.sort_into_bins`. The whiskers are Wilson intervals of 95 %.
    """
    found = calibration.sort_into_bins(confidences, hits, bins)
    there = found.counts > 0
    counts = found.counts[there]
    accuracy, confidence = found.hits[there] / counts, found.confidence[there] / counts
    ends = np.array(
        [intervals.share_interval(int(h), n) for h, n in zip(found.hits[there], counts)]
    )
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[4.2, 1.4])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    upper.errorbar(
        confidence,
        accuracy,
        # Rounding may put an end on the wrong side of its point by a hair.
        yerr=np.abs(ends.T - accuracy),
        fmt="o",
        color=BLUE,
        ecolor="#7fb8d8",
        markersize=5,
        capsize=2,
    )
    upper.set(ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    error = calibration.expected_calibration_error(confidences, hits, bins)
    upper.set_title(
        f"expected calibration error {100 * error:.2f} %", loc="left", fontsize=9
    )
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, 1 / bins
    lower.bar(middles, found.counts, 0.9 * width, color=GREY, log=True)
    for middle, count in zip(middles[there], counts):
        lower.text(middle, count * 1.25, str(count), ha="center", fontsize=6.5)
    lower.set(xlabel="confidence", ylabel="digits", ylim=(0.7, 12 * counts.max()))
    lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


@styled
def confidence_histogram(confidences: np.ndarray, hits: np.ndarray) -> Figure:
    """How sure the network was where it was right, and where it was wrong.

    Args as of `calibration.sort_into_bins`.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, 26).tolist()
    for chosen, label, colour in ((hits, "right", BLUE), (~hits, "wrong", ORANGE)):
        axes.hist(
            confidences[chosen],
            edges,
            label=f"{label}: {chosen.sum():,}",
            color=matplotlib.colors.to_rgba(colour, 0.35),
            edgecolor=colour,
            histtype="stepfilled",
        )
    axes.set_yscale("log")
    axes.set(xlabel="confidence", ylabel="digits", xlim=(0, 1), ylim=(0.7, None))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.legend(loc="upper left")
    return figure


@styled
def filters(kernel: np.ndarray) -> Figure:
    """The weights of a first layer's units, red above 0 and blue below.

    Args:
      kernel: float [h, w, 1, units] of a convolution, or [784, units] of a dense
        layer, of which each unit is drawn as the image that it looks for. The first
        `MOST_FILTERS` are drawn.
    """
    if kernel.ndim == 2:
        kernel = kernel.reshape(28, 28, 1, -1)
    tiles = kernel[:, :, 0, :MOST_FILTERS].transpose(2, 0, 1)  # [units, h, w]
    columns = 8 if len(tiles) > 12 else min(len(tiles), 4)
    tiles = np.concatenate(  # white tiles fill the last row up
        [tiles, np.full((-len(tiles) % columns, *tiles.shape[1:]), np.nan)]
    )
    colours = _diverging(np.nanmax(np.abs(tiles)))
    picture = _mosaic(_paint(tiles, colours), columns)
    figure, axes = _picture(picture, WIDTH, bar=0.7)
    axes.set_axis_off()
    figure.colorbar(colours, ax=axes, location="bottom", label="weight", aspect=40)
    return figure


@styled
def feature_maps(images: np.ndarray, maps: np.ndarray) -> Figure:
    """What a first layer makes of a few digits.

    Args:
      images: uint8 [N, 28, 28, 1].
      maps: float [N, h, w, C], of which the first `MOST_MAPS` are drawn, in a row
        behind their digit; or [N, units] of a dense layer, of which the first
        `MOST_FILTERS` make one picture below their digit, in rows of eight.
    """
    dense = maps.ndim == 2
    if dense:
        units = maps[:, :MOST_FILTERS]
        units = np.pad(units, [(0, 0), (0, -units.shape[1] % 8)])
        maps = units.reshape(len(maps), -1, 8, 1)
    maps = maps[..., :MOST_MAPS].transpose(0, 3, 1, 2)  # [N, C, h, w]
    colours = _diverging(np.abs(maps).max())
    painted = _paint(maps, colours)
    ink = np.repeat(255 - images, 3, axis=-1)  # [N, 28, 28, 3]
    tiles = np.array(
        [
            [_tile(image), *(_tile(tile) for tile in row)]
            for image, row in zip(ink, painted, strict=True)
        ]
    )  # [N, 1 + C, TILE, TILE, 3]
    if dense:
        tiles = tiles.swapaxes(0, 1)
    columns = tiles.shape[1]
    picture = _mosaic(tiles.reshape(-1, *tiles.shape[2:]), columns)
    figure, axes = _picture(picture, max(WIDTH, 0.55 * columns), bar=1.15)
    axes.set_yticks([])
    axes.set_xticks([])
    if not dense:
        axes.xaxis.tick_top()
        middles = (np.arange(columns) + 0.5) * (TILE + GAP)
        axes.set_xticks(middles, ["digit", *map(str, range(1, columns))])
    figure.colorbar(colours, ax=axes, location="bottom", label="output", aspect=40)
    return figure


@styled
def worst_errors(
    images: np.ndarray, captions: Sequence[str], columns: int = 6
) -> Figure:
    """Misread digits with a caption below each, the first `MOST_WORST`.

    Args:
      images: uint8 [N, 28, 28, 1], at least one.
      captions: N.
      columns: digits in a row.
    """
    count = min(len(images), MOST_WORST)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.1 * columns, 1.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images[:count], captions):
        axes.imshow(255 - image[..., 0], cmap="gray", vmin=0, vmax=255)
        axes.text(14, 29, caption, ha="center", va="top", fontsize=8)
    return figure


def _diverging(limit: float) -> ScalarMappable:
    """White at 0, red up to `limit`, blue down to −`limit`; NaN is white too."""
    limit = limit or 1  # where all is 0, a scale from 0 to 0 has no middle
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="white")
    return ScalarMappable(Normalize(-limit, limit), colours)


def _paint(values: np.ndarray, colours: ScalarMappable) -> np.ndarray:
    """Float [...] → uint8 [..., 3]."""
    # Not colours.to_rgba, which takes [N, 3, 3] for a picture in colour.
    return np.asarray(colours.cmap(colours.norm(values), bytes=True))[..., :3]


def _tile(tile: np.ndarray) -> np.ndarray:
    """Enlarges uint8 [h, w, 3] to a tile's size, its pixels staying sharp."""
    return cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_NEAREST)


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Lays uint8 [N, h, w, 3] out in rows with white gaps: uint8 [H, W, 3]."""
    large = np.array([_tile(tile) for tile in tiles])
    gaps = [(0, 0), (GAP // 2, GAP // 2), (GAP // 2, GAP // 2), (0, 0)]
    framed = np.pad(large, gaps, constant_values=255)
    side = TILE + GAP
    grid = framed.reshape(-1, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, columns * side, 3)


def _picture(picture: np.ndarray, width: float, bar: float) -> tuple[Figure, Axes]:
    """A figure that shows uint8 [H, W, 3], with `bar` inches more for a colour bar."""
    height = width * picture.shape[0] / picture.shape[1] + bar
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure, axes


@styled
def svg(figure: Figure) -> bytes:
    """The figure as an SVG file whose letters are drawn, so that it needs no font."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


@styled
def raster(figure: Figure) -> np.ndarray:
    """The figure as pixels, uint8 [H, W, 3]."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(picture: np.ndarray) -> bytes:
    """Pixels, uint8 [H, W] or [H, W, 3], as a PNG file."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture)[1].tobytes()
