# SPDX-License-Identifier: Apache-2.0
"""Tests of conv6's operations in native/ops.py that do two things at once."""

import numpy as np
import pytest
import tensorflow as tf

from native import ops
from tests import programs
from tests.test_native import EPSILON, close, normal, value_and_gradients

pytestmark = pytest.mark.native


@pytest.mark.parametrize(
    "x, outputs",
    [
        ((5, 28, 28, 32), 32),
        ((5, 14, 14, 64), 64),
        ((2, 6, 10, 17), 33),
        ((3, 2, 4, 3), 5),
        ((9, 12, 2, 40), 16),
    ],
)
def test_conv3x3_pool_has_the_bits_of_conv3x3_and_a_pool(x, outputs):
    def plain(x, w):
        return tf.nn.max_pool2d(ops.conv3x3(x, w), 2, 2, "VALID")

    arguments = [normal(*x), normal(3, 3, x[-1], outputs)]
    dy = normal(x[0], x[1] // 2, x[2] // 2, outputs)
    ours = value_and_gradients(ops.conv3x3_pool, arguments, dy)
    expected = value_and_gradients(plain, arguments, dy)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_first_of_equal_values_gets_the_gradient():
    x = tf.zeros([1, 6, 6, 1])  # any other value would be rounded
    w = np.zeros([3, 3, 1, 2], np.float32)
    w[1, 1] = 1  # the convolution copies the image
    dy = 1 + tf.reshape(tf.range(18.0), [1, 3, 3, 2])
    _, dx, _ = value_and_gradients(ops.conv3x3_pool, [x, tf.constant(w)], dy)
    expected = np.zeros([6, 6])
    expected[::2, ::2] = tf.reduce_sum(dy, -1)[0]
    np.testing.assert_allclose(dx[0, ..., 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    "x, w",
    [
        ([2, 5, 6, 3], [3, 3, 3, 4]),
        ([2, 6, 5, 3], [3, 3, 3, 4]),
        ([2, 6, 6, 3], [3, 3, 2, 4]),
        ([2, 6, 6, 3], [5, 5, 3, 4]),
        ([6, 6, 3], [3, 3, 3, 4]),
    ],
)
def test_conv3x3_pool_refuses_other_shapes(x, w):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        ops.conv3x3_pool(tf.zeros(x), tf.zeros(w))


@pytest.mark.parametrize("dy, where", [([2, 3, 3, 5], 16), ([2, 3, 2, 4], 16)])
def test_gradient_of_conv3x3_pool_refuses_other_shapes(dy, where):
    places = tf.zeros([*dy[:3], where], tf.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not fit"):
        ops.load().conv3x3_pool_gradient(
            dy=tf.zeros(dy),
            where=places,
            x=tf.zeros([2, 6, 6, 3]),
            w=tf.zeros([3, 3, 3, 4]),
        )


def plain_norm(x, scale, offset):
    mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, EPSILON)


@pytest.mark.parametrize(
    "shape",
    [
        (64, 28, 28, 32),  # several chunks, the last one not full
        (5, 14, 14, 64),
        (7, 7, 7, 96),
        (6, 288),
        (5, 7),
        (33, 1),
        (40_000, 3),
    ],
)
@pytest.mark.parametrize("mean", [0, 30])
def test_norm_relu(shape, mean):
    channels = shape[-1]
    x = 3 * normal(*shape) + mean
    arguments = [x, *(normal(channels, i)[:, 0] for i in (1, 2))]
    dy = normal(*shape)

    def ours(*arguments):
        return ops.norm_relu(*arguments, epsilon=EPSILON).y

    def plain(*arguments):
        return tf.nn.relu(plain_norm(*arguments))

    results = value_and_gradients(ours, arguments, dy)
    exact = [tf.cast(t, tf.float64) for t in (*arguments, dy)]
    expected = value_and_gradients(plain, exact[:-1], exact[-1])
    close(results[0], expected[0], atol=1e-5)
    # So near 0, rounding decides on which side a value is.
    clear = np.abs(plain_norm(*exact[:-1])) > 1e-5
    assert clear.mean() > 0.999
    close(clear * results[1], clear * expected[1], atol=1e-4)
    terms = np.abs(expected[1]).reshape(-1, channels).sum(0).max()
    for one, other in zip(results[2:], expected[2:], strict=True):
        size = terms + np.abs(other).max()  # a sum whose terms nearly cancel
        np.testing.assert_allclose(one / size, other / size, atol=1e-4)


def test_norm_relu_statistics():
    x, ones = normal(7, 50, 40, 4) + 5, tf.ones([4])
    y, mean, variance = ops.norm_relu(x, ones, 0 * ones, epsilon=0.0)
    values = x.numpy().astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, values.var(0, ddof=1), rtol=1e-6)
    assert np.all(y >= 0) and np.any(y == 0)


def test_norm_relu_refuses_other_shapes():
    with pytest.raises(tf.errors.InvalidArgumentError, match="per channel"):
        ops.norm_relu(tf.zeros([2, 3]), tf.zeros([4]), tf.zeros([3]), epsilon=EPSILON)


THREADS = """
from system import device; import numpy as np, tensorflow as tf
from native import ops
device.set_threads(THREADS)
x = tf.constant(np.random.default_rng(0).normal(size=[9, 28, 28, 32]), tf.float32)
w = tf.constant(np.random.default_rng(1).normal(size=[3, 3, 32, 32]), tf.float32)
dy = tf.constant(np.random.default_rng(2).normal(size=[9, 14, 14, 32]), tf.float32)
with tf.GradientTape() as tape:
    tape.watch([x, w])
    z = ops.norm_relu(x, w[0, 0, 0], w[0, 0, 1], epsilon=1e-3)
    y = ops.conv3x3_pool(z.y, w)
dx, dw = tape.gradient(y, [x, w], dy)
print(y.numpy().tobytes().hex(), dx.numpy().tobytes().hex(), z.variance.numpy())
print(*dw.numpy().ravel())
"""


def test_threads_share_a_batch():
    """To the last bit, but for sums over images, which are taken part by part."""

    def results(threads):
        done = programs.run(["-c", THREADS.replace("THREADS", str(threads))])
        assert done.returncode == 0, done.stderr
        by_image, dw = done.stdout.splitlines()[-2:]
        return by_image, np.array([float(x) for x in dw.split()])

    one, three = results(1), results(3)
    assert one[0] == three[0]
    close(one[1], three[1], atol=3e-6)
