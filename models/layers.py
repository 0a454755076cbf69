# SPDX-License-Identifier: Apache-2.0
"""Layers with explicit variables: convolution, dense, batch norm, dropout, pooling.

Shapes are [N, H, W, C] for images and [N, C] for vectors, all float32. A layer that
creates variables is a small `tf.Module`; everything else is a function. `training`
is a Python bool, which fixes the branch when the graph is traced, or a scalar bool
tensor, which makes it an input of the graph; the same code serves both.
"""

import math
from collections.abc import Callable, Sequence
from typing import Union

import tensorflow as tf

Training = Union[bool, tf.Tensor]
UpdateOps = list[tuple[tf.Variable, tf.Tensor]]

# The fixed point of SELU, equation 14 of Klambauer et al. 2017 (see `selu`).
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

BATCH_NORM_EPSILON = 1e-3


def lecun_normal(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Normal weights of mean 0 and variance 1 / fan-in, float32 `shape`.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998. Self-normalising
    networks need exactly this variance: Klambauer, Unterthiner, Mayr and Hochreiter,
    "Self-Normalizing Neural Networks", 2017.

    Args:
      shape: of the kernel; all but the last dimension are inputs of one unit.
      seed: two integers; the same seed gives the same weights.
    """
    fan_in = math.prod(shape[:-1])
    return tf.random.stateless_normal(shape, seed) / math.sqrt(fan_in)


def _check_input(layer: tf.Module, x: tf.Tensor, rank: int, channels: int) -> None:
    if x.shape.rank != rank or x.shape[-1] != channels:
        wanted = ["…"] * (rank - 1) + [str(channels)]
        raise ValueError(
            f"{layer.name} was built for [{', '.join(wanted)}] and was given"
            f" {x.shape.as_list()}"
        )


class Conv(tf.Module):
    """Convolution, [N, H, W, inputs] → [N, H', W', outputs].

    Args:
      inputs: channels in.
      outputs: maps out.
      size: height and width of the kernel, in pixels.
      seed: two integers for `lecun_normal`.
      bias: whether to add one; batch norm right after makes it redundant.
      padding: "SAME" or "VALID".
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        seed: Sequence[int],
        bias: bool = True,
        padding: str = "SAME",
        name: str = "conv",
    ):
        super().__init__(name)
        self.inputs = inputs
        self.padding = padding
        with self.name_scope:
            shape = [size, size, inputs, outputs]
            self.w = tf.Variable(lecun_normal(shape, seed), name="w")
            self.b = tf.Variable(tf.zeros([outputs]), name="b") if bias else None

    @tf.Module.with_name_scope
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        _check_input(self, x, 4, self.inputs)
        x = tf.nn.conv2d(x, self.w, strides=1, padding=self.padding)
        return x if self.b is None else tf.nn.bias_add(x, self.b)


class Dense(tf.Module):
    """Fully connected layer, [N, inputs] → [N, outputs]. Args as of `Conv`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        seed: Sequence[int],
        bias: bool = True,
        name: str = "dense",
    ):
        super().__init__(name)
        self.inputs = inputs
        with self.name_scope:
            self.w = tf.Variable(lecun_normal([inputs, outputs], seed), name="w")
            self.b = tf.Variable(tf.zeros([outputs]), name="b") if bias else None

    @tf.Module.with_name_scope
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        _check_input(self, x, 2, self.inputs)
        x = tf.matmul(x, self.w)
        return x if self.b is None else tf.nn.bias_add(x, self.b)


class BatchNorm(tf.Module):
    """Batch normalisation over all but the last axis, [..., channels] → the same.

    Ioffe and Szegedy, "Batch Normalization", 2015. In training it normalises with the
    batch's own mean and variance and returns, for each moving average, its next
    value: average ← decay · average + (1 − decay) · batch. Otherwise it normalises
    with the averages. A call changes no variable.

    Args:
      channels: size of the last axis.
      decay: of the moving averages, in [0, 1).
    """

    def __init__(self, channels: int, *, decay: float, name: str = "batch_norm"):
        super().__init__(name)
        self.channels = channels
        self.decay = decay
        with self.name_scope:
            self.scale = tf.Variable(tf.ones([channels]), name="scale")
            self.offset = tf.Variable(tf.zeros([channels]), name="offset")
            self.mean = tf.Variable(tf.zeros([channels]), name="mean", trainable=False)
            self.variance = tf.Variable(
                tf.ones([channels]), name="variance", trainable=False
            )

    @tf.Module.with_name_scope
    def __call__(
        self, x: tf.Tensor, *, training: Training
    ) -> tuple[tf.Tensor, UpdateOps]:
        _check_input(self, x, x.shape.rank, self.channels)
        # The fused kernel wants images; a vector is an image of one pixel.
        shape = tf.shape(x)
        images = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, self.channels])

        def normalise(is_training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                images,
                self.scale,
                self.offset,
                None if is_training else self.mean,
                None if is_training else self.variance,
                epsilon=BATCH_NORM_EPSILON,
                is_training=is_training,
            )
            if not is_training:
                return y, tf.identity(self.mean), tf.identity(self.variance)
            return (
                y,
                self.decay * self.mean + (1 - self.decay) * mean,
                self.decay * self.variance + (1 - self.decay) * variance,
            )

        if isinstance(training, bool):
            y, mean, variance = normalise(training)
        else:
            y, mean, variance = tf.cond(
                training, lambda: normalise(True), lambda: normalise(False)
            )
        y = y if x.shape.rank == 4 else tf.reshape(y, shape)
        return y, [(self.mean, mean), (self.variance, variance)]


def max_pool(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Maximum over size × size windows, no padding: [N, H, W, C] → [N, H', W', C]."""
    return tf.nn.max_pool2d(x, size, stride, "VALID")


def flatten(x: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] → [N, H·W·C]."""
    return tf.reshape(x, [-1, math.prod(x.shape[1:])])


def _dropout_draws(
    x: tf.Tensor, rate: float, training: Training, seed: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which elements stay (bool, the shape of x), and the rate in force (scalar)."""
    if seed is None:
        raise ValueError("dropout in training needs a seed: two integers for each step")
    # A fed False makes the rate 0, and both kinds of dropout the identity.
    rate = tf.where(training, rate, 0.0)
    return tf.random.stateless_uniform(tf.shape(x), seed) >= rate, rate


def dropout(
    x: tf.Tensor, rate: float, *, training: Training, seed: tf.Tensor | None
) -> tf.Tensor:
    """Zeroes each element with probability `rate` and scales up the others.

    Srivastava et al., "Dropout", 2014.

    Args:
      x: float32, any shape.
      rate: probability in [0, 1).
      training: False returns x as it is.
      seed: int32 [2]; the same seed gives the same mask. None will do when `rate`
        is 0 or `training` is a Python False.

    Raises:
      ValueError: a mask is to be drawn without a seed.
    """
    if rate == 0 or training is False:
        return x
    keep, rate = _dropout_draws(x, rate, training, seed)
    return tf.where(keep, x / (1 - rate), 0.0)


def alpha_dropout(
    x: tf.Tensor, rate: float, *, training: Training, seed: tf.Tensor | None
) -> tf.Tensor:
    """Dropout that keeps mean 0 and variance 1, made for SELU.

    Elements are set to SELU's lower limit −scale · alpha rather than to 0, then all
    are mapped affinely: section "New Dropout Technique" of Klambauer et al. 2017.
    Args and errors as of `dropout`.
    """
    if rate == 0 or training is False:
        return x
    keep, rate = _dropout_draws(x, rate, training, seed)
    lowest = -SELU_SCALE * SELU_ALPHA
    a = tf.math.rsqrt((1 - rate) * (1 + rate * lowest**2))
    return a * tf.where(keep, x, lowest) - a * rate * lowest


def selu(x: tf.Tensor) -> tf.Tensor:
    """scale · x where x > 0, else scale · alpha · (eˣ − 1). Klambauer et al. 2017."""
    return tf.nn.selu(x)


# Increasing functions all, so each may be moved behind a max pool: see models.lenet.
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "elu": tf.nn.elu,
    "relu": tf.nn.relu,
    "selu": selu,
    "tanh": tf.nn.tanh,
}
DROPOUTS = {"alpha": alpha_dropout, "standard": dropout}
