# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation. Ioffe and Szegedy, "Batch Normalization", 2015."""

from collections.abc import Sequence

import tensorflow as tf

from models import layers
from system import errors

EPSILON = 1e-3
AXES = (-1, 1)


def check_axis(axis: int | None) -> None:
    """Raises UserError if --bn_axis is not one of `AXES`."""
    if axis not in (None, *AXES):
        raise errors.UserError("expected -1 or 1")


class BatchNorm(tf.Module):
    """Normalises each channel, or each image row, over all other axes.

    In training it uses the batch's mean and variance, and returns the next value of
    each moving average: average ← decay · average + (1 − decay) · batch. Otherwise it
    uses the averages. A call changes no variable.

    The variance that normalises is biased: the sum of squares is divided by the number
    n of values. The variance that enters the average is unbiased: divided by n − 1.

    Args:
      channels: size of the axis that is kept.
      decay: decay of the moving averages, in [0, 1).
      axis: -1 takes [..., channels] and normalises channels. 1 takes
        [N, channels, W, C] and normalises rows: what Keras' `axis=1`, meant for images
        with channels first, does to images with channels last.
      epsilon: added to the variance.
      sync: normalise over the whole batch, by exchanging statistics between the
        replicas of the `tf.distribute` strategy, not over each replica's part of it.

    Attributes:
      frozen: whether to use the averages in training, too, and leave them as they are;
        False until `structure.freeze` sets it.
    """

    def __init__(
        self,
        channels: int,
        *,
        decay: float,
        axis: int = -1,
        epsilon: float = EPSILON,
        sync: bool = False,
        name: str = "batch_norm",
    ):
        super().__init__(name)
        if axis not in AXES:
            raise ValueError(f"{name}: axis must be -1 or 1, got {axis}")
        self.channels = channels
        self.decay = decay
        self.axis = axis
        self.epsilon = epsilon
        self.sync = sync
        self.frozen = False
        with self.name_scope:
            self.scale = tf.Variable(tf.ones([channels]), name="scale")
            self.offset = tf.Variable(tf.zeros([channels]), name="offset")
            self.mean = tf.Variable(tf.zeros([channels]), name="mean", trainable=False)
            self.variance = tf.Variable(
                tf.ones([channels]), name="variance", trainable=False
            )

    @tf.Module.with_name_scope
    def __call__(
        self, x: tf.Tensor, *, training: layers.Training
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        rank = x.shape.rank if self.axis == -1 else 4
        layers.check_input(self, x, rank, self.channels, self.axis)
        training = False if self.frozen else training
        # The fused kernel wants images; a vector is an image of one pixel.
        shape = tf.shape(x)
        images = x if rank == 4 else tf.reshape(x, [-1, 1, 1, self.channels])
        kernel = self._channels if self.axis == -1 else self._rows

        def normalise(is_training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            y, mean, variance = kernel(images, is_training)
            if not is_training:  # the next value is the present one
                return y, tf.identity(self.mean), tf.identity(self.variance)
            (_, mean), (_, variance) = self.updates(mean, variance)
            return y, mean, variance  # without the variables: cond returns tensors

        if isinstance(training, bool):
            y, mean, variance = normalise(training)
        else:
            y, mean, variance = tf.cond(
                training, lambda: normalise(True), lambda: normalise(False)
            )
        y = y if rank == 4 else tf.reshape(y, shape)
        if self.frozen:
            return y, []
        return y, [(self.mean, mean), (self.variance, variance)]

    def updates(self, mean: tf.Tensor, variance: tf.Tensor) -> layers.UpdateOps:
        """Pairs each moving average with its next value, given the batch's, [channels].

        The variance is unbiased.
        """
        decay = self.decay
        return [
            (self.mean, decay * self.mean + (1 - decay) * mean),
            (self.variance, decay * self.variance + (1 - decay) * variance),
        ]

    def _channels(
        self, x: tf.Tensor, is_training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns y [N, H, W, C], mean [C] and, in training, unbiased variance [C]."""
        if is_training and self.sync:  # which TensorFlow's fused kernel cannot do
            mean, variance, count = _moments_over_replicas(x, [0, 1, 2])
            y = tf.nn.batch_normalization(
                *(x, mean, variance, self.offset, self.scale, self.epsilon)
            )
            return y, mean, variance * count / tf.maximum(count - 1, 1)
        # A single kernel; `tf.nn.batch_normalization` takes several operations.
        return tf.compat.v1.nn.fused_batch_norm(
            x,
            self.scale,
            self.offset,
            None if is_training else self.mean,
            None if is_training else self.variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )

    def _rows(
        self, x: tf.Tensor, is_training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns y [N, H, W, C], mean [H] and, in training, unbiased variance [H]."""
        mean, variance = self.mean, self.variance
        count = tf.cast(tf.size(x) // self.channels, tf.float32)
        if is_training and self.sync:
            mean, variance, count = _moments_over_replicas(x, [0, 2, 3])
        elif is_training:
            mean, variance = tf.nn.moments(x, [0, 2, 3])
        by_row = [
            tf.reshape(v, [-1, 1, 1]) for v in (mean, variance, self.offset, self.scale)
        ]
        y = tf.nn.batch_normalization(x, *by_row, self.epsilon)
        return y, mean, variance * count / tf.maximum(count - 1, 1)


def _moments_over_replicas(
    x: tf.Tensor, axes: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean [C], biased variance [C] and number of values, over all replicas.

    The variance is the mean of the replicas' variances plus the variance of their
    means, weighted by the number of values in each. The mean of squares minus the
    squared mean would lose all digits when the mean is large.

    Each replica fills its row of a table, and the table is summed over all replicas.
    That is one exchange for both moments, and one for their gradient, since the
    gradient of a sum over replicas is the sum over replicas of the gradients.

    x is float32 [N, H, W, C]; the axes are all but that of C.
    """
    replica = tf.distribute.get_replica_context()
    row = tf.stack(tf.nn.moments(x, axes))  # [2, C]
    count = tf.cast(tf.size(x) // row.shape[1], tf.float32)
    row = tf.concat([row, tf.fill([2, 1], count)], axis=1)  # [2, C + 1]
    mine = tf.one_hot(
        replica.replica_id_in_sync_group, replica.num_replicas_in_sync
    )  # [replicas], 1 at this replica's row
    table = replica.all_reduce(
        tf.distribute.ReduceOp.SUM, mine[:, None, None] * row
    )  # [replicas, 2, C + 1]
    counts = tf.stop_gradient(table[:, 0, -1:])  # [replicas, 1], constants
    means, variances = table[:, 0, :-1], table[:, 1, :-1]  # [replicas, C] each
    count = tf.reduce_sum(counts)
    shares = counts / count
    mean = tf.reduce_sum(shares * means, axis=0)
    spread = variances + tf.square(means - mean)
    return mean, tf.reduce_sum(shares * spread, axis=0), count
