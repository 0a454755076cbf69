# SPDX-License-Identifier: Apache-2.0
"""Tests of training/replicas.py."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from config import Config
from training import replicas as parts

INDICES = tf.range(10, 17, dtype=tf.int64)
SEED = tf.constant([3, 8])


def choose(batch_size, threads, *, replicas=0, cores=2):
    config = Config(batch_size=batch_size, threads=threads, replicas=replicas)
    return parts.choose(config, cores)


@pytest.mark.parametrize(
    "batch_size, threads, replicas",
    [(128, 1, 1), (128, 2, 2), (128, 8, 8), (64, 8, 4), (31, 2, 1), (1, 2, 1)],
)
def test_choose(batch_size, threads, replicas):
    assert choose(batch_size, threads) == replicas


def test_choose_uses_the_cores_by_default():
    assert choose(128, 0, cores=3) == 3
    assert choose(128, 0, replicas=5) == 5


@pytest.mark.parametrize(
    "batch_size, replicas, sizes",
    [(7, 1, [7]), (7, 2, [4, 3]), (7, 3, [3, 2, 2]), (6, 3, [2, 2, 2]), (2, 2, [1, 1])],
)
def test_sizes(batch_size, replicas, sizes):
    assert parts.sizes(batch_size, replicas) == sizes


def run(replicas):
    """Runs a step whose results show its inputs; returns the seeds as well."""
    seeds = []

    def step(indices, seed, share):
        seeds.append(tuple(seed.numpy()))
        values = tf.cast(indices, tf.float32)
        mean = tf.reduce_mean(values)
        gradients = [share * mean, share * tf.stack([mean, -mean])]
        return parts.Part(share * mean, len(indices), gradients, [mean])

    return parts.run(step, INDICES, SEED, replicas), seeds


@pytest.mark.parametrize("replicas", [1, 2, 3, 7])
def test_parts_add_up_to_the_batch(replicas):
    part, _ = run(replicas)
    np.testing.assert_allclose(part.loss, 13, rtol=1e-6)
    assert part.correct == 7
    np.testing.assert_allclose(part.gradients[0], 13, rtol=1e-6)
    np.testing.assert_allclose(part.gradients[1], [13, -13], rtol=1e-6)
    np.testing.assert_allclose(part.averages, [13], rtol=1e-6)


def test_each_replica_has_its_own_seed():
    assert run(1)[1] == [(3, 8)]
    first, *others = run(7)[1]
    assert first == (3, 8)
    assert len({first, *others}) == 7
    assert run(3)[1] == [first, *others[:2]]


def optimised(function, *arguments):
    """Calls a `tf.function`; returns the nodes of its optimized graphs."""
    context.context().enable_graph_collection()
    try:
        function(*arguments)
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    return [node for graph in graphs for node in graph.post_optimization_graph.node]


@pytest.mark.parametrize("replicas", [2, 3])
def test_the_loss_is_summed_in_one_order(replicas):
    """Uses a set as large as MNIST, since `tf.add_n` failed with that."""

    def part_step(images, indices, seed, share):
        loss = share * tf.reduce_mean(tf.cast(tf.gather(images, indices), tf.float32))
        return parts.Part(loss, tf.constant(0, tf.int64), [], [])

    part_step = parts.function(part_step, in_line=True)

    @tf.function(autograph=False)
    def total(images, steps):
        def body(step, so_far):
            take = functools.partial(part_step, images)
            part = parts.run(take, INDICES + step, SEED, replicas)
            return step + 1, so_far + part.loss

        start = tf.constant(0, tf.int64), tf.constant(0.0)
        return tf.while_loop(lambda step, _: step < steps, body, start)[1]

    images = tf.zeros([60_000, 28, 28, 1], tf.uint8)
    nodes = optimised(total, images, tf.constant(2, tf.int64))
    assert [node for node in nodes if node.op == "Mean"]
    assert not [node.name for node in nodes if node.op == "AssignAdd"]
