# SPDX-License-Identifier: Apache-2.0
"""Double-conv CNN: two blocks of two convolutions, one dense layer. System D."""

import functools

import tensorflow as tf

from models import layers

# conv1 832, conv2 25,632, conv3 18,496, conv4 36,928, dense1 803,072, logits 2,570
PARAMETERS = 887_530


class DoubleConv(tf.Module):
    """uint8 images [N, 28, 28, 1] → float32 logits [N, classes].

    Args:
      seed: seed of the initial weights.
      classes: number of classes.
      activation: a name in `layers.ACTIVATIONS`.
      conv_dropout: rate after each of the two blocks, 0 to `layers.MAX_DROPOUT`.
      dropout: rate after the hidden dense layer, 0 to `layers.MAX_DROPOUT`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        classes: int = 10,
        activation: str = "relu",
        conv_dropout: float = 0.25,
        dropout: float = 0.5,
    ):
        super().__init__("double_conv")
        self.activation = layers.ACTIVATIONS[activation]
        self.conv_dropout = layers.check_dropout(conv_dropout)
        self.dropout = layers.check_dropout(dropout)

        init = layers.glorot_uniform
        conv = functools.partial(layers.Conv, init=init)
        dense = functools.partial(layers.Dense, init=init)

        with self.name_scope:
            self.conv1 = conv(1, 32, 5, seed=(seed, -1), name="conv1")
            self.conv2 = conv(32, 32, 5, seed=(seed, -2), name="conv2")
            self.conv3 = conv(32, 64, 3, seed=(seed, -3), name="conv3")
            self.conv4 = conv(64, 64, 3, seed=(seed, -4), name="conv4")
            self.dense1 = dense(3136, 256, seed=(seed, -5), name="dense1")
            self.logits = dense(256, classes, seed=(seed, -6), name="logits")

        if classes == 10:
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
        """Classifies images: see the contract in `models`. Has no update_ops."""
        taps = {} if taps is None else taps

        def dropout(x, rate, number):
            mask_seed = layers.mask_seed(seed, number)
            return layers.dropout(x, rate, training=training, seed=mask_seed)

        def block(x, first, second):
            taps[first.name] = x = self.activation(first(x))
            # Pool before activation, as in models.lenet: fewer values to compute.
            taps[second.name] = x = self.activation(layers.max_pool(second(x), 2, 2))
            return x

        x = layers.scale_pixels(self, images)  # [N, 28, 28, 1], in [0, 1]
        x = block(x, self.conv1, self.conv2)  # [N, 28, 28, 32] → [N, 14, 14, 32]
        x = dropout(x, self.conv_dropout, 1)
        x = block(x, self.conv3, self.conv4)  # [N, 14, 14, 64] → [N, 7, 7, 64]
        x = dropout(x, self.conv_dropout, 2)
        x = layers.flatten(x)  # [N, 3136]
        taps["dense1"] = x = self.activation(self.dense1(x))  # [N, 256]
        x = dropout(x, self.dropout, 3)
        taps["logits"] = x = self.logits(x)  # [N, classes]
        return x, []
