# SPDX-License-Identifier: Apache-2.0
"""Tests of models/double_conv.py."""

import tensorflow as tf

from models import layers
from tests import networks


def test_parameters():
    count = (
        *(5 * 5 * 1 * 32 + 32, 5 * 5 * 32 * 32 + 32),
        *(3 * 3 * 32 * 64 + 64, 3 * 3 * 64 * 64 + 64),
        *(7 * 7 * 64 * 256 + 256, 256 * 10 + 10),
    )
    assert count == (832, 25_632, 18_496, 36_928, 803_072, 2_570)
    assert (
        layers.count_parameters(networks.build("double_conv")) == sum(count) == 887_530
    )


def test_taps():
    _, taps = networks.tapped(networks.build("double_conv"))
    assert list(networks.shapes(taps).items()) == [
        ("conv1", [3, 28, 28, 32]),
        ("conv2", [3, 14, 14, 32]),
        ("conv3", [3, 14, 14, 64]),
        ("conv4", [3, 7, 7, 64]),
        ("dense1", [3, 256]),
        ("logits", [3, 10]),
    ]


@networks.ACTIVATION
def test_network_equals_its_plain_formulation(activation):
    network = networks.build("double_conv", activation=activation)
    networks.unsettle(network)
    images = tf.constant(networks.digits(3))
    function = layers.ACTIVATIONS[activation]
    x = tf.cast(images, tf.float32) / 255
    for conv in (network.conv1, network.conv2, network.conv3, network.conv4):
        x = function(tf.nn.conv2d(x, conv.w, 1, "SAME") + conv.b)
        if conv in (network.conv2, network.conv4):
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, 3136])
    x = function(x @ network.dense1.w + network.dense1.b)
    expected = x @ network.logits.w + network.logits.b
    networks.close(networks.call(network, images, False)[0], expected)
