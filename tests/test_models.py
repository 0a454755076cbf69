# SPDX-License-Identifier: Apache-2.0
"""Tests of models/: those of every network over the registry, then LeNet's own."""

import numpy as np
import pytest
import tensorflow as tf

import models
from models import layers
from training import losses, optimizers

DEFAULTS = {
    "seed": 0,
    "activation": "selu",
    "batch_norm": "none",
    "batch_norm_first": True,
    "batch_norm_decay": 0.9,
    "dropout": 0.0,
    "dropout_kind": "standard",
}
VARIANTS = {
    "plain": {},
    "conv": {"batch_norm": "conv", "dropout": 0.4},
    "all": {"batch_norm": "all", "dropout": 0.1, "dropout_kind": "alpha"},
    "after": {"batch_norm": "all", "batch_norm_first": False, "activation": "relu"},
}
SEED = (0, 3)  # of one step's dropout
TRAINING = pytest.mark.parametrize("training", [True, False])


def build(name, **options):
    return models.build({"network": name, **DEFAULTS, **options})


def unsettle(network):
    """Moves scales, offsets, biases and averages off their neutral initial values."""
    rng = np.random.default_rng(5)
    for v in network.variables:
        if v.shape.rank == 1:
            v.assign(v + tf.constant(rng.uniform(0.05, 0.5, v.shape), tf.float32))


@pytest.fixture(params=sorted(models.NETWORKS))
def name(request):
    return request.param


@pytest.fixture(params=VARIANTS)
def network(request, name):
    network = build(name, **VARIANTS[request.param])
    unsettle(network)
    return network


def digits(count):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)


def call(network, images, training):
    return network(tf.constant(images), training=training, seed=tf.constant(SEED))


def values(network):
    return [v.numpy() for v in network.variables]


def assert_same(before, after):
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


# --- every network ---


def test_options_are_those_of_the_contract():
    assert set(DEFAULTS) == set(models.OPTIONS)


@TRAINING
@pytest.mark.parametrize("count", [1, 2, 7])
def test_logits(network, count, training):
    logits, _ = call(network, digits(count), training)
    assert logits.dtype == tf.float32
    assert logits.shape == [count, 10]
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ([2, 28, 28, 1], tf.float32),
        ([2, 28, 28, 1], tf.int32),
        ([2, 28, 28], tf.uint8),
        ([28, 28, 1], tf.uint8),
        ([2, 27, 28, 1], tf.uint8),
        ([2, 28, 28, 3], tf.uint8),
    ],
)
def test_other_images_are_refused(name, shape, dtype):
    with pytest.raises(ValueError, match="uint8 images") as error:
        build(name)(tf.zeros(shape, dtype), training=False)
    assert str(error.value).endswith(f"{dtype.name} {shape}")


@TRAINING
def test_a_call_changes_no_variable(network, training):
    before = values(network)
    call(network, digits(4), training)
    assert_same(before, values(network))


@TRAINING
def test_each_moving_average_has_one_next_value(network, training):
    _, update_ops = call(network, digits(4), training)
    averages = [average.ref() for average, _ in update_ops]
    trained = {v.ref() for v in network.trainable_variables}
    assert len(set(averages)) == len(averages)
    assert set(averages) == {v.ref() for v in network.variables} - trained
    for average, value in update_ops:
        assert value.shape == average.shape
        assert (value.numpy() != average.numpy()).any() == training


def test_evaluation_needs_no_seed(network):
    images = tf.constant(digits(2))
    logits, _ = network(images, training=False)
    np.testing.assert_array_equal(logits, call(network, images, False)[0])


def test_order_and_company_do_not_matter_in_evaluation(network):
    images = digits(7)
    logits = call(network, images, False)[0].numpy()
    close(call(network, images[::-1], False)[0], logits[::-1])
    for i in (0, 6):
        close(call(network, images[i : i + 1], False)[0], logits[i : i + 1])


def test_images_are_told_apart(network):
    logits = call(network, digits(2), False)[0].numpy()
    assert abs(logits[0] - logits[1]).max() > 1e-3


def test_weights_are_a_function_of_the_seed(name):
    for options in VARIANTS.values():
        first, again, other = (build(name, seed=s, **options) for s in (7, 7, 8))
        assert_same(values(first), values(again))
        for one, two in zip(values(first), values(other), strict=True):
            assert one.ndim == 1 or (one != two).mean() > 0.99


def test_no_two_kernels_begin_alike(name):
    kernels = [v.ravel() for v in values(build(name)) if v.ndim > 1]
    beginnings = [k[:50] / k[0] for k in kernels]
    for i, one in enumerate(beginnings):
        for two in beginnings[:i]:
            assert abs(one - two).max() > 0.1


@TRAINING
def test_dropout_is_for_training_only_and_follows_its_seed(name, training):
    network = build(name, dropout=0.5)
    images = tf.constant(digits(4))
    first, again, other = (
        network(images, training=training, seed=tf.constant([0, step]))[0].numpy()
        for step in (1, 1, 2)
    )
    np.testing.assert_array_equal(again, first)
    assert (other != first).all() == training
    assert (other != first).any() == training


def test_fed_bool_is_the_fixed_bool(network):
    @tf.function
    def graph(images, training):
        logits, updates = network(images, training=training, seed=tf.constant(SEED))
        return logits, [value for _, value in updates]

    images = tf.constant(digits(8))
    for training in (False, True):
        fed_logits, fed_values = graph(images, tf.constant(training))
        logits, update_ops = call(network, images, training)
        close(fed_logits, logits)
        for fed_value, (_, value) in zip(fed_values, update_ops, strict=True):
            close(fed_value, value)


def test_gradients_are_all_there_and_finite(network):
    with tf.GradientTape() as tape:
        logits, _ = call(network, digits(8), True)
        loss = losses.softmax_cross_entropy(logits, tf.range(8))
    for v, g in zip(
        network.trainable_variables,
        tape.gradient(loss, network.trainable_variables),
        strict=True,
    ):
        assert g is not None, v.name
        assert np.isfinite(g).all(), v.name
        assert np.any(g), v.name


@pytest.mark.parametrize("variant", VARIANTS)
def test_learns_32_images(name, variant):
    network = build(name, **VARIANTS[variant])
    adam = optimizers.Adam(network.trainable_variables)
    images, labels = tf.constant(digits(32)), tf.range(32) % 10

    @tf.function
    def train_step(step):
        with tf.GradientTape() as tape:
            seed = tf.stack([0, tf.cast(step, tf.int32)])
            logits, update_ops = network(images, training=True, seed=seed)
            loss = losses.softmax_cross_entropy(logits, labels)
        gradients = tape.gradient(loss, network.trainable_variables)
        adam.apply(gradients, step=step, rate=tf.constant(1e-3))
        for average, value in update_ops:
            average.assign(value)

    def loss():
        logits, _ = network(images, training=False)
        return losses.softmax_cross_entropy(logits, labels).numpy()

    before = loss()
    for step in tf.range(30, dtype=tf.int64):
        train_step(step)
    # Averages of batch norm behind the activation are slow to follow.
    assert loss() < 0.75 * before


# --- LeNet ---


@pytest.mark.parametrize(
    "batch_norm, batch_norm_first, count",
    [
        ("none", True, 211_106),
        # Scale and offset of 12 + 16 maps, instead of their biases or beside them.
        ("conv", True, 211_106 + 28),
        ("conv", False, 211_106 + 56),
        # And of 288 + 144 units.
        ("all", True, 211_106 + 460),
        ("all", False, 211_106 + 920),
    ],
)
def test_lenet_parameters(batch_norm, batch_norm_first, count):
    network = build("lenet", batch_norm=batch_norm, batch_norm_first=batch_norm_first)
    assert models.count_parameters(network) == count


@pytest.mark.parametrize("variant", VARIANTS)
def test_lenet_taps(variant):
    network = build("lenet", **VARIANTS[variant])
    taps: dict[str, tf.Tensor] = {}
    logits, _ = network(tf.constant(digits(3)), training=False, taps=taps)
    assert {name: tap.shape.as_list() for name, tap in taps.items()} == {
        "conv1": [3, 13, 13, 12],
        "conv2": [3, 6, 6, 16],
        "dense1": [3, 288],
        "dense2": [3, 144],
        "logits": [3, 10],
    }
    assert taps["logits"] is logits


def plain_lenet(network, images, training, activation, batch_norm_first):
    """LeNet as one writes it down: the activation before the pool."""

    def normalise(x, norm):
        if norm is None:
            return x
        mean, variance = norm.mean, norm.variance
        if training:
            mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        return tf.nn.batch_normalization(
            x, mean, variance, norm.offset, norm.scale, layers.BATCH_NORM_EPSILON
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


@TRAINING
@pytest.mark.parametrize("batch_norm_first", [True, False])
@pytest.mark.parametrize("batch_norm", ["none", "conv", "all"])
@pytest.mark.parametrize("activation", sorted(layers.ACTIVATIONS))
def test_lenet_is_the_plain_formulation(
    activation, batch_norm, batch_norm_first, training
):
    network = build(
        "lenet",
        activation=activation,
        batch_norm=batch_norm,
        batch_norm_first=batch_norm_first,
    )
    unsettle(network)
    images = tf.constant(digits(6))
    expected = plain_lenet(
        network, images, training, layers.ACTIVATIONS[activation], batch_norm_first
    )
    close(call(network, images, training)[0], expected)


def test_lenet_dropout_masks_have_seeds_of_their_own():
    network = build("lenet", dropout=0.5)
    seeds = []

    def dropout(x, rate, *, training, seed):
        assert rate == 0.5
        seeds.append(tuple(seed.numpy()))
        return x

    network.dropout = dropout
    for step in (0, 1):
        seed = tf.constant([3, step])
        network(tf.constant(digits(1)), training=True, seed=seed)
    assert len(set(seeds)) == len(seeds) == 4
