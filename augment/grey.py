# SPDX-License-Identifier: Apache-2.0
"""Random changes of grey levels, in the graph: what pens, paper and cameras do.

Each takes grey levels float32 [N, 28, 28, 1], 0 paper to 1 ink, a seed int32 [2] and
the settings, and returns the next levels, which may lie beyond 0 or 1. Half of the
images, drawn at random, stay as they are; the other half get amounts that are uniform
between 0 and the setting. So a network also sees what we ask it about: clean digits.
"""

from collections.abc import Callable

import tensorflow as tf

from augment.geometry import SIDE
from augment.online_settings import OnlineSettings

_compiled = tf.function(autograph=False, jit_compile=True)  # many small operations

Extreme = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # tf.maximum or tf.minimum


def _amounts(seed: tf.Tensor, levels: tf.Tensor, most: float) -> tf.Tensor:
    """Amount for each image, [N, 1, 1, 1]: 0 for half of them, else up to `most`."""
    count = tf.shape(levels)[0]
    draws = tf.random.stateless_uniform([count, 1, 1, 1], seed, -1, 1)
    return most * tf.nn.relu(draws)


def contrast(levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Makes the ink fainter: level · (1 − amount)."""
    return levels * (1 - _amounts(seed, levels, settings.contrast))


def brightness(
    levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings
) -> tf.Tensor:
    """Lifts all levels, as grey paper does: level + amount, cut off at 1."""
    return levels + _amounts(seed, levels, settings.brightness)


def _neighbours(levels: tf.Tensor, extreme: Extreme, axis: int) -> tf.Tensor:
    """Extreme of each pixel and its two neighbours along an axis, 1 or 2.

    Beyond the edge is paper.
    """
    margins = [[0, 0]] * 4
    margins[axis] = [1, 1]
    framed = tf.pad(levels, margins)
    before, after = [slice(None)] * 4, [slice(None)] * 4
    before[axis], after[axis] = slice(0, SIDE), slice(2, SIDE + 2)
    return extreme(levels, extreme(framed[tuple(before)], framed[tuple(after)]))


def thickness(
    levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings
) -> tf.Tensor:
    """Makes strokes thicker or thinner by up to this many pixels on either side.

    A mean of the picture and its grey dilation or erosion by a cross of 3 × 3 pixels.
    """
    draws = tf.random.stateless_uniform([tf.shape(levels)[0], 1, 1, 1], seed, -1, 1)
    amounts = settings.thickness * draws
    return _thicken(levels, amounts)


@_compiled
def _thicken(levels: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    def cross(extreme: Extreme) -> tf.Tensor:
        return extreme(*(_neighbours(levels, extreme, axis) for axis in (1, 2)))

    more = tf.nn.relu(amounts) * (cross(tf.maximum) - levels)
    return levels + more + tf.nn.relu(-amounts) * (cross(tf.minimum) - levels)


def blur(levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Blurs by a Gaussian whose standard deviation is the amount, in pixels."""
    sigma = tf.maximum(_amounts(seed, levels, settings.blur), 1e-3)
    matrix = _weights(sigma)
    blurred = matrix @ levels[..., 0] @ matrix  # the matrices are symmetric
    return blurred[..., tf.newaxis]


@_compiled
def _weights(sigma: tf.Tensor) -> tf.Tensor:
    """Matrices B [N, 28, 28]: B @ image @ Bᵀ is the blurred image."""
    place = tf.range(float(SIDE))
    distance = (place[:, None] - place)[tf.newaxis]  # [1, 28, 28]
    weights = tf.exp(-0.5 * tf.square(distance / sigma[..., 0]))
    radius = tf.range(-float(SIDE), SIDE + 1.0)
    total = tf.reduce_sum(
        tf.exp(-0.5 * tf.square(radius / sigma[..., 0])), 2, keepdims=True
    )
    return weights / total


def noise(levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Adds noise whose standard deviation is the amount, the same at all pixels.

    It is the sum of four random bytes, which is close to a Gaussian and takes a third
    of the time.
    """
    seeds = tf.unstack(tf.random.split(seed, 2))
    amounts = _amounts(seeds[0], levels, settings.noise)
    words = _random_words(seeds[1], tf.shape(levels)[0])
    return levels + amounts * _bell(words)


@_compiled
def _random_words(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform(
        [count, SIDE, SIDE, 1], seed, None, None, tf.uint32, alg="threefry"
    )


# Four bytes, each uniform over 0 to 255, have variance 4 · (256² − 1) / 12.
_BYTES_DEVIATION = (4 * (256**2 - 1) / 12) ** 0.5


@_compiled
def _bell(words: tf.Tensor) -> tf.Tensor:
    """Random uint32 words → numbers of mean 0 and variance 1."""
    octets = tf.cast(tf.bitcast(words, tf.uint8), tf.float32)  # [N, 28, 28, 1, 4]
    return (tf.reduce_sum(octets, -1) - 510) / _BYTES_DEVIATION


def cutout(levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Erases a square whose side is up to this share of the image's.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017. The centre is anywhere in the image.
    """
    seeds = tf.unstack(tf.random.split(seed, 2))
    half = SIDE / 2 * _amounts(seeds[0], levels, settings.cutout)
    count = tf.shape(levels)[0]
    y, x = tf.unstack(
        tf.random.stateless_uniform([2, count, 1, 1, 1], seeds[1], 0, SIDE - 1)
    )
    place = tf.range(float(SIDE))
    rows = tf.abs(place[:, tf.newaxis, tf.newaxis] - y) < half  # [N, 28, 1, 1]
    columns = tf.abs(place[:, tf.newaxis] - x) < half  # [N, 1, 28, 1]
    return tf.where(rows & columns, 0.0, levels)
