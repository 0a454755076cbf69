# SPDX-License-Identifier: Apache-2.0
"""Cuts marks of several touching digits where the network reads the pieces best.

We draw more lines through a mark than there are digits, have the network read what
lies between any two of them, and choose the lines whose pieces it is surest of, taken
together: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
section V (heuristic over-segmentation).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from photos import strokes
from photos.components import Mark

# uint8 images [N, 28, 28] → probabilities float32 [N, classes].
Classify = Callable[[np.ndarray], np.ndarray]

# A mark → its image in MNIST's form, uint8 [28, 28].
Normalise = Callable[[Mark], np.ndarray]


class Line(NamedTuple):
    """A line through a mark, slanted as handwriting is."""

    slant: float  # pixels to the right for each pixel upwards
    place: float  # column at half the mark's height
    crossed: int  # number of strokes that it crosses
    ink: int  # pixels of ink on it


_NARROWEST_PAIR = 0.7  # width over height: narrower marks are one digit, …
_WIDEST_ROW = 12.0  # … and wider ones a line
_SURE_PROBABILITY = 0.95  # a mark that is read so well is one digit


def read(marks: Iterable[Mark], normalise: Normalise, classify: Classify) -> np.ndarray:
    """The network's probabilities of one mark or more: float32 [N, classes]."""
    return classify(np.stack([normalise(mark) for mark in marks]))


def cut(marks: Sequence[Mark], normalise: Normalise, classify: Classify) -> list[Mark]:
    """Cuts the marks that the network reads better in pieces.

    Args:
      marks: digits, some of which touch.
      normalise: brings a mark to MNIST's form, uint8 [28, 28].
      classify: the network.
    """
    wide = [m for m in marks if _NARROWEST_PAIR <= m.width / m.height <= _WIDEST_ROW]
    if not wide:
        return list(marks)
    sure = read(wide, normalise, classify).max(1)
    pieces = {
        id(mark): _best_pieces(mark, normalise, classify)
        for mark, probability in zip(wide, sure)
        if probability < _SURE_PROBABILITY
    }
    return [piece for mark in marks for piece in pieces.get(id(mark), [mark])]


def _best_pieces(mark: Mark, normalise: Normalise, classify: Classify) -> list[Mark]:
    """The pieces of least cost that together make up the mark: a shortest path."""
    ends: list[Line | None] = [None, *lines(mark), None]  # None: the mark's own ends
    pieces = _pieces(mark, ends)
    probabilities = read(pieces.values(), normalise, classify).max(1)
    costs = {
        (i, j): _cost(piece, mark, float(probability), (ends[i], ends[j]))
        for ((i, j), piece), probability in zip(pieces.items(), probabilities)
    }
    # For each end, the least cost of all ink to its left, and the pieces of that.
    best: list[tuple[float, list[Mark]]] = [(0.0, [])]
    for j in range(1, len(ends)):
        ways = [
            (best[i][0] + costs[i, j], [*best[i][1], pieces[i, j]])
            for i in range(j)
            if (i, j) in costs
        ]
        best.append(min(ways, key=lambda way: way[0], default=(np.inf, [])))
    return best[-1][1]


_WIDEST_PIECE = 1.4  # width over height; wider ones are several digits
_LOW_PIECE_SHARE = 0.7  # of the mark's height: lower pieces count as so high


def _shape(piece: Mark, mark: Mark) -> float:
    """Width over height of a piece."""
    return piece.width / max(piece.height, _LOW_PIECE_SHARE * mark.height)


def _pieces(mark: Mark, ends: Sequence[Line | None]) -> dict[tuple[int, int], Mark]:
    """What lies between any two ends and may be a digit; always the whole mark."""
    last = len(ends) - 1
    pieces = {(0, last): mark}
    for i in range(last):
        for j in range(i + 1, last + 1):
            if (i, j) != (0, last):
                piece = _between(mark, ends[i], ends[j])
                if piece and _shape(piece, mark) <= _WIDEST_PIECE:
                    pieces[i, j] = piece
    return pieces


_WIDE_DIGIT = 0.9  # width over height; few digits of MNIST are wider
_WIDTH_COST = 4.0  # for each unit above it
_CROSSING_COSTS = (0.25, 0.5, 2.0, 3.0)  # by strokes that a line crosses: 0, 1, 2, more
_LEAST_PROBABILITY = 1e-3


def unlikeliness(probability: npt.ArrayLike) -> np.ndarray:
    """How unlikely it is that a mark is a digit, in nats, by the network's word.

    Of what is no digit, a network trained with --outliers says that all ten are equally
    likely. If it is a digit with probability d, the best one has d + (1 − d) / 10.
    """
    digit = (np.asarray(probability) - 0.1) / 0.9
    return -np.log(np.maximum(digit, _LEAST_PROBABILITY))


def _cost(
    piece: Mark, mark: Mark, probability: float, sides: Sequence[Line | None]
) -> float:
    """Cost of a piece, minus the log of how likely it is a digit.

    A line crosses one stroke where two digits touch, and two in the loop of one digit,
    so that costs more. Each line counts for half, as two pieces share it.
    """
    crossings = sum(
        _CROSSING_COSTS[min(line.crossed, len(_CROSSING_COSTS) - 1)] / 2
        for line in sides
        if line
    )
    too_wide = max(0.0, _shape(piece, mark) - _WIDE_DIGIT)
    return float(unlikeliness(probability)) + crossings + _WIDTH_COST * too_wide


_SLANTS = (-0.2, 0.0, 0.2, 0.4, 0.6)  # most people's digits lean to the right
_USUAL_SLANT = 0.2
_MOST_INK_SHARE = 0.5  # of the mark's height; more is a stroke along the line
_LINES_PER_HEIGHT = 12  # most lines in a width like the mark's height


def lines(mark: Mark) -> list[Line]:
    """Lines along which a mark may be cut, from left to right."""
    near = max(2, round(mark.stroke / 2))
    found = []
    for slant, place in (*_gaps(mark, near), *_valleys(mark.pixels)):
        on = _along(mark.pixels, slant, place)
        inside = near <= place < mark.width - near
        if inside and on.sum() <= _MOST_INK_SHARE * mark.height:
            crossed = int((np.diff(on, prepend=0) == 1).sum())
            found.append(Line(slant, place, crossed, int(on.sum())))
    # Of lines that nearly coincide, the one that crosses least.
    found.sort(key=lambda x: (x.crossed, x.ink, abs(x.slant - _USUAL_SLANT)))
    kept: list[Line] = []
    shares: set[int] = set()  # ink to the left of each line in a gap
    for line in found:
        if all(abs(line.place - other.place) >= near for other in kept):
            share = int(_left_of(mark, line).sum())
            if line.crossed or share not in shares:
                kept.append(line)
                shares.add(share)
    most = round(_LINES_PER_HEIGHT * max(1, mark.width / mark.height))
    return sorted(kept[:most], key=lambda line: line.place)


def _left_of(mark: Mark, line: Line) -> np.ndarray:
    """Whether each pixel of ink, in the order of `np.nonzero`, is left of a line."""
    y, x = np.nonzero(mark.pixels)
    return x - line.slant * ((mark.height - 1) / 2 - y) < line.place


def _gaps(mark: Mark, near: int) -> Iterator[tuple[float, float]]:
    """Slant and place of lines with no more ink than those near them."""
    y, x = np.nonzero(mark.pixels)
    up = (mark.height - 1) / 2 - y
    for slant in _SLANTS:
        places = np.rint(x - slant * up).astype(int)
        first = int(places.min())
        ink = np.bincount(places - first)
        for place in range(near, len(ink) - near):
            if ink[place] == ink[place - near : place + near + 1].min():
                yield slant, float(place + first)


_VALLEY_SHARE = 1 / 12  # of the height: the outline is lowest within so many columns


def _valleys(pixels: np.ndarray) -> Iterator[tuple[float, float]]:
    """Slant and place of lines from a valley of the upper outline to one of the lower.

    Where round digits touch, there is more ink than in the middle of each; but there,
    the outline dips.
    """
    height = len(pixels)
    near = max(1, round(_VALLEY_SHARE * height))
    above, below = (_deepest(side, near) for side in (pixels, pixels[::-1]))
    for upper_x, upper_y in above:
        for lower_x, depth in below:
            lower_y = height - 1 - depth
            slant = (upper_x - lower_x) / max(lower_y - upper_y, height / 4)
            if upper_y <= lower_y and _SLANTS[0] <= slant <= _SLANTS[-1]:
                middle = (upper_y + lower_y) / 2 - (height - 1) / 2
                yield slant, (upper_x + lower_x) / 2 + slant * middle


def _deepest(pixels: np.ndarray, near: int) -> list[tuple[float, int]]:
    """Column and row of the outline's valleys, seen from the top."""
    depth = np.where(pixels.any(0), pixels.argmax(0), len(pixels))
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(depth, near, constant_values=-1), 2 * near + 1
    )
    lowest = np.flatnonzero(depth == around.max(1))
    flat = np.split(lowest, np.flatnonzero(np.diff(lowest) > 1) + 1)
    return [(float(columns.mean()), int(depth[columns[0]])) for columns in flat]


def _along(pixels: np.ndarray, slant: float, place: float) -> np.ndarray:
    """The pixels on a line, from the top: 0 or 1, int [height]."""
    height, width = pixels.shape
    y = np.arange(height)
    x = np.rint(place + slant * ((height - 1) / 2 - y)).astype(int)
    inside = (x >= 0) & (x < width)
    on = np.zeros(height, int)
    on[inside] = pixels[y[inside], x[inside]]
    return on


_CRUMB_SHARE = 0.35  # of the piece's size; smaller parts are left over of a neighbour
_LOWEST_DIGIT_SHARE = 0.4  # of the mark's height


def _between(mark: Mark, left: Line | None, right: Line | None) -> Mark | None:
    """The ink between two lines, or the mark's ends; None if it is no digit's."""
    y, x = np.nonzero(mark.pixels)
    inside = np.ones(len(x), bool)
    if left:
        inside &= ~_left_of(mark, left)
    if right:
        inside &= _left_of(mark, right)
    pixels = np.zeros(mark.pixels.shape, np.uint8)
    pixels[y[inside], x[inside]] = 1
    count, labels, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    if count == 1:
        return None
    sizes = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1)
    kept = np.isin(labels, np.flatnonzero(sizes >= _CRUMB_SHARE * sizes.max()) + 1)
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    top, start = int(rows[0]), int(columns[0])
    kept = kept[top : rows[-1] + 1, start : columns[-1] + 1]
    if len(kept) < _LOWEST_DIGIT_SHARE * mark.height:
        return None
    stroke = strokes.stroke_width(kept)
    return Mark(mark.left + start, mark.top + top, kept, stroke)
