# SPDX-License-Identifier: Apache-2.0
"""Random changes of grey levels, in the graph: what pens, paper and cameras do.

Each takes grey levels float32 [N, 28, 28, 1], 0 paper to 1 ink, a seed int32 [2] and
the settings, and returns the next levels, which may lie beyond 0 or 1. Half of the
images, drawn at random, stay as they are; the other half get amounts that are uniform
between 0 and the setting. So a network also sees what we ask it about: clean digits.
"""

import tensorflow as tf

from augment import normal
from augment.geometry import SIDE
from augment.online_settings import OnlineSettings
from augment.xla import compiled
from native import ops


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


def thickness(
    levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings
) -> tf.Tensor:
    """Makes strokes thicker or thinner by up to this many pixels on either side.

    A mean of the picture and its grey dilation or erosion by a cross of 3 × 3 pixels.
    """
    draws = tf.random.stateless_uniform([tf.shape(levels)[0], 1, 1, 1], seed, -1, 1)
    # Beyond the edge is paper. XLA would decide for each pixel whether it is there.
    framed = tf.pad(levels[..., 0], [[0, 0], [1, 1], [1, 1]])
    return _thicken(framed, settings.thickness * draws)


@compiled
def _thicken(framed: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Levels for framed ones [N, 30, 30] and amounts [N, 1, 1, 1], below 0 to thin.

    Erosion is the dilation of the negative.
    """
    amounts = amounts[..., 0]
    sign = tf.sign(amounts)
    ink = sign * framed
    inner = slice(1, SIDE + 1)
    upright = tf.maximum(ink[:, :SIDE, inner], ink[:, 2:, inner])
    level = tf.maximum(ink[:, inner, :SIDE], ink[:, inner, 2:])
    extreme = tf.maximum(tf.maximum(upright, level), ink[:, inner, inner])
    levels = framed[:, inner, inner]
    return (levels + amounts * (extreme - sign * levels))[..., tf.newaxis]


def blur(levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Blurs by a Gaussian whose standard deviation is the amount, in pixels."""
    sigma = tf.maximum(_amounts(seed, levels, settings.blur), 1e-3)
    matrix = _weights(sigma)
    blurred = matrix @ levels[..., 0] @ matrix  # the matrices are symmetric
    return blurred[..., tf.newaxis]


def native_blur(
    levels: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings
) -> tf.Tensor:
    """Does what `blur` does, by `native.ops`."""
    return ops.blur(levels, _amounts(seed, levels, settings.blur))


@compiled
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
    """Adds noise whose standard deviation is the amount, the same at all pixels."""
    # From one seed, as these are two different generators.
    amounts = _amounts(seed, levels, settings.noise)
    drawn = normal.octets(seed, tf.shape(levels)[0], SIDE * SIDE)
    return _add_noise(levels, amounts, drawn)


@compiled
def _add_noise(levels: tf.Tensor, amounts: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
    return levels + amounts * normal.numbers(tf.reshape(drawn, tf.shape(levels)))


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
    return _erase(levels, y, x, half)


@compiled
def _erase(levels: tf.Tensor, y: tf.Tensor, x: tf.Tensor, half: tf.Tensor) -> tf.Tensor:
    place = tf.range(float(SIDE))
    rows = tf.abs(place[:, tf.newaxis, tf.newaxis] - y) < half  # [N, 28, 1, 1]
    columns = tf.abs(place[:, tf.newaxis] - x) < half  # [N, 1, 28, 1]
    return tf.where(rows & columns, 0.0, levels)
