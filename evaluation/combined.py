# SPDX-License-Identifier: Apache-2.0
"""Networks made of trained networks: ensembles, means over shifts, temperatures.

Each keeps the contract of `models`, so whatever takes a network takes these: a call
gives logits, float32 [N, classes], whose softmax are the probabilities. They are for
evaluation, and have no update_ops of their own.
"""

import itertools
from collections.abc import Sequence

import tensorflow as tf

from models import layers


def log_mean(logits: Sequence[tf.Tensor]) -> tf.Tensor:
    """Log of the mean of the probabilities of several logits [N, C]: float32 [N, C].

    The largest is subtracted before the exponential, so that a probability that
    float32 cannot hold does not become log 0.
    """
    logs = tf.stack([tf.nn.log_softmax(one) for one in logits])
    largest = tf.reduce_max(logs, 0)
    return largest + tf.math.log(tf.reduce_mean(tf.exp(logs - largest), 0))


class Mean(tf.Module):
    """Mean of the probabilities of several networks: an ensemble.

    Hansen and Salamon, "Neural Network Ensembles", 1990; as a mean of the softmax,
    Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017.
    """

    def __init__(self, networks: Sequence[tf.Module]):
        super().__init__("mean")
        self.networks = tuple(networks)

    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images, uint8 [N, 28, 28, 1]."""
        each = [n(images, training=training, seed=seed)[0] for n in self.networks]
        return log_mean(each), []


class Shifted(tf.Module):
    """Mean of a network's probabilities over small shifts of each image.

    These are all shifts by −pixels … pixels, down and to the right, (2 · pixels + 1)²
    in number. What is shifted in is 0, paper. The image is classified that often.
    """

    def __init__(self, network: tf.Module, pixels: int):
        super().__init__("shifted")
        self.network, self.pixels = network, pixels

    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images, uint8 [N, 28, 28, 1]."""
        height, width = images.shape[1:3]
        margin = [self.pixels, self.pixels]
        # As integers of 32 bits, for TensorFlow Lite does not pad bytes.
        numbers = tf.cast(images, tf.int32)
        numbers = tf.pad(numbers, [[0, 0], margin, margin, [0, 0]])
        padded = tf.cast(numbers, images.dtype)
        each = []
        # One after the other: as a single batch, the copies would take as many times
        # the memory.
        for top, left in itertools.product(range(1 + 2 * self.pixels), repeat=2):
            copy = padded[:, top : top + height, left : left + width]
            each.append(self.network(copy, training=training, seed=seed)[0])
        return log_mean(each), []


class Tempered(tf.Module):
    """A network whose logits are divided by a temperature, which keeps their order.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017.
    """

    def __init__(self, network: tf.Module, temperature: float):
        super().__init__("tempered")
        self.network, self.temperature = network, temperature

    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
        taps: dict[str, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images: see the contract in `models`."""
        logits, update_ops = self.network(
            images, training=training, seed=seed, taps=taps
        )
        return logits / self.temperature, update_ops
