# SPDX-License-Identifier: Apache-2.0
"""Losses and the accuracy that goes with them."""

import tensorflow as tf


def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Mean over the batch of −Σ target · log softmax(logits), in nats.

    Args:
      logits: float32 [N, classes].
      labels: integers [N].
      smoothing: share of the target that is spread evenly over all classes (Szegedy
        et al., "Rethinking the Inception Architecture", 2016); 0 for none.

    Returns:
      float32 scalar.
    """
    if smoothing == 0:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(labels, tf.int32), logits
        )
    else:
        classes = logits.shape[-1]
        targets = tf.one_hot(
            labels, classes, 1 - smoothing + smoothing / classes, smoothing / classes
        )
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    return tf.reduce_mean(losses)


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """How many labels have the highest logit, ties and all: int64 scalar."""
    hits = tf.math.in_top_k(tf.cast(labels, tf.int32), logits, k=1)
    return tf.reduce_sum(tf.cast(hits, tf.int64))
