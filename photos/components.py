# SPDX-License-Identifier: Apache-2.0
"""Third stage of reading a page: connects ink to marks, and joins marks to digits."""

import dataclasses
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from photos import strokes
from system import errors


class PageError(errors.UserError):
    """A page with too many marks to be digits."""


@dataclasses.dataclass(eq=False)
class Mark:
    """Connected ink, or several such marks joined."""

    left: int  # of its box on the page, in pixels
    top: int
    pixels: np.ndarray  # bool [height, width], its ink in the box
    stroke: float  # width of its widest stroke, in pixels

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def size(self) -> int:
        """Longer side in pixels."""
        return max(self.pixels.shape)

    @property
    def digit_size(self) -> int:
        """The same of a digit in it: of several that touch, not their whole length."""
        return max(self.height, min(self.width, 2 * self.height))


_SMALLEST_MARK_PIXELS = 2  # longer side; a loose piece of the smallest digit
_MAX_MARKS = 5000  # more are noise or a printed picture
# Nested marks would take minutes and gigabytes. Of 124 photos, none needed more than
# 0.9 times the page and 51 million pixels.
_MAX_BOXES_AREA = 4  # times the page
_MAX_DISTANCE_PIXELS = 500_000_000


def find(mask: np.ndarray) -> list[Mark]:
    """Finds the connected ink of a page, uint8 [H, W] of 0 and 1, except for specks.

    Raises PageError for thousands of marks, or marks nested in one another.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = np.flatnonzero(stats[1:, 2:4].max(1) >= _SMALLEST_MARK_PIXELS) + 1
    if len(large) > _MAX_MARKS:
        raise PageError(
            f"{len(large):,} marks; expected a page of digits, at most {_MAX_MARKS:,}"
            " marks; photograph the digits alone, or more sharply"
        )
    if stats[large, 2:4].prod(1, dtype=np.int64).sum() > _MAX_BOXES_AREA * mask.size:
        raise _nested()
    marks = []
    for label in large:
        left, top, width, height = stats[label, :4].tolist()
        pixels = labels[top : top + height, left : left + width] == label
        marks.append(Mark(left, top, pixels, strokes.stroke_width(pixels)))
    return marks


def _nested() -> PageError:
    return PageError(
        "marks nested in one another; expected a page of digits; photograph the digits"
        " alone"
    )


def join(marks: Sequence[Mark]) -> list[Mark]:
    """Joins the marks that belong to one digit; PageError if marks are nested."""
    group = list(range(len(marks)))

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    measured = 0
    for _, i, j in neighbours(marks, _GAP_SHARE):
        measured += _area_around(marks[i], marks[j])
        if measured > _MAX_DISTANCE_PIXELS:
            raise _nested()
        if _belong_together(marks[i], marks[j]):
            group[root(j)] = root(i)
    members: dict[int, list[Mark]] = {}
    for i, mark in enumerate(marks):
        members.setdefault(root(i), []).append(mark)
    return [merged(together) for together in members.values()]


def _area_around(a: Mark, b: Mark) -> int:
    """Area of the box around two marks, in pixels."""
    width = max(a.right, b.right) - min(a.left, b.left)
    return width * (max(a.bottom, b.bottom) - min(a.top, b.top))


# One in 40 of MNIST's training digits is in several pieces; four of five loose pieces
# lie within this share of the digit's longer side.
_GAP_SHARE = 0.18


def neighbours(marks: Sequence[Mark], share: float) -> Iterator[tuple[float, int, int]]:
    """Yields the gap between two boxes, and their numbers, where they are near.

    Gaps are shares of the larger one's `digit_size`, up to this one.
    """
    boxes = np.array([(m.left, m.top, m.right, m.bottom) for m in marks]).reshape(-1, 4)
    sizes = np.array([mark.digit_size for mark in marks])
    for i, (left, top, right, bottom) in enumerate(boxes[:-1].tolist()):
        rest = boxes[i + 1 :]
        aside = np.maximum(rest[:, 0] - right, left - rest[:, 2])
        above = np.maximum(rest[:, 1] - bottom, top - rest[:, 3])
        gaps, larger = np.maximum(aside, above), np.maximum(sizes[i + 1 :], sizes[i])
        for j in np.flatnonzero(gaps <= share * larger):
            yield float(gaps[j] / larger[j]), i, i + 1 + int(j)


_CRUMB_SHARE = 0.1  # of the digit's longer side: so small a mark belongs to it
_FRAGMENT_SHARE = 0.6  # the same, if one pen drew both
_SAME_PEN_RATIO = 0.4  # of the thinner stroke to the thicker one
_HAIR_GAP_PIXELS = 1.5  # of paper between two strokes that touch, on a coarse picture
_SLENDEREST_HALVES = 2.0  # height over width; more are two digits of two rows


def _belong_together(a: Mark, b: Mark) -> bool:
    """Tells whether two marks are pieces of one digit."""
    if a.size < b.size:
        a, b = b, a
    thin, thick = sorted((a.stroke, b.stroke))
    gap = _distance(a, b)
    if gap > _GAP_SHARE * max(a.digit_size, b.digit_size):
        return False
    across = min(a.right, b.right) - max(a.left, b.left)
    down = min(a.bottom, b.bottom) - max(a.top, b.top)
    if min(across, down) > 0 and across * down >= b.height * b.width / 4:
        return True  # one lies in the other's box
    if b.size < _CRUMB_SHARE * a.size:
        return True
    if thin < _SAME_PEN_RATIO * thick:
        return False  # a small digit next to a large one
    if b.size < _FRAGMENT_SHARE * a.size or gap <= max(_HAIR_GAP_PIXELS, thin / 2):
        return True
    # Two halves, one above the other.
    height = max(a.bottom, b.bottom) - min(a.top, b.top)
    width = max(a.right, b.right) - min(a.left, b.left)
    overlap = across >= min(a.width, b.width) / 4
    return overlap and height <= _SLENDEREST_HALVES * width


def _distance(a: Mark, b: Mark) -> float:
    """Measures the paper between two marks, in pixels."""
    both = merged([a, b])
    paper = np.ones(both.pixels.shape, np.uint8)
    _draw(a, both, paper, 0)
    distances = cv2.distanceTransform(paper, cv2.DIST_L2, 5)
    top, left = b.top - both.top, b.left - both.left
    window = distances[top : top + b.height, left : left + b.width]
    return float(window[b.pixels].min()) - 1


def merged(marks: Sequence[Mark]) -> Mark:
    """One mark with the ink of several."""
    if len(marks) == 1:
        return marks[0]
    left, top = min(m.left for m in marks), min(m.top for m in marks)
    right, bottom = max(m.right for m in marks), max(m.bottom for m in marks)
    pixels = np.zeros((bottom - top, right - left), bool)
    merged = Mark(left, top, pixels, max(m.stroke for m in marks))
    for mark in marks:
        _draw(mark, merged, pixels, 1)
    return merged


def _draw(mark: Mark, frame: Mark, canvas: np.ndarray, value: int) -> None:
    """Sets the mark's pixels on a canvas that covers the frame's box."""
    top, left = mark.top - frame.top, mark.left - frame.left
    window = canvas[top : top + mark.height, left : left + mark.width]
    window[mark.pixels] = value
