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
    assert abs((weights**4).mean() - 3) < 0.2  # normal, not truncated nor uniform


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
        (lambda: layers.BatchNorm(2, decay=0.9, name="here"), [1, 6, 6, 1]),
        (lambda: layers.BatchNorm(2, decay=0.9, name="here"), [5, 3]),
        (lambda: layers.BatchNorm(2, decay=0.9, axis=1, name="here"), [1, 6, 6, 2]),
        (lambda: layers.BatchNorm(2, decay=0.9, axis=1, name="here"), [5, 2]),
    ],
)
def test_wrong_shape_fails_at_once_and_names_the_layer(make, shape):
    layer = make()
    options = {"training": True} if isinstance(layer, layers.BatchNorm) else {}
    with pytest.raises(ValueError, match=r"^here was built for \[….* 2\b") as error:
        layer(tf.zeros(shape), **options)
    assert str(error.value).endswith(f"given {shape}")


# --- batch norm ---

LAYOUTS = pytest.mark.parametrize(
    "shape, axis", [((4, 5, 6, 3), -1), ((20, 3), -1), ((4, 3, 5, 6), 1)]
)
TRAINING = pytest.mark.parametrize("training", [True, False])


@pytest.fixture
def norm(axis):
    """Three channels or rows, with variables that differ from their initial values."""
    norm = layers.BatchNorm(3, decay=0.8, axis=axis)
    norm.scale.assign([2.0, 0.5, -1.0])
    norm.offset.assign([1.0, -3.0, 0.0])
    norm.mean.assign([0.1, 0.2, 0.3])
    norm.variance.assign([1.5, 2.5, 0.5])
    return norm


def along(axis, values):
    """Three values, shaped so that they are spread along the axis."""
    return np.reshape(values, [3] if axis == -1 else [3, 1, 1])


def batch_of(shape, axis):
    return normal(*shape) * along(axis, [1, 2, 3]) + along(axis, [5, 0, -1])


def by_channel(x, axis):
    """[values, channels] of a batch: what the statistics are taken over."""
    return np.moveaxis(np.asarray(x), axis, -1).reshape(-1, 3)


def normalised(x, mean, variance, norm, epsilon=layers.BATCH_NORM_EPSILON):
    """The paper's formula, in numpy."""
    mean, variance, scale, offset = (
        along(norm.axis, v) for v in (mean, variance, norm.scale, norm.offset)
    )
    return (x - mean) / np.sqrt(variance + epsilon) * scale + offset


@LAYOUTS
def test_batch_norm_starts_as_plain_normalisation(shape, axis):
    norm = layers.BatchNorm(3, decay=0.9, axis=axis)
    y, _ = norm(tf.constant(batch_of(shape, axis), tf.float32), training=True)
    assert y.shape == shape
    rows = by_channel(y, axis)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.var(0), 1, atol=5e-3)  # epsilon is in it


@LAYOUTS
def test_batch_norm_in_training_by_its_formula(norm, shape, axis):
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
def test_batch_norm_otherwise_uses_the_averages(norm, shape, axis):
    x = batch_of(shape, axis)
    y, updates = norm(tf.constant(x, tf.float32), training=False)
    expected = normalised(x, norm.mean, norm.variance, norm)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for average, value in updates:
        np.testing.assert_array_equal(average, value)


@LAYOUTS
@TRAINING
def test_batch_norm_epsilon(shape, axis, training):
    norm = layers.BatchNorm(3, decay=0.8, axis=axis, epsilon=0.5)
    x = batch_of(shape, axis)
    y, _ = norm(tf.constant(x, tf.float32), training=training)
    mean, variance = norm.mean, norm.variance
    if training:
        rows = by_channel(x, axis)
        mean, variance = rows.mean(0), rows.var(0)
    expected = normalised(x, mean, variance, norm, epsilon=0.5)
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 2, 3, -2])
def test_batch_norm_of_another_axis_is_refused(axis):
    with pytest.raises(ValueError, match=f"^here: axis must be -1 or 1, got {axis}$"):
        layers.BatchNorm(3, decay=0.9, axis=axis, name="here")


@LAYOUTS
@TRAINING
def test_batch_norm_call_changes_no_variable(norm, shape, axis, training):
    before = [v.numpy() for v in norm.variables]
    norm(tf.constant(normal(*shape)), training=training)
    for old, v in zip(before, norm.variables, strict=True):
        np.testing.assert_array_equal(v, old)


@LAYOUTS
@TRAINING
def test_batch_norm_with_a_fed_bool(norm, shape, axis, training):
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
def test_batch_norm_gradient_is_the_plain_formulas(norm, shape, axis, training):
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
        plain = (x - mean) / tf.sqrt(variance + layers.BATCH_NORM_EPSILON)
        plain = plain * scale + offset
        loss, plain_loss = (tf.reduce_sum(out * weights) for out in (y, plain))
    for ours, expected in zip(
        tape.gradient(loss, sources), tape.gradient(plain_loss, sources), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@LAYOUTS
def test_batch_norm_does_not_see_scale_and_shift(shape, axis):
    """Of its input, each channel its own, but for epsilon."""
    norm = layers.BatchNorm(3, decay=0.9, axis=axis, epsilon=1e-9)
    x = normal(*shape)
    moved = x * along(axis, [2, 0.5, 30]) + along(axis, [-3, 0.1, 10])
    plain, seen, mirrored = (
        norm(tf.constant(some, tf.float32), training=True)[0] for some in (x, moved, -x)
    )
    np.testing.assert_allclose(seen, plain, atol=1e-5)
    np.testing.assert_allclose(mirrored, -plain, atol=1e-5)


@LAYOUTS
def test_batch_norm_gradient_is_orthogonal_to_ones_and_to_the_result(shape, axis):
    """So that no step shifts or scales its input: what it would not see anyway."""
    norm = layers.BatchNorm(3, decay=0.9, axis=axis, epsilon=1e-9)
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
def test_batch_norm_comes_to_do_in_evaluation_what_it_does_in_training(shape, axis):
    """On one batch for ever, but for the unbiased variance of the average."""
    norm = layers.BatchNorm(3, decay=0.5, axis=axis, epsilon=1e-9)
    x = tf.constant(batch_of(shape, axis), tf.float32)
    for _ in range(40):
        trained, updates = norm(x, training=True)
        for average, value in updates:
            average.assign(value)
    count = len(by_channel(x, axis))
    evaluated, _ = norm(x, training=False)
    expected = trained * math.sqrt((count - 1) / count)
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)


# --- pooling, padding and flattening ---


def test_max_pool_by_hand():
    x = np.reshape(np.arange(25, dtype=np.float32), [1, 5, 5, 1])
    x[0, 1, 1] = 99.0
    y = layers.max_pool(tf.constant(x), 3, 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[99, 14], [22, 24]])


def test_max_pool_leaves_out_what_fills_no_window():
    x = tf.constant(normal(1, 6, 6, 2))
    y = layers.max_pool(x, 3, 2)
    assert y.shape == [1, 2, 2, 2]
    np.testing.assert_array_equal(y, layers.max_pool(x[:, :5, :5], 3, 2))


def test_pad_lays_one_zero_on_each_side():
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
    ends = [0, 2**28 - 1]  # first and last step; they seed the run's other draws
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
    """Sixteen bits draw it to 1 %; the next rates that they round are refused."""
    x = tf.zeros([2**10, 2**10]) if dropout is layers.alpha_dropout else 1.0
    x = tf.ones([2**10, 2**10]) * x
    y = dropout(x, layers.MAX_DROPOUT, training=True, seed=SEED).numpy()
    kept = (y != y.min()).mean()
    assert kept == pytest.approx(1 - layers.MAX_DROPOUT, rel=0.06)  # two deviations
    if dropout is layers.dropout:
        assert y.mean() == pytest.approx(1, rel=0.06)
    assert round(layers.MAX_DROPOUT * 2**16) == 2**16 - 66  # 65.5 would be right


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
