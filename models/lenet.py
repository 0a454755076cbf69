# SPDX-License-Identifier: Apache-2.0
"""LeNet-SELU: two 3×3 convolutions, two max pools, three dense layers.

The network of the main write-up, after LeCun et al., "Gradient-Based Learning Applied
to Document Recognition", 1998, with SELU (Klambauer et al. 2017). Plain it is system
A0; with batch norm and dropout it is system A1.
"""

import tensorflow as tf

from models import layers
from native import ops

# conv1 120, conv2 1,744, dense1 166,176, dense2 41,616, logits 1,450
PLAIN_PARAMETERS = 211_106

BATCH_NORM_PLACES = ("none", "conv", "all")
KERNELS = ("native", "tensorflow")


class LeNet(tf.Module):
    """uint8 images [N, 28, 28, 1] → float32 logits [N, 10].

    Args:
      seed: of the initial weights.
      width: factor on the maps of both convolutions, 1 or more.
      activation: a name in `layers.ACTIVATIONS`.
      batch_norm: after which layers: "none", "conv" (both convolutions) or "all"
        (the two hidden dense layers too).
      batch_norm_first: batch norm before activation and pool (True) or after them.
      batch_norm_decay: of the moving averages.
      sync_batch_norm: see `layers.BatchNorm`.
      dropout: rate after each hidden dense layer, 0 to `layers.MAX_DROPOUT`.
      dropout_kind: a name in `layers.DROPOUTS`.
      kernels: "native" trains with the operations of `native` wherever these
        compute what is wanted; else all operations are TensorFlow's.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        width: int = 1,
        activation: str = "selu",
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
        self.dropout = layers.DROPOUTS[dropout_kind]
        self.dropout_rate = layers.check_dropout(dropout)
        self.batch_norm_first = batch_norm_first
        self.native = kernels == "native"
        # Whether in training no max pool is TensorFlow's.
        self.native_pools = self.native and not (
            batch_norm_first and batch_norm in ("conv", "all")
        )

        def norm(kind: str, channels: int, name: str) -> layers.BatchNorm | None:
            if batch_norm not in (kind, "all"):
                return None
            return layers.BatchNorm(
                channels, decay=batch_norm_decay, sync=sync_batch_norm, name=name
            )

        maps1, maps2 = 12 * width, 16 * width
        with self.name_scope:
            self.norm1 = norm("conv", maps1, "norm1")
            self.norm2 = norm("conv", maps2, "norm2")
            self.norm3 = norm("dense", 288, "norm3")
            self.norm4 = norm("dense", 144, "norm4")

            def bias(norm: layers.BatchNorm | None) -> bool:
                # Batch norm subtracts the mean, and a bias just before it with it.
                return norm is None or not batch_norm_first

            # Negative second halves: the steps of a run, which seed all its other
            # random numbers, count from 0 up.
            self.conv1 = layers.Conv(
                1, maps1, 3, seed=(seed, -1), bias=bias(self.norm1), name="conv1"
            )
            self.conv2 = layers.Conv(
                maps1, maps2, 3, seed=(seed, -2), bias=bias(self.norm2), name="conv2"
            )
            self.dense1 = layers.Dense(
                36 * maps2, 288, seed=(seed, -3), bias=bias(self.norm3), name="dense1"
            )
            self.dense2 = layers.Dense(
                288, 144, seed=(seed, -4), bias=bias(self.norm4), name="dense2"
            )
            self.logits = layers.Dense(144, 10, seed=(seed, -5), name="logits")

        if batch_norm == "none" and width == 1:
            count = layers.count_parameters(self)
            assert count == PLAIN_PARAMETERS, count

    @tf.Module.with_name_scope
    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
        taps: dict[str, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images. Changes no variable.

        Args:
          images: uint8 [N, 28, 28, 1].
          training: Python bool or scalar bool tensor; switches batch norm and dropout.
          seed: int32 [2] for this step's dropout masks; needed only in training.
          taps: if given, is filled with the output of each layer, activation, pool
            and batch norm included, under the name of its attribute.

        Returns:
          logits: float32 [N, 10].
          update_ops: pairs of a moving average and its next value.

        Raises:
          ValueError: images of another dtype or shape.
        """
        update_ops: layers.UpdateOps = []
        taps = {} if taps is None else taps
        # Known when the graph is traced: evaluation has no use for the batch's own
        # statistics, and an exported network none for operations of this machine.
        fused = self.native and training is True

        def normalise(x, norm):
            if norm is None:
                return x
            x, updates = norm(x, training=training)
            update_ops.extend(updates)
            return x

        def pool(x):
            return layers.max_pool(x, 3, 2)

        def finish(x, layer, norm):
            """Bias, activation and batch norm of what a layer's weights gave."""
            own = norm is not None and not norm.sync  # statistics, which are within
            if fused and own and self.activation is layers.selu:
                x, mean, variance = ops.selu_norm(
                    x, layer.b, norm.scale, norm.offset, epsilon=norm.epsilon
                )
                update_ops.extend(norm.updates(mean, variance))
                return x
            return normalise(self.activation(layers.add_bias(x, layer.b)), norm)

        def conv_block(x, conv, norm):
            if norm is not None and self.batch_norm_first:
                return self.activation(pool(normalise(conv(x), norm)))
            # An increasing function, a sum with one number, and a maximum change places
            # freely, and the pool leaves a quarter of the values to work on. Batch norm
            # is no such function: its scale may be negative.
            if fused:
                x = ops.conv_pool(x, conv.w, data=conv is self.conv1)
            else:
                x = pool(conv.weigh(x))
            return finish(x, conv, norm)

        def dense_block(x, dense, norm, number):
            if self.batch_norm_first:
                x = self.activation(normalise(dense(x), norm))
            else:
                x = finish(dense.weigh(x), dense, norm)
            taps[dense.name] = x
            mask_seed = layers.mask_seed(seed, number)
            if fused and self.dropout is layers.dropout and self.dropout_rate > 0:
                return ops.dropout(x, self.dropout_rate, seed=mask_seed)
            return self.dropout(x, self.dropout_rate, training=training, seed=mask_seed)

        # The margin gives the shapes at width 1.
        x = layers.scale_pixels(self, images)  # [N, 28, 28, 1], in [0, 1]
        taps["conv1"] = x = conv_block(x, self.conv1, self.norm1)  # [N, 13, 13, 12]
        taps["conv2"] = x = conv_block(x, self.conv2, self.norm2)  # [N, 6, 6, 16]
        x = layers.flatten(x)  # [N, 576]
        x = dense_block(x, self.dense1, self.norm3, 1)  # [N, 288]
        x = dense_block(x, self.dense2, self.norm4, 2)  # [N, 144]
        taps["logits"] = x = self.logits(x)  # [N, 10]
        return x, update_ops
