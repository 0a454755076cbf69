# SPDX-License-Identifier: Apache-2.0
"""Whole-pixel shifts of digits, by scipy.ndimage as in the LeNet-SELU write-up."""

import itertools
import math
from collections.abc import Collection

import numpy as np

# (dy, dx) of a shift by one pixel; y grows downwards.
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def shift(images: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Shifts every digit, uint8 [N, 28, 28, 1], by whole pixels, down and to the right.

    Returns a copy: what leaves the image is lost, what enters is 0.
    """
    # Here, because reading an existing set should not pay for loading scipy.
    from scipy import ndimage

    # scipy shifts a single image whose pixels hold their own numbers. The result says
    # where each pixel of every digit comes from: the same bytes as shifting all digits,
    # in a tenth of the time. Order 0 copies the nearest pixel, exact for whole pixels.
    pixels = np.arange(math.prod(images.shape[1:])).reshape(images.shape[1:])
    source = ndimage.shift(pixels, (dy, dx, 0), order=0, cval=-1).ravel()
    flat = images.reshape(len(images), pixels.size)
    moved = np.take(flat, source, axis=1, mode="wrap")  # -1: the last pixel …
    moved[:, source < 0] = 0  # … where nothing but 0 enters the image
    return moved.reshape(images.shape)


def shifts(
    directions: Collection[str], pixels: int, diagonal: bool
) -> list[tuple[int, int]]:
    """Lists the shifts of up to so many pixels in some of `DIRECTIONS`.

    Returns (dy, dx) in ascending order, without (0, 0); with `diagonal`, also shifts
    along both axes at once.
    """
    steps = [DIRECTIONS[direction] for direction in directions]
    rows = {0} | {dy * n for dy, _ in steps for n in range(1, pixels + 1)}
    columns = {0} | {dx * n for _, dx in steps for n in range(1, pixels + 1)}
    return [
        (dy, dx)
        for dy, dx in itertools.product(sorted(rows), sorted(columns))
        if (dy, dx) != (0, 0) and (diagonal or dy * dx == 0)
    ]
