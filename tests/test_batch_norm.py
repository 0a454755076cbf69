# SPDX-License-Identifier: Apache-2.0
"""Tests of models/batch_norm.py."""

import math

import numpy as np
import pytest
import tensorflow as tf

from models.batch_norm import EPSILON, BatchNorm

LAYOUTS = pytest.mark.parametrize(
    "shape, axis", [((4, 5, 6, 3), -1), ((20, 3), -1), ((4, 3, 5, 6), 1)]
)
TRAINING = pytest.mark.parametrize("training", [True, False])


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def norm(axis):
    """Batch norm of three channels or rows, whose variables have been changed."""
    norm = BatchNorm(3, decay=0.8, axis=axis)
    norm.scale.assign([2.0, 0.5, -1.0])
    norm.offset.assign([1.0, -3.0, 0.0])
    norm.mean.assign([0.1, 0.2, 0.3])
    norm.variance.assign([1.5, 2.5, 0.5])
    return norm


def along(axis, values):
    """Shapes three values to broadcast along the axis."""
    return np.reshape(values, [3] if axis == -1 else [3, 1, 1])


def batch_of(shape, axis):
    return normal(*shape) * along(axis, [1, 2, 3]) + along(axis, [5, 0, -1])


def by_channel(x, axis):
    """Returns the values of each channel or row: [values, 3]."""
    return np.moveaxis(np.asarray(x), axis, -1).reshape(-1, 3)


def normalised(x, mean, variance, norm, epsilon=EPSILON):
    """The paper's formula in NumPy."""
    mean, variance, scale, offset = (
        along(norm.axis, v) for v in (mean, variance, norm.scale, norm.offset)
    )
    return (x - mean) / np.sqrt(variance + epsilon) * scale + offset


@LAYOUTS
def test_initially_only_normalises(shape, axis):
    norm = BatchNorm(3, decay=0.9, axis=axis)
    y, _ = norm(tf.constant(batch_of(shape, axis), tf.float32), training=True)
    assert y.shape == shape
    rows = by_channel(y, axis)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.var(0), 1, atol=5e-3)  # epsilon is in it


@LAYOUTS
def test_training_matches_the_formula(norm, shape, axis):
    x = batch_of(shape, axis)
    rows = by_channel(x, axis)
    y, updates = norm(tf.constant(x, tf.float32), training=True)
    expected = normalised(x, rows.mean(0), rows.var(0), norm)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    (mean, next_mean), (variance, next_variance) = updates
    assert mean is norm.mean
    assert variance is norm.variance
    np.testing.assert_allclose(
        next_mean, 0.8 * mean + 0.2 * rows.mean(0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        next_variance, 0.8 * variance + 0.2 * rows.var(0, ddof=1), rtol=1e-5
    )


@LAYOUTS
def test_evaluation_uses_the_averages(norm, shape, axis):
    x = batch_of(shape, axis)
    y, updates = norm(tf.constant(x, tf.float32), training=False)
    expected = normalised(x, norm.mean, norm.variance, norm)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for average, value in updates:
        np.testing.assert_array_equal(average, value)


@LAYOUTS
@TRAINING
def test_epsilon(shape, axis, training):
    norm = BatchNorm(3, decay=0.8, axis=axis, epsilon=0.5)
    x = batch_of(shape, axis)
    y, _ = norm(tf.constant(x, tf.float32), training=training)
    mean, variance = norm.mean, norm.variance
    if training:
        rows = by_channel(x, axis)
        mean, variance = rows.mean(0), rows.var(0)
    expected = normalised(x, mean, variance, norm, epsilon=0.5)
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 2, 3, -2])
def test_other_axes_are_refused(axis):
    with pytest.raises(ValueError, match=f"^here: axis must be -1 or 1, got {axis}$"):
        BatchNorm(3, decay=0.9, axis=axis, name="here")


@pytest.mark.parametrize(
    "axis, shape",
    [(-1, [1, 6, 6, 1]), (-1, [5, 3]), (1, [1, 6, 6, 2]), (1, [5, 2])],
)
def test_wrong_shape_fails_at_once_and_names_the_layer(axis, shape):
    norm = BatchNorm(2, decay=0.9, axis=axis, name="here")
    with pytest.raises(ValueError, match=r"^here was built for \[….* 2\b") as error:
        norm(tf.zeros(shape), training=True)
    assert str(error.value).endswith(f"given {shape}")


@LAYOUTS
@TRAINING
def test_a_call_changes_no_variable(norm, shape, axis, training):
    before = [v.numpy() for v in norm.variables]
    norm(tf.constant(normal(*shape)), training=training)
    for old, v in zip(before, norm.variables, strict=True):
        np.testing.assert_array_equal(v, old)


@LAYOUTS
@TRAINING
def test_a_fed_bool_acts_like_a_fixed_one(norm, shape, axis, training):
    @tf.function
    def graph(x, training):
        y, updates = norm(x, training=training)
        return y, [value for _, value in updates]

    x = tf.constant(normal(*shape))
    y, updates = norm(x, training=training)
    fed_y, fed_updates = graph(x, tf.constant(training))
    np.testing.assert_allclose(fed_y, y, rtol=1e-5, atol=1e-6)
    for fed_value, (_, value) in zip(fed_updates, updates, strict=True):
        np.testing.assert_allclose(fed_value, value, rtol=1e-6)


@LAYOUTS
@TRAINING
def test_gradient_matches_the_formula(norm, shape, axis, training):
    x = tf.constant(normal(*shape))
    weights = tf.constant(np.random.default_rng(1).normal(size=shape), tf.float32)
    sources = [x, norm.scale, norm.offset]
    others = [i for i in range(len(shape)) if i != axis % len(shape)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y, _ = norm(x, training=training)
        spread = [1 if i in others else 3 for i in range(len(shape))]
        mean, variance, scale, offset = (
            tf.reshape(v, spread)
            for v in (norm.mean, norm.variance, norm.scale, norm.offset)
        )
        if training:
            mean = tf.reduce_mean(x, others, keepdims=True)
            variance = tf.reduce_mean((x - mean) ** 2, others, keepdims=True)
        plain = (x - mean) / tf.sqrt(variance + EPSILON)
        plain = plain * scale + offset
        loss, plain_loss = (tf.reduce_sum(out * weights) for out in (y, plain))
    for ours, expected in zip(
        tape.gradient(loss, sources), tape.gradient(plain_loss, sources), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@LAYOUTS
def test_output_ignores_scale_and_shift_of_the_input(shape, axis):
    """Each channel has its own; epsilon is small enough not to matter."""
    norm = BatchNorm(3, decay=0.9, axis=axis, epsilon=1e-9)
    x = normal(*shape)
    moved = x * along(axis, [2, 0.5, 30]) + along(axis, [-3, 0.1, 10])
    plain, seen, mirrored = (
        norm(tf.constant(v, tf.float32), training=True)[0] for v in (x, moved, -x)
    )
    np.testing.assert_allclose(seen, plain, atol=1e-5)
    np.testing.assert_allclose(mirrored, -plain, atol=1e-5)


@LAYOUTS
def test_gradient_is_orthogonal_to_ones_and_to_the_output(shape, axis):
    """So no step shifts or scales the input; the output would ignore that."""
    norm = BatchNorm(3, decay=0.9, axis=axis, epsilon=1e-9)
    x = tf.constant(batch_of(shape, axis), tf.float32)
    mix = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, _ = norm(x, training=True)
        loss = tf.reduce_sum(y * mix)
    gradient = by_channel(tape.gradient(loss, x), axis).astype(np.float64)
    length = np.sqrt((gradient**2).sum(0) * len(gradient))
    assert (length > 1).all()
    for orthogonal in (1, by_channel(y, axis)):
        cosine = (gradient * orthogonal).sum(0) / length
        np.testing.assert_allclose(cosine, 0, atol=1e-5)


@LAYOUTS
def test_evaluation_converges_to_training_on_a_constant_batch(shape, axis):
    """Except that the averaged variance is unbiased."""
    norm = BatchNorm(3, decay=0.5, axis=axis, epsilon=1e-9)
    x = tf.constant(batch_of(shape, axis), tf.float32)
    for _ in range(40):
        trained, updates = norm(x, training=True)
        for average, value in updates:
            average.assign(value)
    count = len(by_channel(x, axis))
    evaluated, _ = norm(x, training=False)
    expected = trained * math.sqrt((count - 1) / count)
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)
