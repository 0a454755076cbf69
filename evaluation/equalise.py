# SPDX-License-Identifier: Apache-2.0
"""Rewrites a network as operations that lose little accuracy in 8 bits.

TensorFlow Lite has one scale of 256 steps for all channels of an activation. Before
batch norm the channels differ tenfold, and batch norm multiplies the small ones by a
lot, and their rounding errors, too. So we write the network as another chain of
operations that computes the same function:

- Each channel of a convolution is divided by its largest value; the next weights,
  which have a scale for each channel, are multiplied by it. [1]
- SELU's two halves, x above 0 and eˣ below, come from a convolution each, so that each
  has all 256 steps. A 1×1 convolution, which sums in 32 bits, adds them and applies
  batch norm.
- Batch norm after a dense layer is folded into the next layer.
- The class comes from logits of its own, see `Ranking`.

We measure the remaining mean error on training digits and subtract it from the biases:
the background of a digit is rounded the same way everywhere, and that adds up. [1]

[1] Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight
Equalization and Bias Correction", 2019.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from evaluation import chain
from evaluation.chain import Activation, Affine, Linear, Pool, Step
from models import layers

# f(x) = above · relu(x) + below · (exp(min(x, 0)) − 1)
HALVES = {
    "elu": (1.0, 1.0),
    "selu": (layers.SELU_SCALE, layers.SELU_SCALE * layers.SELU_ALPHA),
}
DEEPEST = np.float32(6)  # e⁻⁶ is half a step of 256
# A channel is divided by at least this share of the largest value of all channels.
LEAST_SHARE = 1 / 64

# Quantises a chain to 8 bits: a function from images to its output, float32 [N, …].
Quantise = Callable[[Sequence[Step]], Callable[[np.ndarray], np.ndarray]]


class Channels(NamedTuple):
    """x · scale + offset, [C] each, as a convolution: its offset has 32 bits."""

    w: np.ndarray
    b: np.ndarray

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        w = self.w.reshape(1, 1, -1, 1)
        return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, w, [1] * 4, "VALID"), self.b)

    def then(self, scale: np.ndarray) -> "Channels":
        return Channels(self.w * scale, self.b * scale)


class Halves(NamedTuple):
    """relu(x) and exp(min(x, 0)) of a convolution, each 0 to 1: [N, H, W, 2 · outputs].

    `above` gives x over its largest value per channel, `below` gives x over `depths`:
    how far below 0 each channel gets. Pools come between convolution and activation.
    """

    above: Linear
    below: Linear
    depths: np.ndarray
    pools: tuple[Pool, ...]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        above = chain.run([self.above, tf.nn.relu, *self.pools], x)
        below = tf.clip_by_value(self.below(x), -1, 1)
        below = chain.run(self.pools, below)
        multiply = Channels(self.depths, np.zeros_like(self.depths))
        return tf.concat([above, tf.exp(multiply(below - tf.nn.relu(below)))], -1)


class SumOfHalves(NamedTuple):
    """relu(x) + ratio · exp(min(x, 0)) after a dense layer.

    TensorFlow Lite has no SELU, and its ELU is in float. (min(x, 0) would keep the
    scale of its input, and then the table of eˣ overflows.)
    """

    ratio: np.float32

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        above = tf.nn.relu(x)
        return above + tf.exp(x - above) * self.ratio


def equalise(steps: Sequence[Step], images: np.ndarray) -> list[Step]:
    """Rewrites a chain from `chain.read` as one that computes the same function.

    Ranges are measured on the images, float32 [N, 28, 28, 1], 0 to 255.
    """
    rest, equalised = list(steps), []
    x = tf.constant(images)
    while rest:
        block = _next_block(rest, x)
        x = chain.run(block, x)
        equalised += block
    return equalised


def _next_block(rest: list[Step], x: tf.Tensor) -> list[Step]:
    """Takes a layer, its pools, activation and batch norm off `rest`, and rewrites it.

    The next layer, which stays in `rest`, is multiplied by what this one is divided by.
    """
    layer: Step = rest.pop(0)
    if not isinstance(layer, Linear):
        return [layer]
    pools = []
    while rest and isinstance(rest[0], Pool):
        pools.append(rest.pop(0))
    if not rest or not isinstance(rest[0], Activation):
        return [layer, *pools]
    activation = rest.pop(0)
    norm = rest.pop(0) if isinstance(rest[0], Affine) else None
    follower = next(i for i, step in enumerate(rest) if isinstance(step, Linear))
    if layer.w.ndim == 2:
        last, rest[0] = _dense(activation, norm, rest[follower])
        return [layer, last]
    if activation.name == "tanh" or norm and norm.scale.ndim > 1:  # of rows
        return [layer, *pools, activation, *([norm] if norm else [])]
    if activation.name == "relu":
        block = _relu(layer, pools, norm, x)
    else:
        block = _halves(layer, pools, HALVES[activation.name], norm, x)
    if not isinstance(block[-1], Activation):
        largest = _largest(abs(chain.run(block, x)))
        block[-1] = block[-1].then(1 / largest)
    else:
        largest = _largest(chain.run([layer, *pools, activation], x))
    rest[follower] = rest[follower].after(largest)
    return block


def _dense(
    activation: Activation, norm: Affine | None, follower: Linear
) -> tuple[Step, Linear]:
    """The activation of a dense layer, and the next layer with its batch norm.

    All units share one scale: many are seldom above 0, and a few hundred digits are too
    few to measure the range of each.
    """
    inputs = np.ones(follower.w.shape[0], np.float32)
    scale, offset = norm or Affine(inputs, 0 * inputs)
    if activation.name not in HALVES:
        return activation, follower.after(scale, offset)
    above, below = HALVES[activation.name]
    follower = follower.after(above * scale, offset - below * scale)
    return SumOfHalves(np.float32(below / above)), follower


def _relu(
    conv: Linear, pools: list[Pool], norm: Affine | None, x: tf.Tensor
) -> list[Step]:
    """A convolution with ReLU, 0 to 1, and its batch norm."""
    largest = _largest(chain.run([conv, *pools], x))
    block = [conv.then(1 / largest), *pools, Activation("relu")]
    return [*block, Channels(norm.scale * largest, norm.offset)] if norm else block


def _halves(
    conv: Linear,
    pools: list[Pool],
    factors: tuple[float, float],
    norm: Affine | None,
    x: tf.Tensor,
) -> list[Step]:
    """A convolution with SELU in two halves, and their sum with batch norm."""
    above, below = factors
    x = chain.run([conv, *pools], x)
    largest = _largest(x)
    depths = np.minimum(_largest(-x), DEEPEST)
    ones = np.ones_like(depths)
    scale, offset = norm or Affine(ones, 0 * ones)
    w = np.concatenate([np.diag(above * scale * largest), np.diag(below * scale)])
    return [
        Halves(conv.then(1 / largest), conv.then(1 / depths), depths, tuple(pools)),
        Linear(w[np.newaxis, np.newaxis], offset - below * scale),
    ]


def _largest(x: tf.Tensor) -> np.ndarray:
    """The largest value of each channel, but large enough to divide by."""
    largest = tf.reduce_max(x, list(range(len(x.shape) - 1))).numpy()
    return np.maximum(largest, max(LEAST_SHARE * largest.max(), 1e-6))


def correct(
    steps: Sequence[Step], images: np.ndarray, quantise: Quantise
) -> list[Step]:
    """Subtracts the mean error of 8 bits from the bias of each layer, in order.

    It is measured on the images, float32 [N, 28, 28, 1], 0 to 255.
    """
    x = tf.constant(images)
    corrected = list(steps)
    for number, step in enumerate(steps):
        x = step(x)
        follower = steps[number + 1] if number + 1 < len(steps) else None
        # A layer with ReLU is one operation: it has no output before ReLU.
        if not isinstance(step, (Channels, Linear)) or isinstance(follower, Activation):
            continue
        error = quantise(corrected[: number + 1])(images) - x.numpy()
        mean = error.reshape(-1, error.shape[-1]).mean(0)
        corrected[number] = step._replace(b=step.b - mean)
    return corrected


class Ranking(NamedTuple):
    """Logits clipped to 0 to 6, to find the largest.

    Logits range from -50 to 30, so one step of 256 is too coarse to tell close ones
    apart. Minus their mean over the classes, which keeps their order, the largest is
    above 0, and we clip all that is below 0 or above the range of the second largest.
    """

    logits: Linear

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu6(self.logits(x))


def ranking(steps: Sequence[Step], images: np.ndarray) -> Ranking:
    """The step that ranks the classes, in place of the last one, the logits.

    Ranges are measured on the images, float32 [N, 28, 28, 1], 0 to 255.
    """
    last = steps[-1]
    centred = Linear(last.w - last.w.mean(1, keepdims=True), last.b - last.b.mean())
    logits = np.sort(chain.run([*steps[:-1], centred], tf.constant(images)), 1)
    # Twice that, because other digits may go further.
    reach = np.maximum(2 * logits[:, -2].max(keepdims=True), 1e-6)
    return Ranking(centred.then(np.float32(6) / reach))
