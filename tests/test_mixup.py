# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/mixup.py, and of the loss of mixed targets."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import train
from augment import batch, mixup
from config import Config
from system import errors
from tests.test_fed import CONFIG
from training import losses
from training.state import State

SEED = tf.constant([3, 1])


def images(count):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 28, 28, 1), np.uint8)


def test_each_image_is_mixed_with_the_one_before_it():
    given = images(5)
    mixed, share = mixup.from_config(Config(mixup=0.4))(tf.constant(given), SEED)
    levels, share = given.astype(np.float64), float(share)
    expected = share * levels + (1 - share) * levels[[4, 0, 1, 2, 3]]
    assert mixed.dtype == tf.uint8 and 0.5 < share < 0.999
    np.testing.assert_allclose(mixed, expected, atol=0.51)


def test_without_it_nothing_changes():
    given = tf.constant(images(2))
    mixed, share = mixup.from_config(Config())(given, SEED)
    assert mixed is given and share is None


def test_mixtures_are_of_what_the_other_changes_have_made():
    given, labels = tf.constant(images(8)), tf.range(8)
    rotated, _, _ = batch.from_config(Config(rotation=30.0))(given, labels, SEED)
    both = batch.from_config(Config(rotation=30.0, mixup=0.4))(given, labels, SEED)
    mixed, share = mixup.from_config(Config(mixup=0.4))(rotated, SEED)
    np.testing.assert_array_equal(both[0], mixed)
    np.testing.assert_array_equal(both[1], labels)
    assert both[2] == share


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 4.0, 100.0])
def test_shares_are_the_larger_ones_of_a_beta_distribution(alpha):
    seeds = tf.stack([tf.fill([500], 5), tf.range(500)], 1)
    shares = tf.map_fn(lambda s: mixup.draw(alpha, s), seeds, tf.float32).numpy()
    assert np.isfinite(shares).all() and 0.5 <= shares.min() <= shares.max() <= 1
    distribution = stats.beta(alpha, alpha)
    for share in (0.55, 0.7, 0.95):
        expected = distribution.cdf(share) - distribution.cdf(1 - share)
        assert (shares < share).mean() == pytest.approx(expected, abs=0.08)


def test_a_share_is_that_of_its_seed():
    one, again, other = (mixup.draw(0.4, SEED + n) for n in (0, 0, [0, 1]))
    assert one == again != other


# --- the loss ---

LOGITS = tf.constant([[0.5, -1.0, 2.0], [1.0, 0.0, 0.0], [0.0, 3.0, -1.0]])
LABELS = tf.constant([2, 0, 1])
TAUGHT = tf.constant([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("labels", [[2, 0, 1], [2, -1, 1]])
@pytest.mark.parametrize("online", [None, False, True])
def test_the_loss_is_that_of_mixed_targets(name, labels, online):
    """By the formulas, in float64; −1 is of no class, and has an even target."""
    settings = {"loss": name, "label_smoothing": 0.1, "teacher_weight": 0.6}
    config = Config(**settings, temperature=2.0, teach_online=bool(online))
    taught = None if online is None else TAUGHT
    found = losses.build(config)(LOGITS, tf.constant(labels), taught, tf.constant(0.7))

    def mixed(rows):
        return 0.7 * rows + 0.3 * rows[[2, 0, 1]]

    logits, even = LOGITS.numpy().astype(np.float64), np.array(labels)[:, None] < 0
    t = mixed(np.where(even, 1 / 3, 0.9 * np.eye(3)[labels] + 0.1 / 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if name == "binary_cross_entropy":
        expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    else:
        expected = -(t * np.log(p)).sum(1).mean()
    if online is not None:
        q = TAUGHT.numpy().astype(np.float64)
        own, other = (np.where(rows, 1 / 3, q) for rows in (even, even[[2, 0, 1]]))
        if not online:  # a teacher saw the images by themselves
            other = np.where(even, 1 / 3, q)[[2, 0, 1]]
        q = 0.7 * own + 0.3 * other
        soft = np.exp(logits / 2) / np.exp(logits / 2).sum(1, keepdims=True)
        learned = -4 * (q * np.log(soft)).sum(1).mean()
        expected = 0.4 * expected + 0.6 * learned
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_step_trains_on_mixed_targets(monkeypatch):
    """Two replicas, each with its own share."""
    config = Config(**{**vars(CONFIG), "replicas": 2, "mixup": 1.0}).resolved()
    given, build = [], losses.build

    def spy(config):
        loss = build(config)
        return lambda *arguments: given.append(arguments) or loss(*arguments)

    monkeypatch.setattr(losses, "build", spy)
    monkeypatch.setattr(train.replicas, "function", lambda step, in_line: step)
    step = train.make_train_step(State(config), config, 100)
    labels = tf.constant(np.arange(90) % 10, tf.uint8)
    step(tf.constant(images(90)), labels, tf.constant(5, tf.int64), True)
    (_, _, _, one), (_, _, _, other) = given
    assert 0.5 <= one != other >= 0.5


# --- refusals ---


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"mixup": -0.1}, r"--mixup.*expected 0, or a number in \[0.01, 100\]"),
        ({"mixup": 0.001}, r"--mixup.*expected 0, or a number in \[0.01, 100\]"),
        ({"mixup": 0.2, "batch_size": 1}, "at least two for each of the --replicas"),
        (
            {"mixup": 0.2, "batch_size": 7, "replicas": 4},
            "at least two for each of the --replicas",
        ),
    ],
)
def test_refusals(settings, says):
    with pytest.raises(errors.UserError, match=says) as refusal:
        Config(**settings).checked()
    assert "\n" not in str(refusal.value)
