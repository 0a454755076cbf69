# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/continental.py: a second stroke where it belongs, only there."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from augment import batch, continental
from config import Config

SEED = tf.constant([3, 1])


def strokes(count):
    """Images of an upright stroke, 3 pixels wide: uint8 [N, 28, 28, 1]."""
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 4:24, 13:16] = 255
    return images


def draw(labels, share=0.999):
    images = strokes(len(labels))
    drawn = continental.draw(tf.constant(images), tf.constant(labels), SEED, share)
    assert drawn.dtype == tf.uint8 and drawn.shape == images.shape
    assert (drawn >= images).numpy().all()
    return drawn.numpy(), drawn.numpy().astype(int) - images


def test_only_ones_and_sevens_are_drawn_on():
    labels = np.arange(10).astype(np.uint8).repeat(2)
    _, added = draw(labels)
    changed = added.any((1, 2, 3))
    np.testing.assert_array_equal(changed, np.isin(labels, (1, 7)))


@pytest.mark.parametrize("digit", [1, 7])
def test_the_new_stroke_is_of_one_piece_with_the_digit_and_as_wide(digit):
    drawn, added = draw(np.full(50, digit, np.uint8))
    for image, stroke in zip(drawn[..., 0], added[..., 0]):
        assert ndimage.label(image > 127, np.ones((3, 3)))[1] == 1
        width = 2 * ndimage.distance_transform_edt(np.pad(stroke > 127, 1)).max()
        assert 1 <= width <= 4.5


def test_an_upstroke_goes_down_to_the_left_from_the_top():
    _, added = draw(np.ones(50, np.uint8))
    for stroke in added[..., 0]:
        y, x = np.nonzero(stroke > 127)
        assert x.max() <= 16 and x.min() < 13  # to the left of the stroke
        assert y.min() >= 2 and y.max() < 18
        lowest = x[y == y.max()]
        assert lowest.max() <= 13  # its end is away from the stroke


def test_a_bar_crosses_the_stem_in_the_middle():
    _, added = draw(np.full(50, 7, np.uint8))
    for bar in added[..., 0]:
        y, x = np.nonzero(bar > 127)
        assert x.min() < 13 and x.max() > 15
        assert 9 <= y.mean() <= 19


def test_a_share_of_them_by_seed():
    ones = np.ones(200, np.uint8)
    drawn, added = draw(ones, 0.25)
    assert 30 <= added.any((1, 2, 3)).sum() <= 70
    again, _ = draw(ones, 0.25)
    np.testing.assert_array_equal(drawn, again)


def test_an_empty_image_is_no_error():
    blank = tf.zeros([2, 28, 28, 1], tf.uint8)
    drawn = continental.draw(blank, tf.constant([1, 7]), SEED, 0.999)
    assert drawn.shape == blank.shape


def test_it_is_part_of_a_batch(digits):
    images = tf.constant(digits.train_images[:100])
    labels = tf.constant(digits.train_labels[:100])
    fed, kept, _ = batch.from_config(Config(continental=0.9))(images, labels, SEED)
    changed = (fed != images).numpy().any((1, 2, 3))
    assert set(digits.train_labels[:100][changed]) == {1, 7}
    np.testing.assert_array_equal(kept, labels)
    fed, kept, share = batch.from_config(Config())(images, labels, SEED)
    assert fed is images and kept is labels and share is None
