# SPDX-License-Identifier: Apache-2.0
"""Losses and the accuracy that goes with them."""

from collections.abc import Callable

import tensorflow as tf

# No probability counts as nearer to 0 or 1, so that no answer costs more than 16.2
# nats: Keras' own bound, which the published systems trained with.
CLIP = 1e-7


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
        targets = _targets(labels, logits.shape[-1], smoothing)
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    return tf.reduce_mean(losses)


def binary_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Mean of −t · log p − (1 − t) · log(1 − p) over batch and classes, in nats.

    p is the softmax of the logits, kept within [1e-7, 1 − 1e-7]; t the target of its
    class. Each output is taken for the answer to a yes/no question of its own, as by
    the write-ups that put Keras' binary cross-entropy behind a softmax. Args and
    result as of `softmax_cross_entropy`.
    """
    p = tf.clip_by_value(tf.nn.softmax(logits), CLIP, 1 - CLIP)
    t = _targets(labels, logits.shape[-1], smoothing)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * tf.math.log1p(-p))


def _targets(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """One-hot rows with `smoothing` of each spread evenly: float32 [N, classes]."""
    return tf.one_hot(
        labels, classes, 1 - smoothing + smoothing / classes, smoothing / classes
    )


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """How many labels have the highest logit, ties and all: int64 scalar."""
    hits = tf.math.in_top_k(tf.cast(labels, tf.int32), logits, k=1)
    return tf.reduce_sum(tf.cast(hits, tf.int64))
