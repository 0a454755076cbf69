# SPDX-License-Identifier: Apache-2.0
"""Scales and centres the ink of a digit like MNIST's."""

import numpy as np

SIZE = 28  # side of an image
INK_SIZE = 20  # longer side of the ink in it
CENTRE = 14  # row and column of the ink's centre of mass


def normalise(ink: np.ndarray) -> np.ndarray:
    """Scales and centres a digit, uint8 [height, width], 0 paper, as MNIST's were.

    The longer side of the ink is scaled to 20 pixels. Then the ink is shifted by whole
    pixels until its centre of mass is as near to (14, 14) as it gets without cutting
    ink off (LeCun, Cortes and Burges, "The MNIST database"). Returns uint8 [28, 28].

    Raises ValueError if there is no ink, or only specks that vanish at this size.
    """
    rows, columns = np.nonzero(ink)
    if not rows.size:
        raise ValueError("no ink: every pixel is 0; expected a digit")
    box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = INK_SIZE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    digit = resize(box, height, width)
    if not digit.any():
        raise ValueError(f"no ink left at {height}×{width} pixels; expected a digit")
    top, left = _offset(digit, axis=0), _offset(digit, axis=1)
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[top : top + height, left : left + width] = digit
    return image


def resize(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a picture, uint8 [H, W] → [height, width], the same on every processor.

    Area averaging keeps thin strokes when it shrinks, but would enlarge pixels to
    squares, so we enlarge by cubic interpolation. OpenCV's depends on the processor.
    """
    if height < grey.shape[0] or width < grey.shape[1]:
        # Here, because importing `data` should not pay for loading OpenCV.
        import cv2

        return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    down, across = (
        _cubic(*sizes) for sizes in zip(grey.shape, (height, width), strict=True)
    )
    levels = down @ grey.astype(np.float64) @ across.T
    # Without the first rounding, an exact half would go up or down with the order in
    # which a processor adds.
    return np.rint(np.clip(levels, 0, 255).round(6)).astype(np.uint8)


def _cubic(size: int, larger: int) -> np.ndarray:
    """Weights [larger, size] of cubic convolution along one axis.

    Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with
    a = −0.75 as in OpenCV; beyond the border, its pixels are repeated.
    """
    places = (np.arange(larger) + 0.5) * size / larger - 0.5
    weights = np.zeros((larger, size))
    for tap in range(-1, 3):
        pixel = np.floor(places).astype(int) + tap
        d = np.abs(places - pixel)
        weight = np.where(
            d <= 1,
            (1.25 * d - 2.25) * d * d + 1,
            ((-0.75 * d + 3.75) * d - 6) * d + 3,
        )
        np.add.at(weights, (np.arange(larger), pixel.clip(0, size - 1)), weight)
    return weights


def _offset(digit: np.ndarray, axis: int) -> int:
    """First row or column of a digit whose centre of mass is to lie on CENTRE."""
    mass = digit.sum(axis=1 - axis, dtype=np.float64)
    centre = np.average(np.arange(len(mass)), weights=mass)
    # In MNIST the centre lies in (13.5, 14.5], hence floor and not round.
    start = int(np.floor(CENTRE + 0.5 - centre))
    return min(max(start, 0), SIZE - len(mass))
