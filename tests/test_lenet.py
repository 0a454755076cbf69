# SPDX-License-Identifier: Apache-2.0
"""Tests of models/lenet.py."""

import numpy as np
import pytest
import tensorflow as tf

from models import batch_norm, kernels, layers
from tests import networks


@pytest.mark.parametrize(
    "batch_norm, batch_norm_first, count",
    [
        ("none", True, 211_106),
        # Scale and offset of 12 + 16 maps, with or without their biases.
        ("conv", True, 211_106 + 28),
        ("conv", False, 211_106 + 56),
        # The same for 288 + 144 units as well.
        ("all", True, 211_106 + 460),
        ("all", False, 211_106 + 920),
    ],
)
def test_parameters(batch_norm, batch_norm_first, count):
    network = networks.build(
        "lenet", batch_norm=batch_norm, batch_norm_first=batch_norm_first
    )
    assert layers.count_parameters(network) == count


def test_wider_networks_have_more_maps():
    # 24·9 + 24, 24·9·32 + 32, 6·6·32·288 + 288; dense2 and logits as before.
    network = networks.build("lenet", width=2)
    count = 240 + 6_944 + 332_064 + 41_616 + 1_450
    assert layers.count_parameters(network) == count


@pytest.mark.parametrize("batch_norm", ["none", "all"])
def test_taps(batch_norm):
    _, taps = networks.tapped(networks.build("lenet", batch_norm=batch_norm))
    assert list(networks.shapes(taps).items()) == [
        ("conv1", [3, 13, 13, 12]),
        ("conv2", [3, 6, 6, 16]),
        ("dense1", [3, 288]),
        ("dense2", [3, 144]),
        ("logits", [3, 10]),
    ]


def plain_lenet(network, images, training, activation, batch_norm_first):
    """LeNet in plain TensorFlow, with the activation before the pool."""

    def normalise(x, norm):
        if norm is None:
            return x
        mean, variance = norm.mean, norm.variance
        if training:
            mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        return tf.nn.batch_normalization(
            x, mean, variance, norm.offset, norm.scale, batch_norm.EPSILON
        )

    def rest(x, layer, norm, pool=tf.identity):
        x = x if layer.b is None else x + layer.b
        if batch_norm_first:
            return pool(activation(normalise(x, norm)))
        return normalise(pool(activation(x)), norm)

    def pool(x):
        return tf.nn.max_pool2d(x, 3, 2, "VALID")

    x = tf.cast(images, tf.float32) / 255
    for conv, norm in (
        (network.conv1, network.norm1),
        (network.conv2, network.norm2),
    ):
        x = rest(tf.nn.conv2d(x, conv.w, 1, "SAME"), conv, norm, pool)
    x = tf.reshape(x, [-1, 576])
    for dense, norm in (
        (network.dense1, network.norm3),
        (network.dense2, network.norm4),
    ):
        x = rest(x @ dense.w, dense, norm)
    return x @ network.logits.w + network.logits.b


@pytest.mark.parametrize(
    "training, kernels",
    [
        pytest.param(True, "native", marks=pytest.mark.native),
        (True, "tensorflow"),
        (False, "native"),
    ],
)
@pytest.mark.parametrize("batch_norm_first", [True, False])
@pytest.mark.parametrize("batch_norm", ["none", "conv", "all"])
@networks.ACTIVATION
def test_network_equals_its_plain_formulation(
    activation, batch_norm, batch_norm_first, training, kernels
):
    """Compares logits and gradients, up to float32 rounding."""
    network = networks.build(
        "lenet",
        kernels=kernels,
        activation=activation,
        batch_norm=batch_norm,
        batch_norm_first=batch_norm_first,
    )
    networks.unsettle(network)
    # Not the first six: there, rounding alone decides the maximum of a pool window.
    images = tf.constant(networks.digits(12)[6:])
    weights = network.trainable_variables
    with tf.GradientTape() as tape, tf.GradientTape() as plain_tape:
        logits = networks.call(network, images, training)[0]
        expected = plain_lenet(
            network, images, training, layers.ACTIVATIONS[activation], batch_norm_first
        )
        losses = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(6), some)
            for some in (logits, expected)
        ]
    networks.close(logits, expected)
    gradients = tape.gradient(losses[0], weights)
    plain_gradients = plain_tape.gradient(losses[1], weights)
    for ours, plain in zip(gradients, plain_gradients, strict=True):
        size = tf.norm(plain)
        np.testing.assert_allclose(ours / size, plain / size, atol=2e-4)


@pytest.mark.native
@pytest.mark.parametrize("normalise_grey", [True, False])
@pytest.mark.parametrize("batch_norm_first", [True, False])
@pytest.mark.parametrize("batch_norm", ["none", "conv", "all"])
@networks.ACTIVATION
def test_predictions_equal_tensorflows(
    activation, batch_norm, batch_norm_first, normalise_grey
):
    network = networks.build(
        "lenet",
        kernels="native",
        activation=activation,
        batch_norm=batch_norm,
        batch_norm_first=batch_norm_first,
        normalise_grey=normalise_grey,
    )
    networks.unsettle(network)
    images = tf.constant(networks.digits(6))
    expected, _ = networks.tapped(network, 6)
    with kernels.predicting():
        logits, _ = network(images, training=False)
        tapped, taps = networks.tapped(network, 6)
    networks.close(logits, expected)
    networks.close(tapped, expected)
    assert list(taps) == ["conv1", "conv2", "dense1", "dense2", "logits"]
