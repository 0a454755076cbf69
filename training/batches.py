# SPDX-License-Identifier: Apache-2.0
"""Mini-batches as pure functions of (seed, step), in the graph.

There is no iterator and no state: a resumed run draws the batches that it would have
drawn anyway.
"""

from collections.abc import Callable

import tensorflow as tf


def random_draws(
    seed: int, step: tf.Tensor, batch_size: int, set_size: int
) -> tf.Tensor:
    """Draws each image of a batch independently, as the write-up's helper does.

    The step is a scalar int64, counted from 0. Returns int64 [batch_size], each in
    [0, set_size).
    """
    return tf.random.stateless_uniform(
        [batch_size], [seed, step], maxval=set_size, dtype=tf.int64
    )


def shuffled_epochs(
    seed: int, step: tf.Tensor, batch_size: int, set_size: int
) -> tf.Tensor:
    """Draws every image once per pass over the set, in a new order for each pass.

    Passes follow each other without a gap, so a batch may span two of them, and no
    image is left out. The order is a keyed permutation (the block cipher Simon) that we
    evaluate at the places we need; no shuffled list exists. Arguments and result are
    those of `random_draws`.
    """
    n = step * batch_size + tf.range(batch_size, dtype=tf.int64)  # since step 0
    passes = n // set_size  # which pass each image belongs to
    first = step * batch_size // set_size  # the first of these passes
    # The cipher uses only a few bits of each key word, so we hash pass numbers to keys.
    keys = tf.stack(
        [
            tf.random.stateless_uniform(
                [3], [seed, first + i], minval=None, maxval=None, dtype=tf.int64
            )
            for i in range(batch_size // set_size + 2)  # passes that a batch can touch
        ]
    )
    # tf.random.experimental.index_shuffle, the public name, rejects one key per index.
    return tf.raw_ops.RandomIndexShuffle(
        index=n % set_size,
        seed=tf.gather(keys, passes - first),
        max_index=tf.constant(set_size - 1, tf.int64),
        rounds=8,  # with the default of 4, the orders of two passes correlate by 0.8
    )


# (seed, step, batch_size, set_size) → indices
SAMPLERS: dict[str, Callable[[int, tf.Tensor, int, int], tf.Tensor]] = {
    "epochs": shuffled_epochs,
    "random": random_draws,
}
