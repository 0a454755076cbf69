# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/flip.py."""

import numpy as np
import pytest

from augment.flip import flip


def random_images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)


def test_one_pixel():
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[0, 3, 5] = 9
    assert flip(images, 1)[0, 3, 22, 0] == 9
    assert flip(images, 0)[0, 24, 5, 0] == 9


@pytest.mark.parametrize("code, axis", [(1, 2), (0, 1)])
@pytest.mark.parametrize("count", [0, 1, 28, 50])
def test_images_are_mirrored_and_keep_their_order(code, axis, count):
    images = random_images(count)
    before = images.copy()
    flipped = flip(images, code)
    assert flipped.dtype == np.uint8
    np.testing.assert_array_equal(flipped, np.flip(images, axis))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("code", [-1, 2, "1"])
def test_an_unknown_code_is_refused(code):
    with pytest.raises(ValueError, match="flip code"):
        flip(random_images(1), code)
