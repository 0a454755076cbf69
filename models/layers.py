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
Initialiser = Callable[[Sequence[int], Sequence[int]], tf.Tensor]

# The fixed point of SELU, equation 14 of Klambauer et al. 2017 (see `selu`).
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_AXES = (-1, 1)


def lecun_normal(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Normal weights of mean 0 and variance 1 / fan-in, float32 `shape`.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998. Self-normalising
    networks need exactly this variance: Klambauer, Unterthiner, Mayr and Hochreiter,
    "Self-Normalizing Neural Networks", 2017. Not truncated, where Keras' initialiser of
    the same name redraws what is beyond two standard deviations.

    Args:
      shape: of the kernel; all but the last dimension are inputs of one unit.
      seed: two integers; the same seed gives the same weights.
    """
    fan_in = math.prod(shape[:-1])
    return tf.random.stateless_normal(shape, seed) / math.sqrt(fan_in)


def glorot_uniform(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Uniform weights of mean 0 and variance 2 / (fan-in + fan-out), float32 `shape`.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", 2010, equation 16: limits ±√(6 / (fan-in + fan-out)). Keras'
    default, and so that of every write-up which names no other.

    Args:
      shape: of the kernel, [inputs, outputs] or [height, width, inputs, outputs]; the
        receptive field counts for both fans.
      seed: two integers; the same seed gives the same weights.
    """
    *field, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(field) * (inputs + outputs)))
    return tf.random.stateless_uniform(shape, seed, -limit, limit)


def count_parameters(network: tf.Module) -> int:
    """How many numbers training adjusts."""
    return sum(v.shape.num_elements() for v in network.trainable_variables)


def scale_pixels(network: tf.Module, images: tf.Tensor) -> tf.Tensor:
    """uint8 images [N, 28, 28, 1] → float32 of the same shape, 0 to 1.

    The first operation of every network, so that training, evaluation and export
    cannot disagree.

    Raises:
      ValueError: images of another dtype or shape; it names the network.
    """
    if images.dtype != tf.uint8 or images.shape[1:] != [28, 28, 1]:
        raise ValueError(
            f"{type(network).__name__} takes uint8 images [N, 28, 28, 1] and was given"
            f" {images.dtype.name} {images.shape.as_list()}"
        )
    return tf.cast(images, tf.float32) / 255.0


def _check_input(
    layer: tf.Module, x: tf.Tensor, rank: int, size: int, axis: int = -1
) -> None:
    if x.shape.rank != rank or x.shape[axis] != size:
        wanted = ["…"] * rank
        wanted[axis] = str(size)
        raise ValueError(
            f"{layer.name} was built for [{', '.join(wanted)}] and was given"
            f" {x.shape.as_list()}"
        )


def add_bias(x: tf.Tensor, b: tf.Variable | None) -> tf.Tensor:
    """x, of shape [..., C], plus b, of shape [C], if there is one."""
    return x if b is None else tf.nn.bias_add(x, b)


class Conv(tf.Module):
    """Convolution, [N, H, W, inputs] → [N, H', W', outputs].

    Args:
      inputs: channels in.
      outputs: maps out.
      size: height and width of the kernel, in pixels.
      seed: two integers for `init`.
      init: from shape and seed to the initial kernel; biases start at 0.
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
        init: Initialiser = lecun_normal,
        bias: bool = True,
        padding: str = "SAME",
        name: str = "conv",
    ):
        super().__init__(name)
        self.inputs = inputs
        self.padding = padding
        with self.name_scope:
            shape = [size, size, inputs, outputs]
            self.w = tf.Variable(init(shape, seed), name="w")
            self.b = tf.Variable(tf.zeros([outputs]), name="b") if bias else None

    @tf.Module.with_name_scope
    def weigh(self, x: tf.Tensor) -> tf.Tensor:
        """The convolution without its bias."""
        _check_input(self, x, 4, self.inputs)
        return tf.nn.conv2d(x, self.w, strides=1, padding=self.padding)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return add_bias(self.weigh(x), self.b)


class Dense(tf.Module):
    """Fully connected layer, [N, inputs] → [N, outputs]. Args as of `Conv`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        seed: Sequence[int],
        init: Initialiser = lecun_normal,
        bias: bool = True,
        name: str = "dense",
    ):
        super().__init__(name)
        self.inputs = inputs
        with self.name_scope:
            self.w = tf.Variable(init([inputs, outputs], seed), name="w")
            self.b = tf.Variable(tf.zeros([outputs]), name="b") if bias else None

    @tf.Module.with_name_scope
    def weigh(self, x: tf.Tensor) -> tf.Tensor:
        """The product with the weights, without the bias."""
        _check_input(self, x, 2, self.inputs)
        return tf.matmul(x, self.w)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return add_bias(self.weigh(x), self.b)


class BatchNorm(tf.Module):
    """Batch normalisation, over all axes but one: of images each channel, or each row.

    Ioffe and Szegedy, "Batch Normalization", 2015. In training it normalises with the
    batch's own mean and variance and returns, for each moving average, its next
    value: average ← decay · average + (1 − decay) · batch. Otherwise it normalises
    with the averages. A call changes no variable.

    The variance that normalises is the biased one, divided by the number n of values;
    the one that enters the average is unbiased, divided by n − 1. So on both axes.

    Args:
      channels: size of the axis that is kept.
      decay: of the moving averages, in [0, 1).
      axis: -1 takes [..., channels] and has a scale, offset, mean and variance per
        channel. 1 takes [N, channels, W, C] and has them per row: Keras' `axis=1`,
        meant for images whose channels come first, on images whose channels come last.
      epsilon: added to the variance.
      sync: whether the batch is that of all replicas of the `tf.distribute` strategy
        that a call is made under, not the replica's own part of it.
    """

    def __init__(
        self,
        channels: int,
        *,
        decay: float,
        axis: int = -1,
        epsilon: float = BATCH_NORM_EPSILON,
        sync: bool = False,
        name: str = "batch_norm",
    ):
        super().__init__(name)
        if axis not in BATCH_NORM_AXES:
            raise ValueError(f"{name}: axis must be -1 or 1, got {axis}")
        self.channels = channels
        self.decay = decay
        self.axis = axis
        self.epsilon = epsilon
        self.sync = sync
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
        rank = x.shape.rank if self.axis == -1 else 4
        _check_input(self, x, rank, self.channels, self.axis)
        # The fused kernel wants images; a vector is an image of one pixel.
        shape = tf.shape(x)
        images = x if rank == 4 else tf.reshape(x, [-1, 1, 1, self.channels])
        kernel = self._channels if self.axis == -1 else self._rows

        def normalise(is_training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            y, mean, variance = kernel(images, is_training)
            if not is_training:
                return y, tf.identity(self.mean), tf.identity(self.variance)
            (_, mean), (_, variance) = self.updates(mean, variance)
            return y, mean, variance

        if isinstance(training, bool):
            y, mean, variance = normalise(training)
        else:
            y, mean, variance = tf.cond(
                training, lambda: normalise(True), lambda: normalise(False)
            )
        y = y if rank == 4 else tf.reshape(y, shape)
        return y, [(self.mean, mean), (self.variance, variance)]

    def updates(self, mean: tf.Tensor, variance: tf.Tensor) -> UpdateOps:
        """Each moving average and its next value.

        Args:
          mean: float32 [channels], of a batch.
          variance: float32 [channels], unbiased.
        """
        decay = self.decay
        return [
            (self.mean, decay * self.mean + (1 - decay) * mean),
            (self.variance, decay * self.variance + (1 - decay) * variance),
        ]

    def _channels(
        self, x: tf.Tensor, is_training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalised [N, H, W, C], mean and, in training, unbiased variance [C]."""
        if is_training and self.sync:
            mean, variance, count = _moments_of_all(x, [0, 1, 2])
            y = tf.nn.batch_normalization(
                *(x, mean, variance, self.offset, self.scale, self.epsilon)
            )
            return y, mean, variance * count / tf.maximum(count - 1, 1)
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
        """Normalised [N, H, W, C], mean and, in training, unbiased variance [H]."""
        mean, variance = self.mean, self.variance
        count = tf.cast(tf.size(x) // self.channels, tf.float32)
        if is_training and self.sync:
            mean, variance, count = _moments_of_all(x, [0, 2, 3])
        elif is_training:
            mean, variance = tf.nn.moments(x, [0, 2, 3])
        by_row = [
            tf.reshape(v, [-1, 1, 1]) for v in (mean, variance, self.offset, self.scale)
        ]
        y = tf.nn.batch_normalization(x, *by_row, self.epsilon)
        return y, mean, variance * count / tf.maximum(count - 1, 1)


def _moments_of_all(
    x: tf.Tensor, axes: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean and biased variance [C] over all replicas, and the count they are of.

    Mean of variances + variance of means, with the replicas' shares as weights: the
    mean of squares less the square of the mean loses all digits at a large mean. Each
    replica fills its row of a table, which is added up over all: one exchange for what
    would be two, and one for the gradient, since that of a sum over replicas is the
    sum over replicas of the gradients.

    Args:
      x: float32 [N, H, W, C].
      axes: all but that of C.
    """
    replica = tf.distribute.get_replica_context()
    row = tf.stack(tf.nn.moments(x, axes))  # [2, C]
    count = tf.cast(tf.size(x) // row.shape[1], tf.float32)
    row = tf.concat([row, tf.fill([2, 1], count)], axis=1)  # [2, C + 1]
    mine = tf.one_hot(
        replica.replica_id_in_sync_group, replica.num_replicas_in_sync
    )  # [replicas]
    table = replica.all_reduce(
        tf.distribute.ReduceOp.SUM, mine[:, None, None] * row
    )  # [replicas, 2, C + 1]
    counts = tf.stop_gradient(table[:, 0, -1:])  # [replicas, 1]
    means, variances = table[:, 0, :-1], table[:, 1, :-1]  # [replicas, C] each
    count = tf.reduce_sum(counts)
    shares = counts / count
    mean = tf.reduce_sum(shares * means, axis=0)
    spread = variances + tf.square(means - mean)
    return mean, tf.reduce_sum(shares * spread, axis=0), count


def max_pool(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Maximum over size × size windows, no padding: [N, H, W, C] → [N, H', W', C]."""
    return tf.nn.max_pool2d(x, size, stride, "VALID")


def pad(x: tf.Tensor) -> tf.Tensor:
    """A margin of zeros, one pixel wide: [N, H, W, C] → [N, H + 2, W + 2, C]."""
    return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])


def flatten(x: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] → [N, H·W·C]."""
    return tf.reshape(x, [-1, math.prod(x.shape[1:])])


MASKS = 7
# Of dropout. Sixteen random bits decide on an element, so a rate is met to 1 / 131,072:
# close to 1 that would miss the share that is kept, and the mean, by over 1 %.
MAX_DROPOUT = 0.999
DROPOUT_RANGE = f"a number in [0, {MAX_DROPOUT}]: 16 random bits hold no higher rate"


def mask_seed(seed: tf.Tensor | None, number: int) -> tf.Tensor | None:
    """The seed of a step's dropout mask; None gives None.

    Args:
      seed: int32 [2], the run's and the step; no run has 2^28 steps.
      number: of the mask, 1 to `MASKS` − 1; what is from `MASKS` on is left to others.
    """
    return None if seed is None else seed + [0, number << 28]


def check_dropout(rate: float) -> float:
    """Returns a rate of dropout that can be drawn.

    Raises:
      ValueError: it is not in 0 to `MAX_DROPOUT`.
    """
    if not 0 <= rate <= MAX_DROPOUT:  # so written, it refuses NaN too
        raise ValueError(f"a dropout rate of {rate}: expected {DROPOUT_RANGE}")
    return rate


def _dropout_draws(
    x: tf.Tensor, rate: float, training: Training, seed: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which elements stay (bool, the shape of x), and the rate in force (scalar)."""
    if seed is None:
        raise ValueError("dropout in training needs a seed: two integers for each step")
    # Two elements to a random number: to draw is most of what dropout costs.
    size = tf.size(x)
    numbers = tf.random.stateless_uniform(
        [(size + 1) // 2], seed, None, None, dtype=tf.uint32
    )
    draws = tf.reshape(tf.bitcast(numbers, tf.uint16), [-1])[:size]
    # A fed False makes the rate 0, and both kinds of dropout the identity.
    rate = tf.where(training, rate, 0.0)
    least = tf.cast(tf.round(rate * 2**16), tf.uint16)
    return tf.reshape(draws, tf.shape(x)) >= least, rate


def dropout(
    x: tf.Tensor, rate: float, *, training: Training, seed: tf.Tensor | None
) -> tf.Tensor:
    """Zeroes each element with probability `rate` and scales up the others.

    Srivastava et al., "Dropout", 2014.

    Args:
      x: float32, any shape.
      rate: probability, 0 to `MAX_DROPOUT`.
      training: False returns x as it is.
      seed: int32 [2]; the same seed gives the same mask. None will do when `rate`
        is 0 or `training` is a Python False.

    Raises:
      ValueError: another rate, or a mask is to be drawn without a seed.
    """
    if check_dropout(rate) == 0 or training is False:
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
    if check_dropout(rate) == 0 or training is False:
        return x
    keep, rate = _dropout_draws(x, rate, training, seed)
    lowest = -SELU_SCALE * SELU_ALPHA
    a = tf.math.rsqrt((1 - rate) * (1 + rate * lowest**2))
    return a * tf.where(keep, x, lowest) - a * rate * lowest


def selu(x: tf.Tensor) -> tf.Tensor:
    """scale · x where x > 0, else scale · alpha · (eˣ − 1). Klambauer et al. 2017."""
    return tf.nn.selu(x)


# Increasing functions all, so that each may change places with a max pool: see
# models.lenet. Batch norm between the two forbids it: its scale may be negative.
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "elu": tf.nn.elu,
    "relu": tf.nn.relu,
    "selu": selu,
    "tanh": tf.nn.tanh,
}
DROPOUTS = {"alpha": alpha_dropout, "standard": dropout}
