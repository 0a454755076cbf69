# SPDX-License-Identifier: Apache-2.0
"""Layers with explicit variables: convolution, dense, dropout, pooling, activations.

Images are [N, H, W, C] and vectors [N, C], all float32. A layer with variables is a
small `tf.Module`; everything else is a function. `training` is either a Python bool,
which fixes the branch when the graph is traced, or a scalar bool tensor, an input of
the graph. The same code serves both. Batch norm is in `models.batch_norm`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Union

import tensorflow as tf

from system import errors

Training = Union[bool, tf.Tensor]
UpdateOps = list[tuple[tf.Variable, tf.Tensor]]  # (moving average, its next value)
Initialiser = Callable[[Sequence[int], Sequence[int]], tf.Tensor]  # (shape, seed) → w

# With these two, SELU has the fixed point mean 0, variance 1: equation 14 of
# Klambauer, Unterthiner, Mayr and Hochreiter, "Self-Normalizing Neural Networks", 2017.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def lecun_normal(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Normal weights of mean 0 and variance 1 / fan-in, float32 `shape`.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998. SELU needs exactly this
    variance to keep activations at mean 0 and variance 1. Keras' initialiser of the
    same name redraws weights beyond two standard deviations; this one does not. Fan-in
    is the product of all dimensions but the last.
    """
    fan_in = math.prod(shape[:-1])
    return tf.random.stateless_normal(shape, seed) / math.sqrt(fan_in)


def glorot_uniform(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Uniform weights of mean 0 and variance 2 / (fan-in + fan-out), float32 `shape`.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010, equation 16: limits ±√(6 / (fan-in + fan-out)). This is Keras'
    default, so we take it for every write-up that names no initialiser. The receptive
    field, height · width, multiplies both fans.
    """
    *field, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(field) * (inputs + outputs)))
    return tf.random.stateless_uniform(shape, seed, -limit, limit)


def he_normal(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Normal weights of mean 0 and variance 2 / fan-in, for ReLU, float32 `shape`.

    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", 2015.
    """
    return math.sqrt(2) * lecun_normal(shape, seed)


def count_parameters(network: tf.Module) -> int:
    """Number of trainable weights."""
    return sum(v.shape.num_elements() for v in network.trainable_variables)


def scale_pixels(network: tf.Module, images: tf.Tensor) -> tf.Tensor:
    """uint8 images [N, 28, 28, 1] → float32 of the same shape, 0 to 1.

    Every network starts with it, so training, evaluation and export cannot disagree.
    Arrays are taken, too. Raises ValueError for another dtype or shape.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8 or images.shape[1:] != [28, 28, 1]:
        raise ValueError(
            f"{type(network).__name__} takes uint8 images [N, 28, 28, 1] and was given"
            f" {images.dtype.name} {images.shape.as_list()}"
        )
    return tf.cast(images, tf.float32) / 255.0


# Fainter ink than this is as dark as the grain of the paper.
FAINTEST_INK = 0.05


def normalise_grey(x: tf.Tensor) -> tf.Tensor:
    """Makes the paper 0 and the darkest ink 1: float32 [N, 28, 28, 1] → the same.

    A network then reads a pencil as it reads a felt pen, and grey paper as white. The
    paper is the mean of the lightest of the four edges, which are two pixels wide, so
    that ink at one edge does no harm, and noise averages out. The darkest ink is the
    largest mean of 2 × 2 pixels, which one dark speck does not decide. MNIST's own
    digits hardly change: they are black on white already.
    """
    edges = (x[:, :2], x[:, -2:], x[:, :, :2], x[:, :, -2:])
    means = [tf.reduce_mean(edge, [1, 2, 3], keepdims=True) for edge in edges]
    ink = tf.nn.relu(x - functools.reduce(tf.minimum, means))
    darkest = tf.reduce_max(tf.nn.avg_pool2d(ink, 2, 1, "VALID"), [1, 2, 3], True)
    return ink / tf.maximum(darkest, FAINTEST_INK)


def check_input(
    layer: tf.Module, x: tf.Tensor, rank: int, size: int, axis: int = -1
) -> None:
    """Raises ValueError unless x has this rank, and this size along the axis."""
    if x.shape.rank != rank or x.shape[axis] != size:
        wanted = ["…"] * rank
        wanted[axis] = str(size)
        raise ValueError(
            f"{layer.name} was built for [{', '.join(wanted)}] and was given"
            f" {x.shape.as_list()}"
        )


def add_bias(x: tf.Tensor, b: tf.Variable | None) -> tf.Tensor:
    """Returns x [..., C] plus bias b [C], or x if b is None."""
    return x if b is None else tf.nn.bias_add(x, b)


class Conv(tf.Module):
    """Convolution, [N, H, W, inputs] → [N, H', W', outputs].

    Args:
      inputs, outputs: numbers of channels.
      size: height and width of the kernel, in pixels.
      seed: two integers for `init`.
      init: returns the initial kernel, given shape and seed; biases start at 0.
      bias: whether to add a bias; batch norm right after the layer makes it redundant.
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
    def apply_weights(self, x: tf.Tensor) -> tf.Tensor:
        """Convolution without the bias, for LeNet, which pools before it adds that."""
        check_input(self, x, 4, self.inputs)
        return tf.nn.conv2d(x, self.w, strides=1, padding=self.padding)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return add_bias(self.apply_weights(x), self.b)


class Dense(tf.Module):
    """Fully connected layer, [N, inputs] → [N, outputs]. Same args as `Conv`."""

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
    def apply_weights(self, x: tf.Tensor) -> tf.Tensor:
        """Product with the weights, without the bias."""
        check_input(self, x, 2, self.inputs)
        return tf.matmul(x, self.w)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return add_bias(self.apply_weights(x), self.b)


def max_pool(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Maximum over size × size windows, no padding: [N, H, W, C] → [N, H', W', C]."""
    return tf.nn.max_pool2d(x, size, stride, "VALID")


def mean_over_places(x: tf.Tensor) -> tf.Tensor:
    """Mean of each channel: [N, H, W, C] → [N, C]. Lin, Chen and Yan 2014."""
    return tf.reduce_mean(x, [1, 2])


def pad(x: tf.Tensor) -> tf.Tensor:
    """Adds a border of zeros, one pixel wide: [N, H, W, C] → [N, H + 2, W + 2, C]."""
    return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])


def flatten(x: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] → [N, H·W·C]."""
    return tf.reshape(x, [-1, math.prod(x.shape[1:])])


# Each element draws 16 random bits, so the rate is rounded by up to 1 / 131,072. Above
# 0.999 that error would change the share kept, and with it the mean, by over 1 %.
MAX_DROPOUT = 0.999
DROPOUT_RANGE = f"a number in [0, {MAX_DROPOUT}]: 16 random bits hold no higher rate"


def check_rate(rate: float | None) -> None:
    """Raises UserError for a flag's value that is not in [0, `MAX_DROPOUT`]."""
    if rate is not None and not 0 <= rate <= MAX_DROPOUT:
        raise errors.UserError(f"expected {DROPOUT_RANGE}")


def check_dropout(rate: float) -> float:
    """Returns the rate; ValueError if it is outside [0, `MAX_DROPOUT`]."""
    if not 0 <= rate <= MAX_DROPOUT:  # written this way, it also rejects NaN
        raise ValueError(f"a dropout rate of {rate}: expected {DROPOUT_RANGE}")
    return rate


MASKS = 7  # all dropout masks of a step have lower numbers; see `mask_seed`


def mask_seed(seed: tf.Tensor | None, number: int) -> tf.Tensor | None:
    """Seed of one of a step's dropout masks; None if `seed` is None.

    `seed` is int32 [2], the run's seed and the step. A run has fewer than 2^28 steps,
    so the number goes into the bits above. Masks are numbered 1 to `MASKS` − 1; online
    augmentation has the number `MASKS`.
    """
    return None if seed is None else seed + [0, number << 28]


def _dropout_draws(
    x: tf.Tensor, rate: float, training: Training, seed: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which elements to keep (bool, shape of x) and the rate (scalar)."""
    if seed is None:
        raise ValueError("dropout in training needs a seed: two integers for each step")
    # Two elements share one random number: drawing is most of the cost of dropout.
    size = tf.size(x)
    numbers = tf.random.stateless_uniform(
        [(size + 1) // 2], seed, None, None, dtype=tf.uint32
    )
    draws = tf.reshape(tf.bitcast(numbers, tf.uint16), [-1])[:size]
    # A `training` tensor that is False sets the rate to 0: dropout does nothing.
    rate = tf.where(training, rate, 0.0)
    threshold = tf.cast(tf.round(rate * 2**16), tf.uint16)
    return tf.reshape(draws, tf.shape(x)) >= threshold, rate


def dropout(
    x: tf.Tensor, rate: float, *, training: Training, seed: tf.Tensor | None
) -> tf.Tensor:
    """Zeroes each element with probability `rate` and scales up the others.

    Srivastava et al., "Dropout", 2014.

    Args:
      x: float32, any shape.
      rate: probability, 0 to `MAX_DROPOUT`; any other raises ValueError.
      training: False returns x unchanged.
      seed: int32 [2]; the same seed gives the same mask. May be None if `rate` is 0 or
        `training` is a Python False.
    """
    if check_dropout(rate) == 0 or training is False:
        return x
    keep, rate = _dropout_draws(x, rate, training, seed)
    return tf.where(keep, x / (1 - rate), 0.0)


def alpha_dropout(
    x: tf.Tensor, rate: float, *, training: Training, seed: tf.Tensor | None
) -> tf.Tensor:
    """Dropout that keeps mean 0 and variance 1, made for SELU.

    Sets elements to SELU's lower limit −scale · alpha instead of 0, then applies one
    affine map to all: Klambauer et al. 2017, section "New Dropout Technique".
    Same args and errors as `dropout`.
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


# All of them increase, so a max pool may come before or after: see models.lenet. (Not
# with batch norm in between, whose scale may be negative.)
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "elu": tf.nn.elu,
    "relu": tf.nn.relu,
    "selu": selu,
    "tanh": tf.nn.tanh,
}
DROPOUTS = {"alpha": alpha_dropout, "standard": dropout}
