# SPDX-License-Identifier: Apache-2.0
"""Tests of training/batches.py; general tests run over the whole registry."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from training import batches

REGISTRY = pytest.mark.parametrize("sample", batches.SAMPLERS.values())


def draw(sample, seed, step, batch_size, set_size):
    return sample(seed, tf.constant(step, tf.int64), batch_size, set_size).numpy()


def draws(seed, steps, batch_size, set_size):
    """The indices of all steps of `shuffled_epochs`, in order."""
    return np.concatenate(
        [
            draw(batches.shuffled_epochs, seed, step, batch_size, set_size)
            for step in range(steps)
        ]
    )


@REGISTRY
def test_shape_and_range(sample):
    for set_size in (1, 7, 60_000):
        indices = draw(sample, 0, 5, 20, set_size)
        assert indices.dtype == np.int64
        assert indices.shape == (20,)
        assert indices.min() >= 0
        assert indices.max() < set_size


@REGISTRY
def test_draws_are_a_function_of_seed_and_step(sample):
    first = draw(sample, 3, 10, 50, 1000)
    np.testing.assert_array_equal(draw(sample, 3, 10, 50, 1000), first)
    assert (draw(sample, 3, 11, 50, 1000) != first).any()
    assert (draw(sample, 4, 10, 50, 1000) != first).any()


@REGISTRY
def test_draws_work_with_the_largest_seed_at_a_late_step(sample):
    indices = draw(sample, 2**31 - 1, 10**9, 128, 300_000)
    assert len(set(indices.tolist())) > 120


@REGISTRY
def test_draws_are_the_same_in_a_graph(sample):
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def graph(step):
        return sample(3, step, 50, 70)

    for step in (0, 1, 12_345):
        expected = draw(sample, 3, step, 50, 70)
        np.testing.assert_array_equal(graph(tf.constant(step, tf.int64)), expected)


def test_random_draws_are_uniform():
    indices = draw(batches.random_draws, 0, 0, 20_000, 10)
    assert stats.chisquare(np.bincount(indices, minlength=10)).pvalue > 1e-3


@pytest.mark.parametrize(
    "batch_size, set_size, passes", [(3, 10, 3), (5, 10, 2), (25, 10, 5), (4, 1, 8)]
)
def test_each_pass_holds_every_index_once(batch_size, set_size, passes):
    indices = draws(0, passes * set_size // batch_size, batch_size, set_size)
    for one_pass in indices.reshape(passes, set_size):
        assert sorted(one_pass) == list(range(set_size))


def test_a_large_pass_is_a_permutation():
    assert sorted(draws(0, 1, 60_000, 60_000)) == list(range(60_000))


def test_each_pass_and_seed_has_its_own_order():
    set_size = 10_000
    orders = [
        np.arange(set_size),
        *(
            draw(batches.shuffled_epochs, seed, step, set_size, set_size)
            # A short key would repeat itself at powers of two.
            for seed, step in [(0, 0), (0, 1), (0, 2), (0, 256), (0, 1024)]
            + [(1, 0), (2, 0), (256, 0), (1024, 0), (2**16, 0)]
        ),
    ]
    # A chance correlation of shuffled orders has a standard deviation of 0.01.
    correlations = np.corrcoef(orders) - np.eye(len(orders))
    assert abs(correlations).max() < 0.06


def test_neighbours_in_a_pass_are_unrelated():
    order = draws(0, 1, 10_000, 10_000)
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06
