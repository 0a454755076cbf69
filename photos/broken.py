# SPDX-License-Identifier: Apache-2.0
"""Joins the pieces of broken strokes where the network reads them better as one digit.

`components.join` has joined what lies as near as the pieces of MNIST's own digits do. A
faint pen leaves wider gaps; there, the distance no longer tells pieces from neighbours,
and the network's word decides.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from photos import components
from photos.components import Mark
from photos.touching import Classify, Normalise, read, unlikeliness

_SURE_PROBABILITY = 0.8  # two marks that are both read so well are two digits
_GAP_SHARE = 0.8  # of the longer side of the larger mark: farther apart, no pieces
_LEAST_PROBABILITY = 0.5  # of what is joined: more likely than not, it is a digit
_LEAST_GAIN = 0.6  # nats by which they must be read better together
_SMALLEST_DIGIT, _LARGEST_DIGIT = 0.5, 2.0  # of the usual digit of the page
_LEAST_PIECE = 0.2  # of the digit; smaller ones are flecks, or joined already
_MOST_PIECES = 4  # of a digit
_MOST_GROUPS = 1000  # of a page


def join(marks: Sequence[Mark], normalise: Normalise, classify: Classify) -> list[Mark]:
    """Joins marks that the network reads better together.

    The arguments are those of `touching.cut`.
    """
    if len(marks) < 2:
        return list(marks)
    sure = read(marks, normalise, classify).max(1)
    usual = [m.digit_size for m, p in zip(marks, sure) if p >= _SURE_PROBABILITY]
    unions = {
        group: components.merged([marks[i] for i in group])
        for group in _groups(_pairs(marks, sure))
    }
    size = float(np.median(usual)) if usual else 0.0
    unions = {
        group: union
        for group, union in unions.items()
        if _SMALLEST_DIGIT * size <= union.size <= _LARGEST_DIGIT * size
        and min(marks[i].size for i in group) >= _LEAST_PIECE * union.size
    }
    if not unions:
        return list(marks)
    together = read(unions.values(), normalise, classify).max(1)
    costs = unlikeliness(sure)
    gains = [
        sum(costs[i] for i in group) - cost
        for group, cost in zip(unions, unlikeliness(together))
    ]
    used: set[int] = set()
    joined = []
    groups = list(unions)
    for k in np.argsort(gains)[::-1]:
        better = gains[k] > _LEAST_GAIN and together[k] >= _LEAST_PROBABILITY
        if better and not used & groups[k]:
            used |= groups[k]
            joined.append(unions[groups[k]])
    return [mark for i, mark in enumerate(marks) if i not in used] + joined


def _groups(pairs: Iterable[tuple[float, int, int]]) -> list[frozenset[int]]:
    """Groups of up to `_MOST_PIECES` marks that hang together, nearest pairs first."""
    near: dict[int, list[int]] = {}
    found: dict[frozenset[int], None] = {}
    for _, i, j in sorted(pairs):
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)
        found[frozenset((i, j))] = None
    groups = list(found)
    for _ in range(_MOST_PIECES - 2):
        groups = [
            group | {k}
            for group in groups
            for i in group
            for k in near[i]
            if k not in group
        ]
        found |= dict.fromkeys(groups)
        if len(found) > _MOST_GROUPS:
            break
    return list(found)[:_MOST_GROUPS]


def _pairs(marks: Sequence[Mark], sure: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """Gap and numbers of two marks that may be pieces of one digit."""
    for gap, i, j in components.neighbours(marks, _GAP_SHARE):
        if min(sure[i], sure[j]) < _SURE_PROBABILITY:
            yield gap, i, j
