# SPDX-License-Identifier: Apache-2.0
"""The compiled operations, for the training of LeNet-SELU.

- `conv_pool`: convolution and max pool in one pass;
- `selu_norm`: bias, SELU and batch norm in another;
- `dropout`: random numbers, mask and product in a third;
- `adam`: weight decay, Adam and the average of all weights in a fourth.

They compute what TensorFlow's own operations do, to rounding, gradients included. On
layers this small those spend most of their time on writing down what the next one reads
again, and on the three quarters of a pool's gradient that are zero.

`compile` makes a library of the sources when a run first wants it. Where there is no
C++ compiler, or no AVX-512, without which they take twice as long as TensorFlow's, a
run takes those, and says so.
Only training uses these here: evaluation and export know nothing of them.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from native import compile
from native.compile import NativeError


class Normalised(NamedTuple):
    """Attributes:
    y: float32, the shape of the input.
    mean: float32 [C], of the batch.
    variance: float32 [C], unbiased.
    """

    y: tf.Tensor
    mean: tf.Tensor
    variance: tf.Tensor


def conv_pool(x: tf.Tensor, w: tf.Tensor, *, data: bool = False) -> tf.Tensor:
    """A 3×3 convolution padded with zeros, and the maximum over 3×3 windows, stride 2.

    Args:
      x: float32 [N, H, W, inputs], H and W 3 or more.
      w: float32 [3, 3, inputs, outputs].
      data: whether `x` is data, whose gradient nobody wants: there is none then.

    Returns:
      float32 [N, (H − 1) // 2, (W − 1) // 2, outputs]. Of equal values the first in a
      window gets the gradient, as TensorFlow has it.

    Raises:
      NativeError: the operations cannot be had here.
    """
    return load().conv_pool(x=x, w=w, data=data).y


def selu_norm(
    x: tf.Tensor,
    bias: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    *,
    epsilon: float,
) -> Normalised:
    """Batch norm, with the statistics of the batch, of SELU(x + bias).

    Args:
      x: float32 [..., C].
      bias, scale, offset: float32 [C].
      epsilon: added to the variance.

    Raises:
      NativeError: the operations cannot be had here.
    """
    result = load().selu_norm(
        x=x, bias=bias, scale=scale, offset=offset, epsilon=epsilon
    )
    return Normalised(result.y, result.mean, result.variance)


def dropout(x: tf.Tensor, rate: float, *, seed: tf.Tensor) -> tf.Tensor:
    """`models.layers.dropout` in training, of the same random numbers.

    Args:
      x: float32, any shape.
      rate: probability, 0 to 0.999.
      seed: int32 [2]; the same seed gives the same mask.

    Raises:
      NativeError: the operations cannot be had here.
    """
    drawn = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    at = {"key": drawn.key, "counter": drawn.counter}
    return load().dropout(x=x, rate=rate, **at).y


def adam(
    weights: Sequence[tf.Variable],
    m: Sequence[tf.Variable],
    v: Sequence[tf.Variable],
    gradients: Sequence[tf.Tensor],
    *,
    rate: tf.Tensor,
    beta1: float,
    beta2: float,
    epsilon: float,
    decays: Sequence[bool],
    shrink: tf.Tensor,
    averages: Sequence[tf.Variable] = (),
    approach: tf.Tensor | float = 0.0,
    threads: int = 1,
) -> tf.Tensor:
    """Adam on weights that first decay, and that have averages which then follow them.

    Of a weight w with gradient g, its slots m and v, and its average a:

        m ← β1 m + (1 − β1) g
        v ← β2 v + (1 − β2) g²
        w ← shrink · w − rate · m / (√v + ε)
        a ← a + approach · (w − a)

    Args:
      weights, m, v: float32 variables of one shape each; assigned to.
      gradients: float32, of the weights.
      rate: float32 scalar, with the correction of Adam's bias in it.
      beta1, beta2, epsilon: Adam's.
      decays: which of the weights decay; for the others shrink is 1.
      shrink: float32 scalar.
      averages: one for each weight, or none; assigned to.
      approach: float32 scalar, in [0, 1].
      threads: at most so many share the work. No bit depends on how many.

    Returns:
      float32 [weights], the norm of each gradient.

    Raises:
      NativeError: the operations cannot be had here.
    """
    return load().adam_update(
        weight=[w.handle for w in weights],
        m=[w.handle for w in m],
        v=[w.handle for w in v],
        average=[w.handle for w in averages],
        gradient=gradients,
        rate=rate,
        shrink=shrink,
        approach=approach,
        decays=decays,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        threads=threads,
    )


def unsuited() -> str:
    """Why TensorFlow's operations are the better choice here; "" if they are not.

    Does not wait for the compiler, which may fail yet: `missing` does.
    """
    if not compile.is_suited():
        return "no AVX-512"
    try:
        compile.start()
    except NativeError as error:
        return str(error)
    return ""


def missing() -> str:
    """Why the operations cannot be had here; "" if they can."""
    try:
        load()
    except NativeError as error:
        return str(error)
    return ""


@tf.RegisterGradient("ConvPool")
def _conv_pool_gradient(op: tf.Operation, dy: tf.Tensor, _: tf.Tensor) -> list[Any]:
    x, w = op.inputs
    at = {"dy": dy, "where": op.outputs[1], "x": x, "w": w}
    if op.get_attr("data"):
        return [None, load().conv_pool_weight_gradient(**at)]
    return list(load().conv_pool_gradient(**at))


@tf.RegisterGradient("SeluNorm")
def _selu_norm_gradient(op: tf.Operation, dy: tf.Tensor, *_: tf.Tensor) -> list[Any]:
    _, _, scale, _ = op.inputs
    _, mean, _, z, inverse = op.outputs
    return list(
        load().selu_norm_gradient(dy=dy, z=z, mean=mean, inverse=inverse, scale=scale)
    )


@tf.RegisterGradient("Dropout")
def _dropout_gradient(op: tf.Operation, dy: tf.Tensor, _: tf.Tensor) -> list[Any]:
    rate, keep = op.get_attr("rate"), op.outputs[1]
    return [load().dropout_gradient(dy=dy, keep=keep, rate=rate), None, None]


@functools.cache
def load() -> Any:
    """The compiled operations, loaded; compiled first, if need be.

    Raises:
      NativeError: no compiler, or one that fails.
    """
    path = compile.library()
    try:
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        reason = str(getattr(error, "message", error)).splitlines()[0]
        raise NativeError(f"{path} cannot be loaded ({reason}): delete it") from None
