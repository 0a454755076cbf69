# SPDX-License-Identifier: Apache-2.0
"""Tests of models/conv6.py."""

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


@networks.TRAINING
def test_network_equals_its_plain_formulation(training):
    network = networks.build("conv6", maps=[3, 4, 5, 6, 7, 8], activation="elu")
    networks.unsettle(network)
    images = networks.digits(3)
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
        x = tf.nn.elu(x)
    expected = tf.reduce_mean(x, [1, 2]) @ network.logits.w + network.logits.b
    networks.close(networks.call(network, images, training)[0], expected)


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
