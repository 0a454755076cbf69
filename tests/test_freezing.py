# SPDX-License-Identifier: Apache-2.0
"""Frozen layers: --freeze."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import models
import train
from config import Config
from models import structure
from system import errors
from tests.networks import call, digits
from training.state import State

FROZEN = ["conv1", "dense1"]
SETTINGS = Config(
    **{"batch_norm": "all", "batch_norm_first": False, "dropout": 0.2},
    **{"weight_decay": 0.1, "weight_average": 0.9, "clip_norm": 1.0},
    **{"batch_size": 32, "learning_rate": 0.01, "freeze": FROZEN},
    replicas=3,  # whose averages, with shares of 11, 11 and 10, would round
)


@pytest.mark.parametrize(
    "kernels", ["tensorflow", pytest.param("native", marks=pytest.mark.native)]
)
def test_frozen_layers_stay_to_the_bit_and_the_others_learn(kernels):
    config = dataclasses.replace(SETTINGS, kernels=kernels).resolved()
    state = State(config)
    assert len(state.trained) == len(state.optimizer.slots["m"]) == 10
    layers = {n: structure.layers(n) for n in (state.network, state.average)}
    before = {n: [v.numpy() for v in n.variables] for n in layers}
    images, labels = tf.constant(digits(64)), tf.constant(np.arange(64) % 10, tf.uint8)
    steps = train.make_train_steps(state, images, labels, config, 2)
    totals = steps(0, 3, training=True)
    assert totals.gradient_norms.shape == [10]
    assert np.linalg.norm(totals.gradient_norms) == pytest.approx(1, rel=1e-4)
    for network, found in layers.items():
        still = {
            v.ref()
            for layer in found
            for v in (*layer.weights, *layer.averages)
            if layer.name in FROZEN
        }
        assert len(still) == 2 * 6  # w, b, scale, offset, mean, variance
        for variable, old in zip(network.variables, before[network], strict=True):
            same = bool((variable.numpy() == old).all())
            assert same == (variable.ref() in still), variable.name


def test_a_frozen_batch_norm_is_the_same_function_in_training():
    network = models.build("bn_cnn", conv_dropout=0.0)
    structure.freeze(network, ["conv1", "conv2", "conv3"])
    images = digits(3)
    logits, update_ops = call(network, images, training=True)
    np.testing.assert_allclose(logits, call(network, images, training=False)[0])
    assert not update_ops


def test_nothing_is_frozen_by_default():
    network = models.build("bn_cnn")
    left = structure.freeze(network, [])
    assert [v.ref() for v in left] == [v.ref() for v in network.trainable_variables]
    assert not any(getattr(m, "frozen", False) for m in network.submodules)
    assert len(call(network, digits(1), training=True)[1]) == 6


def test_layers_are_named():
    network = models.build("mlp", hidden_units=[4])
    with pytest.raises(errors.UserError) as refusal:
        structure.freeze(network, ["conv1"])
    assert str(refusal.value) == (
        "--freeze=conv1: the network has no such layer; it has dense1, logits"
    )
    with pytest.raises(errors.UserError, match="names all layers: leave one"):
        structure.freeze(network, ["dense1", "logits"])
