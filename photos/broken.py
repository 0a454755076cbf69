# SPDX-License-Identifier: Apache-2.0
"""Joins the pieces of broken strokes where the network reads them better as one digit.

`components.join` has joined what lies as near as the pieces of MNIST's own digits do. A
faint pen leaves wider gaps; there, the distance no longer tells pieces from neighbours,
and the network's word decides.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from photos import components
from photos.components import Mark
from photos.touching import Classify, unlikeliness

_SURE_PROBABILITY = 0.8  # a mark that is read so well is a digit, and two are two
_GAP_SHARE = 0.35  # of the longer side of the larger mark: farther apart, no pieces
_LEAST_GAIN = 1.0  # nats by which they must be read better together
_MOST_PAIRS = 1000  # the nearest ones of a page, each round
_MOST_ROUNDS = 4  # a digit in more than 16 pieces cannot be read


def join(
    marks: Sequence[Mark], normalise: Callable[[Mark], np.ndarray], classify: Classify
) -> list[Mark]:
    """Joins marks, two by two, that the network reads better together.

    The arguments are those of `touching.cut`.
    """
    found = list(marks)
    for _ in range(_MOST_ROUNDS):
        if len(found) < 2:
            break
        images = np.stack([normalise(mark) for mark in found])
        sure = classify(images).max(1)
        pairs = sorted(_pairs(found, sure))[:_MOST_PAIRS]
        if not pairs:
            break
        unions = [components.merged([found[i], found[j]]) for _, i, j in pairs]
        together = classify(np.stack([normalise(union) for union in unions])).max(1)
        costs = unlikeliness(sure)
        gains = [
            costs[i] + costs[j] - cost
            for (_, i, j), cost in zip(pairs, unlikeliness(together))
        ]
        used: set[int] = set()
        for k in np.argsort(gains)[::-1]:
            _, i, j = pairs[k]
            better = gains[k] > _LEAST_GAIN and together[k] >= _SURE_PROBABILITY
            if better and not used & {i, j}:
                used |= {i, j}
                found.append(unions[k])
        if not used:
            break
        found = [mark for i, mark in enumerate(found) if i not in used]
    return found


def _pairs(marks: Sequence[Mark], sure: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """Gap and numbers of two marks that may be pieces of one digit."""
    boxes = np.array([(m.left, m.top, m.right, m.bottom) for m in marks])
    sizes = np.array([mark.digit_size for mark in marks])
    for i, (left, top, right, bottom) in enumerate(boxes[:-1].tolist()):
        rest = boxes[i + 1 :]
        aside = np.maximum(rest[:, 0] - right, left - rest[:, 2])
        above = np.maximum(rest[:, 1] - bottom, top - rest[:, 3])
        gaps = np.maximum(aside, above) / np.maximum(sizes[i + 1 :], sizes[i])
        doubtful = np.minimum(sure[i + 1 :], sure[i]) < _SURE_PROBABILITY
        for k in np.flatnonzero(doubtful & (gaps <= _GAP_SHARE)):
            yield float(gaps[k]), i, i + 1 + int(k)
