# SPDX-License-Identifier: Apache-2.0
"""Tests of training/optimizers.py."""

import numpy as np
import pytest
import tensorflow as tf

from config import Config
from system import errors
from tests.test_rules import RATE, STEP, adam_steps, gradients
from training import optimizers, rules


@pytest.mark.parametrize("rule", rules.RULES)
def test_optimizers_reach_the_minimum(rule):
    w = tf.Variable([[0.1, -0.2, -0.1]])
    target = tf.constant([[0.4, 0.2, -0.5]])
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


def test_an_option_of_another_rule_is_refused():
    with pytest.raises(errors.UsageError) as caught:
        optimizers.build(Config(rho=0.9), [tf.Variable([1.0])])
    says = "--optimizer=adam has no --rho; it takes --beta1, --beta2, --epsilon; "
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


def test_muon_leaves_ends_and_vectors_to_adam():
    shapes = [3, 3, 1, 4], [3, 3, 4, 6], [6], [24, 6], [6, 2]
    rng = np.random.default_rng(0)
    start, steps = (
        [[rng.normal(size=s).astype(np.float32) for s in shapes] for _ in range(count)]
        for count in (1, 3)
    )
    weights = [tf.Variable(w) for w in start[0]]
    options = {"momentum": 0.8, "beta2": 0.9, "adam_rate": 0.5}
    muon = optimizers.Optimizer(
        "muon", weights, ends=[weights[0], weights[4]], bias_rate=2.0, **options
    )
    alone = [tf.Variable(w) for w in start[0]]
    for step, of_step in enumerate(steps):
        when = {"step": tf.constant(step, tf.int64), "rate": tf.constant(0.1)}
        muon.apply([tf.constant(g) for g in of_step], **when)
    for i, w in enumerate(alone):
        is_hidden = i in (1, 3)
        slots = [tf.zeros_like(w)] * (1 if is_hidden else 2)
        for step, of_step in enumerate(steps):
            when = {"step": tf.constant(step, tf.int64)}
            if is_hidden:
                when |= {"rate": tf.constant(0.1), "momentum": 0.8}
                w, *slots = rules.muon(w, of_step[i], *slots, **when)
            else:
                when |= {"rate": tf.constant(0.1 if i == 2 else 0.05)}
                constants = {"beta2": 0.9, "epsilon": 1e-10}
                w, *slots = rules.adam(w, of_step[i], *slots, **when, **constants)
        np.testing.assert_allclose(weights[i], w, rtol=1e-5, atol=1e-6)
    assert [len(muon.slots[name]) for name in ("m", "v")] == [5, 3]


def test_muon_wants_a_hidden_kernel():
    ends = [tf.Variable([[1.0]]), tf.Variable([[2.0]])]
    with pytest.raises(errors.UserError, match="between the first layer and the last"):
        optimizers.Optimizer("muon", [*ends, tf.Variable([1.0])], ends=ends)


def test_a_run_without_one_is_not_made(tmp_path, call):
    arguments = ["--dataset=digits", "--network=mlp", "--hidden_units=9"]
    with pytest.raises(errors.UserError, match="between the first layer and the last"):
        call(*arguments, "--optimizer=muon", f"--run_dir={tmp_path}/r")
    assert not (tmp_path / "r" / "run.json").exists()


@pytest.mark.parametrize("rule", ["adam", "momentum", "rmsprop"])
def test_biases_have_a_rate_of_their_own(rule):
    weights = [tf.Variable(tf.ones([2, 1])), tf.Variable(tf.ones([2]))]
    optimizer = optimizers.Optimizer(rule, weights, bias_rate=64.0)
    for step in range(3):
        optimizer.apply(
            [tf.constant([[0.5], [-1.0]]), tf.constant([0.5, -1.0])],
            step=tf.constant(step, tf.int64),
            rate=tf.constant(1e-3),
        )
    kernel, bias = (np.ravel(w) - 1 for w in weights)
    np.testing.assert_allclose(bias, 64 * kernel, rtol=1e-3)


@pytest.mark.parametrize("rule", rules.RULES)
def test_lookahead_follows_a_plain_loop(rule):
    """In a graph's loop, with an average, which sees the weights before a step back."""
    start = tf.constant([[0.1, -0.2], [0.3, 0.5]])
    w, average = tf.Variable(start), tf.Variable(start)
    averaged = {"averages": [average], "average_decay": 0.5}
    ours = optimizers.Optimizer(
        rule, [w], lookahead=3, lookahead_share=0.25, **averaged
    )
    gradient = tf.constant([[1.0, -2.0], [0.5, 1.0]])

    def apply(optimizer, weight, step):
        optimizer.apply([gradient + weight], step=step, rate=tf.constant(0.1))

    @tf.function
    def loop(first, end):
        for step in tf.range(first, end):
            apply(ours, w, step)

    fast, slow, mean = tf.Variable(start), start.numpy(), start.numpy()
    plain = optimizers.Optimizer(rule, [fast])
    done = tf.constant(0, tf.int64)
    for end in (2, 3, 7, 8):
        loop(done, end := tf.constant(end, tf.int64))
        for step in tf.range(done, end):
            apply(plain, fast, step)
            decay = min(0.5, (1 + int(step)) / (10 + int(step)))
            mean = decay * mean + (1 - decay) * fast.numpy()
            if (step + 1) % 3 == 0:
                slow = slow + 0.25 * (fast.numpy() - slow)
                fast.assign(slow)
        np.testing.assert_allclose(w, fast, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.slots["slow"][0], slow, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(average, mean, rtol=1e-4, atol=1e-6)
        done = end


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


def test_clipping_scales_all_gradients_to_one_norm():
    gradients = [tf.constant([[3.0]]), tf.constant([4.0, 0.0])]  # together 5
    clipped = optimizers.clip(gradients, 2.5)
    np.testing.assert_allclose(clipped[0], [[1.5]])
    np.testing.assert_allclose(clipped[1], [2, 0])
    for norm in (5.0, 6.0):
        for one, other in zip(optimizers.clip(gradients, norm), gradients):
            np.testing.assert_allclose(one, other)
    assert optimizers.clip(gradients, 0.0) is gradients  # no operation
