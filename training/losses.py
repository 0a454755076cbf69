# SPDX-License-Identifier: Apache-2.0
"""Losses, and the count of correct answers."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from augment import mixup
from system import errors

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

# (logits [N, classes], labels [N], teachers' probabilities [N, classes] or None, share
# that an image kept in mixup [] or None) → []
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor | None, tf.Tensor | None], tf.Tensor]


def build(config: Any) -> Loss:
    """Returns the loss of a run, from its `config.Config`."""
    of_labels, smoothing = LOSSES[config.loss], config.label_smoothing
    weight, temperature = config.teacher_weight, config.temperature

    def of_images(logits, labels, taught):
        given = of_labels(logits, labels, smoothing)
        if taught is None:
            return given
        learned = distillation(logits, labels, taught, temperature)
        return (1 - weight) * given + weight * learned

    def loss(logits, labels, taught=None, kept=None):
        own = of_images(logits, labels, taught)
        if kept is None:
            return own
        # All losses are linear in the target, so this is the loss of mixed targets.
        # Online, teachers have seen the mixtures; stored, the images before that.
        if taught is not None and not config.teach_online:
            taught = mixup.partner(taught)
        other = of_images(logits, mixup.partner(labels), taught)
        return kept * own + (1 - kept) * other

    return loss


def distillation(
    logits: tf.Tensor, labels: tf.Tensor, taught: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Mean over the batch of −T² Σ q · log softmax(logits / T), in nats.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015: the
    factor T² keeps the size of the gradients.

    Args:
      logits: float32 [N, classes].
      labels: integers [N]; for an image of no class, −1, all classes are equally likely
        instead of what q says.
      taught: q, probabilities that teachers give, float32 [N, classes].
      temperature: T, above 0; q was computed with the same one.
    """
    none = tf.cast(labels, tf.int32)[:, tf.newaxis] < 0
    targets = tf.where(none, 1 / logits.shape[-1], taught)
    losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits / temperature)
    return temperature**2 * tf.reduce_mean(losses)


def check_weight(weight: float) -> None:
    """Raises UserError if this cannot be a --teacher_weight."""
    if not 0 <= weight <= 1:
        raise errors.UserError("expected a number in [0, 1]")


def check_temperature(temperature: float) -> None:
    """Raises UserError if this cannot be a --temperature."""
    if not 0.01 <= temperature <= 100:  # far from where its square leaves float32
        raise errors.UserError("expected a number in [0.01, 100]")


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Number of labels with the highest logit, alone or in a tie: int64 scalar."""
    hits = tf.math.in_top_k(tf.cast(labels, tf.int32), logits, k=1)
    return tf.reduce_sum(tf.cast(hits, tf.int64))
