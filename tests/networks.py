# SPDX-License-Identifier: Apache-2.0
"""Helpers for the tests of networks."""

import numpy as np
import pytest
import tensorflow as tf

import models
from models import layers

SEED = (0, 3)  # seed of one step's dropout
TRAINING = pytest.mark.parametrize("training", [True, False])
ACTIVATION = pytest.mark.parametrize("activation", sorted(layers.ACTIVATIONS))


def build(name, **options):
    return models.build(name, **options)


def unsettle(network):
    """Moves scales, offsets, biases and averages off their neutral initial values."""
    rng = np.random.default_rng(5)
    for v in network.variables:
        if v.shape.rank == 1:
            v.assign(v + tf.constant(rng.uniform(0.05, 0.5, v.shape), tf.float32))


def digits(count):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)


def call(network, images, training):
    return network(tf.constant(images), training=training, seed=tf.constant(SEED))


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def tapped(network, count=3):
    """Returns logits and taps of random images in evaluation."""
    taps: dict[str, tf.Tensor] = {}
    logits, _ = network(tf.constant(digits(count)), training=False, taps=taps)
    return logits, taps


def shapes(taps):
    return {name: tap.shape.as_list() for name, tap in taps.items()}
