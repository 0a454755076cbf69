# SPDX-License-Identifier: Apache-2.0
"""A step of training: replicas, online augmentation, and numbers that run away."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import train
from augment import online
from models import layers
from system import errors
from tests.loop import copy_of, restored, trained, values
from training import checkpoints
from training.state import State, Totals, TrainingError


def stepped(config, sets, replicas):
    """Variables and totals after four steps."""
    exact = {"dropout": 0.0, "batch_norm": "none", "rotation": 0.0, "shear": 0.0}
    exact |= {"optimizer": "momentum", "weight_average": 0.0}
    chosen = replace(config, **exact, replicas=replicas)
    state = State(chosen)
    data = tf.constant(sets.train_images), tf.constant(sets.train_labels)
    totals = train.make_train_steps(state, *data, chosen, 4)(0, 4, training=True)
    values = [v.numpy() for v in state.network.variables]
    return [*values, totals.loss, totals.correct, totals.gradient_norms]


def test_replicas_take_the_same_step_as_the_whole_batch(lenet, sets):
    exact = stepped(lenet, sets, 1)
    for replicas in (2, 3):
        for a, b in zip(stepped(lenet, sets, replicas), exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_replicas_of_batch_norm_average_their_statistics(lenet, sets):
    """The moving averages lie between those of two replicas."""
    chosen = replace(lenet, dropout=0.0, rotation=0.0, weight_average=0.0)
    data = tf.constant(sets.train_images), tf.constant(sets.train_labels)

    def mean(replicas):
        state = State(replace(chosen, replicas=replicas))
        steps = train.make_train_steps(
            state, *data, replace(chosen, replicas=replicas), 1
        )
        steps(0, 1, training=True)
        return state.network.norm1.mean.numpy()

    np.testing.assert_allclose(mean(2), mean(1), rtol=1e-4, atol=1e-6)


def test_building_the_loop_takes_no_step(lenet, sets):
    state = State(lenet)
    before = [v.numpy() for v in state.variables]
    data = tf.constant(sets.train_images), tf.constant(sets.train_labels)
    train.make_train_steps(state, *data, lenet, 4)
    np.testing.assert_equal([v.numpy() for v in state.variables], before)


def test_training_defaults_to_false(lenet, sets):
    plain = replace(lenet, dropout=0.0, weight_average=0.0, replicas=1)
    state = State(plain)
    steps = train.make_train_steps(
        state, tf.constant(sets.train_images), tf.constant(sets.train_labels), plain, 3
    )

    def averages():
        fixed = [v for v in state.network.variables if not v.trainable]
        assert len(fixed) == 4
        return [v.numpy().copy() for v in fixed]

    before = averages()
    totals = steps(0, 1)
    assert int(totals.step) == 1
    np.testing.assert_equal(averages(), before)
    steps(1, 1, training=True)
    assert all(np.any(a != b) for a, b in zip(averages(), before, strict=True))


def test_a_loss_that_is_not_finite_stops_the_run(config, sets, interrupted, tmp_path):
    run_dir = copy_of(interrupted, tmp_path)
    absurd = replace(config, learning_rate=1e30, activation="relu")
    state, _ = restored(config, run_dir)
    progress = checkpoints.progress(run_dir / "checkpoints", 8)
    folder = run_dir / "checkpoints"
    checkpoints.save(state.checkpoint, folder, 8, absurd.deciding(), progress)
    with pytest.raises(TrainingError, match="NaN or infinite") as caught:
        trained(absurd, sets, run_dir)
    message = str(caught.value)
    assert "at step 9 of" in message  # step 8 took the weights too far
    assert str(checkpoints.path(run_dir / "checkpoints", 8)) in message
    assert "lower --learning_rate" in message
    assert caught.value.exit_code == errors.DIVERGED
    assert len(message.splitlines()) == 1
    state, step = restored(absurd, run_dir)
    assert step == 8
    for variable in (*state.network.variables, *state.average.variables):
        assert np.isfinite(variable.numpy()).all()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_no_checkpoint_holds_weights_that_are_not_finite(config, sets, tmp_path):
    # The one step of the epoch has a finite loss, and leaves infinite weights.
    absurd = replace(config, learning_rate=1e39, epochs=2, epoch_images=1)
    absurd = replace(absurd, schedule="constant")
    with pytest.raises(TrainingError, match="NaN or infinite"):
        trained(absurd, sets, tmp_path)
    state, step = restored(absurd, tmp_path)
    assert step == 0
    for variable in state.network.variables:
        assert np.isfinite(variable.numpy()).all()


def test_check_finite_names_loss_gradient_or_weight(config, tmp_path):
    state = State(config)

    def check(loss, norm):
        norms = tf.constant([1.0, norm])
        totals = Totals(tf.constant(6), tf.constant(loss), 0, norms, 0.1)
        state.check_finite(totals, tmp_path)

    check(1.0, 1.0)
    for loss in (math.nan, math.inf):
        with pytest.raises(TrainingError, match="the loss .* step 5 .*none yet"):
            check(loss, 1.0)
    with pytest.raises(TrainingError, match="a gradient .* step 5"):
        check(1.0, math.inf)
    w = state.network.dense1.w
    w.assign(w * math.inf)
    with pytest.raises(TrainingError, match="a weight .* step 5"):
        check(1.0, 1.0)


def test_online_augmentation_runs_in_each_step(config, sets, finished, tmp_path):
    still = replace(config, rotation=0.0)
    trained(still, sets, tmp_path)
    assert values(still, tmp_path) != values(config, finished)


def test_online_augmentation_and_dropout_share_no_random_numbers(config):
    seeds = []

    def transform(images, seed, settings, native):
        assert settings.rotation == 10
        seeds.append(tuple(seed.numpy()))
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "transform", transform)
        augment = online.from_config(config)
        for step in (0, 5):
            augment(tf.zeros([1, 28, 28, 1], tf.uint8), tf.constant([3, step]))
    of_dropout = {
        tuple(layers.mask_seed(tf.constant([3, step]), number).numpy())
        for step in (0, 5)
        for number in range(layers.MASKS)
    }
    assert len({*seeds, *of_dropout}) == len(seeds) + len(of_dropout)
