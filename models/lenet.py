# SPDX-License-Identifier: Apache-2.0
"""LeNet-SELU: two 3×3 convolutions, each with a max pool, and three dense layers.

The network of the main write-up, after LeCun et al., "Gradient-Based Learning Applied
to Document Recognition", 1998, with SELU (Klambauer et al. 2017). docs/results.md calls
it system A0 without batch norm and dropout, A1 with both.
"""

from functools import partial

import tensorflow as tf

from models import kernels, layers
from models.batch_norm import BatchNorm

# conv1 120, conv2 1,744, dense1 166,176, dense2 41,616, logits 1,450
# (at width 1, without batch norm)
PARAMETERS = 211_106

BATCH_NORM_PLACES = ("none", "conv", "all")


class LeNet(tf.Module):
    """uint8 images [N, 28, 28, 1] → float32 logits [N, classes].

    Args:
      seed: seed of the initial weights.
      classes: number of classes.
      width: factor on the channels of both convolutions, 1 or more.
      activation: a name in `layers.ACTIVATIONS`.
      normalise_grey: see `layers.normalise_grey`.
      batch_norm: layers with batch norm: "none", "conv" (both convolutions) or "all"
        (the two hidden dense layers as well).
      batch_norm_first: batch norm before activation and pool (True) or after them.
      batch_norm_decay: decay of the moving averages.
      sync_batch_norm: see `sync` of `BatchNorm`.
      dropout: rate after each hidden dense layer, 0 to `layers.MAX_DROPOUT`.
      dropout_kind: a name in `layers.DROPOUTS`.
      kernels: "native" trains with our C++ operations, `native.ops`, where they support
        the settings, and may predict with them, see `kernels.predicting`; "tensorflow"
        uses TensorFlow's only.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        classes: int = 10,
        width: int = 1,
        activation: str = "selu",
        normalise_grey: bool = False,
        batch_norm: str = "none",
        batch_norm_first: bool = True,
        batch_norm_decay: float = 0.9,
        sync_batch_norm: bool = False,
        dropout: float = 0.0,
        dropout_kind: str = "standard",
        kernels: str = "tensorflow",
    ):
        super().__init__("lenet")
        self.activation = layers.ACTIVATIONS[activation]
        self.normalise_grey = normalise_grey
        self.dropout = layers.DROPOUTS[dropout_kind]
        self.dropout_rate = layers.check_dropout(dropout)
        self.batch_norm_first = batch_norm_first

        # Batch norm subtracts the mean, so a bias right before it would do nothing.
        conv_norm, dense_norm = batch_norm in ("conv", "all"), batch_norm == "all"
        conv = partial(layers.Conv, bias=not (conv_norm and batch_norm_first))
        dense = partial(layers.Dense, bias=not (dense_norm and batch_norm_first))
        norm = partial(BatchNorm, decay=batch_norm_decay, sync=sync_batch_norm)
        self.native = kernels == "native"
        # Whether training runs without TensorFlow's max pool, whose bits depend on how
        # its step is built into the graph: see `training.replicas.function`.
        self.native_pools = self.native and not (conv_norm and batch_norm_first)
        # Whether `kernels.conv_stack` can compute both convolutions.
        selu_then_norm = activation == "selu" and conv_norm and not batch_norm_first
        self.can_stack = selu_then_norm and not normalise_grey

        maps1, maps2 = 12 * width, 16 * width
        with self.name_scope:
            self.norm1 = norm(maps1, name="norm1") if conv_norm else None
            self.norm2 = norm(maps2, name="norm2") if conv_norm else None
            self.norm3 = norm(288, name="norm3") if dense_norm else None
            self.norm4 = norm(144, name="norm4") if dense_norm else None
            # A seed is two integers. The second is negative here, and 0 or more in the
            # seeds of a step, so that no step draws the numbers of initial weights.
            self.conv1 = conv(1, maps1, 3, seed=(seed, -1), name="conv1")
            self.conv2 = conv(maps1, maps2, 3, seed=(seed, -2), name="conv2")
            self.dense1 = dense(36 * maps2, 288, seed=(seed, -3), name="dense1")
            self.dense2 = dense(288, 144, seed=(seed, -4), name="dense2")
            self.logits = layers.Dense(144, classes, seed=(seed, -5), name="logits")

        if batch_norm == "none" and width == 1 and classes == 10:
            count = layers.count_parameters(self)
            assert count == PARAMETERS, count

    @tf.Module.with_name_scope
    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
        taps: dict[str, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images: see the contract in `models`.

        Returns the logits, and each moving average with its next value. Fills `taps`
        with the output of each layer, by its name.
        """
        update_ops: layers.UpdateOps = []
        # Evaluation does not normalise with the batch's statistics, so it has its own
        # operations.
        predicts = kernels.predicts(self.native, training)
        native = predicts or (self.native and training is True)
        stacked = predicts and self.can_stack and taps is None
        taps = {} if taps is None else taps

        def block(x, layer, norm):
            x, updates = self._block(x, layer, norm, training, native)
            update_ops.extend(updates)
            taps[layer.name] = x
            return x

        def dropout(x, number):
            mask_seed = layers.mask_seed(seed, number)
            return kernels.dropout(
                x,
                self.dropout,
                self.dropout_rate,
                training=training,
                seed=mask_seed,
                native=native,
            )

        # The margin shows the shapes at width 1.
        if stacked:  # both blocks below at once
            assert self.norm1 and self.norm2  # as `can_stack` is true
            convs, norms = (self.conv1, self.conv2), (self.norm1, self.norm2)
            x = kernels.conv_stack(images, convs, norms)  # [N, 6, 6, 16]
        else:
            x = layers.scale_pixels(self, images)  # [N, 28, 28, 1], in [0, 1]
            x = layers.normalise_grey(x) if self.normalise_grey else x
            x = block(x, self.conv1, self.norm1)  # [N, 28, 28, 12] → [N, 13, 13, 12]
            x = block(x, self.conv2, self.norm2)  # [N, 13, 13, 16] → [N, 6, 6, 16]
        x = layers.flatten(x)  # [N, 576]
        x = dropout(block(x, self.dense1, self.norm3), 1)  # [N, 288]
        x = dropout(block(x, self.dense2, self.norm4), 2)  # [N, 144]
        taps["logits"] = x = self.logits(x)  # [N, classes]
        return x, update_ops

    def _block(
        self,
        x: tf.Tensor,
        layer: layers.Conv | layers.Dense,
        norm: BatchNorm | None,
        training: layers.Training,
        native: bool,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """A hidden layer with its pool, batch norm and activation."""
        is_conv = isinstance(layer, layers.Conv)
        if norm is not None and self.batch_norm_first:
            x, update_ops = norm(layer(x), training=training)
            x = layers.max_pool(x, 3, 2) if is_conv else x
            return self.activation(x), update_ops
        # Pool before bias and activation: both increase, so the maximum is the same,
        # and only a quarter of the values is left to compute. Batch norm has to wait:
        # its scale may be negative, and then it would turn the order around.
        if is_conv:
            is_data = layer is self.conv1
            x = kernels.conv_pool(x, layer, is_data=is_data, native=native)
        else:
            x = layer.apply_weights(x)
        # Bias, activation, and batch norm if there is any, in this order.
        return kernels.activate(
            x, layer.b, self.activation, norm, training=training, native=native
        )
