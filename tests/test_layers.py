# SPDX-License-Identifier: Apache-2.0
"""Tests of models/layers.py."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from models import layers

SEED = (0, 0)
DROPOUTS = pytest.mark.parametrize("dropout", layers.DROPOUTS.values())


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# --- initial weights ---


@pytest.mark.parametrize("shape, fan_in", [((300, 200), 300), ((5, 5, 40, 60), 1000)])
def test_lecun_normal_moments(shape, fan_in):
    weights = layers.lecun_normal(shape, SEED).numpy() * math.sqrt(fan_in)
    # 60,000 draws: standard errors of 0.004 and 0.006.
    assert weights.dtype == np.float32
    assert abs(weights.mean()) < 0.02
    assert abs(weights.var() - 1) < 0.03
    assert abs((weights**4).mean() - 3) < 0.2  # normal, neither truncated nor uniform


@pytest.mark.parametrize(
    "shape, limit",
    [((300, 200), math.sqrt(6 / 500)), ((5, 5, 40, 60), math.sqrt(6 / (25 * 100)))],
)
def test_glorot_uniform_moments(shape, limit):
    weights = layers.glorot_uniform(shape, SEED).numpy() / limit
    assert weights.dtype == np.float32
    # 60,000 draws: the outermost of each side lies within 0.001 of the limit.
    assert -1 <= weights.min() < -0.999
    assert 0.999 < weights.max() < 1
    assert abs(weights.mean()) < 0.01
    assert abs(weights.var() - 1 / 3) < 0.01  # limit² / 3 = 2 / (fan-in + fan-out)
    assert abs((weights**4).mean() - 1 / 5) < 0.01  # uniform, not normal


@pytest.mark.parametrize("init", [layers.lecun_normal, layers.glorot_uniform])
def test_weights_are_a_function_of_the_seed(init):
    first = init([20, 30], (1, -2)).numpy()
    again = init([20, 30], (1, -2)).numpy()
    assert first.tobytes() == again.tobytes()
    for seed in [(1, -1), (2, -2)]:
        assert (init([20, 30], seed).numpy() != first).mean() > 0.99


@pytest.mark.parametrize("init", [layers.lecun_normal, layers.glorot_uniform])
def test_kernels_are_those_of_the_initialiser(init):
    conv = layers.Conv(2, 3, 5, seed=(1, -2), init=init)
    dense = layers.Dense(4, 5, seed=(1, -3), init=init)
    np.testing.assert_array_equal(conv.w, init([5, 5, 2, 3], (1, -2)))
    np.testing.assert_array_equal(dense.w, init([4, 5], (1, -3)))


def test_lecun_normal_is_the_default_initialiser():
    conv, dense = layers.Conv(2, 3, 5, seed=SEED), layers.Dense(4, 5, seed=SEED)
    np.testing.assert_array_equal(conv.w, layers.lecun_normal([5, 5, 2, 3], SEED))
    np.testing.assert_array_equal(dense.w, layers.lecun_normal([4, 5], SEED))


# --- convolution and dense ---


def test_conv_by_hand():
    conv = layers.Conv(1, 1, 2, seed=SEED, padding="VALID")
    assert conv.b is not None
    conv.w.assign(np.reshape([1.0, 10.0, 100.0, 1000.0], [2, 2, 1, 1]))
    conv.b.assign([0.5])
    x = np.arange(1, 7, dtype=np.float32).reshape([1, 2, 3, 1])
    y = conv(tf.constant(x))
    np.testing.assert_allclose(y[0, :, :, 0], [[5421.5, 6532.5]])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv_is_correlation_summed_over_channels(padding, bias):
    conv = layers.Conv(2, 3, 3, seed=SEED, bias=bias, padding=padding)
    if conv.b is not None:
        conv.b.assign([1.0, 2.0, 3.0])
    x = normal(2, 6, 5, 2)
    y = conv(tf.constant(x)).numpy()
    for image in range(2):
        for out in range(3):
            expected = (out + 1.0 if bias else 0.0) + sum(
                signal.correlate2d(
                    x[image, :, :, channel],
                    conv.w.numpy()[:, :, channel, out],
                    padding.lower(),
                )
                for channel in range(2)
            )
            np.testing.assert_allclose(y[image, :, :, out], expected, atol=1e-5)


def test_dense_by_hand():
    dense = layers.Dense(2, 3, seed=SEED)
    assert dense.b is not None
    dense.w.assign([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    dense.b.assign([0.5, 0.0, -0.5])
    y = dense(tf.constant([[1.0, 1.0], [2.0, -1.0]]))
    np.testing.assert_allclose(y, [[11.5, 22.0, 32.5], [-7.5, -16.0, -24.5]])


def test_without_a_bias_there_is_no_variable_for_it():
    conv = layers.Conv(2, 3, 3, seed=SEED, bias=False)
    dense = layers.Dense(4, 5, seed=SEED, bias=False)
    assert [v.shape for v in conv.variables] == [[3, 3, 2, 3]]
    assert [v.shape for v in dense.variables] == [[4, 5]]
    x = normal(2, 4)
    np.testing.assert_allclose(dense(tf.constant(x)), x @ dense.w.numpy(), atol=1e-6)


def test_biases_start_at_0():
    for layer in (layers.Conv(2, 3, 3, seed=SEED), layers.Dense(2, 3, seed=SEED)):
        assert layer.b is not None
        np.testing.assert_array_equal(layer.b, [0, 0, 0])


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: layers.Conv(2, 3, 3, seed=SEED, name="here"), [1, 6, 6, 1]),
        (lambda: layers.Conv(2, 3, 3, seed=SEED, name="here"), [6, 6, 2]),
        (lambda: layers.Dense(2, 3, seed=SEED, name="here"), [5, 3]),
        (lambda: layers.Dense(2, 3, seed=SEED, name="here"), [1, 5, 2]),
    ],
)
def test_wrong_shape_fails_at_once_and_names_the_layer(make, shape):
    with pytest.raises(ValueError, match=r"^here was built for \[….* 2\b") as error:
        make()(tf.zeros(shape))
    assert str(error.value).endswith(f"given {shape}")


# --- pooling, padding and flattening ---


def test_max_pool_by_hand():
    x = np.reshape(np.arange(25, dtype=np.float32), [1, 5, 5, 1])
    x[0, 1, 1] = 99.0
    y = layers.max_pool(tf.constant(x), 3, 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[99, 14], [22, 24]])


def test_max_pool_drops_incomplete_windows():
    x = tf.constant(normal(1, 6, 6, 2))
    y = layers.max_pool(x, 3, 2)
    assert y.shape == [1, 2, 2, 2]
    np.testing.assert_array_equal(y, layers.max_pool(x[:, :5, :5], 3, 2))


def test_pad_adds_one_zero_on_each_side():
    x = normal(2, 3, 4, 5)
    y = layers.pad(tf.constant(x)).numpy()
    assert y.shape == (2, 5, 6, 5)
    np.testing.assert_array_equal(y[:, 1:-1, 1:-1], x)
    assert abs(y).sum() == pytest.approx(abs(x).sum())


def test_flatten_keeps_row_order():
    x = normal(2, 3, 4, 5)
    np.testing.assert_array_equal(layers.flatten(tf.constant(x)), x.reshape(2, 60))


# --- dropout ---


def test_dropout_zeroes_and_scales():
    y = layers.dropout(tf.ones([200, 100]), 0.25, training=True, seed=SEED).numpy()
    np.testing.assert_allclose(y[y != 0], 1 / 0.75, rtol=1e-6)
    assert abs((y == 0).mean() - 0.25) < 0.01  # three standard errors
    assert abs(y.mean() - 1) < 0.015


def test_alpha_dropout_keeps_mean_and_variance():
    x = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    for rate in (0.05, 0.3):
        y = layers.alpha_dropout(x, rate, training=True, seed=SEED).numpy()
        assert abs(y.mean()) < 0.02
        assert abs(y.var() - 1) < 0.02


def test_alpha_dropout_values_of_the_paper():
    # alpha' = −1.7581; a = (q + alpha'² q (1 − q))^(−1/2), b = −a (1 − q) alpha'
    q, lowest = 0.9, -1.7580993408473766
    a = (q + lowest**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * lowest
    y = layers.alpha_dropout(tf.fill([100, 100], 2.0), 0.1, training=True, seed=SEED)
    kept = y.numpy() > 1
    np.testing.assert_allclose(y[kept], 2 * a + b, rtol=1e-5)
    np.testing.assert_allclose(y[~kept], lowest * a + b, rtol=1e-5)
    assert abs(kept.mean() - q) < 0.01


def test_mask_seeds_of_a_run_all_differ():
    ends = [0, 2**28 - 1]  # first and last step seed the run's other draws
    for number in range(1, 8):
        for step in (0, 2**28 - 1):
            run, second = layers.mask_seed(tf.constant([3, step]), number).numpy()
            assert run == 3
            ends.append(second)
    assert ends == sorted(set(ends))  # so that no two ranges overlap
    assert layers.mask_seed(None, 1) is None


@DROPOUTS
def test_mask_is_a_function_of_the_seed(dropout):
    x = tf.constant(normal(30, 30))
    first = dropout(x, 0.5, training=True, seed=(1, 2)).numpy()
    again = dropout(x, 0.5, training=True, seed=tf.constant([1, 2])).numpy()
    np.testing.assert_array_equal(again, first)
    for seed in [(1, 3), (2, 2)]:
        other = dropout(x, 0.5, training=True, seed=seed).numpy()
        assert 0.4 < (other != first).mean() < 0.6


@DROPOUTS
def test_dropout_that_is_off(dropout):
    x = tf.constant(normal(30, 30))
    assert dropout(x, 0.0, training=True, seed=None) is x
    assert dropout(x, 0.5, training=False, seed=None) is x
    fed = dropout(x, 0.5, training=tf.constant(False), seed=SEED)
    np.testing.assert_array_equal(fed, x)


@DROPOUTS
def test_dropout_with_a_fed_true(dropout):
    x = tf.constant(normal(30, 30))
    fed = dropout(x, 0.5, training=tf.constant(True), seed=SEED)
    fixed = dropout(x, 0.5, training=True, seed=SEED)
    np.testing.assert_allclose(fed, fixed, rtol=1e-6)


@DROPOUTS
def test_highest_rate_of_dropout_keeps_the_mean(dropout):
    """Sixteen bits draw this rate within 1 %; higher rates are refused."""
    x = tf.zeros([2**10, 2**10]) if dropout is layers.alpha_dropout else 1.0
    x = tf.ones([2**10, 2**10]) * x
    y = dropout(x, layers.MAX_DROPOUT, training=True, seed=SEED).numpy()
    kept = (y != y.min()).mean()
    # Within two standard errors.
    assert kept == pytest.approx(1 - layers.MAX_DROPOUT, rel=0.06)
    if dropout is layers.dropout:
        assert y.mean() == pytest.approx(1, rel=0.06)
    assert round(layers.MAX_DROPOUT * 2**16) == 2**16 - 66  # 65.5 would be exact


@DROPOUTS
@pytest.mark.parametrize("rate", [0.99901, 0.999995, 1.0, -0.1, float("nan")])
def test_rates_that_sixteen_bits_cannot_draw_are_refused(dropout, rate):
    for training in (True, False):
        with pytest.raises(ValueError, match=r"in \[0, 0.999\]: 16 random"):
            dropout(tf.ones([2]), rate, training=training, seed=SEED)


@DROPOUTS
def test_dropout_without_a_seed_is_refused(dropout):
    for training in (True, tf.constant(True), tf.constant(False)):
        with pytest.raises(ValueError, match="seed"):
            dropout(tf.ones([2]), 0.5, training=training, seed=None)


# --- activations ---


def test_selu_by_hand():
    y = layers.selu(tf.constant([-1.0, 0.0, 1.0, 2.0, -100.0]))
    expected = [-1.1113307, 0.0, 1.0507010, 2.1014020, -1.7580993]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_selu_constants_are_those_of_the_layer():
    lowest = layers.selu(tf.constant(-1e4))
    np.testing.assert_allclose(
        lowest, -layers.SELU_SCALE * layers.SELU_ALPHA, rtol=1e-6
    )


def test_selu_keeps_mean_0_and_variance_1():
    x = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    y = layers.selu(tf.constant(x)).numpy()
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.02


@pytest.mark.parametrize("name", sorted(layers.ACTIVATIONS))
def test_activations_never_decrease(name):
    y = layers.ACTIVATIONS[name](tf.linspace(-5.0, 5.0, 1001)).numpy()
    assert (np.diff(y) >= 0).all()
    assert y[-1] > y[0]
