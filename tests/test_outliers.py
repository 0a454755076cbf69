# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/outliers.py: what is no digit has no class, a digit keeps its."""

import numpy as np
import pytest
import tensorflow as tf

from augment import outliers
from augment.outliers import NO_CLASS, View
from config import Config

SEED = tf.constant([3, 1])


def blocks(count):
    """Images of a block of 12 × 20 pixels, as wide as most digits: uint8 [N, …]."""
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 4:24, 8:20] = 200
    return images


def make(images, view, monkeypatch):
    monkeypatch.setattr(outliers, "VIEWS", (view,))
    labels = tf.range(len(images)) % 10
    made, kept = outliers.make(tf.constant(images), labels, SEED)
    return made.numpy(), kept.numpy()


def view(pitch=16, centre=0.0, reach=14, zoom=1):
    return View((pitch, pitch), (centre, centre), (reach, reach), (zoom, zoom))


def test_a_digit_alone_stays_itself(monkeypatch):
    made, labels = make(blocks(4), view(pitch=60), monkeypatch)
    np.testing.assert_array_equal(made, blocks(3))
    assert labels.tolist() == [0, 1, 2]


def test_two_digits_are_of_no_class(monkeypatch):
    made, labels = make(blocks(4), view(centre=0.5, reach=20, zoom=0.5), monkeypatch)
    assert labels.tolist() == [NO_CLASS] * 3
    # Half as large, 8 pixels apart, with 2 pixels of paper between them.
    np.testing.assert_array_equal(
        np.flatnonzero(made[0, 14, :, 0] > 100)[[0, -1]], [7, 20]
    )
    assert (
        made[0, 14, 13:15].max() == 0 and made[0, 9:19].any() and not made[0, :8].any()
    )


@pytest.mark.parametrize("centre", [-0.1, 0.1])
def test_half_a_digit_is_of_no_class(monkeypatch, centre):
    made, labels = make(blocks(2), view(60, centre, reach=5), monkeypatch)
    assert labels.tolist() == [NO_CLASS]
    assert 0.3 < made.sum() / blocks(1).sum() < 0.6


def test_a_digit_beside_a_remnant_stays_itself(monkeypatch):
    made, labels = make(blocks(2), view(reach=11), monkeypatch)
    assert labels.tolist() == [0]
    assert made[0, 14, 24, 0] == 200  # of the next one, whose block begins there
    assert not made[0, 14, 25:].any()


def test_what_could_be_either_is_left_alone(monkeypatch):
    # Four fifths of a digit.
    made, labels = make(blocks(2), view(60, 0.04, reach=6), monkeypatch)
    np.testing.assert_array_equal(made, blocks(1))
    assert labels.tolist() == [0]


def test_a_view_has_an_outlier_of_each_kind(digits):
    images = digits.train_images[:601]
    labels = digits.train_labels[:601].astype(np.int32)
    made, kept = outliers.make(tf.constant(images), tf.constant(labels), SEED)
    again, _ = outliers.make(tf.constant(images), tf.constant(labels), SEED)
    np.testing.assert_array_equal(made, again)
    assert made.dtype == tf.uint8 and made.shape == (600, 28, 28, 1)
    none = kept.numpy() == NO_CLASS
    assert 0.4 < none.mean() < 0.8
    np.testing.assert_array_equal(kept.numpy()[~none], labels[:-1][~none])
    other, _ = outliers.make(tf.constant(images), tf.constant(labels), SEED + 1)
    assert (made.numpy() != other.numpy()).any()


@pytest.mark.parametrize(
    "size, share, count", [(50, 0.2, 10), (2, 0.9, 1), (1, 0.9, 0)]
)
def test_a_share_of_the_batch_is_replaced(digits, size, share, count):
    mix = outliers.from_config(Config(outliers=share))
    images = tf.constant(digits.train_images[:size])
    labels = tf.constant(digits.train_labels[:size])
    mixed, kept = mix(images, labels, SEED)
    assert mixed.shape == images.shape and kept.dtype == tf.int32
    np.testing.assert_array_equal(mixed[count:], images[count:])
    np.testing.assert_array_equal(kept[count:], tf.cast(labels[count:], tf.int32))
    assert (mixed[:count].numpy() != images[:count].numpy()).any() == (count > 0)


def test_without_a_share_nothing_changes(digits):
    mix = outliers.from_config(Config())
    images, labels = digits.train_images[:3], digits.train_labels[:3]
    mixed, kept = mix(images, labels, SEED)
    assert mixed is images and kept is labels
