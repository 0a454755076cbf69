# SPDX-License-Identifier: Apache-2.0
"""Second stage of reading a page: tells ink from noise, and measures its strokes."""

import cv2
import numpy as np

# Darkness is counted from 0, the paper, to 255; shares are of the page's darkest ink.
_FAINTEST_INK_GREY = 25
_NOISE_DEVIATIONS = 5  # anything within is paper
_EXTREME_NOISE_DEVIATIONS = 8  # of millions of pixels of paper, none is beyond
_HALF_BLACK_GREY = 128  # on no paper is that noise
_FAINT_INK_SHARES = 0.1, 0.3  # limits of the lower threshold, whatever the noise
_CERTAIN_INK_SHARE = 0.35  # the upper threshold


def threshold(darkness: np.ndarray, factor: float = 1) -> np.ndarray:
    """Marks the ink, by two thresholds: uint8 [H, W] of 0 and 1.

    Faint ink counts if it is connected to ink beyond doubt (the hysteresis of Canny, "A
    Computational Approach to Edge Detection", 1986). Darkness comes from
    `paper.lift_ink`; the factor raises the lower threshold.
    """
    smooth = cv2.GaussianBlur(darkness, (3, 3), 0)
    noise = _noise_deviation(smooth)
    faintest = max(
        _FAINTEST_INK_GREY,
        min(_EXTREME_NOISE_DEVIATIONS * noise, _HALF_BLACK_GREY),
    )
    candidates: np.ndarray = smooth[smooth > faintest]
    if not candidates.size:
        return np.zeros_like(darkness)
    darkest = np.percentile(candidates, 90)
    least, most = _FAINT_INK_SHARES
    low = np.clip(_NOISE_DEVIATIONS * noise, least * darkest, most * darkest) * factor
    # Both, as smoothing alone would widen all strokes.
    faint = ((smooth > low) & (darkness > low)).astype(np.uint8)
    count, labels = cv2.connectedComponents(faint, connectivity=8)
    high = max(_CERTAIN_INK_SHARE * darkest, low, _FAINTEST_INK_GREY)
    certain = np.zeros(count, np.uint8)
    certain[labels[smooth > high]] = 1
    certain[0] = 0
    return certain[labels]


_DARKEST_NOISE_GREY = 64
_BLURRED_RIM_SHARE = 0.025  # of the longer side: ink of a blurred photo fades this far


def _noise_deviation(smooth: np.ndarray) -> float:
    """Estimates the standard deviation of the paper from its dark half.

    The light half is 0 in `smooth`, and so are half of the pixels.
    """
    step = max(1, int(np.sqrt(smooth.size / 1e6)))
    values = np.ascontiguousarray(smooth[::step, ::step])
    limit, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # On a page without ink, Otsu's limit lies amid the noise.
    ink = (values > max(limit, _DARKEST_NOISE_GREY)).astype(np.uint8)
    side = 2 * round(max(values.shape) * _BLURRED_RIM_SHARE) + 1
    paper = values[cv2.dilate(ink, np.ones((side, side), np.uint8)) == 0]
    if paper.size < values.size / 20:
        return 0  # too little to tell
    # The median of the dark half is the third quartile of all.
    return float(np.percentile(paper, 75)) / 0.6745


def stroke_width(pixels: np.ndarray) -> float:
    """Measures the widest stroke of a shape, bool [h, w], in pixels."""
    padded = np.pad(pixels, 1).astype(np.uint8)
    return 2 * float(cv2.distanceTransform(padded, cv2.DIST_L2, 5).max()) - 1


_INK_CORE_SHARE = 0.6  # of the ink's darkness; shadows are lighter


def widest_stroke(darkness: np.ndarray) -> float:
    """Measures the widest stroke of a page, in pixels; 0 if the page has no ink."""
    ink = darkness[threshold(darkness) > 0]
    if not ink.size:
        return 0
    return stroke_width(darkness > _INK_CORE_SHARE * np.percentile(ink, 90))


_LINE_INK_SHARE = 1.3  # of length times thickness: a line that is not quite straight


def is_lean(pixels: np.ndarray, stroke: float) -> bool:
    """Tells whether a shape, bool [h, w], is hardly more than a line of its stroke."""
    return bool(pixels.sum() < _LINE_INK_SHARE * max(pixels.shape) * stroke)


def count_holes(pixels: np.ndarray, side: float) -> int:
    """Counts the holes of a shape, bool [h, w].

    Holes are larger than a square with this share of the shape's longer side; smaller
    ones are gaps in the ink.
    """
    paper = np.pad(~pixels, 1, constant_values=True).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(paper, connectivity=4)[2]
    holes = stats[2:, cv2.CC_STAT_AREA]  # without the ink and the paper around it
    return int((holes > (side * max(pixels.shape)) ** 2).sum())
