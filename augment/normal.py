# SPDX-License-Identifier: Apache-2.0
"""Normal random numbers of eight random bits each, in the graph.

They have 256 levels, up to ±2.87. Sums of them do not show it, nor does noise on grey
levels that are rounded to bytes; and to draw more bits would take most of the time.
"""

import tensorflow as tf

from augment.xla import compiled


def octets(seed: tf.Tensor, count: tf.Tensor, size: int) -> tf.Tensor:
    """Draws random bytes, uint8 [count, size], for `numbers`.

    The seed is int32 or int64 [2].
    """
    words = _words(seed, count * -(-size // 8))
    return tf.reshape(tf.bitcast(words, tf.uint8), [count, -1])[:, :size]


@compiled
def _words(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Random uint64 [count].

    From Threefry (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
    1, 2, 3", 2011), which on a CPU only XLA offers. It takes half the time of Philox,
    TensorFlow's default, of the same paper.
    """
    return tf.random.stateless_uniform(
        [count], seed, None, None, tf.uint64, alg="threefry"
    )


@compiled
def numbers(drawn: tf.Tensor) -> tf.Tensor:
    """Turns random bytes into numbers of mean 0 and variance 1: float32.

    The polynomial is fitted to the quantiles of a normal distribution, which it misses
    by 0.005 on average and by 0.04 at most; few products give its high powers.
    """
    u = (2 * tf.cast(drawn, tf.float32) - 255) / 256
    u4 = tf.square(tf.square(u))
    u16 = tf.square(tf.square(u4))
    u64 = tf.square(tf.square(u16))
    return u * (1.3021 + 0.7293 * u4 + 0.2977 * u16 + 0.7451 * u64)
