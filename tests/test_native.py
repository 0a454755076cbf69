# SPDX-License-Identifier: Apache-2.0
"""Tests of native/ops.py: each operation against TensorFlow's."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models import layers
from native import compile, ops, toolchain
from tests import programs
from training import optimizers

pytestmark = pytest.mark.native

EPSILON = 1e-3


def normal(*shape):
    return tf.constant(np.random.default_rng(shape).normal(size=shape), tf.float32)


def close(ours, expected, atol=2e-6):
    """Compares up to rounding, relative to the largest value."""
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(ours / size, expected / size, atol=atol)


def plain_conv_pool(x, w):
    return tf.nn.max_pool2d(tf.nn.conv2d(x, w, 1, "SAME"), 3, 2, "VALID")


def value_and_gradients(function, arguments, gradient):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        y = function(*arguments)
    return [t.numpy() for t in (y, *tape.gradient(y, arguments, gradient))]


# LeNet's convolutions at widths 1 and 2, and sizes that fill no vector or no window.
SHAPES = pytest.mark.parametrize(
    "x, outputs",
    [
        ((5, 28, 28, 1), 12),
        ((5, 13, 13, 12), 16),
        ((2, 13, 13, 24), 32),
        ((2, 9, 8, 17), 33),
        ((3, 8, 5, 16), 3),
        ((1, 3, 4, 2), 1),
    ],
)


@SHAPES
def test_conv_pool(x, outputs):
    arguments = [normal(*x), normal(3, 3, x[-1], outputs)]
    dy = normal(x[0], (x[1] - 1) // 2, (x[2] - 1) // 2, outputs)
    ours = value_and_gradients(ops.conv_pool, arguments, dy)
    plain = value_and_gradients(plain_conv_pool, arguments, dy)
    for one, other in zip(ours, plain, strict=True):
        close(one, other)


@SHAPES
def test_conv_pool_without_gradient_of_x(x, outputs):
    """The gradient of the weights alone is another operation."""
    x, w = normal(*x), normal(3, 3, x[-1], outputs)
    with tf.GradientTape() as tape, tf.GradientTape() as plain_tape:
        tape.watch([x, w])
        plain_tape.watch(w)
        y, plain = ops.conv_pool(x, w, data=True), plain_conv_pool(x, w)
    close(y, plain.numpy())
    dx, dw = tape.gradient(y, [x, w])
    assert dx is None
    close(dw, plain_tape.gradient(plain, w).numpy())


def test_first_of_equal_values_gets_the_gradient():
    """For example on the empty border of each digit."""
    x, w = tf.zeros([1, 7, 7, 2]), normal(3, 3, 2, 5)
    dy = normal(1, 3, 3, 5)
    ours = value_and_gradients(ops.conv_pool, [x, w], dy)
    plain = value_and_gradients(plain_conv_pool, [x, w], dy)
    assert not np.any(ours[0])
    close(ours[1], plain[1])


# Conv6's convolutions, and sizes that fill no vector, no tile or more than one block.
@pytest.mark.parametrize(
    "x, outputs",
    [
        ((5, 28, 28, 32), 32),
        ((40, 14, 14, 32), 64),
        ((3, 14, 14, 64), 64),
        ((3, 7, 7, 64), 96),
        ((5, 7, 7, 96), 192),
        ((2, 14, 14, 7), 48),
        ((3, 9, 6, 17), 33),
        ((3, 2, 5, 24), 40),
        ((1, 1, 1, 2), 1),
    ],
)
def test_conv3x3(x, outputs):
    """TensorFlow's are off by up to 1.3e-6 of the largest value."""

    def exact(x, w):
        return tf.nn.conv2d(x, w, 1, "SAME")

    arguments = [normal(*x), normal(3, 3, x[-1], outputs)]
    dy = normal(*x[:3], outputs)
    doubles = [tf.cast(t, tf.float64) for t in (*arguments, dy)]
    ours = value_and_gradients(ops.conv3x3, arguments, dy)
    expected = value_and_gradients(exact, doubles[:2], doubles[2])
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == np.float32 and one.shape == other.shape
        close(one, other, atol=3e-6)


def test_conv3x3_does_not_mix_images():
    """Values that are not finite stay in their image, though tiles share blocks."""
    x, w = normal(3, 7, 7, 16).numpy(), normal(3, 3, 16, 16)
    expected = ops.conv3x3(tf.constant(x), w).numpy()
    x[1] = np.inf
    y = ops.conv3x3(tf.constant(x), w).numpy()
    np.testing.assert_array_equal(y[::2], expected[::2])
    assert not np.isfinite(y[1]).any()


@pytest.mark.parametrize(
    "shape", [(5, 13, 13, 12), (7, 6, 6, 16), (6, 288), (3, 144), (5, 7), (33, 1)]
)
def test_selu_norm(shape):
    channels = shape[-1]
    x = 3 * normal(*shape)
    vectors = [normal(channels, i)[:, 0] for i in (1, 2, 3)]

    def plain(x, bias, scale, offset):
        z = tf.nn.selu(x + bias)
        mean, variance = tf.nn.moments(z, list(range(len(shape) - 1)))
        return tf.nn.batch_normalization(z, mean, variance, offset, scale, EPSILON)

    def ours(*arguments):
        return ops.selu_norm(*arguments, epsilon=EPSILON).y

    arguments, dy = [x, *vectors], normal(*shape)
    results = value_and_gradients(ours, arguments, dy)
    exact = [tf.cast(x, tf.float64) for x in (*arguments, dy)]
    expected = value_and_gradients(plain, exact[:-1], exact[-1])
    # With few rows, those of a channel may be so close that rounding is magnified.
    close(results[0], expected[0], atol=1e-5)
    close(results[1], expected[1], atol=1e-5)
    # The bias gradient is a sum whose terms nearly cancel.
    size = np.abs(expected[1]).reshape(-1, channels).sum(0).max()
    np.testing.assert_allclose(results[2] / size, expected[2] / size, atol=1e-5)
    close(results[3], expected[3], atol=1e-5)
    close(results[4], expected[4])


def test_selu_norm_statistics():
    x, zeros = normal(7, 4), tf.zeros([4])
    _, mean, variance = ops.selu_norm(x, zeros, zeros, zeros, epsilon=EPSILON)
    z = tf.nn.selu(x).numpy()
    np.testing.assert_allclose(mean, z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, z.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 288), (3, 5, 7), (1,)])
@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_dropout(shape, rate):
    """The mask is exactly that of models.layers, for two seeds."""
    for seed in ([3, 4], [5, 2**31 - 1]):
        x, dy = normal(*shape), normal(*shape)
        ours, plain = (
            value_and_gradients(
                lambda x, f=f, more=more: f(x, rate, seed=tf.constant(seed), **more),
                [x],
                dy,
            )
            for f, more in ((ops.dropout, {}), (layers.dropout, {"training": True}))
        )
        for one, other in zip(ours, plain, strict=True):
            assert ((one == 0) == (other == 0)).all()
            np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.9991, 0.999995, -0.1])
def test_dropout_rate_out_of_range_is_refused(rate):
    with pytest.raises(tf.errors.InvalidArgumentError, match="rate of 0 to 0.999"):
        ops.dropout(tf.ones([4]), rate, seed=tf.constant([3, 4]))
    highest = layers.MAX_DROPOUT
    ops.dropout(tf.ones([4]), highest, seed=tf.constant([3, 4]))


def test_selu_of_extreme_values():
    x = tf.constant([[-1e30], [-200.0], [-87.5], [-1.0], [-1e-6], [0.0], [1e30]])
    one, zero = tf.ones([1]), tf.zeros([1])
    ours = ops.load().selu_norm(x=x, bias=zero, scale=one, offset=zero, epsilon=EPSILON)
    np.testing.assert_allclose(ours.z, tf.nn.selu(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "x, w",
    [
        ([2, 5, 5, 3], [3, 3, 2, 4]),
        ([2, 5, 5, 3], [5, 5, 3, 4]),
        ([2, 2, 5, 3], [3, 3, 3, 4]),
        ([5, 5, 3], [3, 3, 3, 4]),
    ],
)
def test_conv_pool_refuses_other_shapes(x, w):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        ops.conv_pool(tf.zeros(x), tf.zeros(w))


@pytest.mark.parametrize(
    "x, w",
    [
        ([2, 5, 5, 3], [3, 3, 2, 4]),
        ([2, 5, 5, 3], [5, 5, 3, 4]),
        ([5, 5, 3], [3, 3, 3, 4]),
        ([2, 5, 5, 0], [3, 3, 0, 4]),
    ],
)
def test_conv3x3_refuses_other_shapes(x, w):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        ops.conv3x3(tf.zeros(x), tf.zeros(w))


def test_gradients_of_conv3x3_refuse_other_shapes():
    x, w, dy = tf.zeros([2, 5, 5, 3]), tf.zeros([3, 3, 3, 4]), tf.zeros([2, 5, 5, 4])
    loaded = ops.load()
    with pytest.raises(tf.errors.InvalidArgumentError, match="kernel for their"):
        loaded.conv3x3(x=x, w=w, turned=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="or differ in"):
        loaded.conv3x3_weight_gradient(x=x[:, :4], dy=dy)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no channels"):
        loaded.conv3x3_weight_gradient(x=x[..., :0], dy=dy[..., :0])
    assert loaded.conv3x3(x=dy, w=w, turned=True).shape == x.shape
    assert loaded.conv3x3_weight_gradient(x=x, dy=dy).shape == w.shape


def test_selu_norm_refuses_other_shapes():
    with pytest.raises(tf.errors.InvalidArgumentError, match="per channel"):
        ops.selu_norm(
            *(tf.zeros([2, 3]), tf.zeros([3]), tf.zeros([4]), tf.zeros([3])),
            epsilon=EPSILON,
        )


THREADS = """
from system import device; import numpy as np, tensorflow as tf
from native import ops
device.set_threads(THREADS)
rng = np.random.default_rng(0)
x, w, dy = (tf.constant(rng.normal(size=shape), tf.float32)
            for shape in ([7, 9, 9, 3], [3, 3, 3, 5], OUTPUT))
with tf.GradientTape() as tape:
    tape.watch([x, w])
    y = OPERATION(x, w)
dx, dw = tape.gradient(y, [x, w], dy)
print(y.numpy().tobytes().hex(), dx.numpy().tobytes().hex())
print(*dw.numpy().ravel())
"""


@pytest.mark.parametrize(
    "operation, output",
    [("ops.conv_pool", [7, 4, 4, 5]), ("ops.conv3x3", [7, 9, 9, 5])],
)
def test_threads_share_a_batch(operation, output):
    program = THREADS.replace("OPERATION", operation).replace("OUTPUT", str(output))

    def results(threads):
        done = programs.run(["-c", program.replace("THREADS", str(threads))])
        assert done.returncode == 0, done.stderr
        by_image, dw = done.stdout.splitlines()
        return by_image, np.array([float(x) for x in dw.split()])

    one, three = results(1), results(3)
    assert one[0] == three[0]
    close(one[1], three[1], atol=3e-6)


# --- the update of the weights ---


SETTINGS = {
    "plain": {},
    "average": {"average_decay": 0.9},
    "biases": {"bias_rate": 64.0, "average_decay": 0.9},
    "betas": {"beta1": 0.7, "beta2": 0.9},
    "lookahead": {"lookahead": 3, "lookahead_share": 0.3, "average_decay": 0.9},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_adam_matches_tensorflows_operations(settings, threads):
    """In each step, with weight decay, for several sizes."""

    def trained(threads):
        weights = [tf.Variable(normal(*shape)) for shape in ((300, 70), (17,), (3, 5))]
        averages = "average_decay" in settings
        slow = [tf.Variable(w) for w in weights] if averages else []
        optimizer = optimizers.Optimizer(
            *("adam", weights),
            weight_decay=0.1,
            averages=slow,
            threads=threads,
            epsilon=1e-3,
            **settings,
        )
        norms = []
        for step in range(4):
            gradients = [normal(*w.shape, step + 1)[..., step] for w in weights]
            norms.append(
                optimizer.apply(
                    gradients,
                    step=tf.constant(step),
                    rate=tf.constant(0.1 / (step + 1)),
                )
            )
        slots = [s for of_weights in optimizer.slots.values() for s in of_weights]
        return [v.numpy() for v in (*weights, *slots, *slow, *norms)]

    for ours, plain in zip(trained(threads), trained(0), strict=True):
        close(ours, plain)


def test_resample_reads_any_place():
    x = tf.fill([3, 28, 28, 1], tf.constant(255, tf.uint8))
    far = tf.constant([0, math.inf, -math.inf, math.nan, 1e30, -1e30, 14, -14])
    moved = tf.reshape(tf.tile(far, [3 * 2 * 784 // 8]), [3, 2, 28, 28])
    y = ops.resample(x, tf.eye(3, batch_shape=[3]), moved).numpy()
    kept = np.isin(np.arange(784) % 8, (0, 6, 7)).reshape(28, 28)
    assert (y[:, ~kept] == 0).all()
    assert (y[:, kept] == 255).any()


@pytest.mark.parametrize(
    "x, matrices, displacements",
    [
        ((2, 28, 28), (2, 3, 3), (0,)),
        ((2, 28, 27, 1), (2, 3, 3), (0,)),
        ((2, 28, 28, 1), (1, 3, 3), (0,)),
        ((2, 28, 28, 1), (2, 3, 3), (2, 28, 28, 2)),
    ],
)
def test_resample_refuses_other_shapes(x, matrices, displacements):
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
        ops.resample(tf.zeros(x, tf.uint8), tf.zeros(matrices), tf.zeros(displacements))


@pytest.mark.parametrize("x", [(2, 28, 28), (3, 28, 28, 1), (2, 28, 27, 1)])
def test_blur_refuses_other_shapes(x):
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
        ops.blur(tf.zeros(x), tf.zeros([2]))


def test_blur_of_extreme_deviations():
    x = normal(4, 28, 28, 1)
    y = ops.blur(x, tf.constant([0.0, 1e-30, math.nan, 1e6])).numpy()
    np.testing.assert_array_equal(y[:3], x[:3])
    # So wide that only the mean is left, of a window of 57 by 57 pixels.
    np.testing.assert_allclose(y[3], x[3].numpy().sum() / 57**2, atol=1e-5)


def test_adam_does_not_change_values_read_before():
    """If somebody still holds a variable's buffer, it is copied, not overwritten."""
    w, m, v = (tf.Variable(tf.ones([5])) for _ in range(3))
    read = w.read_value(), m.read_value()
    ops.adam(
        *([w], [m], [v], [tf.ones([5])]),
        **{"rate": 0.1, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-8},
        **{"factors": [1.0], "decays": [False], "shrink": 1.0},
    )
    np.testing.assert_array_equal(read, tf.ones([2, 5]))
    np.testing.assert_allclose(w, 0.9 * tf.ones([5]), rtol=1e-6)


def test_adam_refuses_other_shapes():
    w, m, v = (tf.Variable(tf.ones([size])) for size in (5, 5, 4))
    settings = {"rate": 0.1, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-8, "shrink": 1.0}
    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes of their"):
        ops.adam(
            *([w], [m], [v], [tf.ones([5])]), factors=[1.0], decays=[False], **settings
        )
    for counts in ({"factors": [1.0], "decays": []}, {"factors": [], "decays": [True]}):
        with pytest.raises(tf.errors.InvalidArgumentError, match="as many"):
            ops.adam([w], [m], [m], [tf.ones([5])], **counts, **settings)


def test_the_operations_load_here():
    assert ops.missing() == ""


@pytest.mark.skipif(
    compile.MAX_ISA in os.environ or "avx512f" not in toolchain.processor().split(),
    reason="has no wider vectors than AVX2's",
)
def test_the_operations_for_avx2_pass_these_tests_as_well():
    """In another process: a process can register an operation only once."""
    names = ("test_native_conv6.py", "test_native_prediction.py")
    files = (__file__, *map(Path(__file__).with_name, names))
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", *map(str, files)]
    done = programs.run(arguments, env={**os.environ, compile.MAX_ISA: "AVX2"})
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
