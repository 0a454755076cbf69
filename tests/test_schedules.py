# SPDX-License-Identifier: Apache-2.0
"""Tests of training/schedules.py; general tests run over the whole registry."""

import numpy as np
import pytest
import tensorflow as tf

from config import Config
from training import schedules

REGISTRY = pytest.mark.parametrize("name", sorted(schedules.SMOOTH))


@pytest.mark.parametrize(
    "name, progress, factor",
    [
        ("constant", 0.0, 1.0),
        ("constant", 0.5, 1.0),
        ("constant", 1.0, 1.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("one_cycle", 0.0, 0.04),
        ("one_cycle", 0.125, 0.52),  # half-way up from 1/25
        ("one_cycle", 0.25, 1.0),
        ("one_cycle", 0.5, 0.75),  # a third of the way down
        ("one_cycle", 0.625, 0.5),
        ("one_cycle", 1.0, 0.0),
    ],
)
def test_values_by_hand(name, progress, factor):
    value = schedules.SMOOTH[name](tf.constant(progress))
    np.testing.assert_allclose(value, factor, atol=1e-6)


@REGISTRY
def test_schedules_map_scalars_to_scalars(name):
    value = schedules.SMOOTH[name](tf.constant(0.3))
    assert value.dtype == tf.float32
    assert value.shape == []


@REGISTRY
def test_schedules_stay_within_0_and_1_without_jumps(name):
    values = schedules.SMOOTH[name](tf.linspace(0.0, 1.0, 1001)).numpy()
    assert values.min() >= 0
    assert values.max() <= 1 + 1e-6
    assert abs(np.diff(values)).max() < 0.05


def test_one_cycle_rises_to_its_peak_and_falls():
    values = schedules.one_cycle(tf.linspace(0.0, 1.0, 1001)).numpy()
    assert values.argmax() == 250
    assert (np.diff(values[:251]) > 0).all()
    assert (np.diff(values[250:]) < 0).all()


def test_one_cycle_with_another_warm_up():
    peak = schedules.one_cycle(tf.constant(0.5), warm_up=0.5)
    np.testing.assert_allclose(peak, 1.0, atol=1e-6)


def build(name, watch=None):
    """A schedule for a run of 10 epochs of 7 steps."""
    watch = watch or schedules.Watch()
    config = Config(schedule=name, epochs=10, decay_epochs=2, decay_factor=0.5)
    return schedules.build(config, watch, epoch_steps=7)


def test_progress_runs_from_the_first_step_to_after_the_last():
    for name, smooth in schedules.SMOOTH.items():
        schedule = build(name)
        for step in (0, 35, 70):
            expected = smooth(tf.constant(step / 70))
            value = schedule(tf.constant(step, tf.int64))
            np.testing.assert_allclose(value, expected, atol=1e-6)


def test_step_decay_changes_exactly_between_epochs():
    schedule = build("step")
    for step, factor in [
        (0, 1),
        (13, 1),
        (14, 0.5),
        (27, 0.5),
        (28, 0.25),
        (69, 1 / 16),
    ]:
        value = schedule(tf.constant(step, tf.int64))
        assert value.dtype == tf.float32
        assert value == factor


def test_plateau_reads_its_factor_when_the_graph_runs():
    watch = schedules.Watch()
    schedule = tf.function(build("plateau", watch))
    assert schedule(tf.constant(3, tf.int64)) == 1
    watch.factor.assign(0.125)
    assert schedule(tf.constant(3, tf.int64)) == 0.125


def test_watch_tracks_the_best_accuracy_and_the_epochs_since():
    watch = schedules.Watch()
    history = []
    for accuracy in (0.5, 0.5, 0.4, 0.6, 0.6):
        better = watch.update(accuracy)
        history.append((better, int(watch.waited)))
    assert history == [(True, 0), (False, 1), (False, 2), (True, 0), (False, 1)]
    assert watch.best == np.float32(0.6)


def test_an_accuracy_of_0_is_better_than_none():
    assert schedules.Watch().update(0.0)


def test_plateau_lowers_the_rate_after_each_patience_to_its_floor():
    watch = schedules.Watch()
    factors = []
    for accuracy in (0.9, 0.8, 0.8, 0.8, 0.8, 0.95, 0.8, 0.8, 0.8, 0.8):
        watch.update(accuracy)
        watch.plateau(patience=2, factor=0.5, floor=0.2)
        factors.append(float(watch.factor))
    floor = pytest.approx(0.2)
    assert factors[:6] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert factors[6:] == [0.25, floor, floor, floor]
