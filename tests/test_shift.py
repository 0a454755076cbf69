# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/shift.py."""

import numpy as np
import pytest

from augment.shift import DIRECTIONS, shift, shifts


def dot(row, column):
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[:, row, column] = [[255], [7]]
    return images


@pytest.mark.parametrize(
    "dy, dx, row, column",
    [(1, 0, 11, 20), (-1, 0, 9, 20), (0, 1, 10, 21), (0, -2, 10, 18), (2, -1, 12, 19)],
)
def test_positive_is_down_and_right(dy, dx, row, column):
    shifted = shift(dot(10, 20), dy, dx)
    assert shifted.dtype == np.uint8
    np.testing.assert_array_equal(shifted, dot(row, column))


@pytest.mark.parametrize("dy, dx", [(1, 0), (0, 2), (-1, -2), (4, 4)])
def test_whole_pixels_are_copied_exactly(dy, dx):
    images = np.random.default_rng(0).integers(1, 256, (5, 28, 28, 1), np.uint8)
    before = images.copy()
    expected = np.zeros_like(images)
    expected[:, max(dy, 0) : 28 + min(dy, 0), max(dx, 0) : 28 + min(dx, 0)] = images[
        :, max(-dy, 0) : 28 - max(dy, 0), max(-dx, 0) : 28 - max(dx, 0)
    ]
    np.testing.assert_array_equal(shift(images, dy, dx), expected)
    np.testing.assert_array_equal(images, before)


def test_pixels_shifted_out_are_lost():
    there = shift(dot(0, 5), -1, 0)
    assert not there.any()
    assert not shift(there, 1, 0).any()


def test_an_empty_batch_is_allowed():
    assert shift(np.zeros((0, 28, 28, 1), np.uint8), 1, 0).shape == (0, 28, 28, 1)


def test_write_up_shifts():
    assert shifts(DIRECTIONS, 1, False) == [(-1, 0), (0, -1), (0, 1), (1, 0)]


@pytest.mark.parametrize(
    "pixels, diagonal, count",
    [(1, True, 8), (2, False, 8), (2, True, 24), (4, True, 80)],
)
def test_count(pixels, diagonal, count):
    found = shifts(DIRECTIONS, pixels, diagonal)
    assert len(set(found)) == len(found) == count
    assert (0, 0) not in found
    assert found == sorted(found)


def test_only_the_named_directions_are_used():
    assert shifts(["up"], 2, True) == [(-2, 0), (-1, 0)]
    assert shifts(["right", "down"], 1, True) == [(0, 1), (1, 0), (1, 1)]
    assert shifts([], 2, True) == []
