# SPDX-License-Identifier: Apache-2.0
"""Tests of training/schedules.py, the general ones over the whole registry."""

import numpy as np
import pytest
import tensorflow as tf

from training import schedules

REGISTRY = pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))


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
    value = schedules.SCHEDULES[name](tf.constant(progress))
    np.testing.assert_allclose(value, factor, atol=1e-6)


@REGISTRY
def test_scalar_in_scalar_out(name):
    value = schedules.SCHEDULES[name](tf.constant(0.3))
    assert value.dtype == tf.float32
    assert value.shape == []


@REGISTRY
def test_within_0_and_1_and_without_jumps(name):
    values = schedules.SCHEDULES[name](tf.linspace(0.0, 1.0, 1001)).numpy()
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
