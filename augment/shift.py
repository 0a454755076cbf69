# SPDX-License-Identifier: Apache-2.0
"""Whole-pixel shifts of digits, by scipy.ndimage as in the LeNet-SELU write-up."""

import itertools
import math
from collections.abc import Collection

import numpy as np

# (dy, dx) of a shift by one pixel; y grows downwards.
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def shift(images: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Shifts every digit `dy` pixels down and `dx` to the right.

    Args:
      images: uint8 [N, 28, 28, 1].
      dy: whole pixels, negative for up.
      dx: whole pixels, negative for left.

    Returns:
      uint8 [N, 28, 28, 1], a copy: what leaves the image is lost, what enters is 0.
    """
    # Here, because reading an existing set should not pay for loading scipy.
    from scipy import ndimage

    # scipy shifts one image, of pixel numbers, by which all digits are gathered: the
    # same bytes in a tenth of the time. Order 0 copies the nearest pixel, which is
    # exact for whole pixels.
    pixels = np.arange(math.prod(images.shape[1:])).reshape(images.shape[1:])
    source = ndimage.shift(pixels, (dy, dx, 0), order=0, cval=-1).ravel()
    flat = images.reshape(len(images), pixels.size)
    moved = np.take(flat, source, axis=1, mode="wrap")  # -1 counts from the end …
    moved[:, source < 0] = 0  # … and stands for what enters the image
    return moved.reshape(images.shape)


def shifts(
    directions: Collection[str], pixels: int, diagonal: bool
) -> list[tuple[int, int]]:
    """Lists the shifts of up to `pixels` pixels in the given directions.

    Args:
      directions: some of `DIRECTIONS`.
      pixels: largest shift along each axis.
      diagonal: whether to include shifts along both axes at once.

    Returns:
      (dy, dx) in ascending order, without (0, 0).
    """
    steps = [DIRECTIONS[direction] for direction in directions]
    rows = {0} | {dy * n for dy, _ in steps for n in range(1, pixels + 1)}
    columns = {0} | {dx * n for _, dx in steps for n in range(1, pixels + 1)}
    return [
        (dy, dx)
        for dy, dx in itertools.product(sorted(rows), sorted(columns))
        if (dy, dx) != (0, 0) and (diagonal or dy * dx == 0)
    ]
