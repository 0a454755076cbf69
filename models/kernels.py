# SPDX-License-Identifier: Apache-2.0
"""The parts of a network that `native.ops` can compute faster.

Each function gives the same result with TensorFlow's operations and with ours, up to
rounding. TensorFlow's are used wherever ours do not support the settings.

A network that trains with ours predicts with ours within `predicting`, and elsewhere
with TensorFlow's: an export must run on other machines.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from models import layers
from models.batch_norm import BatchNorm
from native import ops

KERNELS = ("native", "tensorflow")
MIN_CHANNELS = 16  # of input and output; with fewer, `ops.conv3x3` is no faster

# What the networks traced here predict: "", "any" number of images, or "many".
_predicting = contextvars.ContextVar("predicting", default="")


@contextlib.contextmanager
def predicting(*, many: bool = False) -> Iterator[None]:
    """Lets the networks that are traced within predict with our operations.

    They do if they train with them, and if the operations are compiled already: nobody
    waits for the compiler to see a score. Only for graphs that stay in this process.

    Args:
      many: whether only large batches will be predicted. Then 3×3 convolutions, too,
        are ours; they transform their kernels at each call.
    """
    token = _predicting.set("many" if many else "any")
    try:
        yield
    finally:
        _predicting.reset(token)


def predicts(native: bool, training: layers.Training, *, many: bool = False) -> bool:
    """Whether a network that trains with ours (`native`) predicts with ours here.

    `many` if that pays for large batches only.
    """
    here = _predicting.get()
    wanted = here == "many" if many else here != ""
    return native and training is False and wanted and ops.compiled()


def conv3x3(
    x: tf.Tensor, layer: tf.Module, *, pool: bool = False, native: bool
) -> tf.Tensor:
    """Applies a layer of stride 1 with "SAME" padding to float32 [N, H, W, C].

    A 2×2 max pool of stride 2 may follow. Ours computes it if the layer is a 3×3
    `layers.Conv` without bias and has enough channels.
    """
    ours = native and isinstance(layer, layers.Conv)
    ours = ours and min(layer.w.shape[2:]) >= MIN_CHANNELS
    if ours and pool and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return ops.conv3x3_pool(x, layer.w)
    x = ops.conv3x3(x, layer.w) if ours else layer(x)
    return layers.max_pool(x, 2, 2) if pool else x


def conv_pool(
    x: tf.Tensor, conv: layers.Conv, *, is_data: bool, native: bool
) -> tf.Tensor:
    """Convolution without bias, then 3×3 max pool of stride 2, of float32 [N, H, W, C].

    The kernel is 3×3, with "SAME" padding. If x is data, nobody needs its gradient.
    """
    if native:
        return ops.conv_pool(x, conv.w, data=is_data)
    return layers.max_pool(conv.apply_weights(x), 3, 2)


def activate(
    x: tf.Tensor,
    bias: tf.Variable | None,
    activation: Callable[[tf.Tensor], tf.Tensor],
    norm: BatchNorm | None,
    *,
    training: layers.Training,
    native: bool,
) -> tuple[tf.Tensor, layers.UpdateOps]:
    """Bias, activation, then batch norm: returns the output and the update_ops."""
    if native and activation is layers.selu and norm is not None:
        if training is False:
            fixed = _fixed(bias, norm)
            return ops.selu_norm_fixed(x, fixed, epsilon=norm.epsilon), []
        if not (norm.sync or norm.frozen):
            x, mean, variance = ops.selu_norm(
                x, bias, norm.scale, norm.offset, epsilon=norm.epsilon
            )
            return x, norm.updates(mean, variance)
    x = activation(layers.add_bias(x, bias))
    return (x, []) if norm is None else norm(x, training=training)


def normalise(
    x: tf.Tensor,
    norm: BatchNorm,
    activation: Callable[[tf.Tensor], tf.Tensor],
    *,
    training: layers.Training,
    native: bool,
) -> tuple[tf.Tensor, layers.UpdateOps]:
    """Batch norm of channels, then activation: returns the output and update_ops."""
    if native and activation is tf.nn.relu and training is True:
        if not (norm.sync or norm.frozen):
            x, mean, variance = ops.norm_relu(
                x, norm.scale, norm.offset, epsilon=norm.epsilon
            )
            return x, norm.updates(mean, variance)
    x, update_ops = norm(x, training=training)
    return activation(x), update_ops


def conv_stack(
    images: tf.Tensor,
    convs: Sequence[layers.Conv],
    norms: Sequence[BatchNorm],
) -> tf.Tensor:
    """Predicts by layers of convolution, 3×3 max pool of stride 2, bias, SELU and norm.

    images are uint8 [N, H, W, C], to be scaled to [0, 1].
    """
    return ops.conv_stack(
        images,
        [conv.w for conv in convs],
        [_fixed(conv.b, norm) for conv, norm in zip(convs, norms, strict=True)],
        epsilon=norms[0].epsilon,
    )


def _fixed(bias: tf.Variable, norm: BatchNorm) -> ops.FixedNorm:
    return ops.FixedNorm(bias, norm.scale, norm.offset, norm.mean, norm.variance)


def dropout(
    x: tf.Tensor,
    kind: Callable[..., tf.Tensor],
    rate: float,
    *,
    training: layers.Training,
    seed: tf.Tensor | None,
    native: bool,
) -> tf.Tensor:
    """Dropout of a kind in `layers.DROPOUTS`; see `layers.dropout`."""
    if native and training is True and kind is layers.dropout and rate > 0:
        return ops.dropout(x, rate, seed=seed)
    return kind(x, rate, training=training, seed=seed)
