# SPDX-License-Identifier: Apache-2.0
"""First stage of reading a page: divides out the paper, so light may be uneven.

Most of a page is paper. We estimate its brightness at every pixel, under the ink too,
and keep how much darker the pixel is.
"""

import cv2
import numpy as np

INKS = ("auto", "dark", "light")

_COPY_SIDE_PIXELS = 256  # longer side of the copy on which the paper is estimated
_DARKEST_PAPER_GREY = 16  # below this, brightness ratios are mostly noise


def lift_ink(grey: np.ndarray, ink: str, reach: float | None = None) -> np.ndarray:
    """Divides the paper out of a page.

    Args:
      grey: uint8 [H, W], 0 black, 255 white.
      ink: "dark" or "light", next to the paper.
      reach: pixels, more than any stroke is wide, if that is known. The estimate then
        follows light that changes as fast as at the rim of a shadow.

    Returns:
      Darkness, uint8 [H, W]: 0 for the paper and anything lighter, 255 for black.
    """
    if ink == "light":
        grey = 255 - grey
    scale = min(1, _COPY_SIDE_PIXELS / max(grey.shape))
    height, width = grey.shape
    small = _shrunk(grey)
    paper = _estimate_smooth(small)
    if reach:
        # The second estimate is darker in a shadow. Elsewhere the first one hides ruled
        # lines better, as it is a mean and the second a maximum.
        paper = np.minimum(paper, _estimate_local(small, reach * scale))
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    ink_grey = cv2.subtract(paper, grey)
    return cv2.divide(ink_grey, np.maximum(paper, _DARKEST_PAPER_GREY), scale=255)


def _shrunk(grey: np.ndarray) -> np.ndarray:
    scale = min(1, _COPY_SIDE_PIXELS / max(grey.shape))
    size = tuple(max(1, round(side * scale)) for side in grey.shape[::-1])
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def polarity(grey: np.ndarray) -> str:
    """ "light" if what stands out from its surroundings is lighter, else "dark"."""
    small = _shrunk(grey)
    around = cv2.medianBlur(small, min(255, max(small.shape) // 2 | 1))
    skewness = ((small - around.astype(np.float64)) ** 3).sum()
    return "light" if skewness > 0 else "dark"


_DARK_PAPER_SHARE = 0.25  # of the brightest paper: there, ink is hardly darker
_LIGHT_INK_GREY = 40  # lighter than a dark page: what is written on a slate
_RIM_SHARE = 0.05  # of the longer side: near the rim of a shadow, we cannot tell


def dark_share(grey: np.ndarray) -> float:
    """Share of a page, uint8 [H, W], that is too dark for dark ink to be seen.

    It is 0 if there is light ink on it, as on a slate.
    """
    small = _shrunk(grey)
    paper = cv2.medianBlur(small, int(max(small.shape) * _WIDEST_STROKE_SHARE) | 1)
    dark = (paper < _DARK_PAPER_SHARE * np.percentile(paper, 95)).astype(np.uint8)
    rim = 2 * int(max(small.shape) * _RIM_SHARE) + 1
    inside = small[cv2.erode(dark, np.ones((rim, rim), np.uint8)) == 1]
    if inside.size and np.percentile(inside, 99) > np.median(inside) + _LIGHT_INK_GREY:
        return 0.0
    return float(dark.mean())


_WIDEST_STROKE_SHARE = 0.25  # of the longer side; anything wider is taken for paper
_INKED_MEDIAN_SHARE = 0.5  # a median below this share of the brightest is ink
_SMOOTHING_SHARES = (0.08, 0.04, 0.04)  # Gaussian's deviation over the longer side


def _estimate_smooth(small: np.ndarray) -> np.ndarray:
    """Estimates the paper under dark ink, uint8 of the same shape, at least 1.

    We start from the median nearby, or from the brightest pixel nearby where there is
    more ink than paper. Each round then smooths the pixels that are not much darker
    than the last estimate; the Gaussian fills in the paper under the ink.
    """
    side = int(max(small.shape) * _WIDEST_STROKE_SHARE) | 1
    median = cv2.medianBlur(small, side)
    kernel = np.ones((side, side), np.uint8)
    brightest = cv2.morphologyEx(cv2.medianBlur(small, 3), cv2.MORPH_CLOSE, kernel)
    paper = np.where(median > _INKED_MEDIAN_SHARE * brightest, median, brightest)
    values = small.astype(np.float32)
    for share in _SMOOTHING_SHARES:
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


def _estimate_local(small: np.ndarray, reach: float) -> np.ndarray:
    """Estimates the paper as the brightest pixel within reach: shadows are wider."""
    side = 2 * int(np.ceil(reach / 2)) + 3  # strokes have blurred rims
    smooth = cv2.medianBlur(small, 3)
    # Without mirroring, ink at the border would count as paper.
    smooth = np.pad(smooth, side, mode="symmetric")
    paper = cv2.morphologyEx(smooth, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    paper = cv2.GaussianBlur(paper, (0, 0), 1)[side:-side, side:-side]
    return np.maximum(paper, 1)
