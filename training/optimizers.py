# SPDX-License-Identifier: Apache-2.0
"""Update rules as pure functions, each under a thin holder of its slot variables."""

from collections.abc import Sequence

import tensorflow as tf


def adam(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One step of Adam, for step t = 1, 2, …:

        m ← β1 m + (1 − β1) g
        v ← β2 v + (1 − β2) g²
        w ← w − rate · √(1 − β2ᵗ) / (1 − β1ᵗ) · m / (√v + ε)

    Kingma and Ba, "Adam", 2015, in the efficient form at the end of its section 2,
    as TensorFlow 1 had it.

    Args:
      weight, gradient, m, v: float32 of one shape.
      step: scalar integer, counted from 0, so that t = step + 1.
      rate: float32 scalar.

    Returns:
      The next weight, m and v.
    """
    t = tf.cast(step + 1, tf.float32)
    rate *= tf.sqrt(1 - beta2**t) / (1 - beta1**t)
    m = m + (gradient - m) * (1 - beta1)
    v = v + (tf.square(gradient) - v) * (1 - beta2)
    return weight - rate * m / (tf.sqrt(v) + epsilon), m, v


def weight_average(
    average: tf.Tensor, weight: tf.Tensor, *, step: tf.Tensor, decay: float
) -> tf.Tensor:
    """average ← d · average + (1 − d) · weight; d = min(decay, (1 + t) / (10 + t)).

    Polyak and Juditsky 1992, with the exponential average and the warm-up of
    TensorFlow 1's `ExponentialMovingAverage`.

    Args:
      average, weight: float32 of one shape.
      step: scalar integer t, counted from 0.
      decay: in [0, 1).
    """
    t = tf.cast(step, tf.float32)
    decay = tf.minimum(decay, (1 + t) / (10 + t))
    return average + (weight - average) * (1 - decay)


class Adam(tf.Module):
    """Holds m and v for `variables`; see `adam`.

    Args:
      variables: to be updated, in the order in which gradients will come.
      weight_decay: share of each kernel (not of biases, scales and offsets) that is
        taken off per step and unit of rate: Loshchilov and Hutter, "Decoupled Weight
        Decay Regularization", 2019.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, weight_decay: float = 0.0):
        super().__init__("adam")
        self.weight_decay = weight_decay
        # Wrapped, because the weights belong to the network: as an attribute they
        # would become this module's too, and be stored twice in a checkpoint.
        self._weights = lambda: variables
        with self.name_scope:
            self.m = [self._slot(w, "m") for w in variables]
            self.v = [self._slot(w, "v") for w in variables]

    @staticmethod
    def _slot(weight: tf.Variable, name: str) -> tf.Variable:
        return tf.Variable(tf.zeros_like(weight), trainable=False, name=name)

    def apply(
        self, gradients: Sequence[tf.Tensor], *, step: tf.Tensor, rate: tf.Tensor
    ) -> None:
        """Assigns the next weights and slots."""
        for w, g, m, v in zip(self._weights(), gradients, self.m, self.v, strict=True):
            next_w, next_m, next_v = adam(w, g, m, v, step=step, rate=rate)
            if w.shape.rank > 1 and self.weight_decay:
                next_w -= rate * self.weight_decay * w
            w.assign(next_w)
            m.assign(next_m)
            v.assign(next_v)
