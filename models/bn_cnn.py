# SPDX-License-Identifier: Apache-2.0
"""BN-CNN: three convolutions with batch norm after the activation. System B.

The network of the write-up on Kaggle's Digit Recognizer. `bn_axis=1` gives what its
code does, `activation="selu"` what its text says, and the defaults correct both.
"""

import functools

import tensorflow as tf

from models import layers
from models.batch_norm import BatchNorm

# conv1 320, conv2 13,872, conv3 12,352, dense1 1,827,936, logits 31,690
# plus, by axis, scale and offset of 32 + 48 + 64 channels or of 26 + 13 + 7 rows
PARAMETERS = {-1: 1_886_170 + 288, 1: 1_886_170 + 92}

EPSILON = 1e-6


class BNCNN(tf.Module):
    """uint8 images [N, 28, 28, 1] → float32 logits [N, classes].

    Args:
      seed: seed of the initial weights.
      classes: number of classes.
      activation: a name in `layers.ACTIVATIONS`.
      bn_axis: -1 normalises channels, 1 rows: see `BatchNorm`.
      batch_norm_decay: decay of the moving averages.
      sync_batch_norm: see `BatchNorm`.
      conv_dropout: rate after the last convolution, 0 to `layers.MAX_DROPOUT`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        classes: int = 10,
        activation: str = "relu",
        bn_axis: int = -1,
        batch_norm_decay: float = 0.99,
        sync_batch_norm: bool = False,
        conv_dropout: float = 0.25,
    ):
        super().__init__("bn_cnn")
        self.activation = layers.ACTIVATIONS[activation]
        self.conv_dropout = layers.check_dropout(conv_dropout)

        init = layers.glorot_uniform
        conv = functools.partial(layers.Conv, init=init, padding="VALID")
        dense = functools.partial(layers.Dense, init=init)

        def norm(rows: int, channels: int, name: str) -> BatchNorm:
            return BatchNorm(
                rows if bn_axis == 1 else channels,
                decay=batch_norm_decay,
                axis=bn_axis,
                epsilon=EPSILON,
                sync=sync_batch_norm,
                name=name,
            )

        with self.name_scope:
            self.conv1 = conv(1, 32, 3, seed=(seed, -1), name="conv1")
            self.norm1 = norm(26, 32, "norm1")
            self.conv2 = conv(32, 48, 3, seed=(seed, -2), name="conv2")
            self.norm2 = norm(13, 48, "norm2")
            self.conv3 = conv(48, 64, 2, seed=(seed, -3), name="conv3")
            self.norm3 = norm(7, 64, "norm3")
            self.dense1 = dense(576, 3168, seed=(seed, -4), name="dense1")
            self.logits = dense(3168, classes, seed=(seed, -5), name="logits")

        if classes == 10:
            count = layers.count_parameters(self)
            assert count == PARAMETERS[bn_axis], count

    @tf.Module.with_name_scope
    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
        taps: dict[str, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images: see the contract in `models`."""
        update_ops: layers.UpdateOps = []
        taps = {} if taps is None else taps

        def block(x, conv, norm):
            # The write-up's order. The pool must stay last: batch norm with a negative
            # scale turns the largest value into the smallest.
            x, updates = norm(self.activation(conv(x)), training=training)
            update_ops.extend(updates)
            taps[conv.name] = x = layers.max_pool(x, 2, 2)
            return x

        x = layers.scale_pixels(self, images)  # [N, 28, 28, 1], in [0, 1]
        x = block(x, self.conv1, self.norm1)  # [N, 26, 26, 32] → [N, 13, 13, 32]
        x = layers.pad(x)  # [N, 15, 15, 32]
        x = block(x, self.conv2, self.norm2)  # [N, 13, 13, 48] → [N, 6, 6, 48]
        x = layers.pad(x)  # [N, 8, 8, 48]
        x = block(x, self.conv3, self.norm3)  # [N, 7, 7, 64] → [N, 3, 3, 64]
        x = layers.dropout(
            x, self.conv_dropout, training=training, seed=layers.mask_seed(seed, 1)
        )
        x = layers.flatten(x)  # [N, 576]
        taps["dense1"] = x = self.activation(self.dense1(x))  # [N, 3168]
        taps["logits"] = x = self.logits(x)  # [N, classes]
        return x, update_ops
