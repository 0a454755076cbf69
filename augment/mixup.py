# SPDX-License-Identifier: Apache-2.0
"""mixup: each image of a batch becomes a mixture of two, and so does its target.

Zhang, Cissé, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", 2018.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from system import errors

# Number of these draws among the random draws of a step, next to that of
# `continental.from_config`.
_NUMBER = 4

Mix = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]


def from_config(config: Any) -> Mix:
    """Returns mix(images, step seed) → images, share, for a `config.Config`.

    Images are uint8 [N, 28, 28, 1]. Each keeps the share, float32 [], and takes the
    rest from its `partner`. If `config.mixup` is 0, the images are returned as they
    are, and None.
    """
    alpha = config.mixup

    def mix(images, seed):
        if not alpha:
            return images, None
        share = draw(alpha, seed + [0, _NUMBER << 28])
        levels = tf.cast(images, tf.float32)
        levels = share * levels + (1 - share) * partner(levels)
        return tf.cast(tf.round(levels), tf.uint8), share

    return mix


def partner(values: tf.Tensor) -> tf.Tensor:
    """What the partner of each image has, of values [N, ...] of a batch.

    It is the image before it: a batch is in random order.
    """
    return tf.roll(values, 1, 0)


def draw(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws λ from the distribution Beta(α, α); returns λ or 1 − λ, the larger one.

    As λ and 1 − λ are equally likely and partners are random, mixtures are as likely as
    published, but each image keeps the larger share, and its label is the better one.

    The seed is int32 [2], the result float32 []. With gamma variates, λ is X / (X + Y).
    For a small α, these are too small for float32, so we take the logarithms of
    Gamma(α + 1) · U^(1/α): Marsaglia and Tsang, "A Simple Method for Generating Gamma
    Variables", 2000, section 6.
    """
    seeds = tf.unstack(tf.random.split(seed))
    gamma = tf.random.stateless_gamma([2], seeds[0], alpha + 1)
    uniform = 1 - tf.random.stateless_uniform([2], seeds[1])  # never 0
    x, y = tf.unstack(tf.math.log(gamma) + tf.math.log(uniform) / alpha)
    return tf.sigmoid(tf.abs(x - y))


def check(alpha: float) -> None:
    """Raises UserError if this cannot be a --mixup."""
    if alpha != 0 and not 0.01 <= alpha <= 100:
        raise errors.UserError("expected 0, or a number in [0.01, 100]")
