# SPDX-License-Identifier: Apache-2.0
"""Tests of training/rules.py."""

import numpy as np
import pytest
import tensorflow as tf

from training import rules

RATE = 0.01
STEP = tf.constant(0, tf.int64)


def gradients(steps):
    """Gradients of very different sizes, as in a real run."""
    draws = np.random.default_rng(0).normal(size=(steps, 4))
    return (draws * [1e-6, 1e-2, 1.0, 100.0]).astype(np.float32)


def adam_steps(weight, steps, **constants):
    m, v = tf.zeros_like(weight), tf.zeros_like(weight)
    for step, gradient in enumerate(gradients(steps)):
        weight, m, v = rules.adam(
            weight,
            tf.constant(gradient),
            m,
            v,
            step=tf.constant(step, tf.int64),
            rate=tf.constant(RATE),
            **constants,
        )
    return weight, m, v


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.7, 0.9), (0.0, 0.0)])
def test_adam_follows_its_formula(betas):
    start = np.array([1.0, -2.0, 0.0, 3.0])
    w, m, v = start, 0.0, 0.0
    one, two = betas
    for t, g in enumerate(gradients(7).astype(np.float64), 1):
        m = one * m + (1 - one) * g
        v = two * v + (1 - two) * g**2
        size = RATE * np.sqrt(1 - two**t) / (1 - one**t)
        w = w - size * m / (np.sqrt(v) + 1e-8)
    start_now = tf.constant(start, tf.float32)
    ours = adam_steps(start_now, 7, beta1=one, beta2=two)
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
    w, _, _ = rules.adam(w, g, w, w, step=step, rate=tf.constant(0.5))
    np.testing.assert_allclose(w, [-0.5, 0.5, -0.5], rtol=1e-3)


def test_rmsprop_follows_its_formula():
    start = np.array([1.0, -2.0, 0.0, 3.0])
    w, v = start, 0.0
    ours, ours_v = tf.constant(start, tf.float32), tf.zeros([4])
    for g in gradients(7):
        v = 0.8 * v + 0.2 * g.astype(np.float64) ** 2
        w = w - RATE * g / (np.sqrt(v) + 1e-4)
        ours, ours_v = rules.rmsprop(
            ours, g, ours_v, step=STEP, rate=tf.constant(RATE), rho=0.8, epsilon=1e-4
        )
    np.testing.assert_allclose(ours - start, w - start, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours_v, v, rtol=1e-5)


def test_rmsprops_epsilon_is_outside_the_root():
    w, _ = rules.rmsprop(
        *(tf.zeros([1]), tf.constant([1e-3]), tf.zeros([1])),
        **{"step": STEP, "rate": tf.constant(1.0), "rho": 0.0, "epsilon": 1e-3},
    )
    np.testing.assert_allclose(w, [-0.5], rtol=1e-5)  # inside, it would be −0.03


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_follows_its_formula(nesterov):
    start = np.array([1.0, -2.0, 0.0, 3.0])
    w, m = start, 0.0
    ours, ours_m = tf.constant(start, tf.float32), tf.zeros([4])
    options = {"momentum": 0.7, "nesterov": nesterov}
    for g in gradients(7).astype(np.float64):
        m = 0.7 * m + g
        w = w - RATE * (g + 0.7 * m if nesterov else m)
        g = tf.constant(g, tf.float32)
        ours, ours_m = rules.momentum_sgd(
            ours, g, ours_m, step=STEP, rate=tf.constant(RATE), **options
        )
    np.testing.assert_allclose(ours - start, w - start, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours_m, m, rtol=1e-5)


def newton_schulz(matrix, steps):
    """In float64, without the transposition that saves time."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.parametrize("shape", [(3, 3, 2, 30), (3, 3, 4, 5), (6, 6), (1, 7)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_follows_its_formula(shape, nesterov):
    rng = np.random.default_rng(1)
    w, m = rng.normal(size=shape), np.zeros(shape)
    ours, ours_m = tf.constant(w, tf.float32), tf.zeros(shape)
    rows = w.size // shape[-1]
    for _ in range(3):
        g = rng.normal(size=shape)
        m = 0.8 * m + g
        direction = (g + 0.8 * m if nesterov else m).reshape(rows, shape[-1])
        update = newton_schulz(direction, 4) * np.sqrt(max(1, shape[-1] / rows))
        w = w - RATE * update.reshape(shape)
        ours, ours_m = rules.muon(
            *(ours, tf.constant(g, tf.float32), ours_m),
            **{"step": STEP, "rate": tf.constant(RATE), "momentum": 0.8},
            **{"nesterov": nesterov, "newton_schulz": 4},
        )
    np.testing.assert_allclose(ours, w, atol=1e-5)
    np.testing.assert_allclose(ours_m, m, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (16, 16)])
def test_orthogonalised_matrices_have_singular_values_of_about_1(shape):
    rng = np.random.default_rng(2)
    u, _, v = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    before = np.geomspace(1e-2, 1, min(shape)) * 1e-5  # any scale
    x = rules.orthogonalise(tf.constant((u * before) @ v, tf.float32), 5)
    along = u.T @ x.numpy() @ v.T  # U S Vᵀ becomes U S' Vᵀ
    np.testing.assert_allclose(along, np.diag(np.diag(along)), atol=1e-3)
    assert 0.65 < np.diag(along).min() and np.diag(along).max() < 1.25


def test_a_kernel_without_gradient_is_not_moved_by_muon():
    w = tf.ones([3, 2])
    moved, m = rules.muon(w, 0 * w, 0 * w, step=STEP, rate=tf.constant(1.0))
    np.testing.assert_array_equal(moved, w)
    assert not m.numpy().any()


def test_adam_beside_muon_is_adam_at_a_share_of_the_rate():
    w, g, zeros = tf.constant([1.0, 2.0]), tf.constant([0.3, -4.0]), tf.zeros([2])
    when = {"step": tf.constant(3), "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3}
    beside = rules.adam_beside(
        *(w, g, zeros, zeros), rate=tf.constant(0.4), adam_rate=0.5, **when
    )
    alone = rules.adam(w, g, zeros, zeros, rate=tf.constant(0.2), **when)
    for ours, expected in zip(beside, alone, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_looking_back_by_hand():
    slow, w = tf.constant([1.0, -2.0]), tf.constant([2.0, 2.0])
    np.testing.assert_allclose(rules.look_back(slow, w, share=0.25), [1.25, -1.0])


def test_options_default_to_those_of_the_rule():
    assert rules.options("adam", {}) == {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    rmsprop = rules.options("rmsprop", {"epsilon": 1e-6, "rho": None})
    assert rmsprop == {"epsilon": 1e-6, "rho": 0.9}
    assert rules.options("momentum", {"momentum": 0.0, "nesterov": None}) == {
        **{"momentum": 0.0, "nesterov": False}
    }
    muon = {"momentum": 0.95, "nesterov": True, "newton_schulz": 5}
    beside = {"adam_rate": 0.015, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-10}
    assert rules.options("muon", {}) == muon | beside


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
    average = rules.weight_average(
        tf.constant([10.0, 1.0]),
        tf.constant([0.0, 1.0]),
        step=tf.constant(step, tf.int64),
        decay=decay,
    )
    np.testing.assert_allclose(average, [10 * kept, 1.0], rtol=1e-5)


def test_weight_average_approaches_the_weights():
    average = tf.constant([-100.0])
    for step in range(200):
        average = rules.weight_average(
            average,
            tf.constant([3.0]),
            step=tf.constant(step, tf.int64),
            decay=0.9,
        )
    np.testing.assert_allclose(average, [3.0], rtol=1e-5)
