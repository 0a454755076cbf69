# SPDX-License-Identifier: Apache-2.0
"""Brings the ink of one digit to MNIST's size and place."""

import numpy as np

SIZE = 28  # side of an image
INK_SIZE = 20  # longer side of the ink in it
CENTRE = 14  # row and column of the ink's centre of mass


def normalise(ink: np.ndarray) -> np.ndarray:
    """Scales and centres one digit the way MNIST's own digits were.

    The ink's longer side is scaled to 20 pixels, the aspect kept; then it is shifted
    by whole pixels until its centre of mass is nearest to (14, 14), or as near as it
    comes with all of the ink inside (LeCun, Cortes and Burges, "The MNIST database").

    Args:
      ink: uint8 [height, width]; 0 is paper and everything above it ink.

    Returns:
      uint8 [28, 28].

    Raises:
      ValueError: there is no ink, or only specks that vanish at this size.
    """
    # Here, because importing `data` should not cost the loading of OpenCV.
    import cv2

    rows, columns = np.nonzero(ink)
    if not rows.size:
        raise ValueError("no ink: every pixel is 0; expected a digit")
    box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = INK_SIZE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    # Averaging over areas keeps thin strokes when shrinking, but shows squares when
    # enlarging.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    digit = cv2.resize(box, (width, height), interpolation=method)
    if not digit.any():
        raise ValueError(f"no ink left at {height}×{width} pixels; expected a digit")
    top, left = _offset(digit, axis=0), _offset(digit, axis=1)
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[top : top + height, left : left + width] = digit
    return image


def _offset(digit: np.ndarray, axis: int) -> int:
    """Returns where the digit starts along the axis, its centre of mass on CENTRE."""
    mass = digit.sum(axis=1 - axis, dtype=np.float64)
    centre = np.average(np.arange(len(mass)), weights=mass)
    # In MNIST the centre lies in (13.5, 14.5], hence floor and not round.
    start = int(np.floor(CENTRE + 0.5 - centre))
    return min(max(start, 0), SIZE - len(mass))
