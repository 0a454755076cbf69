# SPDX-License-Identifier: Apache-2.0
"""Ruled lines, cells of forms and what is around the sheet: erased, or told apart."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from photos import strokes

_RULE_SPAN_SHARE = 0.5  # of the page's width: a ruled line spans more
_LONE_VERTICAL_SPAN_SHARE = 0.95  # of the height; the stroke of a 1 may be long
_SEVERAL_RULES = 3  # of ruled paper; fewer may underline something
_CELL_SPAN_SHARE = 0.2  # lines of a form may span no more, …
_SEVERAL_CELLS = 5  # … and there are so many; fewer may be strokes of large digits


def erase_rules(mask: np.ndarray) -> float:
    """Erases ruled lines from a mask, in place, but not the strokes that cross them.

    Paper with several lines across may be squared, or a form; only then do shorter
    lines count as ruled.

    Args:
      mask: uint8 [H, W] of 0 and 1.

    Returns:
      Thickness of the thickest line, in pixels; 0 if there is none.
    """
    level = _lines(mask, _CELL_SPAN_SHARE)
    is_form = len(level) >= _SEVERAL_CELLS
    if not is_form:
        level = [line for line in level if line.span >= _RULE_SPAN_SHARE]
    for line in level:
        _erase(mask, line)
    span = _LONE_VERTICAL_SPAN_SHARE
    if is_form:
        span = min(_RULE_SPAN_SHARE, _CELL_SIDE_SHARE * _pitch(level) / len(mask))
    elif len(level) >= _SEVERAL_RULES:
        span = _RULE_SPAN_SHARE
    upright = _lines(mask.T, span)
    for line in upright:
        _erase(mask.T, line)
    return max((line.thickness for line in [*level, *upright]), default=0.0)


_CELL_SIDE_SHARE = 0.8  # of the lines' distance: an upright line that joins them


def _pitch(level: "Sequence[Line]") -> float:
    """Distance of neighbouring lines, in pixels; between cells it may be less."""
    middles = sorted(line.top + len(line.pixels) / 2 for line in level)
    return float(np.percentile(np.diff(middles), 75))


class Line(NamedTuple):
    """A level line of a mask."""

    top: int
    left: int
    pixels: np.ndarray  # uint8 [h, w] of 0 and 1: where it is
    thickness: float  # of its ink, in pixels
    span: float  # its length as a share of the mask's width


_RULE_SLENDERNESS = 25  # length over thickness
_BARE_RULE_PERCENT = 20  # part of a line that no stroke crosses, at least
_COPY_SIDE_PIXELS = 1000  # longer side of the copy on which lines are looked for


def _lines(mask: np.ndarray, least: float) -> list[Line]:
    """Finds slender level lines that span at least this share of the width."""
    found = []
    step = -(-max(mask.shape) // _COPY_SIDE_PIXELS)
    labels, stats = _long_runs(_reduced(mask, step))
    for label, (left, top, width, height, _) in enumerate(stats.tolist(), 1):
        span = width / labels.shape[1]
        if span < least:
            continue
        small = labels[top : top + height, left : left + width] == label
        pixels = np.kron(small, np.ones((step, step), np.uint8))
        top, left = step * top, step * left
        ink = mask[top : top + len(pixels), left : left + pixels.shape[1]]
        pixels = pixels[: ink.shape[0], : ink.shape[1]]
        inked = (pixels & ink).sum(0)
        thickness = float(np.percentile(inked[inked > 0], _BARE_RULE_PERCENT))
        if thickness * _RULE_SLENDERNESS <= pixels.shape[1]:
            line = Line(top, left, pixels, thickness, span)
            found.append(_extended(line, mask.shape, step))
    return found


_MOST_TILT = 6  # degrees between two ends of a line
_EXTENSION_SHARE = 0.3  # of a line's length: it may go on faintly to either side


def _extended(line: Line, page: tuple[int, ...], step: int) -> Line:
    """A line with its gaps, and what goes on in its direction."""
    height, width = line.pixels.shape
    columns = np.flatnonzero(line.pixels.any(0))
    rows = np.arange(height)[:, np.newaxis]
    middle = (line.pixels * rows).sum(0)[columns] / line.pixels.sum(0)[columns]
    # A parabola, as lenses and curled paper bend lines.
    curve = np.polynomial.Polynomial.fit(columns + line.left, middle + line.top, 2)
    more = round(_EXTENSION_SHARE * width)
    left, right = max(0, line.left - more), min(page[1], line.left + width + more)
    centre = curve(np.arange(left, right))
    half = line.thickness / 2 + step
    top = max(0, min(line.top - step, int(centre.min() - half)))
    bottom = min(page[0], max(line.top + height + step, int(centre.max() + half) + 1))
    if bottom - top > 3 * height + width * np.tan(np.radians(_MOST_TILT)):
        return line  # the parabola fits something else
    pixels = np.abs(np.arange(top, bottom)[:, np.newaxis] - centre) <= half
    pixels = pixels.astype(np.uint8)
    within = np.s_[line.top - top :, line.left - left :]
    pixels[within][:height, :width] |= line.pixels
    return Line(top, left, pixels, line.thickness, line.span)


_THICKER_SHARE = 1.4  # a line is here and there so many times as thick


def _erase(mask: np.ndarray, line: Line) -> None:
    """Erases a line, in place, but not what is higher than it is thick."""
    rim = int(_THICKER_SHARE * line.thickness) + 2
    start = max(0, line.top - rim)
    rows = slice(start, line.top + len(line.pixels) + rim)
    columns = slice(line.left, line.left + line.pixels.shape[1])
    crossing = cv2.morphologyEx(
        np.ascontiguousarray(mask[rows, columns]),
        cv2.MORPH_OPEN,
        np.ones((rim, 1), np.uint8),
    )[line.top - start :]
    ink = mask[line.top : line.top + len(line.pixels), columns]
    height = len(ink)
    pixels = cv2.dilate(line.pixels, np.ones((3, 1), np.uint8))[:height]
    ink[(pixels == 1) & (crossing[:height] == 0)] = 0


def _reduced(mask: np.ndarray, step: int) -> np.ndarray:
    """A copy a `step`-th as large, with ink wherever there is some: no line breaks."""
    if step == 1:
        return np.ascontiguousarray(mask)
    height, width = (-(-side // step) * step for side in mask.shape)
    padded = np.zeros((height, width), np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    padded *= 255
    size = width // step, height // step
    means = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
    return (means > 0).astype(np.uint8)


def _long_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds level runs of ink, joined over gaps and over the steps of a slight slope.

    Returns:
      Labels, int32 [H, W], and OpenCV's statistics of labels 1, 2, …
    """
    run = max(15, mask.shape[1] // 40)
    across = np.ones((1, run), np.uint8)
    runs = cv2.morphologyEx(mask, cv2.MORPH_OPEN, across)
    runs = np.pad(runs, ((0, 0), (run, run)))  # or closing extends all to the border
    runs = cv2.morphologyEx(runs, cv2.MORPH_CLOSE, np.ones((3, run), np.uint8))
    runs = np.ascontiguousarray(runs[:, run:-run])
    _, labels, stats, _ = cv2.connectedComponentsWithStats(runs, connectivity=8)
    return labels, stats[1:]


_RULE_MARK_SHARE = 0.3  # of the page's longer side
_HOLE_SIDE_SHARE = 0.02  # of the mark's longer side
_MAX_HOLES = 10  # a digit has two, six digits that touch one or two each


_FRAME_SHARE = 0.6  # of the ink that lies on straight lines …
_FRAME_SIDE_SHARE = 0.15  # … and of that on level, and on upright ones


def _is_frame(pixels: np.ndarray) -> bool:
    """Tells whether a mark is cells: lines in both directions."""
    small = _reduced(
        pixels.astype(np.uint8), -(-max(pixels.shape) // _COPY_SIDE_PIXELS)
    )
    total = max(1, int(small.sum()))
    level, upright = (
        _long_runs(side)[0] > 0 for side in (small, np.ascontiguousarray(small.T))
    )
    shares = [
        float((side & (ink > 0)).sum()) / total
        for side, ink in ((level, small), (upright, small.T))
    ]
    on_lines = float(((level | upright.T) & (small > 0)).sum()) / total
    return on_lines >= _FRAME_SHARE and min(shares) >= _FRAME_SIDE_SHARE


_SURROUNDING_SHARE = 0.4  # of the page's border: what is around the sheet, no digit


def _border_share(pixels: np.ndarray) -> float:
    """Share of a shape's border that is ink."""
    sides = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return float(np.concatenate(sides).mean())


def is_rule(pixels: np.ndarray, stroke: float, page: tuple[int, ...]) -> bool:
    """Tells whether a mark is ruled lines that were not erased, or around the sheet.

    Args:
      pixels: bool [h, w].
      stroke: width of its widest stroke, in pixels.
      page: shape of the page.
    """
    size = max(pixels.shape)
    if size <= _RULE_MARK_SHARE * max(page):
        return False
    if pixels.shape == tuple(page) and _border_share(pixels) >= _SURROUNDING_SHARE:
        return True
    if size > _RULE_SLENDERNESS * stroke:
        # Several digits that touch are as slender, but have more ink than a line, and
        # are less straight than cells.
        if strokes.is_lean(pixels, stroke) or _is_frame(pixels):
            return True
    return strokes.count_holes(pixels, _HOLE_SIDE_SHARE) > _MAX_HOLES
