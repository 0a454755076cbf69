# SPDX-License-Identifier: Apache-2.0
"""Tests of training/optimizers.py."""

import numpy as np
import pytest
import tensorflow as tf

from config import Config
from system import errors
from training import optimizers

RATE = 0.01
STEP = tf.constant(0, tf.int64)


def gradients(steps):
    """Gradients of very different sizes, as in a real run."""
    draws = np.random.default_rng(0).normal(size=(steps, 4))
    return (draws * [1e-6, 1e-2, 1.0, 100.0]).astype(np.float32)


def adam_steps(weight, steps):
    m, v = tf.zeros_like(weight), tf.zeros_like(weight)
    for step, gradient in enumerate(gradients(steps)):
        weight, m, v = optimizers.adam(
            weight,
            tf.constant(gradient),
            m,
            v,
            step=tf.constant(step, tf.int64),
            rate=tf.constant(RATE),
        )
    return weight, m, v


def test_adam_follows_its_formula():
    start = np.array([1.0, -2.0, 0.0, 3.0])
    w, m, v = start, 0.0, 0.0
    for t, g in enumerate(gradients(7).astype(np.float64), 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        size = RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - size * m / (np.sqrt(v) + 1e-8)
    ours = adam_steps(tf.constant(start, tf.float32), 7)
    # 1 − 0.999ᵗ loses digits in float32.
    np.testing.assert_allclose(ours[0] - start, w - start, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours[1], m, rtol=1e-5)
    np.testing.assert_allclose(ours[2], v, rtol=1e-4)


def test_adam_equals_tensorflows():
    start = tf.constant([1.0, -2.0, 0.0, 3.0])
    w, m, v = tf.Variable(start), tf.Variable(start * 0), tf.Variable(start * 0)
    for t, gradient in enumerate(gradients(7), 1):
        tf.raw_ops.ResourceApplyAdam(
            var=w.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=0.9**t,
            beta2_power=0.999**t,
            lr=RATE,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            grad=gradient,
        )
    for ours, theirs in zip(adam_steps(start, 7), (w, m, v), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_adams_first_step_is_the_rate_for_any_gradient():
    w = tf.zeros([3])
    step = tf.constant(0, tf.int64)
    g = tf.constant([1e-3, -1.0, 1e4])
    w, _, _ = optimizers.adam(w, g, w, w, step=step, rate=tf.constant(0.5))
    np.testing.assert_allclose(w, [-0.5, 0.5, -0.5], rtol=1e-3)


def test_rmsprop_follows_its_formula():
    start = np.array([1.0, -2.0, 0.0, 3.0])
    w, v = start, 0.0
    ours, ours_v = tf.constant(start, tf.float32), tf.zeros([4])
    for g in gradients(7):
        v = 0.8 * v + 0.2 * g.astype(np.float64) ** 2
        w = w - RATE * g / (np.sqrt(v) + 1e-4)
        ours, ours_v = optimizers.rmsprop(
            ours, g, ours_v, step=STEP, rate=tf.constant(RATE), rho=0.8, epsilon=1e-4
        )
    np.testing.assert_allclose(ours - start, w - start, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours_v, v, rtol=1e-5)


def test_rmsprops_epsilon_is_outside_the_root():
    w, _ = optimizers.rmsprop(
        *(tf.zeros([1]), tf.constant([1e-3]), tf.zeros([1])),
        **{"step": STEP, "rate": tf.constant(1.0), "rho": 0.0, "epsilon": 1e-3},
    )
    np.testing.assert_allclose(w, [-0.5], rtol=1e-5)  # inside, it would be −0.03


def test_momentum_follows_its_formula():
    start = np.array([1.0, -2.0, 0.0, 3.0])
    w, m = start, 0.0
    ours, ours_m = tf.constant(start, tf.float32), tf.zeros([4])
    for g in gradients(7):
        m = 0.7 * m + g.astype(np.float64)
        w = w - RATE * m
        ours, ours_m = optimizers.momentum_sgd(
            ours, g, ours_m, step=STEP, rate=tf.constant(RATE), momentum=0.7
        )
    np.testing.assert_allclose(ours - start, w - start, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours_m, m, rtol=1e-5)


@pytest.mark.parametrize("rule", optimizers.RULES)
def test_optimizers_reach_the_minimum(rule):
    w = tf.Variable([0.1, -0.2, -0.1])
    target = tf.constant([0.4, 0.2, -0.5])
    optimizer = optimizers.Optimizer(rule, [w])
    for step in range(150):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(target - w))
        optimizer.apply(
            tape.gradient(loss, [w]),
            step=tf.constant(step, tf.int64),
            rate=tf.constant(0.2 * (1 - step / 150)),
        )
    np.testing.assert_allclose(w, target, atol=1e-2)


def rosenbrock(w):
    """A narrow, bent valley that falls slowly to 0 at (1, 1)."""
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


@pytest.mark.parametrize(
    "rule, rate", [("adam", 0.1), ("momentum", 1e-3), ("rmsprop", 0.01)]
)
def test_optimizers_follow_a_bent_valley_to_its_end(rule, rate):
    """Rosenbrock's valley, from his starting point, with a rate that falls to 0."""
    w = tf.Variable([-1.2, 1.0])
    optimizer = optimizers.Optimizer(rule, [w])

    @tf.function
    def descend(count):
        for step in tf.range(count):
            with tf.GradientTape() as tape:
                loss = rosenbrock(w)
            left = 1 - tf.cast(step, tf.float32) / tf.cast(count, tf.float32)
            optimizer.apply(tape.gradient(loss, [w]), step=step, rate=rate * left)

    descend(tf.constant(4000, tf.int64))
    np.testing.assert_allclose(w, [1, 1], atol=0.02)


def test_options_default_to_those_of_the_rule():
    assert optimizers.options("adam", {}) == {"epsilon": 1e-8}
    rmsprop = optimizers.options("rmsprop", {"epsilon": 1e-6, "rho": None})
    assert rmsprop == {"epsilon": 1e-6, "rho": 0.9}
    assert optimizers.options("momentum", {"momentum": 0.0}) == {"momentum": 0.0}


def test_an_option_of_another_rule_is_refused():
    with pytest.raises(errors.UsageError) as caught:
        optimizers.build(Config(rho=0.9), [tf.Variable([1.0])])
    says = "--optimizer=adam has no --rho; it takes --epsilon; "
    assert str(caught.value).startswith(says)


def test_an_optimizer_is_built_with_its_options():
    w = tf.Variable([[1.0]])
    chosen = Config(optimizer="momentum", momentum=0.5, weight_decay=0.1)
    optimizer = optimizers.build(chosen, [w])
    for expected in (0.78, 0.78 - 0.3 - 0.02 * 0.78):  # m = 1, then 1.5
        optimizer.apply([tf.constant([[1.0]])], step=STEP, rate=tf.constant(0.2))
        np.testing.assert_allclose(w, [[expected]], rtol=1e-6)


def test_only_kernels_decay():
    shapes = [[3, 3, 1, 2], [2, 2], [2]]
    weights = [tf.Variable(tf.fill(shape, 4.0)) for shape in shapes]
    adam = optimizers.Optimizer("adam", weights, weight_decay=0.5)
    adam.apply(
        [tf.zeros_like(w) for w in weights],
        step=tf.constant(0, tf.int64),
        rate=tf.constant(0.1),
    )
    for w, value in zip(weights, [3.8, 3.8, 4.0], strict=True):
        np.testing.assert_allclose(w, np.full(w.shape, value), rtol=1e-6)


def test_weight_decay_is_separate_from_the_step():
    pair = [tf.Variable([[4.0, -2.0]]), tf.Variable([[4.0, -2.0]])]
    for w, decay in zip(pair, [0.0, 0.5], strict=True):
        optimizers.Optimizer("adam", [w], weight_decay=decay).apply(
            [tf.constant([[1.0, 3.0]])],
            step=tf.constant(0, tf.int64),
            rate=tf.constant(0.1),
        )
    plain, decayed = pair
    np.testing.assert_allclose(plain - decayed, [[0.2, -0.1]], atol=1e-6)


def test_adam_tracks_only_its_slots():
    weights = [tf.Variable(tf.ones([2, 3])), tf.Variable(tf.ones([3]))]
    adam = optimizers.Optimizer("adam", weights)
    slots = {v.ref() for v in adam.variables}
    assert slots == {v.ref() for v in adam.slots["m"] + adam.slots["v"]}
    assert len(slots) == 4
    assert not slots & {w.ref() for w in weights}
    assert not adam.trainable_variables
    assert not any(slot.numpy().any() for slot in adam.variables)


def test_apply_stores_what_adam_returns():
    start = tf.constant([1.0, -2.0, 0.0, 3.0])
    weights = [tf.Variable(start), tf.Variable(start + 1)]
    adam = optimizers.Optimizer("adam", weights)
    for step, g in enumerate(gradients(3)):
        adam.apply(
            [tf.constant(g)] * 2,
            step=tf.constant(step, tf.int64),
            rate=tf.constant(RATE),
        )
    for i, w in enumerate(weights):
        stored = w, adam.slots["m"][i], adam.slots["v"][i]
        for ours, expected in zip(stored, adam_steps(start + i, 3), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_missing_gradient_is_refused():
    adam = optimizers.Optimizer("adam", [tf.Variable([1.0]), tf.Variable([2.0])])
    with pytest.raises(ValueError, match="shorter"):
        adam.apply([tf.ones([1])], step=tf.constant(0, tf.int64), rate=tf.constant(0.1))


@pytest.mark.parametrize(
    "step, decay, kept",
    [
        (0, 0.99, 0.1),  # 1 / 10
        (8, 0.99, 0.5),  # 9 / 18
        (8, 0.3, 0.3),
        (890, 0.99, 0.99),  # 891 / 900, where the warm-up ends
        (10**6, 0.99, 0.99),
    ],
)
def test_weight_average_by_hand(step, decay, kept):
    average = optimizers.weight_average(
        tf.constant([10.0, 1.0]),
        tf.constant([0.0, 1.0]),
        step=tf.constant(step, tf.int64),
        decay=decay,
    )
    np.testing.assert_allclose(average, [10 * kept, 1.0], rtol=1e-5)


def test_weight_average_approaches_the_weights():
    average = tf.constant([-100.0])
    for step in range(200):
        average = optimizers.weight_average(
            average,
            tf.constant([3.0]),
            step=tf.constant(step, tf.int64),
            decay=0.9,
        )
    np.testing.assert_allclose(average, [3.0], rtol=1e-5)


def test_clipping_scales_all_gradients_to_one_norm():
    gradients = [tf.constant([[3.0]]), tf.constant([4.0, 0.0])]  # together 5
    clipped = optimizers.clip(gradients, 2.5)
    np.testing.assert_allclose(clipped[0], [[1.5]])
    np.testing.assert_allclose(clipped[1], [2, 0])
    for norm in (5.0, 6.0):
        for one, other in zip(optimizers.clip(gradients, norm), gradients):
            np.testing.assert_allclose(one, other)
    assert optimizers.clip(gradients, 0.0) is gradients  # no operation
