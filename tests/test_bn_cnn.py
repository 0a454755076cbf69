# SPDX-License-Identifier: Apache-2.0
"""Tests of models/bn_cnn.py."""

import numpy as np
import pytest
import tensorflow as tf

from models import layers
from tests import networks


@pytest.mark.parametrize(
    "bn_axis, norms", [(-1, [32, 48, 64]), (1, [26, 13, 7])], ids=["channels", "rows"]
)
def test_parameters(bn_axis, norms):
    network = networks.build("bn_cnn", bn_axis=bn_axis)
    count = (
        *(3 * 3 * 1 * 32 + 32, 3 * 3 * 32 * 48 + 48, 2 * 2 * 48 * 64 + 64),
        *(576 * 3168 + 3168, 3168 * 10 + 10),
    )
    assert count == (320, 13_872, 12_352, 1_827_936, 31_690)
    assert layers.count_parameters(network) == sum(count) + 2 * sum(norms)
    for norm, size in zip(
        (network.norm1, network.norm2, network.norm3), norms, strict=True
    ):
        assert (norm.axis, norm.epsilon, norm.decay) == (bn_axis, 1e-6, 0.99)
        assert norm.scale.shape == [size]


def test_taps():
    _, taps = networks.tapped(networks.build("bn_cnn"))
    assert list(networks.shapes(taps).items()) == [
        ("conv1", [3, 13, 13, 32]),
        ("conv2", [3, 6, 6, 48]),
        ("conv3", [3, 3, 3, 64]),
        ("dense1", [3, 3168]),
        ("logits", [3, 10]),
    ]


def plain_bn_cnn(network, images, training, activation, bn_axis):
    """BN-CNN in plain TensorFlow, as in the write-up."""

    def normalise(x, norm):
        shape = [1, 1, 1, -1] if bn_axis == -1 else [1, -1, 1, 1]
        mean, variance, scale, offset = (
            tf.reshape(v, shape)
            for v in (norm.mean, norm.variance, norm.scale, norm.offset)
        )
        if training:
            axes = [0, 1, 2] if bn_axis == -1 else [0, 2, 3]
            mean = tf.reduce_mean(x, axes, keepdims=True)
            variance = tf.reduce_mean((x - mean) ** 2, axes, keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-6) * scale + offset

    x = tf.cast(images, tf.float32) / 255
    for number, (conv, norm) in enumerate(
        (
            (network.conv1, network.norm1),
            (network.conv2, network.norm2),
            (network.conv3, network.norm3),
        )
    ):
        if number:
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = activation(tf.nn.conv2d(x, conv.w, 1, "VALID") + conv.b)
        x = tf.nn.max_pool2d(normalise(x, norm), 2, 2, "VALID")
    x = tf.reshape(x, [-1, 576])
    x = activation(x @ network.dense1.w + network.dense1.b)
    return x @ network.logits.w + network.logits.b


@networks.TRAINING
@pytest.mark.parametrize("bn_axis", [-1, 1])
@networks.ACTIVATION
def test_network_equals_its_plain_formulation(activation, bn_axis, training):
    network = networks.build(
        "bn_cnn", activation=activation, bn_axis=bn_axis, conv_dropout=0.0
    )
    networks.unsettle(network)
    for norm in (network.norm1, network.norm2, network.norm3):
        # With negative scales, batch norm before the pool differs from after it.
        norm.scale.assign(norm.scale * (-1.0) ** np.arange(norm.channels))
    images = tf.constant(networks.digits(3))
    function = layers.ACTIVATIONS[activation]
    expected = plain_bn_cnn(network, images, training, function, bn_axis)
    networks.close(networks.call(network, images, training)[0], expected)
