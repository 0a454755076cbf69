# SPDX-License-Identifier: Apache-2.0
"""Finds the handwritten digits of a page and brings each to MNIST's form.

The stages: `paper` divides out the paper, `strokes` tells ink from noise, `rules`
erases ruled lines, `components` connects the ink to marks. Then a network's word
decides: `broken` joins the pieces of a digit, `touching` cuts marks of several. Here
we choose the marks that are digits, put them into rows and normalise them. Arrays in,
arrays out.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from data.normalise import normalise
from photos import broken, components, paper, rules, strokes, touching
from photos.components import Mark


@dataclasses.dataclass(frozen=True)
class Digit:
    """A digit of a page."""

    row: int  # place in reading order, counted from 1
    column: int
    box: tuple[int, int, int, int]  # left, top, width, height in pixels of the page
    image: np.ndarray  # uint8 [28, 28] in MNIST's form
    probabilities: np.ndarray | None = None  # float32 [classes], by the network


def find(
    grey: np.ndarray,
    ink: str = "auto",
    classify: touching.Classify | None = None,
    least: float = 0.0,
) -> list[Digit]:
    """Finds the digits of a page, uint8 [H, W], 0 black, 255 white, in reading order.

    A digit of MNIST, given as a page of its own, comes out as it went in, except for
    its faintest pixels: of 1,000 test digits, half differ by less than 0.5 grey levels
    on average, and 98 % by less than 8 (tests/test_segment.py).

    Args:
      grey: the page.
      ink: a name in `paper.INKS`.
      classify: a network. With it, digits that touch are cut, the pieces of broken ones
        joined, and what it takes for no digit is left out.
      least: the least probability of a digit, by the network.

    Raises:
      PageError: there are thousands of marks, or marks nested in one another.
    """
    darkness = _lift_ink(grey, ink)

    def normalise(mark: Mark) -> np.ndarray:
        return _normalised(mark, darkness)

    marks, thickest = _find_marks(darkness)
    marks = _without_edges(marks, grey.shape)
    if not classify:
        marks = _without_dashes(marks)
        return _in_order(_like_the_others(marks, marks, thickest), normalise)
    marks = broken.join(marks, normalise, classify)
    read = _read(marks, normalise, classify)
    marks = _like_the_others(marks, _sure(marks, read), thickest)
    marks = _without_dashes(touching.cut(marks, normalise, classify))
    read = _read(marks, normalise, classify)
    marks = [mark for mark in marks if read[id(mark)].max() >= least]
    marks = _like_the_others(marks, _sure(marks, read), thickest)
    return _in_order(marks, normalise, read)


def _read(
    marks: Sequence[Mark],
    normalise: touching.Normalise,
    classify: touching.Classify,
) -> dict[int, np.ndarray]:
    """The network's probabilities of each mark, by the mark's id."""
    if not marks:
        return {}
    probabilities = touching.read(marks, normalise, classify)
    return {id(mark): each for mark, each in zip(marks, probabilities)}


_SURE_PROBABILITY = 0.8  # the marks that the network reads so show the usual size


def _sure(marks: Sequence[Mark], read: Mapping[int, np.ndarray]) -> list[Mark]:
    return [mark for mark in marks if read[id(mark)].max() >= _SURE_PROBABILITY]


def _in_order(
    marks: Sequence[Mark],
    normalise: touching.Normalise,
    probabilities: Mapping[int, np.ndarray] | None = None,
) -> list[Digit]:
    """Digits in reading order, with the probabilities of each mark's id."""
    return [
        Digit(
            row,
            column,
            (mark.left, mark.top, mark.width, mark.height),
            normalise(mark),
            probabilities[id(mark)] if probabilities else None,
        )
        for row, in_row in enumerate(_rows(marks), 1)
        for column, mark in enumerate(in_row, 1)
    ]


_MOST_INK_SHARE = 0.4  # of the page; more is the paper, taken for ink


def _lift_ink(grey: np.ndarray, ink: str) -> np.ndarray:
    """Divides the paper out; where ink covers the page, of the other polarity."""
    if ink != "auto":
        return _darkness(grey, ink)
    ink = paper.polarity(grey)
    darkness = _darkness(grey, ink)
    share = strokes.threshold(darkness).mean()
    if share > _MOST_INK_SHARE:
        other = _darkness(grey, "light" if ink == "dark" else "dark")
        if strokes.threshold(other).mean() < share:
            return other
    return darkness


_REACH_STROKES = 3  # reach of the paper's second estimate, in widest strokes
_LONGEST_REACH_SHARE = 0.12  # of the page's longer side; beyond, one estimate must do


def _darkness(grey: np.ndarray, ink: str) -> np.ndarray:
    """Divides the paper out twice: the strokes' width helps to follow shadows."""
    darkness = paper.lift_ink(grey, ink)
    reach = _REACH_STROKES * strokes.widest_stroke(darkness)
    if 0 < reach < _LONGEST_REACH_SHARE * max(grey.shape):
        darkness = paper.lift_ink(grey, ink, reach)
    return darkness


# If ruled lines are left over, we raise the threshold until they vanish.
_RAISED_THRESHOLD_FACTORS = 1.5, 2.2, 3.3


class Found(NamedTuple):
    """What is on a page, at some threshold."""

    digits: list[Mark]
    rules: list[Mark]  # ruled lines that were not erased
    thickest: float  # of the erased ones, in pixels; 0 if there is none


def _find_marks(darkness: np.ndarray) -> tuple[list[Mark], float]:
    """Finds the marks that are digits, in no order, and the thickest erased rule."""
    found = _at_threshold(darkness)
    for factor in _RAISED_THRESHOLD_FACTORS:
        if not found.rules:
            break
        other = _at_threshold(darkness, factor)
        if len(other.rules) < len(found.rules):
            found = other
    # A rule with nothing else on the page is a digit as large as the page.
    return found.digits or list(filter(_is_digit, found.rules)), found.thickest


def _at_threshold(darkness: np.ndarray, factor: float = 1) -> Found:
    """What is on a page; the factor raises the threshold of faint ink."""
    mask = strokes.threshold(darkness, factor)
    thickest = rules.erase_rules(mask)
    # Erased lines leave splinters at the strokes that they meet.
    marks = [m for m in components.find(mask) if m.stroke >= thickest / 2]
    # Before joining, so that no line becomes part of a digit next to it; and after it.
    marks, ruled = _split_rules(_without_dots(marks), darkness.shape)
    marks, joined = _split_rules(components.join(marks), darkness.shape)
    return Found(list(filter(_is_digit, marks)), ruled + joined, thickest)


def _split_rules(
    marks: Sequence[Mark], page: tuple[int, ...]
) -> tuple[list[Mark], list[Mark]]:
    others: list[Mark] = []
    ruled: list[Mark] = []
    for mark in marks:
        is_rule = rules.is_rule(mark.pixels, mark.stroke, page)
        (ruled if is_rule else others).append(mark)
    return others, ruled


_DOT_SLENDERNESS = 2.0  # longer side over stroke; dots of dotted paper have less
_DOT_SHARE = 0.25  # of the longer side of most digits; dots are smaller
_DOTS_PER_MARK = 3  # of dotted paper, at least


def _without_dots(marks: list[Mark]) -> list[Mark]:
    """Leaves out the dots of dotted paper."""
    long = [mark.size for mark in marks if mark.size >= _DOT_SLENDERNESS * mark.stroke]
    largest = _DOT_SHARE * float(np.median(long)) if long else 0
    others = [m for m in marks if m.size >= min(_DOT_SLENDERNESS * m.stroke, largest)]
    return others if len(marks) > (1 + _DOTS_PER_MARK) * len(others) else marks


_SMALLEST_DIGIT_PIXELS = 8  # longer side
_BLOT_SLENDERNESS = 1.6  # longer side over stroke; blots have less
_WIDEST_DIGIT = 3.0  # width over height; dashes have more
_HAIR_SLENDERNESS = 200  # longer side over stroke; hairs and edges have more
_LARGE_DIGIT_PIXELS = 400  # longer side; smaller marks are no hairs


_MOST_HOLES = 3  # in a width like the height; digits that are crossed out have more
_HOLE_SHARE = 0.08  # of the longer side


def _is_digit(mark: Mark) -> bool:
    """Tells whether a mark is no speck, blot, hair or digit that is crossed out."""
    most_holes = _MOST_HOLES * max(1, mark.width / mark.height)
    return (
        mark.size >= _SMALLEST_DIGIT_PIXELS
        and mark.size >= _BLOT_SLENDERNESS * mark.stroke
        and mark.size <= max(_LARGE_DIGIT_PIXELS, _HAIR_SLENDERNESS * mark.stroke)
        and strokes.count_holes(mark.pixels, _HOLE_SHARE) <= most_holes
    )


def _without_dashes(marks: Sequence[Mark]) -> list[Mark]:
    return [mark for mark in marks if mark.width <= _WIDEST_DIGIT * mark.height]


_MARGIN_SHARE = 0.05  # of the page's shorter side: nobody writes so near the border
_EDGE_PIECES = 3  # of a broken edge, at least; a lone 1 may be near the border


def _without_edges(marks: list[Mark], page: Sequence[int]) -> list[Mark]:
    """Leaves out the edges of a sheet or a book: several lines along a border."""
    height, width = page
    margin = _MARGIN_SHARE * min(height, width)
    lean = [mark for mark in marks if strokes.is_lean(mark.pixels, mark.stroke)]
    upright = [mark for mark in lean if mark.height > mark.width]
    level = [mark for mark in lean if mark.height < mark.width]
    along = (
        [mark for mark in upright if mark.right <= margin],
        [mark for mark in upright if mark.left >= width - margin],
        [mark for mark in level if mark.bottom <= margin],
        [mark for mark in level if mark.top >= height - margin],
    )
    edges = {id(m) for border in along if len(border) >= _EDGE_PIECES for m in border}
    return [mark for mark in marks if id(mark) not in edges]


# Shares of what is usual among the digits of a page.
_FLECK_SIZE = 0.4  # smaller marks may be flecks, …
_FLECK_SLENDERNESS = 0.45  # … as a digit of any size is as slender as others
_SPECK_SIZE = 0.08  # so small marks are
_REMNANT_STROKE = 0.5  # a straight line by so fine a pen may be left of a rule, …
_REMNANT_RATIO = 1.5  # … if rules as thick, or nearly so, were erased


def _like_the_others(
    marks: list[Mark], digits: list[Mark], thickest: float
) -> list[Mark]:
    """Leaves out what is no digit beside these digits: flecks, remnants of rules.

    `thickest` is the thickness of the thickest rule that was erased, in pixels.

    A pen draws small and large digits with one stroke, and people write digits of one
    size. So a fleck is much smaller than the digits, but of as wide a stroke; where a
    small digit is drawn by a finer pen, it is as slender as the others.
    """
    if not digits:
        return marks
    sizes = [mark.size for mark in digits]
    size = _weighted_median(sizes, sizes)
    stroke = _weighted_median([mark.stroke for mark in digits], sizes)
    slenderness = _weighted_median([mark.size / mark.stroke for mark in digits], sizes)

    def is_fleck(mark: Mark) -> bool:
        small = mark.size < _FLECK_SIZE * size
        wide = mark.size < _FLECK_SLENDERNESS * slenderness * mark.stroke
        return small and wide or mark.size < _SPECK_SIZE * size

    def is_remnant(mark: Mark) -> bool:
        limit = min(_REMNANT_STROKE * stroke, _REMNANT_RATIO * thickest)
        fine = mark.stroke <= limit
        longer = mark.size > slenderness * mark.stroke
        return fine and longer and strokes.is_lean(mark.pixels, mark.stroke)

    return [mark for mark in marks if not (is_fleck(mark) or is_remnant(mark))]


def _weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The value that half of the weight lies below."""
    order = np.argsort(values)
    sums = np.cumsum(np.asarray(weights, float)[order])
    return float(np.asarray(values)[order][np.searchsorted(sums, sums[-1] / 2)])


def _rows(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Puts digits into rows, which may slope and hold digits of all sizes.

    From left to right, each digit goes after the last one of the row with which it
    shares most height: at least half the height of the less tall of the two.
    """
    rows: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda m: m.left + m.right):
        shares = [_shared_height(row[-1], mark) for row in rows]
        if shares and max(shares) >= 0.5:
            rows[int(np.argmax(shares))].append(mark)
        else:
            rows.append([mark])
    return sorted(rows, key=lambda row: float(np.mean([m.top + m.bottom for m in row])))


def _shared_height(a: Mark, b: Mark) -> float:
    return (min(a.bottom, b.bottom) - max(a.top, b.top)) / min(a.height, b.height)


# A thin stroke would vanish at 20 pixels, where those of MNIST are 2 to 4 wide. Both
# are shares of the digit's longer side.
_THIN_STROKE_SHARE = 1 / 14
_THICKENED_STROKE_SHARE = 1 / 10


def _normalised(mark: Mark, darkness: np.ndarray) -> np.ndarray:
    """Brings a digit to MNIST's form, uint8 [28, 28], its ink as dark as MNIST's."""
    window = np.s_[mark.top : mark.bottom, mark.left : mark.right]
    ink = np.where(mark.pixels, darkness[window], 0)
    thin = mark.stroke < _THIN_STROKE_SHARE * mark.size
    if thin and mark.size > _LARGE_DIGIT_PIXELS:
        # Shrunk first, as thickening a large digit takes long.
        width, height = (
            max(1, side * _LARGE_DIGIT_PIXELS // mark.size)
            for side in (mark.width, mark.height)
        )
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    full = float(np.percentile(ink[ink > 0], 90))
    ink = np.minimum(ink * (255 / full), 255).round().astype(np.uint8)
    if thin:
        scale = max(ink.shape) / mark.size
        grow = round((_THICKENED_STROKE_SHARE * mark.size - mark.stroke) * scale)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
        ink = cv2.dilate(np.pad(ink, grow), kernel)
    return normalise(ink)
