# SPDX-License-Identifier: Apache-2.0
"""Tests of training/losses.py."""

import math

import numpy as np
import pytest
import tensorflow as tf

from training import losses

# Softmax of the first row: 1/4, 3/4; of the second: 1/2, 1/2.
LOGITS = [[0.0, math.log(3)], [5.0, 5.0]]


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32, tf.int64])
def test_cross_entropy_by_hand(dtype):
    labels = tf.constant([0, 1], dtype)
    loss = losses.softmax_cross_entropy(tf.constant(LOGITS), labels)
    assert loss.dtype == tf.float32
    assert loss.shape == []
    np.testing.assert_allclose(loss, (math.log(4) + math.log(2)) / 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int64])
def test_smoothed_cross_entropy_by_hand(dtype):
    labels = tf.constant([1, 0], dtype)
    loss = losses.softmax_cross_entropy(tf.constant(LOGITS), labels, 0.2)
    first = -0.1 * math.log(1 / 4) - 0.9 * math.log(3 / 4)
    second = math.log(2)
    np.testing.assert_allclose(loss, (first + second) / 2, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_what_is_of_no_class_costs_least_where_all_are_equal(smoothing):
    labels = tf.constant([-1, 0])
    loss = losses.softmax_cross_entropy(tf.constant(LOGITS), labels, smoothing)
    first = -0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4)
    np.testing.assert_allclose(loss, (first + math.log(2)) / 2, rtol=1e-6)
    assert losses.correct(tf.constant(LOGITS), labels) == 1  # −1 is never right


def test_smoothed_loss_is_least_at_the_smoothed_target():
    labels = tf.constant([2])
    target = np.full([1, 10], 0.03)
    target[0, 2] += 0.7
    logits = tf.Variable(np.log(target), dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = losses.softmax_cross_entropy(logits, labels, 0.3)
    np.testing.assert_allclose(tape.gradient(loss, logits), 0, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_losses_are_finite_at_extreme_logits(smoothing, size):
    logits = tf.Variable([[size, -size, 0.0], [-size, size, 0.0]])
    with tf.GradientTape() as tape:
        loss = losses.softmax_cross_entropy(logits, tf.constant([0, 0]), smoothing)
    assert np.isfinite(loss)
    assert loss > size / 2
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_gradient_is_softmax_minus_target():
    logits = tf.Variable([[0.0, math.log(3)]])
    with tf.GradientTape() as tape:
        loss = losses.softmax_cross_entropy(logits, tf.constant([0]))
    np.testing.assert_allclose(tape.gradient(loss, logits), [[-0.75, 0.75]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32, tf.int64])
def test_correct_by_hand(dtype):
    logits = tf.constant([[3.0, 1.0, 2.0], [0.0, -1.0, 5.0], [-3.0, -1.0, -2.0]])
    for labels, count in [([0, 2, 1], 3), ([0, 1, 1], 2), ([1, 0, 2], 0)]:
        hits = losses.correct(logits, tf.constant(labels, dtype))
        assert hits.dtype == tf.int64
        assert hits == count


def test_nan_is_never_correct():
    nan = math.nan
    logits = tf.constant([[nan, nan], [nan, 1.0], [1.0, nan], [nan, 1.0]])
    assert losses.correct(logits, tf.constant([0, 0, 0, 1])) == 0


def test_binary_cross_entropy_by_hand():
    loss = losses.binary_cross_entropy(tf.constant(LOGITS), tf.constant([0, 1]))
    assert loss.dtype == tf.float32
    assert loss.shape == []
    # Two classes: the answers to both questions have the same probability.
    np.testing.assert_allclose(loss, (math.log(4) + math.log(2)) / 2, rtol=1e-6)
    three = tf.math.log([[0.5, 0.3, 0.2]])
    loss = losses.binary_cross_entropy(three, tf.constant([0], tf.uint8))
    expected = -(math.log(0.5) + math.log(0.7) + math.log(0.8)) / 3
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_binary_cross_entropy_with_smoothing_by_hand():
    three = tf.math.log([[0.5, 0.3, 0.2]])
    loss = losses.binary_cross_entropy(three, tf.constant([0]), 0.3)
    answers = [(0.8, 0.5), (0.1, 0.3), (0.1, 0.2)]
    each = [t * math.log(p) + (1 - t) * math.log(1 - p) for t, p in answers]
    np.testing.assert_allclose(loss, -sum(each) / 3, rtol=1e-6)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_binary_cross_entropy_is_bounded_at_extreme_logits(size):
    logits = tf.Variable([[size, -size, 0.0], [-size, size, 0.0]])
    with tf.GradientTape() as tape:
        loss = losses.binary_cross_entropy(logits, tf.constant([0, 0]))
    # The second image gives two wrong answers of 16 nats, of six.
    np.testing.assert_allclose(loss, 2 * -math.log(losses.CLIP) / 6, rtol=1e-2)
    assert np.isfinite(tape.gradient(loss, logits)).all()
