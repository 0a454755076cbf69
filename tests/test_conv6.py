# SPDX-License-Identifier: Apache-2.0
"""Tests of models/conv6.py."""

import numpy as np
import pytest
import tensorflow as tf

import models
from models import layers
from system import errors
from tests import networks


def test_parameters():
    maps = (1, 32, 32, 64, 64, 96, 96)
    count = [9 * a * b + 2 * b for a, b in zip(maps, maps[1:])]
    network = networks.build("conv6")
    assert layers.count_parameters(network) == sum(count) + 97 * 10 == 204_778


def test_taps():
    _, taps = networks.tapped(networks.build("conv6"))
    assert list(networks.shapes(taps).items()) == [
        ("conv1", [3, 28, 28, 32]),
        ("conv2", [3, 14, 14, 32]),
        ("conv3", [3, 14, 14, 64]),
        ("conv4", [3, 7, 7, 64]),
        ("conv5", [3, 7, 7, 96]),
        ("conv6", [3, 7, 7, 96]),
        ("logits", [3, 10]),
    ]


@pytest.mark.parametrize(
    "training, kernels, activation",
    [
        pytest.param(True, "native", "elu", marks=pytest.mark.native),
        pytest.param(True, "native", "relu", marks=pytest.mark.native),
        (True, "tensorflow", "elu"),
        (False, "native", "elu"),
    ],
)
def test_network_equals_its_plain_formulation(training, kernels, activation):
    """Compares logits and gradients, up to float32 rounding."""
    network = networks.build(
        "conv6", maps=[3, 16, 17, 18, 16, 18], activation=activation, kernels=kernels
    )
    networks.unsettle(network)
    images = networks.digits(3)

    def plain():
        x = tf.constant(images, tf.float32) / 255
        for number in range(1, 7):
            norm = getattr(network, f"norm{number}")
            x = tf.nn.conv2d(x, getattr(network, f"conv{number}").w, 1, "SAME")
            if number in (2, 4):
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            mean, variance = norm.mean, norm.variance
            if training:
                mean, variance = tf.nn.moments(x, [0, 1, 2])
            x = norm.scale * (x - mean) / tf.sqrt(variance + 1e-3) + norm.offset
            x = layers.ACTIVATIONS[activation](x)
        return tf.reduce_mean(x, [1, 2]) @ network.logits.w + network.logits.b

    with tf.GradientTape() as tape, tf.GradientTape() as plain_tape:
        logits, expected = networks.call(network, images, training)[0], plain()
    networks.close(logits, expected)
    weights, dy = network.trainable_variables, tf.eye(3, 10)
    gradients = tape.gradient(logits, weights, dy)
    plain_gradients = plain_tape.gradient(expected, weights, dy)
    for one, other in zip(gradients, plain_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


def se(x, weigh):
    """Squeeze-excite, written out."""
    hidden = tf.nn.relu(tf.reduce_mean(x, [1, 2]) @ weigh.w1 + weigh.b1)
    factors = 1 / (1 + tf.exp(-(hidden @ weigh.w2 + weigh.b2)))
    return tf.einsum("nhwc,nc->nhwc", x, factors)


@networks.TRAINING
def test_blocks_equal_their_plain_formulation(training):
    maps = [4, 4, 8, 8, 12, 12]
    switches = {"separable": True, "residual": True, "squeeze_excite": True}
    network = networks.build("conv6", maps=maps, activation="elu", **switches)
    networks.unsettle(network)
    images = networks.digits(3)
    x = tf.constant(images, tf.float32) / 255
    for number, inputs in enumerate([1, *maps[:-1]], 1):
        layer = getattr(network, f"conv{number}")
        kernel = layer.w
        if number > 1:  # a channel at a time, then all of them at each pixel
            shape = [3, 3, inputs, layer.w.shape[-1]]
            kernel = tf.broadcast_to(layer.depthwise, [3, 3, inputs, 1]) * layer.w[0, 0]
            assert kernel.shape == shape
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        y = y + x if number in (2, 4, 6) else y
        y = tf.nn.max_pool2d(y, 2, 2, "VALID") if number in (2, 4) else y
        norm = getattr(network, f"norm{number}")
        mean, variance = norm.mean, norm.variance
        if training:
            mean, variance = tf.nn.moments(y, [0, 1, 2])
        y = norm.scale * (y - mean) / tf.sqrt(variance + 1e-3) + norm.offset
        x = tf.nn.elu(y)
        if number in (2, 4, 6):
            x = se(x, getattr(network, f"squeeze_excite{number}"))
    expected = tf.reduce_mean(x, [1, 2]) @ network.logits.w + network.logits.b
    networks.close(networks.call(network, images, training)[0], expected)


def test_separable_convolutions_have_a_fraction_of_the_weights():
    maps = (1, 32, 32, 64, 64, 96, 96)
    full = 9 * 32 + 2 * 32
    count = [9 * a + a * b + 2 * b for a, b in zip(maps[1:], maps[2:])]
    network = networks.build("conv6", separable=True)
    assert layers.count_parameters(network) == full + sum(count) + 97 * 10


def test_initial_separable_weights_keep_the_size_of_values():
    network = networks.build("conv6", separable=True)
    for number in (2, 4, 6):
        layer = getattr(network, f"conv{number}")
        assert abs(tf.math.reduce_variance(layer.depthwise) * 9 - 1) < 0.25
        fan_in = layer.w.shape[2]
        assert abs(tf.math.reduce_variance(layer.w) * fan_in / 2 - 1) < 0.1


def test_residual_wants_equal_pairs():
    with pytest.raises(errors.UserError, match="equal pairs, such as"):
        models.build("conv6", maps=[4, 5, 6, 6, 7, 7], residual=True)


@pytest.mark.native
@pytest.mark.parametrize(
    "maps, count", [([32, 32, 64, 64, 96, 96], 5), ([16, 15, 16, 16, 8, 8], 1)]
)
def test_convolutions_of_few_channels_stay_with_tensorflow(maps, count):
    network = networks.build("conv6", maps=maps, kernels="native")
    step = tf.function(lambda x: network(x, training=True, seed=[0, 1])[0])
    graph = step.get_concrete_function(tf.TensorSpec([4, 28, 28, 1], tf.uint8)).graph
    kinds = [o.type for o in graph.get_operations()]
    assert kinds.count("Conv3x3") + kinds.count("Conv3x3Pool") == count


def test_initial_weights_have_the_variance_for_relu():
    network = networks.build("conv6")
    for number in (2, 4, 6):
        w = getattr(network, f"conv{number}").w
        fan_in = 9 * w.shape[2]
        assert abs(tf.math.reduce_variance(w) * fan_in / 2 - 1) < 0.05


@pytest.mark.parametrize("maps", [[32], [], [1] * 7])
def test_another_number_of_maps_is_refused(maps):
    with pytest.raises(errors.UserError, match=f"expected 6 numbers, got {len(maps)}"):
        models.build("conv6", maps=maps)
