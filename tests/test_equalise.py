# SPDX-License-Identifier: Apache-2.0
"""Tests of equalising: networks as chains of layers that survive 8 bits."""

import numpy as np
import pytest
import tensorflow as tf

from evaluation import chain, equalise, export, scoring
from models.bn_cnn import BNCNN
from models.double_conv import DoubleConv
from models.lenet import LeNet
from models.mlp import MLP

NETWORKS = {
    "lenet": LeNet(),
    "norm behind": LeNet(batch_norm="all", batch_norm_first=False),
    "norm before": LeNet(batch_norm="conv", activation="elu"),
    "tanh": LeNet(batch_norm="all", batch_norm_first=False, activation="tanh"),
    "mlp": MLP(hidden_units=[30, 20]),
    "bn_cnn": BNCNN(),
    "rows": BNCNN(bn_axis=1, activation="selu"),
    "double_conv": DoubleConv(),
}


def scatter(network):
    """Batch norm as after training: channels of all sizes and signs, one dead."""
    generator = np.random.default_rng(0)
    for variable in network.variables:
        name = variable.name.split("/")[-1]
        values = 2 ** generator.uniform(-3, 3, variable.shape)
        if name.startswith(("scale", "mean", "offset")):
            values *= generator.choice([-1, 1], variable.shape)
        if name.startswith("b:"):
            values = values / 20
            values[0] = -50
        if not name.startswith("w"):
            variable.assign(values)


@pytest.mark.parametrize("name", NETWORKS)
def test_equalising_keeps_the_function(name, digits):
    network = NETWORKS[name]
    scatter(network)
    images = digits.test_images[:200]
    own = scoring.predict_all(scoring.Predict(network), images)
    pixels = images.astype(np.float32)
    steps = chain.read(network)
    x = tf.constant(pixels)
    np.testing.assert_allclose(chain.run(steps, x), own, rtol=1e-4, atol=2e-3)
    equalised = chain.run(equalise.equalise(steps, pixels), x).numpy()
    # What is cut off is e⁻⁶.
    assert np.abs(equalised - own).max() < 0.02 * np.abs(own).max()


def test_channels_get_equal_ranges(digits):
    scatter(NETWORKS["norm behind"])
    pixels = digits.test_images[:200].astype(np.float32)
    steps = chain.read(NETWORKS["norm behind"])
    before = np.abs(chain.run(steps[:4], tf.constant(pixels))).max((0, 1, 2))
    assert isinstance(steps[3], chain.Affine) and before.max() > 20 * before.min()
    equalised = equalise.equalise(steps, pixels)
    x = chain.run(equalised[:2], tf.constant(pixels))
    after = np.abs(x).max((0, 1, 2))
    assert 0.5 < after.min() and after.max() < 1.001


def test_a_network_that_is_not_a_chain_is_refused(digits):
    network = MLP()
    network.activation = lambda x: x + tf.sin(x)
    with pytest.raises(export.ExportError, match="known operations, .* part of one$"):
        chain.read(network)


def test_the_mean_error_is_subtracted():
    layer = chain.Linear(np.eye(2, dtype=np.float32), np.float32([1, 2]))
    x = np.float32([[1, 2], [3, 4]])

    def quantise(steps):  # that is off by 0.5 and by -1
        off = np.float32([0.5, -1])
        return lambda x: chain.run(steps, tf.constant(x)).numpy() + off

    (corrected,) = equalise.correct([layer], x, quantise)
    np.testing.assert_allclose(corrected.b, [0.5, 3])
    np.testing.assert_array_equal(corrected.w, layer.w)


def test_the_ranking_keeps_the_largest_logit(digits):
    steps = chain.read(MLP())
    x = digits.test_images.astype(np.float32)
    ranks = equalise.ranking(steps, x[:100])
    ranked = chain.run([*steps[:-1], ranks], tf.constant(x)).numpy()
    own = chain.run(steps, tf.constant(x)).numpy()
    assert 0 <= ranked.min() and ranked.max() <= 6
    np.testing.assert_array_equal(ranked.argmax(1), own.argmax(1))
