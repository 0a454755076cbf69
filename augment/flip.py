# SPDX-License-Identifier: Apache-2.0
"""Mirror images of digits, by OpenCV as in the LeNet-SELU write-up."""

import numpy as np

# OpenCV's codes: 0 flips upside down, 1 left-right.
CODES = (0, 1)


def flip(images: np.ndarray, code: int) -> np.ndarray:
    """Mirrors digits, uint8 [N, 28, 28, 1]: by code 0 upside down, by 1 left-right.

    Returns a copy. Raises ValueError for any other code.
    """
    # Here, because reading an existing set should not pay for loading OpenCV.
    import cv2

    if code not in CODES:
        raise ValueError(f"flip code {code!r} is not one of {CODES}")
    # OpenCV drops the axis of a single channel; the reshape puts it back.
    flipped = [cv2.flip(image, code) for image in images]
    return np.array(flipped, np.uint8).reshape(images.shape)
