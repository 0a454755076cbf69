# SPDX-License-Identifier: Apache-2.0
"""Tests of models/mlp.py."""

import numpy as np
import pytest
import tensorflow as tf

from models import layers, mlp
from tests import networks


@pytest.mark.parametrize(
    "hidden_units, count",
    [
        ((64,), 785 * 64 + 65 * 10),
        ((300,), 785 * 300 + 301 * 10),
        ((150, 100), 785 * 150 + 151 * 100 + 101 * 10),
        ((), 785 * 10),
        ((5, 4, 3), 785 * 5 + 6 * 4 + 5 * 3 + 4 * 10),
    ],
)
def test_parameters(hidden_units, count):
    network = networks.build("mlp", hidden_units=hidden_units)
    assert layers.count_parameters(network) == count
    assert mlp.PARAMETERS.get(hidden_units, count) == count


def test_published_parameters():
    assert mlp.PARAMETERS == {(64,): 50_890, (300,): 238_510, (150, 100): 133_860}


def test_taps():
    _, taps = networks.tapped(networks.build("mlp", hidden_units=[7, 6, 5]))
    assert list(networks.shapes(taps).items()) == [
        ("dense1", [3, 7]),
        ("dense2", [3, 6]),
        ("dense3", [3, 5]),
        ("logits", [3, 10]),
    ]


@networks.ACTIVATION
def test_network_equals_its_plain_formulation(activation):
    network = networks.build("mlp", activation=activation, hidden_units=[20, 12])
    networks.unsettle(network)
    images = networks.digits(6)
    function = layers.ACTIVATIONS[activation]
    x = tf.constant(images.reshape(6, 784) / np.float32(255))
    x = function(x @ network.dense1.w + network.dense1.b)
    x = function(x @ network.dense2.w + network.dense2.b)
    networks.close(
        networks.call(network, images, True)[0], x @ network.logits.w + network.logits.b
    )
