# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/combined.py: means and temperatures, computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from evaluation import combined, scoring
from models.mlp import MLP


class Constant(tf.Module):
    """A network that gives every image the same probabilities."""

    def __init__(self, *probabilities):
        super().__init__("constant")
        self.logits = tf.math.log(tf.constant([probabilities], tf.float32)) + 3.0

    def __call__(self, images, *, training, seed=None, taps=None):
        return tf.tile(self.logits, [tf.shape(images)[0], 1]), []


class Corner(tf.Module):
    """A network whose logits are 0 and the ink of the upper left pixel, 0 or 1."""

    def __call__(self, images, *, training, seed=None, taps=None):
        ink = tf.cast(images[:, 0, 0, 0] > 0, tf.float32)
        return tf.stack([tf.zeros_like(ink), ink], 1), []


def probabilities(network, images):
    logits, update_ops = network(tf.constant(images), training=False)
    assert update_ops == []
    return tf.nn.softmax(logits).numpy()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)


def test_an_ensemble_is_the_mean_of_the_probabilities(images):
    mean = combined.Mean([Constant(0.5, 0.3, 0.2), Constant(0.1, 0.8, 0.1)])
    expected = [[0.3, 0.55, 0.15]] * 4
    np.testing.assert_allclose(probabilities(mean, images), expected, rtol=1e-5)
    # Not the mean of the logits, which would be of 0.22, 0.49, 0.14.
    logits, _ = mean(images, training=False)
    np.testing.assert_allclose(logits, np.log(expected), rtol=1e-5)


def test_a_probability_below_all_floats_stays_finite(images):
    far = tf.constant([[0.0, -200.0], [0.0, -300.0]])
    logs = combined.log_mean([far, far - 7])
    np.testing.assert_allclose(logs, far, atol=1e-4)


@pytest.mark.parametrize("pixels, copies", [(1, 9), (2, 25)])
def test_shifts_are_all_those_of_so_many_pixels(pixels, copies):
    """Shifted ink is seen in the corner once, unless it is too far from it."""
    images = np.zeros((3, 28, 28, 1), np.uint8)
    images[0, 0, 0] = images[1, pixels, pixels] = images[2, 0, pixels + 1] = 255
    found = probabilities(combined.Shifted(Corner(), pixels), images)
    once = (1 / (1 + np.exp(-1)) + (copies - 1) / 2) / copies
    np.testing.assert_allclose(found[:, 1], [once, once, 0.5], rtol=1e-5)


def test_shifts_keep_what_is_far_from_the_edges(images):
    network = MLP(seed=1)
    images[:, [0, 1, -2, -1]] = images[:, :, [0, 1, -2, -1]] = 0
    each = [
        probabilities(network, np.roll(images, (down, right), (1, 2)))
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    ]
    found = probabilities(combined.Shifted(network, 1), images)
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=1e-4)


def test_a_temperature_divides_the_logits(images):
    network = MLP(seed=1)
    plain, _ = network(tf.constant(images), training=False)
    taps: dict[str, tf.Tensor] = {}
    found, _ = combined.Tempered(network, 2.5)(images, training=False, taps=taps)
    np.testing.assert_allclose(found, plain / 2.5, rtol=1e-6)
    np.testing.assert_array_equal(np.argmax(found, 1), np.argmax(plain, 1))
    assert list(taps)[-1] == "logits"


def test_a_combination_takes_the_place_of_a_network(images):
    members = [MLP(seed=1), combined.Tempered(MLP(seed=2), 2.0)]
    network = combined.Shifted(combined.Mean(members), 1)
    predict = scoring.Predict(network)
    assert predict(images).shape == (4, 10) and predict(images[:0]).shape == (0, 10)
    assert len(network.trainable_variables) == 8  # two layers each
    scores = scoring.score(predict, images, np.array([1, 2, 3, 4], np.uint8))
    assert scores.loss == pytest.approx(scores.nll, rel=1e-5)
