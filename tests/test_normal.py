# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/normal.py."""

import numpy as np
import tensorflow as tf

from augment import normal


def draw(count, size, seed=(1, 2)):
    drawn = normal.octets(tf.constant(seed), tf.constant(count), size)
    assert drawn.dtype == tf.uint8 and drawn.shape == (count, size)
    return drawn.numpy()


def test_bytes_are_uniform_and_independent():
    drawn = draw(100, 1571)  # the last word of an image is used in part
    counts = np.bincount(drawn.ravel(), minlength=256)
    assert abs(counts - drawn.size / 256).max() < 150  # six standard deviations
    x = drawn / 127.5 - 1
    assert abs((x[:, 1:] * x[:, :-1]).mean()) < 0.01
    assert abs((x[1:] * x[:-1]).mean()) < 0.01
    assert (drawn != draw(100, 1571, seed=(1, 3))).mean() > 0.9


def test_numbers_are_close_to_normal_ones():
    """Moments of the 256 levels: 0, 1, 0 and 3 are those of a normal distribution."""
    levels = normal.numbers(tf.range(256)).numpy()
    assert (np.diff(levels) > 0).all()
    np.testing.assert_array_equal(levels, -levels[::-1])
    assert abs(levels.var() - 1) < 1e-4
    assert abs((levels**4).mean() - 3) < 0.1
    assert abs((abs(levels) < 1).mean() - 0.6827) < 0.01
