# SPDX-License-Identifier: Apache-2.0
"""Charts of a run: pure functions from arrays to matplotlib figures.

They are about five inches wide, which is legible on a phone, and can be printed in
grey. Loading this module loads matplotlib: import it where a chart is drawn, not at the
top of a file that train.py loads.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from evaluation import calibration

WIDTH = 4.8  # inches
DPI = 160  # of raster images

# Okabe and Ito's colours, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8f98"
SPLITS = {
    "train": ("training", GREY, "--", "o"),
    "validation": ("validation", ORANGE, "-", "s"),
    "test": ("test", BLUE, "-", "o"),
}

# Colours of everything that is not data, and what a page that is dark has instead.
INK, FRAME, TICKS, GRID = "#1b1b1b", "#555555", "#333333", "#e3e3e3"
IN_THE_DARK = {INK: "#e3e6ea", FRAME: "#8d96a0", TICKS: "#c3c9d0", GRID: "#30363d"}
IN_THE_DARK |= {"#0072b2": "#4aa3dd", "#d55e00": "#f0803c"}

STYLE: dict[Any, Any] = {
    "axes.edgecolor": FRAME,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",  # shipped with matplotlib
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "lenet-selu",  # makes the bytes reproducible
    "text.color": INK,
    "xtick.color": TICKS,
    "ytick.color": TICKS,
}
styled = matplotlib.rc_context(STYLE)

# The accuracy axis is −log(CEILING − accuracy); the bit above 1 makes room for 100 %.
ACCURACY_CEILING = 1.0005
ACCURACY_TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1)
LOG_SCALE_RATIO = 10  # largest to smallest value, from which a scale is logarithmic
# Smooth schedules end near 0, and a log scale would show little but that end. Three
# steps to a tenth stay above this share of the peak.
LOWEST_RATE_SHARE = 0.9e-3


@styled
def learning_curves(
    rows: Sequence[Mapping[str, float]], scored_epoch: float | None = None
) -> Figure:
    """Loss, accuracy and learning rate against the epoch; the scored one may be marked.

    Each row of metrics.csv has `<split>_loss` and `<split>_accuracy` of some `SPLITS`.
    """
    heights = [2.0, 2.3, 1.1]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    loss, accuracy, rate = panels
    _plot_splits(loss, accuracy, rows)
    epochs = [row["epoch"] for row in rows]
    rates = [row["learning_rate"] for row in rows]
    rate.plot(epochs, rates, ".-", color=INK, linewidth=1)
    log_if_wide(loss, ticks=(1, 2, 5))
    stretch_towards_one(accuracy)
    if not log_if_wide(rate, ticks=(1, 3), deepest=LOWEST_RATE_SHARE):
        rate.set_ylim(bottom=0)
    # Above the panel, where no curve can run through it.
    loss.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    for axes, name in zip(panels, ("loss", "accuracy", "learning rate"), strict=True):
        axes.set_ylabel(name)
        if scored_epoch is not None:
            axes.axvline(scored_epoch, color=INK, linewidth=0.8, linestyle=":")
    rate.set_xlabel("epoch")
    rate.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    rate.xaxis.set_major_locator(
        MaxNLocator(integer=True, steps=(1, 2, 5, 10), min_n_ticks=1)
    )
    return figure


def _plot_splits(
    loss: Axes, accuracy: Axes, rows: Sequence[Mapping[str, float]]
) -> None:
    for split, (label, colour, line, marker) in SPLITS.items():
        if f"{split}_loss" not in rows[0]:
            continue
        for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(
                [row["epoch"] for row in rows],
                [row[f"{split}_{metric}"] for row in rows],
                label=label,
                color=colour,
                linestyle=line,
                linewidth=1.5,
                marker=marker if len(rows) <= 20 else None,
                markersize=3.5,
            )


def log_if_wide(axes: Axes, ticks: Sequence[int], deepest: float = 0) -> bool:
    """Uses a log scale for curves that span a wide range; returns whether it does.

    Args:
      axes: panel with the curves.
      ticks: ticks in each decade, 1 to 9; over many decades only 1 is used.
      deepest: share of the largest value below which the smallest forbids a log scale.
    """
    values = _plotted(axes)
    least, largest = values.min(), values.max()
    wide = bool(least > deepest * largest and largest >= LOG_SCALE_RATIO * least)
    if wide:
        axes.set_yscale("log")
        ticks = ticks if largest < 300 * least else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=ticks, numticks=9))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    return wide


def _plotted(axes: Axes) -> np.ndarray:
    return np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])


def stretch_towards_one(axes: Axes) -> None:
    """An axis on which 90 %, 99 % and 99.9 % are equally far apart."""
    low, high = _plotted(axes).min(), _plotted(axes).max()
    low, high = (
        ACCURACY_CEILING - 1.2 * (ACCURACY_CEILING - low),
        ACCURACY_CEILING - (ACCURACY_CEILING - high) / 1.2,
    )
    axes.set_ylim(low, high)  # first, or the scale gets values above 1
    axes.set_yscale(
        "function",
        functions=(
            lambda a: -np.log10(ACCURACY_CEILING - a),
            lambda y: ACCURACY_CEILING - 10.0**-y,
        ),
    )
    ticks = [tick for tick in ACCURACY_TICKS if low <= tick <= high]
    axes.yaxis.set_major_locator(
        FixedLocator(ticks) if len(ticks) > 2 else MaxNLocator(4)
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda a, _: f"{100 * a:.4g} %")


@styled
def reliability(
    confidences: np.ndarray, correct: np.ndarray, bins: int = calibration.BINS
) -> Figure:
    """Accuracy against confidence in bins, above the number of images in each.

    Whiskers are 95 % Wilson intervals. Arguments: see `calibration.sort_into_bins`.
    """
    binned = calibration.sort_into_bins(confidences, correct, bins)
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[4.2, 1.4])
    _plot_reliability(upper, binned)
    error = calibration.expected_calibration_error(confidences, correct, bins)
    upper.set_title(
        f"expected calibration error {100 * error:.2f} %", loc="left", fontsize=9
    )
    middles = (binned.edges[:-1] + binned.edges[1:]) / 2
    lower.bar(middles, binned.counts, 0.9 / bins, color=GREY, log=True)
    for middle, count in zip(middles, binned.counts):
        if count:
            lower.text(middle, count * 1.25, str(count), ha="center", fontsize=6.5)
    lower.set(
        xlabel="confidence", ylabel="images", ylim=(0.7, 12 * binned.counts.max())
    )
    lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


def _plot_reliability(axes: Axes, binned: calibration.Bins) -> None:
    from evaluation import statistics  # loads scipy.stats, which takes seconds

    filled = binned.counts > 0
    counts, correct = binned.counts[filled], binned.correct[filled]
    accuracy = correct / counts
    ends = [statistics.share_interval(int(c), n) for c, n in zip(correct, counts)]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.errorbar(
        binned.confidence[filled] / counts,
        accuracy,
        # abs: rounding may put an end slightly on the wrong side of its point.
        yerr=np.abs(np.array(ends).T - accuracy),
        fmt="o",
        color=BLUE,
        ecolor="#7fb8d8",
        markersize=5,
        capsize=2,
    )
    axes.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


@styled
def confidence_histogram(confidences: np.ndarray, correct: np.ndarray) -> Figure:
    """Histogram of the confidence, apart for correct and wrong predictions."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, 26).tolist()
    for chosen, label, colour in (
        (correct, "correct", BLUE),
        (~correct, "wrong", ORANGE),
    ):
        axes.hist(
            confidences[chosen],
            edges,
            label=f"{label}: {chosen.sum():,}",
            color=matplotlib.colors.to_rgba(colour, 0.35),
            edgecolor=colour,
            histtype="stepfilled",
        )
    axes.set_yscale("log")
    axes.set(xlabel="confidence", ylabel="images", xlim=(0, 1), ylim=(0.7, None))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.legend(loc="upper left")
    return figure


def shorten(name: str, most: int = 8) -> str:
    """The name of a class, cut to what a picture has room for."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


@styled
def range_test(
    rates: np.ndarray,
    losses: np.ndarray,
    smooth: np.ndarray,
    suggestion: float | None,
    present: float,
) -> Figure:
    """Loss against learning rate, [N] each, with the suggested and the present rate."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color=GREY, markersize=2.5, label="one batch")
    axes.plot(rates, smooth, color=BLUE, label="smoothed")
    axes.set_xscale("log")
    marks = [(present, GREY, ":", "--learning_rate")]
    if suggestion:
        marks.append((suggestion, ORANGE, "--", "suggestion"))
    for rate, colour, line, name in marks:
        axes.axvline(rate, color=colour, linestyle=line, label=f"{name} {rate:.2g}")
    # A diverging loss would flatten all that comes before.
    axes.set_ylim(0, 1.3 * max(smooth[0], np.median(losses)))
    axes.set_xlabel("learning rate, growing step by step")
    axes.set_ylabel("training loss")
    axes.legend()
    return figure


def _lay_out(figure: Figure) -> None:
    """Lays a figure out for good: it takes as long as drawing it, and we draw twice."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


@styled
def svg(figure: Figure) -> bytes:
    """The figure as an SVG file without background, light or dark as its reader is.

    Its text is drawn as paths, so it needs no font.
    """
    content = io.BytesIO()
    _lay_out(figure)
    figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
    text = content.getvalue().decode()
    light, dark = "", ""
    for number, (ink, other) in enumerate(IN_THE_DARK.items()):
        text = text.replace(f": {ink}", f": var(--c{number})")  # in style attributes
        light, dark = f"{light}--c{number}:{ink};", f"{dark}--c{number}:{other};"
    rules = f":root{{{light}}}@media screen and (prefers-color-scheme:dark)"
    rules = f"<style>{rules}{{:root{{{dark}}}}}</style>"
    return text.replace("<defs>", f"{rules}<defs>", 1).encode()


@styled
def raster(figure: Figure) -> np.ndarray:
    """Pixels of the figure, uint8 [H, W, 3]."""
    figure.set_dpi(DPI)
    _lay_out(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(picture: np.ndarray) -> bytes:
    """A PNG file of pixels, uint8 [H, W] or [H, W, 3]."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture)[1].tobytes()
