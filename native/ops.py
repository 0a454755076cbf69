# SPDX-License-Identifier: Apache-2.0
"""Operations in C++ for the training of LeNet-SELU and Conv6.

- `conv3x3`: convolution by Winograd's algorithm, with half the arithmetic or less;
- `conv3x3_pool`: the same with a max pool in one pass;
- `conv_pool`: convolution and max pool in one pass;
- `selu_norm`: bias, SELU and batch norm in few passes;
- `norm_relu`: batch norm and ReLU in few passes;
- `dropout`: random numbers, mask and product in one;
- `blur`: digits blurred, each by its own Gaussian, for online augmentation;
- `resample`: digits moved, rotated and deformed, for online augmentation;
- `adam`: weight decay, Adam and the weight average in one, for all weights;
- `conv_stack`, `selu_norm_fixed`: what predicts, without gradients.

Values and gradients are those of TensorFlow's operations, up to rounding. With layers
this small, TensorFlow spends most of its time on writing values that the next operation
reads back, and on a pool's gradient, three quarters of which are zeros.

`compile` builds a library from the sources when a run first needs it. Without a C++
compiler, or on a processor without AVX2, a run uses TensorFlow's operations and says
so. Predictions use ours only where they are compiled already, and exports never do.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from native import compile
from native.toolchain import NativeError


class Normalised(NamedTuple):
    """Output of `selu_norm` and `norm_relu`."""

    y: tf.Tensor  # float32, the shape of the input
    mean: tf.Tensor  # float32 [C], mean of the batch
    variance: tf.Tensor  # float32 [C], unbiased variance of the batch


def conv3x3(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """3×3 convolution of stride 1 with zero padding, by Winograd's algorithm.

    The mathematics are those of a direct convolution, but the last bits are not: values
    and gradients are off by up to 2e-6 of the largest one, a direct one's by half that.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.

    Args:
      x: float32 [N, H, W, inputs].
      w: float32 [3, 3, inputs, outputs].

    Returns:
      float32 [N, H, W, outputs].
    """
    return load().conv3x3(x=x, w=w, turned=False)


def conv3x3_pool(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """`conv3x3`, then 2×2 max pool of stride 2.

    Args:
      x: float32 [N, H, W, inputs], H and W even.
      w: float32 [3, 3, inputs, outputs].

    Returns:
      float32 [N, H / 2, W / 2, outputs]. The first of equal values in a window gets the
        gradient, as in TensorFlow.
    """
    return load().conv3x3_pool(x=x, w=w).y


def conv_pool(x: tf.Tensor, w: tf.Tensor, *, data: bool = False) -> tf.Tensor:
    """3×3 convolution with zero padding, then 3×3 max pool of stride 2.

    Args:
      x: float32 [N, H, W, inputs], H and W 3 or more.
      w: float32 [3, 3, inputs, outputs].
      data: whether `x` is input data; if so, it gets no gradient.

    Returns:
      float32 [N, (H − 1) // 2, (W − 1) // 2, outputs]. The first of equal values in a
        window gets the gradient, as in TensorFlow.
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
    """Batch norm of SELU(x + bias), with the batch's mean and variance.

    x is float32 [..., C]; bias, scale and offset are float32 [C].
    """
    result = load().selu_norm(
        x=x, bias=bias, scale=scale, offset=offset, epsilon=epsilon
    )
    return Normalised(result.y, result.mean, result.variance)


def norm_relu(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, *, epsilon: float
) -> Normalised:
    """ReLU of batch norm, with the batch's mean and variance.

    x is float32 [..., C]; scale and offset are float32 [C].
    """
    result = load().norm_relu(x=x, scale=scale, offset=offset, epsilon=epsilon)
    return Normalised(result.y, result.mean, result.variance)


class FixedNorm(NamedTuple):
    """Bias before SELU, and batch norm after it with its moving averages, [C] each."""

    bias: tf.Tensor
    scale: tf.Tensor
    offset: tf.Tensor
    mean: tf.Tensor
    variance: tf.Tensor


def selu_norm_fixed(x: tf.Tensor, norm: FixedNorm, *, epsilon: float) -> tf.Tensor:
    """Batch norm of SELU(x + bias) with moving averages; x is float32 [..., C]."""
    return load().selu_norm_fixed(x=x, **norm._asdict(), epsilon=epsilon)


def conv_stack(
    images: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    norms: Sequence[FixedNorm],
    *,
    epsilon: float,
) -> tf.Tensor:
    """`conv_pool`, then `selu_norm_fixed`, for each layer in turn.

    A few images go through all layers before the next few, so that what lies between
    two layers stays in the cache.

    Args:
      images: uint8 [N, H, W, inputs], which the operation scales to [0, 1].
      kernels: float32 [3, 3, inputs, outputs] of each layer.
      norms: of each layer.
      epsilon: added to the variances.

    Returns:
      float32 [N, H', W', outputs] of the last layer.
    """
    columns = {
        name: [getattr(norm, name) for norm in norms] for name in FixedNorm._fields
    }
    return load().conv_stack(images=images, w=kernels, **columns, epsilon=epsilon)


def dropout(x: tf.Tensor, rate: float, *, seed: tf.Tensor) -> tf.Tensor:
    """`models.layers.dropout` in training, with the same random numbers."""
    philox = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    return load().dropout(x=x, rate=rate, key=philox.key, counter=philox.counter).y


def blur(x: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Blurs images by Gaussians, with 0 beyond the border.

    Args:
      x: float32 [N, 28, 28, 1].
      sigma: standard deviation for each image, in pixels, float32 with N elements; an
        image with 0 stays as it is.

    Returns:
      float32 [N, 28, 28, 1].
    """
    return load().blur(x=x, sigma=sigma)


def resample(x: tf.Tensor, matrices: tf.Tensor, displacements: tf.Tensor) -> tf.Tensor:
    """Reads images at other places: `augment.online` without this operation.

    Args:
      x: uint8 [N, 28, 28, 1].
      matrices: float32 [N, 3, 3], as `augment.online.Affine` has them.
      displacements: float32 [N, 2, 28, 28], as `augment.online.Displacement` has them;
        or empty.

    Returns:
      uint8 [N, 28, 28, 1]: bilinear, rounded, 0 beyond the border.
    """
    return load().resample(x=x, matrices=matrices, displacements=displacements)


def adam(
    weights: Sequence[tf.Variable],
    m: Sequence[tf.Variable],
    v: Sequence[tf.Variable],
    gradients: Sequence[tf.Tensor],
    *,
    rate: tf.Tensor,
    factors: Sequence[float],
    beta1: float,
    beta2: float,
    epsilon: float,
    decays: Sequence[bool],
    shrink: tf.Tensor,
    averages: Sequence[tf.Variable] = (),
    approach: tf.Tensor | float = 0.0,
    threads: int = 1,
) -> tf.Tensor:
    """Applies weight decay and Adam to all weights, then updates their averages.

    For a weight w with gradient g, slots m and v, and average a:

        m ← β1 m + (1 − β1) g
        v ← β2 v + (1 − β2) g²
        w ← shrink · w − factor · rate · m / (√v + ε)
        a ← a + approach · (w − a)

    All are float32 and equal in number and shapes, but averages may be empty. The rate
    includes Adam's bias correction; each weight has a factor on it; shrink is 1 where
    `decays` is False. The bits do not depend on the number of threads. Returns the norm
    of each gradient, float32 [weights].
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
        factors=factors,
        decays=decays,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        threads=threads,
    )


def unsuited() -> str:
    """Why TensorFlow's operations are the better choice here; "" if they are not.

    Does not wait for the compiler, which may still fail: `missing` does.
    """
    if not compile.is_suited():
        return "no AVX2"
    try:
        compile.start()
    except NativeError as error:
        return str(error)
    return ""


def missing() -> str:
    """Why the operations cannot be loaded here; "" if they can."""
    try:
        load()
    except NativeError as error:
        return str(error)
    return ""


def compiled() -> bool:
    """Whether the operations are compiled already and can be loaded."""
    try:
        return compile.is_compiled() and not missing()
    except NativeError:
        return False


@tf.RegisterGradient("Conv3x3")
def _conv3x3_gradient(op: tf.Operation, dy: tf.Tensor) -> list[Any]:
    x, w = op.inputs
    dx = load().conv3x3(x=dy, w=w, turned=True)
    return [dx, load().conv3x3_weight_gradient(x=x, dy=dy)]


@tf.RegisterGradient("Conv3x3Pool")
def _conv3x3_pool_gradient(op: tf.Operation, dy: tf.Tensor, _: tf.Tensor) -> list[Any]:
    x, w = op.inputs
    return list(load().conv3x3_pool_gradient(dy=dy, where=op.outputs[1], x=x, w=w))


@tf.RegisterGradient("ConvPool")
def _conv_pool_gradient(op: tf.Operation, dy: tf.Tensor, _: tf.Tensor) -> list[Any]:
    x, w = op.inputs
    inputs = {"dy": dy, "where": op.outputs[1], "x": x, "w": w}
    if op.get_attr("data"):
        return [None, load().conv_pool_weight_gradient(**inputs)]
    return list(load().conv_pool_gradient(**inputs))


@tf.RegisterGradient("SeluNorm")
def _selu_norm_gradient(op: tf.Operation, dy: tf.Tensor, *_: tf.Tensor) -> list[Any]:
    _, _, scale, _ = op.inputs
    _, mean, _, z, inverse = op.outputs
    return list(
        load().selu_norm_gradient(dy=dy, z=z, mean=mean, inverse=inverse, scale=scale)
    )


@tf.RegisterGradient("NormRelu")
def _norm_relu_gradient(op: tf.Operation, dy: tf.Tensor, *_: tf.Tensor) -> list[Any]:
    x, scale, offset = op.inputs
    _, mean, _, inverse = op.outputs
    return list(
        load().norm_relu_gradient(
            dy=dy, x=x, mean=mean, inverse=inverse, scale=scale, offset=offset
        )
    )


@tf.RegisterGradient("Dropout")
def _dropout_gradient(op: tf.Operation, dy: tf.Tensor, _: tf.Tensor) -> list[Any]:
    rate, keep = op.get_attr("rate"), op.outputs[1]
    return [load().dropout_gradient(dy=dy, keep=keep, rate=rate), None, None]


@functools.cache
def load() -> Any:
    """Loads the compiled operations; compiles them first if necessary.

    Raises:
      NativeError: there is no compiler, it fails, or the library cannot be loaded.
    """
    path = compile.library()
    try:
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        reason = str(getattr(error, "message", error)).splitlines()[0]
        raise NativeError(f"{path} cannot be loaded ({reason}): delete it") from None
