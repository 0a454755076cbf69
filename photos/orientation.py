# SPDX-License-Identifier: Apache-2.0
"""Which way up a page is, by how well a network reads its digits."""

from collections.abc import Sequence

import numpy as np

from photos.segment import Digit
from photos.touching import Classify

Box = tuple[int, int, int, int]

TURNS = (0, 90, 180, 270)  # degrees to the left

# By how much the mean probability must be better than as the page is: a single 6 or 1,
# or a page of zeros, says nothing.
_LEAST_GAIN = 0.1


def best(digits: Sequence[Digit], classify: Classify) -> int:
    """Degrees to turn a page to the left, given the digits found on it as it is."""
    if not digits:
        return 0
    images = np.stack([digit.image for digit in digits])
    sure = [
        float(classify(np.rot90(images, turn // 90, (1, 2))).max(1).mean())
        for turn in TURNS
    ]
    number = int(np.argmax(sure))
    return TURNS[number] if sure[number] >= sure[0] + _LEAST_GAIN else 0


def turned_back(box: Box, turn: int, shape: Sequence[int]) -> Box:
    """A box of a page that was turned, on the page as it was, of this shape [H, W]."""
    left, top, width, height = box
    page_height, page_width = shape
    return {
        0: box,
        90: (page_width - top - height, left, height, width),
        180: (page_width - left - width, page_height - top - height, width, height),
        270: (top, page_height - left - width, height, width),
    }[turn]
