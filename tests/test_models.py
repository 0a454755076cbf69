# SPDX-License-Identifier: Apache-2.0
"""Tests of all networks in the registry of models/."""

import numpy as np
import pytest
import tensorflow as tf

import models
from models import blocks, layers
from tests.networks import SEED, TRAINING, build, call, close, digits, tapped, unsettle
from training import checkpoints, losses, optimizers

# Options to test each network with; a new network is tested with its defaults. Decays
# and dropout rates are low because the test of learning takes only 60 steps.
VARIANTS = {
    "bn_cnn": {
        "channels": {"batch_norm_decay": 0.5, "activation": "selu"},
        "rows": {"batch_norm_decay": 0.5, "bn_axis": 1},
    },
    "conv6": {
        "small": {"maps": [16, 16, 24, 24, 32, 32], "batch_norm_decay": 0.5},
        "blocks": {
            "maps": [16, 16, 32, 32, 48, 48],
            "separable": True,
            "residual": True,
            "squeeze_excite": True,
            "batch_norm_decay": 0.5,
        },
        "levelled": {"normalise_grey": True, "dropout": 0.2, "activation": "selu"},
        "native": {"maps": [16, 17, 16, 24, 33, 32], "kernels": "native"},
    },
    "double_conv": {
        "relu": {"conv_dropout": 0.1, "dropout": 0.2},
        "elu": {"conv_dropout": 0.0, "dropout": 0.0, "activation": "elu"},
    },
    "lenet": {
        "plain": {"normalise_grey": True},
        "conv": {"batch_norm": "conv", "dropout": 0.4, "width": 2},
        "all": {"batch_norm": "all", "dropout": 0.1, "dropout_kind": "alpha"},
        "after": {"batch_norm": "all", "batch_norm_first": False, "activation": "relu"},
        "native": {"batch_norm": "all", "batch_norm_first": False, "kernels": "native"},
    },
    "mlp": {
        "plain": {},
        "deep": {"hidden_units": [150, 100], "activation": "tanh"},
        "linear": {"hidden_units": []},
    },
}
EVERY_VARIANT = [
    pytest.param(
        (name, options),
        id=f"{name}-{variant}",
        marks=[pytest.mark.native] if variant == "native" else [],
    )
    for name in sorted(models.NETWORKS)
    for variant, options in VARIANTS.get(name, {"plain": {}}).items()
]
RATES = ("conv_dropout", "dropout")


def rates(name, rate):
    """The network's options that are dropout rates, all set to one rate."""
    return {o: rate for o in models.options(name, {}) if o in RATES}


@pytest.fixture(params=sorted(models.NETWORKS))
def name(request):
    return request.param


@pytest.fixture(params=EVERY_VARIANT)
def variant(request):
    """Name and options of a network."""
    return request.param


@pytest.fixture
def network(variant):
    name, options = variant
    network = build(name, **options)
    unsettle(network)
    return network


def values(network):
    return [v.numpy() for v in network.variables]


def assert_same(before, after):
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)


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
def test_images_of_another_shape_are_refused(name, shape, dtype):
    with pytest.raises(ValueError, match="uint8 images") as error:
        build(name)(tf.zeros(shape, dtype), training=False)
    assert str(error.value) == (
        f"{models.NETWORKS[name].__name__} takes uint8 images [N, 28, 28, 1] and was"
        f" given {dtype.name} {shape}"
    )


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


def test_evaluation_of_an_image_is_independent_of_the_batch(network):
    images = digits(7)
    logits = call(network, images, False)[0].numpy()
    close(call(network, images[::-1], False)[0], logits[::-1])
    for i in (0, 6):
        close(call(network, images[i : i + 1], False)[0], logits[i : i + 1])


def test_logits_differ_between_images(network):
    logits = call(network, digits(2), False)[0].numpy()
    assert abs(logits[0] - logits[1]).max() > 1e-3


def test_weights_are_a_function_of_the_seed(variant):
    name, options = variant
    first, again, other = (values(build(name, seed=s, **options)) for s in (7, 7, 8))
    assert_same(first, again)
    for one, two in zip(first, other, strict=True):
        assert one.ndim == 1 or (one != two).mean() > 0.99


def test_no_two_kernels_start_alike(variant):
    name, options = variant
    kernels = [v.ravel() for v in values(build(name, **options)) if v.ndim > 1]
    starts = [k[:50] / k[0] for k in kernels]
    for i, one in enumerate(starts):
        for two in starts[:i]:
            length = min(len(one), len(two))
            assert abs(one[:length] - two[:length]).max() > 0.1


@TRAINING
def test_dropout_is_for_training_only_and_follows_its_seed(name, training):
    options = rates(name, 0.5)
    network = build(name, **options)
    images = tf.constant(digits(4))
    first, again, other = (
        network(images, training=training, seed=tf.constant([0, step]))[0].numpy()
        for step in (1, 1, 2)
    )
    np.testing.assert_array_equal(again, first)
    dropped = training and bool(options)
    assert (other != first).all() == dropped
    assert (other != first).any() == dropped


def test_dropout_rates_out_of_range_are_refused_at_once(name):
    for option in rates(name, 0.0):
        with pytest.raises(ValueError, match="dropout rate of 0.999995: expected"):
            build(name, **{option: 0.999995})


# Shape and rate of each dropout mask of an image, in order.
MASKS = {
    "bn_cnn": [([3, 3, 64], 0.25)],
    "conv6": [([96], 0.5)],
    "double_conv": [([14, 14, 32], 0.25), ([7, 7, 64], 0.25), ([256], 0.5)],
    "lenet": [([288], 0.5), ([144], 0.5)],
    "mlp": [],
}


def test_each_dropout_mask_has_its_own_seed(name, monkeypatch):
    drawn, draws = [], layers._dropout_draws

    def record(x, rate, training, seed):
        drawn.append((x.shape.as_list()[1:], rate, tuple(seed.numpy())))
        return draws(x, rate, training, seed)

    monkeypatch.setattr(layers, "_dropout_draws", record)
    network = build(name, **({"dropout": 0.5} if name in ("conv6", "lenet") else {}))
    for step in (0, 1):
        network(tf.constant(digits(2)), training=True, seed=tf.constant([3, step]))
    seeds = [seed for _, _, seed in drawn]
    assert len(set(seeds)) == len(seeds)
    if name in MASKS:
        assert [mask[:2] for mask in drawn] == 2 * MASKS[name]


def test_taps_are_named_like_the_layers(network):
    logits, taps = tapped(network)
    layer_types = (blocks.SeparableConv, layers.Conv, layers.Dense)
    found = {m.name for m in network.submodules if isinstance(m, layer_types)}
    assert set(taps) == found
    for name, tap in taps.items():
        layer = getattr(network, name)
        assert layer.name == name
        assert tap.shape[0] == 3
        assert tap.shape[-1] == layer.w.shape[-1]
    # The first tap is that of the layer that reads pixels.
    assert getattr(network, next(iter(taps))).w.shape[-2] in (1, 28 * 28)
    assert list(taps)[-1] == "logits"
    assert taps["logits"] is logits


def test_checkpoint_round_trip(variant, network, tmp_path):
    name, options = variant
    checkpoints.save(tf.train.Checkpoint(network=network), tmp_path, 7)
    other = build(name, seed=1, **options)
    assert checkpoints.restore(tf.train.Checkpoint(network=other), tmp_path) == 7
    assert_same(values(network), values(other))
    images = digits(3)
    np.testing.assert_array_equal(
        call(other, images, False)[0], call(network, images, False)[0]
    )


def test_a_fed_bool_acts_like_a_fixed_one(network):
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


def test_all_gradients_exist_and_are_finite(network):
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


def test_gradients_match_central_differences(network):
    """Compares each variable's gradient along a random half of its elements.

    The logits are float32, and activations and pools have kinks, so differences are
    accurate to a tenth only. test_gradients checks the layers more strictly.
    """
    images, labels = tf.constant(digits(8)), tf.range(8)
    weights, rng = network.trainable_variables, np.random.default_rng(2)

    @tf.function
    def loss():
        logits, _ = call(network, images, True)
        return losses.softmax_cross_entropy(tf.cast(logits, tf.float64), labels)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, weights)

    for w, gradient in zip(weights, gradients(), strict=True):
        start = w.numpy()
        direction = gradient * rng.integers(2, size=start.shape)
        size = tf.norm(direction).numpy()
        # Change the loss by about a thousand times its rounding error, or as far as it
        # stays nearly linear.
        direction *= min(3e-4 / size, 3e-3) / size
        ends = []
        for end in (start + direction, start - direction):
            w.assign(end)
            ends.append(loss().numpy())
        w.assign(start)
        expected = 2 * np.sum(direction * gradient)
        # Small gradients change it less, by little more than the logits' rounding.
        change = ends[0] - ends[1]
        np.testing.assert_allclose(change, expected, rtol=0.15, atol=1e-5)


def test_learns_32_images_without_an_error(variant):
    """Random images and labels, scored with the moving averages, as in evaluation."""
    name, options = variant
    network = build(name, **options)
    adam = optimizers.Optimizer("adam", network.trainable_variables)
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
        logits, _ = network(images, training=False)
        return losses.correct(logits, labels)

    # The variants needed 5 to 29 steps, with separable convolutions up to 140.
    assert any(train_step(step) == 32 for step in tf.range(200, dtype=tf.int64))


@pytest.mark.parametrize("name", ["bn_cnn", "double_conv", "mlp"])
def test_initial_weights_match_keras(name):
    network = build(name)
    for layer in (getattr(network, tap) for tap in tapped(network)[1]):
        *field, inputs, outputs = layer.w.shape.as_list()
        limit = np.sqrt(6 / (np.prod(field) * (inputs + outputs)))
        largest = abs(layer.w.numpy()).max()
        assert 0.98 * limit < largest <= limit
        assert not layer.b.numpy().any()
