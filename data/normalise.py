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
    # Here, because importing `data` should not pay for loading OpenCV.
    import cv2

    rows, columns = np.nonzero(ink)
    if not rows.size:
        raise ValueError("no ink: every pixel is 0; expected a digit")
    box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = INK_SIZE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    # Area averaging keeps thin strokes when it shrinks, but enlarges pixels to squares.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    digit = cv2.resize(box, (width, height), interpolation=method)
    if not digit.any():
        raise ValueError(f"no ink left at {height}×{width} pixels; expected a digit")
    top, left = _offset(digit, axis=0), _offset(digit, axis=1)
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[top : top + height, left : left + width] = digit
    return image


def _offset(digit: np.ndarray, axis: int) -> int:
    """First row or column of a digit whose centre of mass is to lie on CENTRE."""
    mass = digit.sum(axis=1 - axis, dtype=np.float64)
    centre = np.average(np.arange(len(mass)), weights=mass)
    # In MNIST the centre lies in (13.5, 14.5], hence floor and not round.
    start = int(np.floor(CENTRE + 0.5 - centre))
    return min(max(start, 0), SIZE - len(mass))
