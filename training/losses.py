# SPDX-License-Identifier: Apache-2.0
"""Losses, and the count of correct answers."""

from collections.abc import Callable

import tensorflow as tf

# Probabilities are kept this far from 0 and 1, so no answer costs more than 16.2 nats.
# It is Keras' constant, and the published systems trained with it.
CLIP = 1e-7


def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Mean over the batch of −Σ target · log softmax(logits), in nats.

    Args:
      logits: float32 [N, classes].
      labels: integers [N]; as int32 or int64, −1 is for an image of no class, whose
        target is spread evenly over all classes.
      smoothing: share of the target that is spread evenly over all classes. Szegedy et
        al., "Rethinking the Inception Architecture", 2016.
    """
    labels = tf.convert_to_tensor(labels)
    has_none = labels.dtype in (tf.int32, tf.int64)  # data sets have uint8 and int16
    if smoothing == 0 and not has_none:  # the same loss, without one-hot rows
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

    p is the softmax of the logits, clipped to [1e-7, 1 − 1e-7]; t is the target. Each
    output counts as the answer to a yes-or-no question, as in write-ups that use Keras'
    binary cross-entropy after a softmax. Arguments and result are those of
    `softmax_cross_entropy`.
    """
    p = tf.clip_by_value(tf.nn.softmax(logits), CLIP, 1 - CLIP)
    t = _targets(labels, logits.shape[-1], smoothing)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * tf.math.log1p(-p))


def _targets(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """One-hot rows with smoothing, even ones for −1: float32 [N, classes]."""
    labels = tf.cast(labels, tf.int32)
    rows = tf.one_hot(
        labels, classes, 1 - smoothing + smoothing / classes, smoothing / classes
    )
    return tf.where(labels[:, tf.newaxis] < 0, 1 / classes, rows)


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Number of labels with the highest logit, alone or in a tie: int64 scalar."""
    hits = tf.math.in_top_k(tf.cast(labels, tf.int32), logits, k=1)
    return tf.reduce_sum(tf.cast(hits, tf.int64))
