# SPDX-License-Identifier: Apache-2.0
"""Tests of predictions with the operations in C++."""

import types

import numpy as np
import pytest
import tensorflow as tf

import data
import models
from evaluation import formats, scoring
from evaluation.reader import Reader
from models import kernels
from native import compile, ops
from tests.test_native import EPSILON, close, normal, plain_conv_pool

pytestmark = pytest.mark.native


def fixed_norm(channels):
    """A FixedNorm of random numbers, with a positive variance."""
    *numbers, variance = tf.unstack(normal(5, channels))
    return ops.FixedNorm(*numbers, tf.square(variance))


def plain_selu_norm_fixed(x, norm):
    z = tf.nn.selu(x + norm.bias)
    return tf.nn.batch_normalization(
        z, norm.mean, norm.variance, norm.offset, norm.scale, EPSILON
    )


@pytest.mark.parametrize("shape", [(40, 288), (3, 6, 6, 12), (2, 17), (1, 1)])
def test_selu_norm_fixed(shape):
    x, norm = 3 * normal(*shape), fixed_norm(shape[-1])
    ours = ops.selu_norm_fixed(x, norm, epsilon=EPSILON)
    close(ours, plain_selu_norm_fixed(x, norm).numpy())


# LeNet's convolutions at width 1, with more images than go through at once; one layer;
# three that fill no vector; no images.
@pytest.mark.parametrize(
    "images, maps",
    [
        ((37, 28, 28, 1), [12, 16]),
        ((3, 28, 28, 1), [5]),
        ((2, 31, 32, 3), [17, 33, 2]),
        ((0, 28, 28, 1), [12, 16]),
    ],
)
def test_conv_stack(images, maps):
    pixels = np.random.default_rng(0).integers(0, 256, images, np.uint8)
    channels = [images[-1], *maps]
    weights = [normal(3, 3, *pair) for pair in zip(channels, maps)]
    norms = [fixed_norm(count) for count in maps]
    ours = ops.conv_stack(pixels, weights, norms, epsilon=EPSILON)
    x = tf.constant(pixels / 255, tf.float32)
    if not images[0]:  # which TensorFlow's operations refuse
        assert ours.shape == (0, 6, 6, 16)
        return
    for w, norm in zip(weights, norms):
        x = plain_selu_norm_fixed(plain_conv_pool(x, w), norm)
    close(ours, x.numpy(), atol=1e-5)


def test_conv_stack_refuses_other_shapes():
    images, w, norm = (
        tf.zeros([2, 9, 9, 3], tf.uint8),
        normal(3, 3, 3, 4),
        fixed_norm(4),
    )
    for wrong in (
        (images[..., :2], [w], [norm]),
        (images, [w], [fixed_norm(5)]),
        (images, [w, w], [norm, norm]),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
            ops.conv_stack(*wrong, epsilon=EPSILON)


def operations(network, training=False):
    """Names of the operations in a network's graph."""
    graph = (
        tf.function(
            lambda x: network(x, training=training, seed=tf.zeros([2], tf.int32))[0]
        )
        .get_concrete_function(tf.TensorSpec([4, 28, 28, 1], tf.uint8))
        .graph
    )
    return {op.type for op in graph.get_operations()}


LENET = {"batch_norm": "all", "batch_norm_first": False, "dropout": 0.3}


@pytest.mark.parametrize(
    "name, options, trains, predicts",
    [
        ("lenet", LENET, {"ConvPool", "SeluNorm"}, {"ConvStack", "SeluNormFixed"}),
        ("conv6", {}, {"Conv3x3", "Conv3x3Pool"}, set()),
    ],
)
def test_only_predictions_that_stay_here_use_native_operations(
    name, options, trains, predicts
):
    """An export is traced outside of `predicting`."""
    network = models.build(name, kernels="native", **options)
    ours = trains | predicts
    assert ours & operations(network, training=True) == trains
    assert not ours & operations(network)
    for many in (False, True):
        with kernels.predicting(many=many):
            wanted = (
                {"Conv3x3", "Conv3x3Pool"} if many and name == "conv6" else predicts
            )
            assert ours & operations(network) == wanted
            assert not ours & operations(models.build(name, **options))


def test_nothing_is_compiled_for_a_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "BUILD", tmp_path)
    with kernels.predicting():
        found = operations(models.build("lenet", kernels="native", **LENET))
    assert "Conv2D" in found and "ConvStack" not in found
    assert not list(tmp_path.iterdir())


def test_scores_and_readers_use_them_and_exports_do_not(monkeypatch):
    used, conv_stack = [], kernels.conv_stack
    monkeypatch.setattr(
        kernels, "conv_stack", lambda *args: used.append(args) or conv_stack(*args)
    )
    network = models.build("lenet", kernels="native", **LENET)
    predict = scoring.Predict(network)
    assert len(used) == 1
    Reader(types.SimpleNamespace(predict=predict, classes=data.DIGITS))
    assert len(used) == 2
    exported = formats.Exported(network)
    exported.__call__.get_concrete_function()
    assert len(used) == 2
