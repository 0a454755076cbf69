# SPDX-License-Identifier: Apache-2.0
"""Every numeric flag works at its limits and is refused beyond them."""

import math

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import data
import models
import train
from augment import online, plan
from augment.online_settings import OnlineSettings
from config import Config, define_flags, from_flags
from models import batch_norm, layers, lenet
from system import console, errors
from training import checkpoints, history, optimizers, rules, schedules
from training.session import Session
from training.sets import Sets
from training.state import State

MAX_STEPS = schedules.MAX_STEPS

# Of each flag that is a number: values that are taken, and such that are not.
FLOATS = {
    "adam_rate": ([1e-37, 1e38], [0, 1e-300, 1e39, -1]),
    "beta1": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "beta2": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "bias_rate": ([1e-37, 1e38], [0, 1e-300, 1e39, -1]),
    "batch_norm_decay": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "clip_norm": ([0, 1e-37, 1e38], [-1, 1e-300, 1e39]),
    "conv_dropout": ([0, 0.999], [-1e-9, 0.9991, 0.999995, 1]),
    "decay_factor": ([1e-300, 1], [0, 1.0001]),
    "blur": ([0, 5], [-0.1, 5.1]),
    "brightness": ([0, 1], [-0.1, 1.01]),
    "continental": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "contrast": ([0, 1], [-0.1, 1.01]),
    "cutout": ([0, 1], [-0.1, 1.01]),
    "dropout": ([0, 0.999], [-1e-9, 0.9991, 0.999995, 1]),
    "elastic_alpha": ([], [-1, 1001]),  # by itself it is refused
    "elastic_sigma": ([], [-1, 29]),
    "epsilon": ([1e-37, 1e38], [0, 1e-46, 1e39]),
    "label_smoothing": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "learning_rate": ([1e-37, 1e38], [0, 1e-300, 1e39, -1]),
    "lookahead_share": ([1e-300, 1], [0, -1, 1.0001]),
    "mixup": ([0, 0.01, 100], [-1, 0.0099, 100.1]),
    "momentum": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "plateau_floor": ([1e-37, 1e38], [0, 1e-300, 1e39]),
    "noise": ([0, 1], [-0.1, 1.01]),
    "outliers": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "rho": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "rotation": ([0, 1e-300, 180], [-1, 180.1, 1e6]),
    "shear": ([0, 80], [-1, 80.1]),
    "shift": ([0, 1], [-0.1, 1.01]),
    "thickness": ([0, 1], [-0.1, 1.01]),
    "wait_seconds": ([1, 10**9], [0, 10**400]),
    "teacher_weight": ([0, 1], [-1e-9, 1.0000001]),
    "temperature": ([0.01, 100], [0, -1, 0.0099, 100.1]),
    "weight_average": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "weight_decay": ([0, 0.9999999], [-1e-9, 0.99999999, 1]),
    "zoom": ([0, 0.9], [-0.1, 0.91]),
}
MORE = [2**63, 10**40]
INTEGERS = {
    "batch_size": ([1, 2**16], [0, 2**16 + 1]),
    "bn_axis": ([-1, 1], [0, 2]),
    "checkpoint_epochs": ([1, 10**40], [0]),
    "decay_epochs": ([1, MAX_STEPS - 1], [0, MAX_STEPS]),
    "deform_seed": ([], [-1, 2**63]),  # by itself it is refused
    "early_stopping": ([0], [-1, MAX_STEPS]),  # wants a validation set
    "epoch_images": ([0, 10**40], [-1]),
    "epochs": ([1, 10**40], [0]),  # `schedules.count_steps` knows how long they are
    "hidden_units": ([1, models.MAX_UNITS], [0, -1, models.MAX_UNITS + 1, 10**40]),
    "log_steps": ([1, 10**40], [0]),
    "lookahead": ([0, MAX_STEPS - 1], [-1, MAX_STEPS]),
    "memory_mb": ([0, 10**40], [-1, 1]),
    "newton_schulz": ([1, 20], [0, 21]),
    "multiply": ([1], [0, 100_001]),
    "plateau_patience": ([1, MAX_STEPS - 1], [0, MAX_STEPS]),
    "profile_steps": ([], [1]),  # takes two
    "replicas": ([0, 128], [-1, 129]),
    "seed": ([0, 2**31 - 1], [-1, 2**31]),
    "shift_pixels": ([1, 4], [0, 5, 28]),
    "shifts": ([0, 2], [-1, 3]),
    "split_seed": ([0, 2**63 - 1], [-1, 2**63]),
    "threads": ([0, 1024], [-1, 1025]),
    "validation_size": ([0, 10**40], [-1]),  # `data.split` knows what there is
    "width": ([1, 64], [0, 65]),
}
EDGES = FLOATS | INTEGERS


@pytest.fixture(scope="module")
def parse():
    """parse(*arguments) → values of train's flags by name; resets them afterwards."""
    if "epochs" not in flags.FLAGS:  # another test may have come before
        define_flags()

    def parse(*arguments):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["train.py", *arguments])
        return vars(from_flags())

    yield parse
    flags.FLAGS.unparse_flags()


def test_every_numeric_flag_has_its_limits_here(parse):
    numbers = {
        name
        for name in vars(Config())
        if isinstance(
            flags.FLAGS[name].parser, (flags.FloatParser, flags.IntegerParser)
        )
    }
    assert numbers - {"profile_steps", "hidden_units"} <= EDGES.keys()


@pytest.mark.parametrize("name", sorted(EDGES))
def test_limits_of_flags(name, parse):
    taken, refused = EDGES[name]
    for value in taken:
        assert parse(f"--{name}={value}")[name] in (value, [value])
    for value in [*refused, "nan", "inf", "-inf", "1e400", "x"]:
        with pytest.raises(flags.Error) as refusal:
            parse(f"--{name}={value}")
        message = console.one_line(str(refusal.value))
        assert name in message and len(message) < 2001, message


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("--learning_rate=10 --weight_decay=0.1", "each kernel: expected less than 1"),
        (
            "--schedule=plateau --validation_size=10 --learning_rate=1e-6",
            "--plateau_floor is above --learning_rate",
        ),
    ],
)
def test_contradicting_numbers_are_refused(arguments, says, parse):
    with pytest.raises(flags.Error, match=says):
        parse(*arguments.split())


@pytest.mark.parametrize(
    "epochs, epoch_images, steps",
    [
        (MAX_STEPS - 1, 1, MAX_STEPS - 1),
        (1, (MAX_STEPS - 1) * 32, MAX_STEPS - 1),
        (MAX_STEPS // 4, 0, None),  # of 128 images: 4 steps
        (1, 10**40, None),
    ],
)
def test_steps_of_a_run_are_bounded(epochs, epoch_images, steps):
    config = Config(epochs=epochs, epoch_images=epoch_images, batch_size=32)
    if steps:
        assert schedules.count_steps(config, 128)[1] == steps
        return
    with pytest.raises(errors.UsageError, match="at most 268,435,455: lower --epochs"):
        schedules.count_steps(config, 128)
    # What counts on it: seeds of masks in the upper four bits of an int32.
    last = layers.mask_seed(tf.constant([0, MAX_STEPS - 1]), layers.MASKS)
    assert last[1] == 2**31 - 1
    assert online._NUMBER == layers.MASKS  # so that both draw different numbers


def test_decays_at_their_limit_follow_the_formulas():
    """Even in float32, where 1 − 0.9999999 has one digit left."""
    highest = 0.9999999
    one, two = tf.constant(1.0), tf.constant(2.0)
    # The average's warm-up is below any such decay in every run that ends.
    step = MAX_STEPS - 1
    found = rules.weight_average(one, two, step=step, decay=highest)
    assert found.numpy() == pytest.approx(1 + 1.2e-7, abs=1.2e-7)
    norm = batch_norm.BatchNorm(1, decay=highest)
    norm.mean.assign([0.0])
    (_, mean), _ = norm.updates(tf.constant([1.0]), tf.constant([1.0]))
    assert mean.numpy() == pytest.approx(1 - highest, rel=1e-3)
    _, v = rules.rmsprop(one, two, 0.0, step=0, rate=0.0, rho=highest)
    assert v.numpy() == pytest.approx(4 * (1 - highest), rel=1e-3)
    _, m = rules.momentum_sgd(one, one, one, step=0, rate=0.0, momentum=highest)
    assert m.numpy() == pytest.approx(2)


@pytest.mark.parametrize("rule", ["adam", "rmsprop"])
@pytest.mark.parametrize("epsilon", [1e-37, 1e38])
def test_no_epsilon_divides_by_0(rule, epsilon):
    """A pixel that is always 0 has no gradient, so its weight stays the same."""
    weights = [tf.Variable([[1.0, 1.0]])]
    rule = optimizers.Optimizer(rule, weights, epsilon=epsilon)
    rule.apply([tf.constant([[0.0, 1.0]])], step=tf.constant(0), rate=tf.constant(0.1))
    still, moved = weights[0].numpy()[0]
    assert still == 1
    assert moved < 1 if epsilon < 1 else moved == 1


@pytest.mark.parametrize("sigma", [1e-300, 1e-3, 28.0])
def test_elastic_at_its_limits_varies_as_noise_blurred_by_scipy(sigma):
    """Displacements at two places of a line: variances and covariances."""
    ndimage = pytest.importorskip("scipy.ndimage")
    settings = OnlineSettings(elastic_alpha=1000.0, elastic_sigma=sigma)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = online.elastic(tf.constant([0, 1]), tf.constant(2000), settings)
    lines = found.numpy()[:, :, 14].reshape(-1, 28)
    line = ndimage.gaussian_filter(np.eye(28), [sigma, 0], mode="constant")
    # Noise that is uniform in ±1, blurred along the line and across it.
    expected = 1000**2 / 3 * (line[14] ** 2).sum() * line @ line.T
    largest = expected.max()
    np.testing.assert_allclose(np.cov(lines.T), expected, atol=0.12 * largest)


@pytest.mark.parametrize("seed", [0, plan.MAX_SEED])
def test_split_at_the_limits_of_its_seed(seed):
    train_indices, held_out = data.split(10, 9, seed)
    assert sorted([*train_indices, *held_out]) == list(range(10))
    for size in (-1, 10, 10**40):
        with pytest.raises(errors.UserError, match="expected 0 to 9"):
            data.split(10, size, seed)


def test_upper_limits_give_the_same_run_as_ordinary_numbers(parse, tmp_path):
    """Numbers that do not matter in a run of one epoch may be as large as possible."""
    sets = data.load("digits")
    images, labels = sets.train_images, sets.train_labels
    sets = Sets(images[:64], labels[:64], {"test": (images[:9], labels[:9])})
    common = ["--dataset=digits", "--network=mlp", "--schedule=step", "--epochs=1"]
    common += ["--batch_size=32", "--replicas=1", f"--seed={2**31 - 1}"]
    large = ["--decay_epochs", "--plateau_patience"]
    configs = parse(*common), parse(*common, *(f"{f}={MAX_STEPS - 1}" for f in large))
    hashes = []
    for number, (config, log_steps) in enumerate(zip(configs, (1, 10**40))):
        config = Config(
            **config
            | {"split_seed": number * plan.MAX_SEED, "memory_mb": 0}
            | {"early_stopping": number * (MAX_STEPS - 1)}
            | {"log_steps": log_steps, "checkpoint_epochs": 10**40}
        )
        run_dir = tmp_path / str(number)
        run_dir.mkdir()
        train.train(config, sets, Session(run_dir))
        (row,) = history.read(run_dir)
        assert math.isfinite(row["train_loss"])
        state = State(config)
        folder = run_dir / checkpoints.FOLDER
        assert checkpoints.restore(state.checkpoint, folder, config.deciding()) == 2
        hashes.append([v.numpy().tobytes() for v in state.network.variables])
    assert hashes[0] == hashes[1]


def test_the_widest_network_is_built(parse):
    """It has as many parameters as the formula says, and is built in a second."""
    width = max(INTEGERS["width"][0])
    with tf.Graph().as_default():  # the variables take no memory
        network = lenet.LeNet(width=width)
        count = layers.count_parameters(network)
    first, second = 12 * width, 16 * width
    convolutions = first * 10 + second * (9 * first + 1)
    assert count == convolutions + 288 * (36 * second + 1) + 41_616 + 1_450
