# SPDX-License-Identifier: Apache-2.0
"""Values and gradients of layers and losses against plain formulas in float64.

Each float32 layer is written a second time here, in NumPy and float64. Its value must
agree with that formula, and its gradient with the formula's central differences, up to
float32 rounding. No gradient is derived by hand.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
from numpy.lib.stride_tricks import sliding_window_view

from models import batch_norm, layers
from training import losses

# Central differences in float64 are then accurate to ten digits: truncation costs about
# STEP², rounding about 1e-16 / STEP.
STEP = 1e-5

# Relative to the largest value. A float32 rounding is 6e-8, and sums have up to 60
# terms; the largest error measured is 4e-7.
TOLERANCE = 5e-6

SEED = (3, 1)
RATE = 0.3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def spaced(*shape):
    """Distinct values, 0.05 apart and none at 0, far from every kink; random order."""
    order = np.random.default_rng(0).permutation(int(np.prod(shape)))
    return (order - len(order) // 2 + 0.5).reshape(shape) * 0.05


def differences(function, arguments, number):
    """Gradient of a scalar function with respect to one argument, float64."""
    gradient = np.empty_like(arguments[number])
    moved = [argument.copy() for argument in arguments]
    for place in np.ndindex(gradient.shape):
        ends = []
        for sign in (1, -1):
            moved[number][place] = arguments[number][place] + sign * STEP
            ends.append(function(*moved))
        moved[number][place] = arguments[number][place]
        gradient[place] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


def assert_close(ours, expected, what):
    size = max(abs(expected).max(), 1e-3)  # not 0, so that zeros can be compared
    error = abs(np.asarray(ours) - expected).max() / size
    assert error < TOLERANCE, f"{what} is off by {error:.1e} of its largest value"


def check(ours, formula, x, *variables):
    """Compares ours(x), which uses the variables, with formula(x, *values)."""
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ours(x)
        mix = normal(*y.shape, seed=1).astype(np.float32)  # of all outputs
        loss = tf.reduce_sum(y * mix)
    gradients = tape.gradient(loss, [x, *variables], unconnected_gradients="zero")
    arguments = [np.asarray(source, np.float64) for source in (x, *variables)]
    assert_close(y, formula(*arguments), "the value")
    for number, gradient in enumerate(gradients):
        expected = differences(lambda *a: np.sum(formula(*a) * mix), arguments, number)
        assert_close(gradient, expected, f"the gradient by argument {number}")


def test_differences_by_hand():
    # ∂(x² y³) = 2 x y³, 3 x² y²
    x, y = np.array([3.0]), np.array([2.0])
    for number, expected in enumerate([48, 108]):
        gradient = differences(lambda x, y: (x**2 * y**3).sum(), [x, y], number)
        np.testing.assert_allclose(gradient, [expected], rtol=1e-9)


def test_check_finds_a_wrong_gradient():
    @tf.custom_gradient
    def nearly_tanh(x):
        y = tf.tanh(x)
        return y, lambda upstream: upstream * (1 - y * y) * 1.0001

    check(tf.tanh, np.tanh, normal(4))
    with pytest.raises(AssertionError, match="the gradient by argument 0 is off by"):
        check(nearly_tanh, np.tanh, normal(4))
    with pytest.raises(AssertionError, match="the value is off by"):
        check(lambda x: tf.tanh(x) + 1e-4, np.tanh, normal(4))


# --- convolution, dense, pooling, padding, flattening ---


def parameters(layer):
    """Returns the layer's kernel and its bias, if any, set to random numbers."""
    if layer.b is None:
        return [layer.w]
    layer.b.assign(normal(*layer.b.shape))
    return [layer.w, layer.b]


def conv_formula(x, w, b=0.0, padding="VALID"):
    if padding == "SAME":
        before, after = (len(w) - 1) // 2, len(w) // 2
        x = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    windows = sliding_window_view(x, w.shape[:2], (1, 2))
    return np.einsum("nyxihw,hwio->nyxo", windows, w) + b


def pool_formula(x, size, stride):
    windows = sliding_window_view(x, (size, size), (1, 2)).max((-2, -1))
    return windows[:, ::stride, ::stride]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [2, 3])
def test_conv(size, padding, bias):
    conv = layers.Conv(2, 3, size, seed=SEED, bias=bias, padding=padding)
    x = normal(2, 5, 4, 2)
    check(conv, lambda *a: conv_formula(*a, padding=padding), x, *parameters(conv))


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2)])
def test_conv_and_pool(size, stride):
    conv = layers.Conv(2, 3, 3, seed=SEED)

    def formula(x, w, b):
        return pool_formula(conv_formula(x, w, b, "SAME"), size, stride)

    def ours(x):
        return layers.add_bias(
            layers.max_pool(conv.apply_weights(x), size, stride), conv.b
        )

    check(ours, formula, normal(2, 6, 5, 2), *parameters(conv))


@pytest.mark.parametrize("bias", [True, False])
def test_dense(bias):
    dense = layers.Dense(6, 4, seed=SEED, bias=bias)
    check(dense, lambda x, w, b=0.0: x @ w + b, normal(3, 6), *parameters(dense))


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2), (3, 1)])
def test_max_pool(size, stride):
    check(
        lambda x: layers.max_pool(x, size, stride),
        lambda x: pool_formula(x, size, stride),
        spaced(2, 6, 5, 3),
    )


def test_pad():
    margins = [(0, 0), (1, 1), (1, 1), (0, 0)]
    check(layers.pad, lambda x: np.pad(x, margins), normal(2, 3, 4, 2))


def test_flatten():
    check(layers.flatten, lambda x: x.reshape(len(x), -1), normal(2, 3, 4, 2))


# --- batch norm ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape, axis", [((3, 4, 2, 3), -1), ((8, 3), -1), ((3, 3, 4, 2), 1)]
)
def test_batch_norm(shape, axis, training):
    norm = batch_norm.BatchNorm(3, decay=0.8, axis=axis)
    norm.scale.assign([2.0, 0.5, -1.0])
    norm.offset.assign([1.0, -3.0, 0.0])
    norm.mean.assign([0.1, 0.2, 0.3])
    norm.variance.assign([1.5, 2.5, 0.5])

    def formula(x, scale, offset):
        x = np.moveaxis(x, axis, -1)
        mean, variance = np.float64(norm.mean), np.float64(norm.variance)
        if training:
            rows = x.reshape(-1, 3)
            mean, variance = rows.mean(0), rows.var(0)
        x = (x - mean) / np.sqrt(variance + batch_norm.EPSILON)
        return np.moveaxis(x * scale + offset, -1, axis)

    check(
        lambda x: norm(x, training=training)[0],
        formula,
        normal(*shape),
        *(norm.scale, norm.offset),
    )


# --- dropout ---


def kept(shape):
    """Mask of dropout: 16 random bits decide on each element."""
    size = math.prod(shape)
    numbers = tf.random.stateless_uniform(
        [-(-size // 2)], SEED, None, None, dtype=tf.uint32
    )
    draws = numbers.numpy().view(np.uint16)[:size].reshape(shape)
    return draws >= round(RATE * 2**16)


def dropout_formula(x):
    return np.where(kept(x.shape), x / (1 - RATE), 0)


def alpha_dropout_formula(x):
    """As in the paper, where q is the probability of keeping an element."""
    q, lowest = 1 - RATE, -layers.SELU_SCALE * layers.SELU_ALPHA
    a = (q + lowest**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * lowest
    return a * np.where(kept(x.shape), x, lowest) + b


@pytest.mark.parametrize(
    "dropout, formula",
    [(layers.dropout, dropout_formula), (layers.alpha_dropout, alpha_dropout_formula)],
)
@pytest.mark.parametrize("training", [True, False])
def test_dropout(dropout, formula, training):
    x = normal(4, 5)
    assert 0 < kept(x.shape).sum() < x.size
    for fed in (training, tf.constant(training)):
        check(
            lambda x: dropout(x, RATE, training=fed, seed=SEED),
            formula if training else np.copy,
            x,
        )


# --- activations ---

ACTIVATION_FORMULAS = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "relu": lambda x: np.where(x > 0, x, 0),
    "selu": lambda x: layers.SELU_SCALE
    * np.where(x > 0, x, layers.SELU_ALPHA * np.expm1(x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", sorted(layers.ACTIVATIONS))
def test_activation(name):
    check(layers.ACTIVATIONS[name], ACTIVATION_FORMULAS[name], spaced(12, 10))


# --- losses ---


def targets(labels, smoothing):
    return np.eye(10)[labels] * (1 - smoothing) + smoothing / 10


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def binary_formula(p, t):
    p = np.clip(p, losses.CLIP, 1 - losses.CLIP)
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()


LOSS_FORMULAS = {
    "binary_cross_entropy": binary_formula,
    "softmax_cross_entropy": lambda p, t: -(t * np.log(p)).sum(1).mean(),
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [0.1, 3.0])
@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_loss(name, size, smoothing):
    labels = np.array([3, 0, 9, 3, 5])
    check(
        lambda x: losses.LOSSES[name](x, tf.constant(labels), smoothing),
        lambda x: LOSS_FORMULAS[name](softmax(x), targets(labels, smoothing)),
        size * normal(5, 10),
    )


def test_a_clipped_probability_has_no_gradient():
    labels = np.array([2])
    logits = np.array([[0.0, 2.0, -20.0, *np.linspace(-1, 1, 7)]])
    assert softmax(logits)[0, 2] < losses.CLIP
    check(
        lambda x: losses.binary_cross_entropy(x, tf.constant(labels)),
        lambda x: binary_formula(softmax(x), targets(labels, 0)),
        logits,
    )
