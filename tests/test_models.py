# SPDX-License-Identifier: Apache-2.0
"""Tests of models/: those of every network over the registry, then each one's own."""

import json

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import models
from models import batch_norm, layers, mlp
from system import errors
from training import checkpoints, losses, optimizers

# What the tests of every network are run with; of a new one, its defaults. The test
# that it learns takes sixty steps: too few for slow averages and much dropout.
VARIANTS = {
    "bn_cnn": {
        "channels": {"batch_norm_decay": 0.5, "activation": "selu"},
        "rows": {"batch_norm_decay": 0.5, "bn_axis": 1},
    },
    "double_conv": {
        "relu": {"conv_dropout": 0.1, "dropout": 0.2},
        "elu": {"conv_dropout": 0.0, "dropout": 0.0, "activation": "elu"},
    },
    "lenet": {
        "plain": {},
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
SEED = (0, 3)  # of one step's dropout
TRAINING = pytest.mark.parametrize("training", [True, False])
ACTIVATION = pytest.mark.parametrize("activation", sorted(layers.ACTIVATIONS))


def build(name, **options):
    return models.build({"network": name, **options})


def rates(name, rate):
    """Those options of a network that are rates of dropout, all set to one rate."""
    return {o: rate for o in models.options({"network": name}) if o in RATES}


def unsettle(network):
    """Moves scales, offsets, biases and averages off their neutral initial values."""
    rng = np.random.default_rng(5)
    for v in network.variables:
        if v.shape.rank == 1:
            v.assign(v + tf.constant(rng.uniform(0.05, 0.5, v.shape), tf.float32))


@pytest.fixture(params=sorted(models.NETWORKS))
def name(request):
    return request.param


@pytest.fixture(params=EVERY_VARIANT)
def variant(request):
    """Name and options."""
    return request.param


@pytest.fixture
def network(variant):
    name, options = variant
    network = build(name, **options)
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


def tapped(network, count=3):
    """Logits and taps of an evaluation."""
    taps: dict[str, tf.Tensor] = {}
    logits, _ = network(tf.constant(digits(count)), training=False, taps=taps)
    return logits, taps


def shapes(taps):
    return {name: tap.shape.as_list() for name, tap in taps.items()}


# --- options ---


def test_options_are_those_of_the_contract():
    assert set(models.OPTIONS) == {
        *("seed", "activation", "hidden_units", "dropout", "dropout_kind"),
        *("batch_norm", "batch_norm_first", "batch_norm_decay"),
        *("bn_axis", "conv_dropout", "kernels", "sync_batch_norm", "width"),
    }


def test_options_left_open_are_the_networks_own(name):
    bare = {"network": name}
    nothing = {**bare, **dict.fromkeys(models.OPTIONS), "epochs": 3}
    options = models.options(bare)
    assert models.options(nothing) == options
    assert set(options) <= set(models.OPTIONS)
    assert options["seed"] == 0
    assert None not in options.values()
    assert json.loads(json.dumps(options)) == options
    assert models.options({**bare, **options}) == options


def test_options_given_are_taken():
    config = {"network": "mlp", "seed": 3, "hidden_units": (7, 5), "activation": None}
    options = {"seed": 3, "activation": "relu", "hidden_units": [7, 5]}
    assert models.options(config) == options
    # Falsy is not left open.
    config = {"network": "lenet", "batch_norm_first": False, "seed": 0}
    assert models.options(config)["batch_norm_first"] is False
    config = {"network": "double_conv", "dropout": 0.0}
    assert models.options(config)["dropout"] == 0.0


def test_options_of_another_network_are_refused(name):
    own = models.options({"network": name})
    foreign = set(models.OPTIONS) - set(own)
    assert foreign
    for option in foreign:
        for refuse in (models.options, models.build):
            with pytest.raises(errors.UsageError) as error:
                refuse({"network": name, option: 0})
            takes = ", ".join(f"--{o}" for o in sorted(own))
            message = f"--network={name} has no --{option}; it takes {takes}; "
            assert str(error.value).startswith(message)
            assert f" --unset={option} " in str(error.value)


# --- every network ---


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


def test_order_and_company_do_not_matter_in_evaluation(network):
    images = digits(7)
    logits = call(network, images, False)[0].numpy()
    close(call(network, images[::-1], False)[0], logits[::-1])
    for i in (0, 6):
        close(call(network, images[i : i + 1], False)[0], logits[i : i + 1])


def test_images_are_told_apart(network):
    logits = call(network, digits(2), False)[0].numpy()
    assert abs(logits[0] - logits[1]).max() > 1e-3


def test_weights_are_a_function_of_the_seed(variant):
    name, options = variant
    first, again, other = (values(build(name, seed=s, **options)) for s in (7, 7, 8))
    assert_same(first, again)
    for one, two in zip(first, other, strict=True):
        assert one.ndim == 1 or (one != two).mean() > 0.99


def test_no_two_kernels_begin_alike(variant):
    name, options = variant
    kernels = [v.ravel() for v in values(build(name, **options)) if v.ndim > 1]
    beginnings = [k[:50] / k[0] for k in kernels]
    for i, one in enumerate(beginnings):
        for two in beginnings[:i]:
            assert abs(one - two).max() > 0.1


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


def test_rates_that_cannot_be_drawn_are_refused_at_once(name):
    for option in rates(name, 0.0):
        with pytest.raises(ValueError, match="dropout rate of 0.999995: expected"):
            build(name, **{option: 0.999995})


# Shape of one image's mask and its rate, in order, of networks with dropout.
MASKS = {
    "bn_cnn": [([3, 3, 64], 0.25)],
    "double_conv": [([14, 14, 32], 0.25), ([7, 7, 64], 0.25), ([256], 0.5)],
    "lenet": [([288], 0.5), ([144], 0.5)],
    "mlp": [],
}


def test_dropout_masks_stand_in_place_with_seeds_of_their_own(name, monkeypatch):
    drawn, draws = [], layers._dropout_draws

    def record(x, rate, training, seed):
        drawn.append((x.shape.as_list()[1:], rate, tuple(seed.numpy())))
        return draws(x, rate, training, seed)

    monkeypatch.setattr(layers, "_dropout_draws", record)
    network = build(name, **({"dropout": 0.5} if name == "lenet" else {}))
    for step in (0, 1):
        network(tf.constant(digits(2)), training=True, seed=tf.constant([3, step]))
    seeds = [seed for _, _, seed in drawn]
    assert len(set(seeds)) == len(seeds)
    if name in MASKS:
        assert [mask[:2] for mask in drawn] == 2 * MASKS[name]


def test_taps_bear_the_names_of_the_layers(network):
    logits, taps = tapped(network)
    layer_types = (layers.Conv, layers.Dense)
    found = {m.name for m in network.submodules if isinstance(m, layer_types)}
    assert set(taps) == found
    for name, tap in taps.items():
        layer = getattr(network, name)
        assert layer.name == name
        assert tap.shape[0] == 3
        assert tap.shape[-1] == layer.w.shape[-1]
    # The first kernel is that which reads pixels.
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


def test_gradients_are_central_differences(network):
    """Of each variable, along its gradient on a random half of its elements.

    The logits are float32, and activations and pools have kinks: what comes out is
    right to a tenth. The layers' own gradients are held to more in test_gradients.
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
        # The loss is to change by some thousand times its rounding, or as much as it
        # will within a neighbourhood in which it is straight.
        direction *= min(3e-4 / size, 3e-3) / size
        ends = []
        for end in (start + direction, start - direction):
            w.assign(end)
            ends.append(loss().numpy())
        w.assign(start)
        expected = 2 * np.sum(direction * gradient)
        np.testing.assert_allclose(ends[0] - ends[1], expected, rtol=0.15)


def test_learns_32_images_without_an_error(variant):
    """Noise with labels of no meaning, as it is scored: with the moving averages."""
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

    # They took 5 to 29.
    assert any(train_step(step) == 32 for step in tf.range(60, dtype=tf.int64))


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
    assert layers.count_parameters(network) == count


def test_lenet_wider():
    # 24 and 32 maps: 240 + 24·9·32 + 32, the dense layers 6·6·32·288 + 288, the rest.
    network = build("lenet", width=2)
    count = 240 + 6_944 + 332_064 + 41_616 + 1_450
    assert layers.count_parameters(network) == count


@pytest.mark.parametrize("batch_norm", ["none", "all"])
def test_lenet_taps(batch_norm):
    _, taps = tapped(build("lenet", batch_norm=batch_norm))
    assert list(shapes(taps).items()) == [
        ("conv1", [3, 13, 13, 12]),
        ("conv2", [3, 6, 6, 16]),
        ("dense1", [3, 288]),
        ("dense2", [3, 144]),
        ("logits", [3, 10]),
    ]


def plain_lenet(network, images, training, activation, batch_norm_first):
    """LeNet as one writes it down: the activation before the pool."""

    def normalise(x, norm):
        if norm is None:
            return x
        mean, variance = norm.mean, norm.variance
        if training:
            mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
        return tf.nn.batch_normalization(
            x, mean, variance, norm.offset, norm.scale, batch_norm.EPSILON
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


@pytest.mark.parametrize(
    "training, kernels",
    [
        pytest.param(True, "native", marks=pytest.mark.native),
        (True, "tensorflow"),
        (False, "native"),
    ],
)
@pytest.mark.parametrize("batch_norm_first", [True, False])
@pytest.mark.parametrize("batch_norm", ["none", "conv", "all"])
@ACTIVATION
def test_lenet_is_the_plain_formulation(
    activation, batch_norm, batch_norm_first, training, kernels
):
    """To float32 rounding: logits, and gradients of a loss."""
    network = build(
        "lenet",
        kernels=kernels,
        activation=activation,
        batch_norm=batch_norm,
        batch_norm_first=batch_norm_first,
    )
    unsettle(network)
    # Not the first: there, two sums in one pool window are equal but for rounding.
    images = tf.constant(digits(12)[6:])
    weights = network.trainable_variables
    with tf.GradientTape() as tape, tf.GradientTape() as plain_tape:
        logits = call(network, images, training)[0]
        expected = plain_lenet(
            network, images, training, layers.ACTIVATIONS[activation], batch_norm_first
        )
        losses = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(6), some)
            for some in (logits, expected)
        ]
    close(logits, expected)
    gradients = tape.gradient(losses[0], weights)
    plain_gradients = plain_tape.gradient(losses[1], weights)
    for ours, plain in zip(gradients, plain_gradients, strict=True):
        size = tf.norm(plain)
        np.testing.assert_allclose(ours / size, plain / size, atol=2e-4)


# --- MLP ---


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
def test_mlp_parameters(hidden_units, count):
    network = build("mlp", hidden_units=hidden_units)
    assert layers.count_parameters(network) == count
    assert mlp.PARAMETERS.get(hidden_units, count) == count


def test_mlp_published_parameters():
    assert mlp.PARAMETERS == {(64,): 50_890, (300,): 238_510, (150, 100): 133_860}


def test_mlp_taps():
    _, taps = tapped(build("mlp", hidden_units=[7, 6, 5]))
    assert list(shapes(taps).items()) == [
        ("dense1", [3, 7]),
        ("dense2", [3, 6]),
        ("dense3", [3, 5]),
        ("logits", [3, 10]),
    ]


def parse(text):
    """What --hidden_units makes of a text."""
    values = flags.FlagValues()
    parser = models._UnitsParser()
    flags.DEFINE(parser, "hidden_units", None, "", flag_values=values)
    values(["", f"--hidden_units={text}"])
    return values["hidden_units"].value


def test_units_are_parsed():
    assert parse("150,100") == [150, 100]
    assert parse("64") == [64]
    assert parse("") == []


@pytest.mark.parametrize("wrong", ["0", "-3", "1.5", "64,", "many", "64,,10", " 64"])
def test_units_that_no_layer_has_are_refused(wrong):
    with pytest.raises(flags.Error, match="whole numbers above 0, such as 150,100"):
        parse(wrong)


@ACTIVATION
def test_mlp_is_the_plain_formulation(activation):
    network = build("mlp", activation=activation, hidden_units=[20, 12])
    unsettle(network)
    images = digits(6)
    function = layers.ACTIVATIONS[activation]
    x = tf.constant(images.reshape(6, 784) / np.float32(255))
    x = function(x @ network.dense1.w + network.dense1.b)
    x = function(x @ network.dense2.w + network.dense2.b)
    close(call(network, images, True)[0], x @ network.logits.w + network.logits.b)


# --- BN-CNN ---


@pytest.mark.parametrize(
    "bn_axis, norms", [(-1, [32, 48, 64]), (1, [26, 13, 7])], ids=["channels", "rows"]
)
def test_bn_cnn_parameters(bn_axis, norms):
    network = build("bn_cnn", bn_axis=bn_axis)
    count = (
        *(3 * 3 * 1 * 32 + 32, 3 * 3 * 32 * 48 + 48, 2 * 2 * 48 * 64 + 64),
        *(576 * 3168 + 3168, 3168 * 10 + 10),
    )
    assert count == (320, 13_872, 12_352, 1_827_936, 31_690)
    assert layers.count_parameters(network) == sum(count) + 2 * sum(norms)
    for norm, size in zip(
        (network.norm1, network.norm2, network.norm3), norms, strict=True
    ):
        assert (norm.axis, norm.epsilon, norm.decay) == (bn_axis, 1e-6, 0.99)
        assert norm.scale.shape == [size]


def test_bn_cnn_taps():
    _, taps = tapped(build("bn_cnn"))
    assert list(shapes(taps).items()) == [
        ("conv1", [3, 13, 13, 32]),
        ("conv2", [3, 6, 6, 48]),
        ("conv3", [3, 3, 3, 64]),
        ("dense1", [3, 3168]),
        ("logits", [3, 10]),
    ]


def plain_bn_cnn(network, images, training, activation, bn_axis):
    """BN-CNN in the words of the write-up, with no layer of models.layers."""

    def normalise(x, norm):
        shape = [1, 1, 1, -1] if bn_axis == -1 else [1, -1, 1, 1]
        mean, variance, scale, offset = (
            tf.reshape(v, shape)
            for v in (norm.mean, norm.variance, norm.scale, norm.offset)
        )
        if training:
            axes = [0, 1, 2] if bn_axis == -1 else [0, 2, 3]
            mean = tf.reduce_mean(x, axes, keepdims=True)
            variance = tf.reduce_mean((x - mean) ** 2, axes, keepdims=True)
        return (x - mean) / tf.sqrt(variance + 1e-6) * scale + offset

    x = tf.cast(images, tf.float32) / 255
    for number, (conv, norm) in enumerate(
        (
            (network.conv1, network.norm1),
            (network.conv2, network.norm2),
            (network.conv3, network.norm3),
        )
    ):
        if number:
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = activation(tf.nn.conv2d(x, conv.w, 1, "VALID") + conv.b)
        x = tf.nn.max_pool2d(normalise(x, norm), 2, 2, "VALID")
    x = tf.reshape(x, [-1, 576])
    x = activation(x @ network.dense1.w + network.dense1.b)
    return x @ network.logits.w + network.logits.b


@TRAINING
@pytest.mark.parametrize("bn_axis", [-1, 1])
@ACTIVATION
def test_bn_cnn_is_the_plain_formulation(activation, bn_axis, training):
    network = build("bn_cnn", activation=activation, bn_axis=bn_axis, conv_dropout=0.0)
    unsettle(network)
    for norm in (network.norm1, network.norm2, network.norm3):
        # Negative scales tell batch norm before the pool from batch norm behind it.
        norm.scale.assign(norm.scale * (-1.0) ** np.arange(norm.channels))
    images = tf.constant(digits(3))
    function = layers.ACTIVATIONS[activation]
    expected = plain_bn_cnn(network, images, training, function, bn_axis)
    close(call(network, images, training)[0], expected)


# --- double-conv CNN ---


def test_double_conv_parameters():
    count = (
        *(5 * 5 * 1 * 32 + 32, 5 * 5 * 32 * 32 + 32),
        *(3 * 3 * 32 * 64 + 64, 3 * 3 * 64 * 64 + 64),
        *(7 * 7 * 64 * 256 + 256, 256 * 10 + 10),
    )
    assert count == (832, 25_632, 18_496, 36_928, 803_072, 2_570)
    assert layers.count_parameters(build("double_conv")) == sum(count) == 887_530


def test_double_conv_taps():
    _, taps = tapped(build("double_conv"))
    assert list(shapes(taps).items()) == [
        ("conv1", [3, 28, 28, 32]),
        ("conv2", [3, 14, 14, 32]),
        ("conv3", [3, 14, 14, 64]),
        ("conv4", [3, 7, 7, 64]),
        ("dense1", [3, 256]),
        ("logits", [3, 10]),
    ]


@ACTIVATION
def test_double_conv_is_the_plain_formulation(activation):
    network = build("double_conv", activation=activation)
    unsettle(network)
    images = tf.constant(digits(3))
    function = layers.ACTIVATIONS[activation]
    x = tf.cast(images, tf.float32) / 255
    for conv in (network.conv1, network.conv2, network.conv3, network.conv4):
        x = function(tf.nn.conv2d(x, conv.w, 1, "SAME") + conv.b)
        if conv in (network.conv2, network.conv4):
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, 3136])
    x = function(x @ network.dense1.w + network.dense1.b)
    expected = x @ network.logits.w + network.logits.b
    close(call(network, images, False)[0], expected)


# --- initial weights ---


@pytest.mark.parametrize("name", ["bn_cnn", "double_conv", "mlp"])
def test_kerass_initial_weights(name):
    network = build(name)
    for layer in (getattr(network, tap) for tap in tapped(network)[1]):
        *field, inputs, outputs = layer.w.shape.as_list()
        limit = np.sqrt(6 / (np.prod(field) * (inputs + outputs)))
        largest = abs(layer.w.numpy()).max()
        assert 0.98 * limit < largest <= limit
        assert not layer.b.numpy().any()
