# SPDX-License-Identifier: Apache-2.0
"""Layers that get more out of few weights: separable convolutions, squeeze-excite."""

from collections.abc import Sequence

import tensorflow as tf

from models import layers

# Hidden units of squeeze-excite: of fewer, all may be 0 for all images, and so stay.
LEAST_UNITS = 8


def _second(seed: Sequence[int]) -> Sequence[int]:
    """Seed of a layer's second kernel; those of a network's layers are above −64."""
    return (*seed[:-1], seed[-1] - 64)


class SeparableConv(tf.Module):
    """A convolution of each channel by itself, then one over 1 × 1 pixel of all.

    Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2017.
    [N, H, W, inputs] → [N, H, W, outputs], with size² · inputs + inputs · outputs
    weights where `layers.Conv` has size² · inputs · outputs, and no bias. Same args as
    there.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        seed: Sequence[int],
        init: layers.Initialiser = layers.lecun_normal,
        name: str = "conv",
    ):
        super().__init__(name)
        self.inputs = inputs
        with self.name_scope:
            # Each channel is an input by itself, so this has the fan-in of one.
            each = layers.lecun_normal([size, size, 1, inputs], _second(seed))
            each = tf.reshape(each, [size, size, inputs, 1])
            self.depthwise = tf.Variable(each, name="depthwise")
            self.w = tf.Variable(init([1, 1, inputs, outputs], seed), name="w")

    @tf.Module.with_name_scope
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        layers.check_input(self, x, 4, self.inputs)
        x = tf.nn.depthwise_conv2d(x, self.depthwise, [1, 1, 1, 1], "SAME")
        return tf.nn.conv2d(x, self.w, strides=1, padding="SAME")


class SqueezeExcite(tf.Module):
    """Scales each channel of an image by a factor that all its channels decide.

    Hu, Shen and Sun, "Squeeze-and-Excitation Networks", 2018. [N, H, W, C] → the same,
    times sigmoid(relu(mean over places · w1 + b1) · w2 + b2), with C / 4 hidden units,
    but at least `LEAST_UNITS`.
    """

    def __init__(
        self, channels: int, *, seed: Sequence[int], name: str = "squeeze_excite"
    ):
        super().__init__(name)
        units = max(LEAST_UNITS, channels // 4)
        with self.name_scope:
            self.w1 = tf.Variable(layers.he_normal([channels, units], seed), name="w1")
            self.b1 = tf.Variable(tf.zeros([units]), name="b1")
            self.w2 = tf.Variable(
                layers.lecun_normal([units, channels], _second(seed)), name="w2"
            )
            self.b2 = tf.Variable(tf.zeros([channels]), name="b2")

    @tf.Module.with_name_scope
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        layers.check_input(self, x, 4, self.w1.shape[0])
        hidden = tf.nn.relu(tf.matmul(layers.mean_over_places(x), self.w1) + self.b1)
        factors = tf.sigmoid(tf.matmul(hidden, self.w2) + self.b2)
        return x * factors[:, tf.newaxis, tf.newaxis]
