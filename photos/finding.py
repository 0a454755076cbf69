# SPDX-License-Identifier: Apache-2.0
"""Finds the handwritten digits of a page and brings each to MNIST's form.

Paper is what a page mostly is. Its brightness is estimated everywhere and divided out,
so that light may fall unevenly; what is darker than the paper's noise is ink; connected
ink is a part, and parts that lie close enough are one digit. Arrays in, arrays out.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from data.normalise import normalise
from system import errors

INKS = ("auto", "dark", "light")

# Of the page's copy on which the paper is estimated.
_SMALL = 256  # pixels, longer side
_WIDEST_STROKE = 0.25  # of the longer side: what is wider is taken for paper
_LIGHT = (0.08, 0.04, 0.04)  # of the longer side: deviations of the smoothing
# Shares of the ink's darkness, of its widest stroke and of the page's longer side:
# shadows are lighter than the first; where the strokes are known to be so narrow, the
# paper is estimated within so many of their widths.
_CORE, _REACH, _NARROW = 0.6, 3, 0.12

_BLACK = 16  # of 255
_SHADE = 0.5  # of the brightest around: what is darker is more ink than paper

# Of 255: at least so much darker than the paper is ink, whatever the noise.
_FAINTEST = 25
_NOISE = 5  # standard deviations of the paper that are still paper
_DARKEST_NOISE = 64
_FADING = 0.025  # of the page's longer side
# Shares of the page's darkest ink: a digit has some above the first, and goes on down
# to the second, or to the noise if that is more, but not above the third.
_SURE, _LEAST, _MOST = 0.35, 0.1, 0.3

_MOST_PARTS = 5000  # of a page of digits; noise or a printed picture has more
# Areas of all boxes over the page's, and pixels in which distances are measured: on
# 124 photos at most 0.9 and 51 million. Marks that lie in one another can have
# hundreds of times that, which takes minutes and gigabytes.
_MOST_BOXES, _MOST_DISTANCES = 4, 500_000_000
_SHORTEST = 8  # pixels, longer side of a digit
_DOT = 1.6  # longer side over stroke: less is a dot
# On dotted paper: a dot's longer side over its stroke, and over that of most digits, at
# most, and dots for each other part, at least.
_ROUND, _TINY, _DOTTED = 2.0, 0.25, 3
_DASH = 3.0  # width over height: more is a dash
_HAIR = 200  # longer side over stroke: more, of a large one, is a hair or an edge

# Parts of one digit. Measured on MNIST's training digits, of which one in 40 is in two
# parts or more: four of five loose parts lie within 0.18 of the digit's longer side.
_GAP = 0.18
_SIMILAR = 0.4  # ratio of two strokes by one pen
_FRAGMENT = 0.6  # longer side over the digit's: less is a fragment of it
_CRUMB = 0.1  # the same, whatever the stroke
_SLIM = 2.0  # height over width: two parts that are more are two digits of two rows

# Of a digit's longer side: a thinner stroke would vanish at 20 pixels, where MNIST's
# own have 2 to 4, and is made so wide.
_THIN, _THICKENED = 1 / 14, 1 / 10
_DRAWN = 400  # pixels, longer side of a digit when it is thickened

# A ruled line: share of the page that it spans across or up and down (where the one
# stroke of a 1 may be long), and its length over its thickness.
_RULED_ACROSS, _RULED_UP, _SLENDER = 0.5, 0.95, 25
_SEVERAL = 3  # lines that are no mere underlining
_BARE = 20  # percent of its length, at least, have no ink but the line's

# Ruled lines that were not erased hang together, over so much of the page's longer
# side; then thresholds that are higher by these factors are tried.
_SPANNED, _HIGHER = 0.3, (1, 1.5, 2.2, 3.3)
_HOLE, _MOST_HOLES = 0.02, 4  # side over the longer side of all; digits have two


class PageError(errors.UserError):
    """A page on which so much is found that it cannot be digits."""


@dataclasses.dataclass(frozen=True)
class Digit:
    """Attributes:
    row, column: place in reading order, counted from 1.
    box: left, top, width, height in pixels of the page.
    image: uint8 [28, 28] in MNIST's form.
    """

    row: int
    column: int
    box: tuple[int, int, int, int]
    image: np.ndarray


@dataclasses.dataclass(eq=False)
class _Part:
    """Connected ink: its box, its pixels in that (bool), its stroke where widest."""

    left: int
    top: int
    pixels: np.ndarray
    stroke: float

    @property
    def right(self) -> int:
        return self.left + self.pixels.shape[1]

    @property
    def bottom(self) -> int:
        return self.top + self.pixels.shape[0]

    @property
    def size(self) -> int:
        """Longer side in pixels."""
        return max(self.pixels.shape)


def find(grey: np.ndarray, ink: str = "auto") -> list[Digit]:
    """Finds the digits of a page.

    A digit of MNIST, given as a page of its own, comes out as it went in but for its
    faintest pixels: 0.3 grey levels on average in half of the first 1,000 test digits,
    below 8 in 98 % of them (tests/test_finding.py).

    Args:
      grey: uint8 [H, W], 0 black, 255 white.
      ink: a name in `INKS`: darker than the paper, lighter, or whichever there is.

    Returns:
      The digits in reading order: rows from the top, each from the left.

    Raises:
      PageError: there are thousands of marks.
    """
    darkness = lift_ink(grey, ink)
    reach = _REACH * _widest_stroke(darkness, _threshold(darkness))
    if 0 < reach < _NARROW * max(grey.shape):
        # Again, and now a shadow is paper even where it begins.
        darkness = lift_ink(grey, ink, reach)
    found = _find_parts(darkness)
    digits = []
    for number, row in enumerate(_rows(found), 1):
        for column, part in enumerate(row, 1):
            height, width = part.pixels.shape
            box = (part.left, part.top, width, height)
            digits.append(Digit(number, column, box, _normalised(part, darkness)))
    return digits


def _find_parts(darkness: np.ndarray) -> list[_Part]:
    """The digits of a page whose paper is divided out, in no order."""
    fewest: tuple[list[_Part], list[_Part]] | None = None
    for factor in _HIGHER:
        mask = _threshold(darkness, factor)
        across = _erase_rules(mask, _RULED_ACROSS)
        squared = len(across) >= _SEVERAL  # perhaps; then it is lines that go up, too
        up = _erase_rules(mask.T, _RULED_ACROSS if squared else _RULED_UP)
        ruled = max([0.0, *across, *up])
        # Of a line, splinters stay at the strokes that it meets.
        parts = _without_dots([p for p in _parts(mask) if p.stroke > ruled / 2])
        # Lines are no part of the digits that they pass.
        lines = [part for part in parts if _spans(part, darkness.shape)]
        joined = _join([part for part in parts if part not in lines])
        lines += [part for part in joined if _spans(part, darkness.shape)]
        if fewest is None or len(lines) < len(fewest[1]):
            fewest = [p for p in joined if p not in lines and _is_digit(p)], lines
        if not lines:
            break
    assert fewest is not None
    digits, lines = fewest
    # If there is nothing else, it is a digit as large as the page.
    return digits or [part for part in lines if _is_digit(part)]


def _without_dots(parts: Sequence[_Part]) -> list[_Part]:
    """Leaves dots out where they are of the paper: more than all else."""
    long = [part.size for part in parts if part.size >= _ROUND * part.stroke]
    most = _TINY * float(np.median(long)) if long else 0
    rest = [p for p in parts if p.size >= min(_ROUND * p.stroke, most)]
    return rest if len(parts) > (1 + _DOTTED) * len(rest) else list(parts)


def _spans(part: _Part, shape: tuple[int, ...]) -> bool:
    """Whether it is as long and slender, or has as many holes, as only lines have."""
    if part.size <= _SPANNED * max(shape):
        return False
    if part.size > _SLENDER * part.stroke:
        return True
    paper = np.pad(~part.pixels, 1, constant_values=True).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(paper, connectivity=4)[2]
    holes = stats[2:, cv2.CC_STAT_AREA]  # all but the ink and what is around it
    return bool((holes > (_HOLE * part.size) ** 2).sum() > _MOST_HOLES)


def lift_ink(
    grey: np.ndarray, ink: str = "auto", reach: float | None = None
) -> np.ndarray:
    """Divides the paper out of a page.

    Args:
      grey: uint8 [H, W].
      ink: a name in `INKS`.
      reach: pixels, where it is known that no stroke is as wide as that: then the
        light may change as fast as at the rim of a shadow.

    Returns:
      uint8 [H, W]: 0 the paper and what is lighter, 255 black on it.
    """
    scale = min(1, _SMALL / max(grey.shape))
    height, width = grey.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    if ink == "light" or (ink == "auto" and _is_light(small)):
        grey, small = 255 - grey, 255 - small
    paper = _paper(small)
    if reach:
        # Where it is the darker one, there is a shadow; elsewhere ruled lines are kept
        # out of sight better by the other, which is a mean and not the brightest.
        paper = np.minimum(paper, _near_paper(small, reach * scale))
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    # Nothing is sure about paper that is all but black.
    return cv2.divide(cv2.subtract(paper, grey), np.maximum(paper, _BLACK), scale=255)


def _is_light(small: np.ndarray) -> bool:
    """Whether what stands out of the page is lighter than the page around it."""
    around = cv2.medianBlur(small, min(255, max(small.shape) // 2 | 1))
    return bool(((small - around.astype(np.float64)) ** 3).sum() > 0)


def _paper(small: np.ndarray) -> np.ndarray:
    """The brightness of the paper under dark ink, uint8 of the same shape, 1 or more.

    A first estimate is the median around, or the brightest within reach where there is
    more ink than paper. The next ones smooth what is not much darker than the one
    before, and reach under the ink from all around it.
    """
    side = int(max(small.shape) * _WIDEST_STROKE) | 1
    median = cv2.medianBlur(small, side)
    kernel = np.ones((side, side), np.uint8)
    brightest = cv2.morphologyEx(cv2.medianBlur(small, 3), cv2.MORPH_CLOSE, kernel)
    paper = np.where(median > _SHADE * brightest, median, brightest)
    values = small.astype(np.float32)
    for share in _LIGHT:
        paper = np.maximum(paper, 1)
        ratio = cv2.divide(small, paper, scale=200)
        limit, _ = cv2.threshold(ratio, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        blank = cv2.erode((ratio > limit).astype(np.float32), np.ones((3, 3)))
        shares, sums = (
            cv2.GaussianBlur(
                x, (0, 0), share * max(small.shape), borderType=cv2.BORDER_CONSTANT
            )
            for x in (blank, blank * values)
        )
        smooth = sums / np.maximum(shares, 1e-6)
        paper = np.where(shares > 1e-3, smooth, paper).round().astype(np.uint8)
    return np.maximum(paper, 1)


def _near_paper(small: np.ndarray, reach: float) -> np.ndarray:
    """The same, as bright as the brightest within reach: a wider shadow stays."""
    side = 2 * int(np.ceil(reach / 2)) + 3  # of a stroke's blurred rims, too
    smooth = cv2.medianBlur(small, 3)
    # Mirrored, or what lies at the border would be paper.
    smooth = np.pad(smooth, side, mode="symmetric")
    paper = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    paper = cv2.GaussianBlur(paper, (0, 0), 1)[side:-side, side:-side]
    return np.maximum(paper, 1)


def _widest_stroke(darkness: np.ndarray, mask: np.ndarray) -> float:
    """In pixels, of what is about as dark as ink is; 0 if there is none."""
    ink = darkness[mask > 0]
    if not ink.size:
        return 0
    return _stroke(darkness > _CORE * np.percentile(ink, 90))


def _threshold(darkness: np.ndarray, factor: float = 1) -> np.ndarray:
    """Where there is ink, uint8 [H, W] of 0 and 1.

    With two thresholds: faint ink counts where it is connected with what is surely
    ink (Canny, "A Computational Approach to Edge Detection", 1986).
    """
    smooth = cv2.GaussianBlur(darkness, (3, 3), 0)
    noise = _noise(smooth)
    # Of millions of pixels of paper, some are beyond _NOISE.
    candidates: np.ndarray = smooth[smooth > max(_FAINTEST, 1.6 * _NOISE * noise)]
    if not candidates.size:
        return np.zeros_like(darkness)
    darkest = np.percentile(candidates, 90)
    low = np.clip(_NOISE * noise, _LEAST * darkest, _MOST * darkest) * factor
    # The raw pixels too, or all strokes would have grown by the smoothing.
    faint = ((smooth > low) & (darkness > low)).astype(np.uint8)
    count, labels = cv2.connectedComponents(faint, connectivity=8)
    sure = np.zeros(count, np.uint8)
    sure[labels[smooth > max(_SURE * darkest, low, _FAINTEST)]] = 1
    sure[0] = 0
    return sure[labels]


def _noise(smooth: np.ndarray) -> float:
    """Standard deviation of the paper, of which only the dark half is above 0."""
    step = max(1, int(np.sqrt(smooth.size / 1e6)))
    values = np.ascontiguousarray(smooth[::step, ::step])
    limit, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # On a page without ink, that limit is amid the noise.
    ink = (values > max(limit, _DARKEST_NOISE)).astype(np.uint8)
    # Ink fades into the paper around it, if the photo is not sharp.
    side = 2 * round(max(values.shape) * _FADING) + 1
    paper = values[cv2.dilate(ink, np.ones((side, side), np.uint8)) == 0]
    if paper.size < values.size / 20:
        return 0  # there is no telling
    # Half of the pixels are 0: the median of the others is where three quarters are.
    return float(np.percentile(paper, 75)) / 0.6745


def _erase_rules(mask: np.ndarray, share: float) -> list[float]:
    """Erases lines that run across the page, but not the strokes that cross them.

    Args:
      mask: uint8 [H, W] of 0 and 1, changed in place.
      share: of the width that a line spans at least.

    Returns:
      The thickness of each, in pixels.
    """
    erased = []
    width = mask.shape[1]
    run = max(15, width // 40)
    across = np.ones((1, run), np.uint8)
    runs = cv2.morphologyEx(np.ascontiguousarray(mask), cv2.MORPH_OPEN, across)
    # Over breaks, and over the steps of a line that is not quite level.
    runs = np.pad(runs, ((0, 0), (run, run)))  # or all would be drawn to the border
    runs = cv2.morphologyEx(runs, cv2.MORPH_CLOSE, np.ones((3, run), np.uint8))
    runs = np.ascontiguousarray(runs[:, run:-run])
    _, labels, stats, _ = cv2.connectedComponentsWithStats(runs, connectivity=8)
    for label, (left, top, length, height, _) in enumerate(stats[1:].tolist(), 1):
        if length < share * width:
            continue
        box = labels[top : top + height, left : left + length]
        # Some columns have nothing but the line.
        thickness = float(np.percentile((box == label).sum(0), _BARE))
        if thickness * _SLENDER > length:
            continue
        rim = int(2 * thickness) + 2
        window = np.s_[max(0, top - rim) : top + height + rim, left : left + length]
        ink = np.ascontiguousarray(mask[window])
        line = (labels[window] == label).astype(np.uint8)
        line = cv2.dilate(line, np.ones((3, 1), np.uint8))
        strokes = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((rim, 1), np.uint8))
        mask[window][(line == 1) & (strokes == 0)] = 0
        erased.append(thickness)
    return erased


def _parts(mask: np.ndarray) -> list[_Part]:
    """The connected parts of the ink that are more than specks."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    # A loose part of the smallest digit is smaller than that.
    large = np.flatnonzero(stats[1:, 2:4].max(1) >= _SHORTEST // 3) + 1
    if len(large) > _MOST_PARTS:
        raise PageError(
            f"{len(large):,} marks; expected a page of digits, with at most"
            f" {_MOST_PARTS:,}; take a photo of the digits alone, or a sharper one"
        )
    if stats[large, 2:4].prod(1, dtype=np.int64).sum() > _MOST_BOXES * mask.size:
        raise _entangled()
    parts = []
    for label in large:
        left, top, width, height = stats[label, :4].tolist()
        pixels = labels[top : top + height, left : left + width] == label
        parts.append(_Part(left, top, pixels, _stroke(pixels)))
    return parts


def _entangled() -> PageError:
    return PageError(
        "marks that lie in one another; expected a page of digits; take a photo of the"
        " digits alone"
    )


def _stroke(pixels: np.ndarray) -> float:
    """The width of the widest stroke, in pixels."""
    padded = np.pad(pixels, 1).astype(np.uint8)
    return 2 * float(cv2.distanceTransform(padded, cv2.DIST_L2, 5).max()) - 1


def _join(parts: Sequence[_Part]) -> list[_Part]:
    """Joins the parts that are of one digit."""
    group = list(range(len(parts)))

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    measured = 0
    for i, j in _near(parts):
        measured += _area(parts[i], parts[j])
        if measured > _MOST_DISTANCES:
            raise _entangled()
        if _belong_together(parts[i], parts[j]):
            group[root(j)] = root(i)
    members: dict[int, list[_Part]] = {}
    for i, part in enumerate(parts):
        members.setdefault(root(i), []).append(part)
    return [_merged(some) for some in members.values()]


def _area(a: _Part, b: _Part) -> int:
    """Pixels of the box around two parts."""
    width = max(a.right, b.right) - min(a.left, b.left)
    return width * (max(a.bottom, b.bottom) - min(a.top, b.top))


def _near(parts: Sequence[_Part]) -> Iterator[tuple[int, int]]:
    """Pairs of parts whose boxes are not further apart than those of one digit."""
    boxes = np.array([(p.left, p.top, p.right, p.bottom) for p in parts]).reshape(-1, 4)
    sizes = np.array([part.size for part in parts])
    for i, (left, top, right, bottom) in enumerate(boxes[:-1].tolist()):
        rest = boxes[i + 1 :]
        aside = np.maximum(rest[:, 0] - right, left - rest[:, 2])
        above = np.maximum(rest[:, 1] - bottom, top - rest[:, 3])
        reach = _GAP * np.maximum(sizes[i + 1 :], sizes[i])
        for j in np.flatnonzero(np.maximum(aside, above) <= reach):
            yield i, i + 1 + int(j)


def _belong_together(a: _Part, b: _Part) -> bool:
    """Whether two parts are of one digit; neighbours are not."""
    if a.size < b.size:
        a, b = b, a
    thin, thick = sorted((a.stroke, b.stroke))
    gap = _distance(a, b)
    if gap > _GAP * a.size:
        return False
    across = min(a.right, b.right) - max(a.left, b.left)
    down = min(a.bottom, b.bottom) - max(a.top, b.top)
    height, width = b.pixels.shape
    if min(across, down) > 0 and across * down >= height * width / 4:
        return True  # one lies in the other's box
    if b.size < _CRUMB * a.size:
        return True
    if thin < _SIMILAR * thick:
        return False  # a small digit beside a large one
    if b.size < _FRAGMENT * a.size or gap <= thin / 2:
        return True
    # Two halves, one above the other.
    height = max(a.bottom, b.bottom) - min(a.top, b.top)
    width = max(a.right, b.right) - min(a.left, b.left)
    narrower = min(a.pixels.shape[1], b.pixels.shape[1])
    return across >= narrower / 4 and height <= _SLIM * width


def _distance(a: _Part, b: _Part) -> float:
    """Pixels of paper between two parts."""
    both = _merged([a, b])
    paper = np.ones(both.pixels.shape, np.uint8)
    _place(a, both, paper, 0)
    distances = cv2.distanceTransform(paper, cv2.DIST_L2, 5)
    top, left = b.top - both.top, b.left - both.left
    height, width = b.pixels.shape
    window = distances[top : top + height, left : left + width]
    return float(window[b.pixels].min()) - 1


def _place(part: _Part, whole: _Part, canvas: np.ndarray, value: int) -> None:
    top, left = part.top - whole.top, part.left - whole.left
    height, width = part.pixels.shape
    canvas[top : top + height, left : left + width][part.pixels] = value


def _merged(parts: Sequence[_Part]) -> _Part:
    """One part out of several."""
    if len(parts) == 1:
        return parts[0]
    left, top = min(p.left for p in parts), min(p.top for p in parts)
    right, bottom = max(p.right for p in parts), max(p.bottom for p in parts)
    pixels = np.zeros((bottom - top, right - left), bool)
    whole = _Part(left, top, pixels, max(p.stroke for p in parts))
    for part in parts:
        _place(part, whole, pixels, 1)
    return whole


def _is_digit(part: _Part) -> bool:
    """Whether it is neither a speck nor a dot, a dash or a hair."""
    height, width = part.pixels.shape
    return (
        part.size >= _SHORTEST
        and part.size >= _DOT * part.stroke
        and width <= _DASH * height
        and part.size <= max(_DRAWN, _HAIR * part.stroke)
    )


def _rows(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Puts digits into rows, which may slope and hold digits of all sizes.

    From left to right each is put behind the last one of that row with which it shares
    most of its height, or of the other's if that is less; half of it at least.
    """
    rows: list[list[_Part]] = []
    for part in sorted(parts, key=lambda p: p.left + p.right):
        shares = [_shared_height(row[-1], part) for row in rows]
        if shares and max(shares) >= 0.5:
            rows[int(np.argmax(shares))].append(part)
        else:
            rows.append([part])
    return sorted(rows, key=lambda row: float(np.mean([p.top + p.bottom for p in row])))


def _shared_height(a: _Part, b: _Part) -> float:
    shared = min(a.bottom, b.bottom) - max(a.top, b.top)
    return shared / min(a.pixels.shape[0], b.pixels.shape[0])


def _normalised(part: _Part, darkness: np.ndarray) -> np.ndarray:
    """The digit in MNIST's form, uint8 [28, 28], its ink as dark as MNIST's."""
    height, width = part.pixels.shape
    window = darkness[part.top : part.top + height, part.left : part.left + width]
    ink = np.where(part.pixels, window, 0)
    thin = part.stroke < _THIN * part.size
    if thin and part.size > _DRAWN:
        # Thickening takes long on what is large.
        size = max(1, width * _DRAWN // part.size), max(1, height * _DRAWN // part.size)
        ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
    full = float(np.percentile(ink[ink > 0], 90))
    ink = np.minimum(ink * (255 / full), 255).round().astype(np.uint8)
    if thin:
        scale = max(ink.shape) / part.size
        grow = round((_THICKENED * part.size - part.stroke) * scale)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
        ink = cv2.dilate(np.pad(ink, grow), kernel)
    return normalise(ink)
