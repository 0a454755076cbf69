# SPDX-License-Identifier: Apache-2.0
"""Precision against recall of each class, on axes that show the corner near 100 %.

TensorBoard's PR Curves tab has axes from 0 to 1, on which all curves of a good network
are one. It stays, as it compares runs and shows thresholds; this picture shows the
differences. Like `evaluation.figures`, this module loads matplotlib.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.figures import WIDTH, shorten, styled
from evaluation.scoring import Scores

MAX_CURVES = 10
# Where the axes may begin: at the last of these from which one sees all the curves.
AXES = (0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
ROOM = 2  # the worst curve's corner is as far from 100 % as this part of the axes


class Curve(NamedTuple):
    """Precision and recall of a class, as the threshold on its probability falls."""

    name: str
    precision: np.ndarray  # float64 [T]
    recall: np.ndarray  # float64 [T], rising to 1

    @property
    def corner(self) -> float:
        """The highest min(precision, recall): how near the curve comes to 1, 1."""
        return float(np.minimum(self.precision, self.recall).max())


def curve(name: str, probabilities: np.ndarray, positive: np.ndarray) -> Curve:
    """The curve of a class.

    Args:
      name: its name.
      probabilities: float [N], of this class.
      positive: bool [N], whether the image is of this class; true at least once.
    """
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities, hits = probabilities[order], np.cumsum(positive[order])
    # Images of one probability pass the threshold together.
    last = np.append(np.diff(sorted_probabilities) != 0, True)
    found = hits[last]
    return Curve(name, found / (np.flatnonzero(last) + 1), found / hits[-1])


def worst(scores: Scores) -> list[Curve]:
    """Curves of the classes that come least close to 100 %, the worst first.

    Classes without an image have no recall, and so no curve.
    """
    curves = [
        curve(
            scores.classes[label],
            scores.probabilities[:, label],
            scores.labels == label,
        )
        for label in np.unique(scores.labels)
    ]
    return sorted(curves, key=lambda curve: curve.corner)[:MAX_CURVES]


@styled
def draw(curves: Sequence[Curve]) -> Figure:
    """The curves, on axes that begin where the worst of them can be seen."""
    share = 1 - ROOM * (1 - min(curve.corner for curve in curves))
    low = next((start for start in AXES if start <= share), 0.0)
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    palette = matplotlib.colormaps["tab10"]
    for number, one in enumerate(curves):
        # The part in view, and one point on both sides.
        shown = np.flatnonzero((one.recall >= low) & (one.precision >= low))
        first, last = max(shown[0] - 1, 0), shown[-1] + 2
        axes.plot(
            one.recall[first:last],
            one.precision[first:last],
            label=shorten(one.name, 12),
            color=palette(number),
            linestyle=("-", "--")[number % 2],
            linewidth=1.4,
        )
    margin = 0.02 * (1 - low)
    axes.set(xlim=(low, 1 + margin), ylim=(low, 1 + margin))
    axes.set(xlabel="recall", ylabel="precision")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="worst first")
    return figure
