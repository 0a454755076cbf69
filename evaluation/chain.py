# SPDX-License-Identifier: Apache-2.0
"""A network as a list of operations that can be replaced one by one.

`read` extracts the list from the network's graph. The networks of `models` are chains:
the inputs of each operation are the output of the one before it, and constants.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from models import layers
from system import errors

_ONE, _ZERO = np.ones((), np.float32), np.zeros((), np.float32)


class ExportError(errors.UserError):
    """A network cannot be exported, or not to that place."""


class Affine(NamedTuple):
    """x · scale + offset: batch norm. Shapes [], [C] or, of rows, [H, 1, 1]."""

    scale: np.ndarray
    offset: np.ndarray

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.scale + self.offset


class Linear(NamedTuple):
    """A convolution, w [h, w, inputs, outputs], or a dense layer, [inputs, outputs].

    A dense layer flattens its input.
    """

    w: np.ndarray
    b: np.ndarray
    padding: str = "VALID"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if self.w.ndim == 4:
            x = tf.nn.conv2d(x, self.w, 1, self.padding)
        else:
            x = tf.matmul(layers.flatten(x) if x.shape.rank > 2 else x, self.w)
        return tf.nn.bias_add(x, self.b)

    def then(self, scale: np.ndarray, offset: np.ndarray = _ZERO) -> "Linear":
        """The layer with its output · scale + offset, of shapes [] or [outputs]."""
        return self._replace(w=self.w * scale, b=self.b * scale + offset)

    def after(self, scale: np.ndarray, offset: np.ndarray | None = None) -> "Linear":
        """The layer with its input · scale + offset, of shapes [channels].

        A convolution that pads takes no offset, because its padding stays 0.
        """
        pixels = self.w.shape[-2] // len(scale)  # which a dense layer flattens
        b = self.b
        if offset is not None:
            b = b + np.tile(offset, pixels) @ self.w
        return self._replace(w=self.w * np.tile(scale, pixels)[:, np.newaxis], b=b)


class Pool(NamedTuple):
    size: int
    stride: int

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return layers.max_pool(x, self.size, self.stride)


class Pad(NamedTuple):
    margins: np.ndarray

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, self.margins)


class Activation(NamedTuple):
    """A name in `layers.ACTIVATIONS`."""

    name: str

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return layers.ACTIVATIONS[self.name](x)


Step = Any  # one of the above, or another function of a tensor
Value = Callable[[int], np.ndarray]  # an operation's constant inputs, by number


def run(steps: Sequence[Step], x: tf.Tensor) -> tf.Tensor:
    """Output of a chain."""
    for step in steps:
        x = step(x)
    return x


def read(network: tf.Module) -> list[Step]:
    """A network as a chain: float32 images [N, 28, 28, 1], 0 to 255 → logits [N, 10].

    Raises ExportError if the network is not a chain, or has an unknown operation.
    """
    graph = tf.compat.v1.wrap_function(
        lambda images: network(images, training=False)[0],
        [tf.TensorSpec([None, 28, 28, 1], tf.uint8)],
    )
    cast = next(op for op in graph.graph.get_operations() if op.type == "Cast")
    x = cast.outputs[0]
    steps: list[Step] = []
    while consumers := [o for o in x.consumers() if o.type not in ("Shape", "Size")]:
        op = consumers[0]
        if op.type not in _READERS or len(consumers) > 1:
            raise ExportError(
                "it needs a chain of known operations, and"
                f" {op.name} ({op.type}) is not part of one"
            )
        others = [tensor for tensor in op.inputs if tensor is not x]
        steps += _READERS[op.type](op, lambda i: graph.prune([], others[i])().numpy())
        x = op.outputs[0]
    return _fuse(steps)


def _batch_norm(op: tf.Operation, value: Value) -> list[Step]:
    scale, offset, mean, variance = map(value, range(4))
    scale = scale / np.sqrt(variance + op.get_attr("epsilon"))
    return [Affine(scale, offset - mean * scale)]


def _linear(op: tf.Operation, value: Value) -> list[Step]:
    w = value(0)
    padding = op.get_attr("padding").decode() if w.ndim == 4 else "VALID"
    return [Linear(w, np.zeros(w.shape[-1], np.float32), padding)]


def _pool(op: tf.Operation, value: Value) -> list[Step]:
    return [Pool(op.get_attr("ksize")[1], op.get_attr("strides")[1])]


_READERS: dict[str, Callable[[tf.Operation, Value], list[Step]]] = {
    "AddV2": lambda op, value: [Affine(_ONE, value(0))],
    "BiasAdd": lambda op, value: [Affine(_ONE, value(0))],
    "Conv2D": _linear,
    "Elu": lambda op, value: [Activation("elu")],
    "FusedBatchNormV3": _batch_norm,
    "Identity": lambda op, value: [],
    "MatMul": _linear,
    "MaxPool": _pool,
    "Mul": lambda op, value: [Affine(value(0), _ZERO)],
    "Pad": lambda op, value: [Pad(value(0))],
    "RealDiv": lambda op, value: [Affine(1 / value(0), _ZERO)],
    "Relu": lambda op, value: [Activation("relu")],
    "Reshape": lambda op, value: [],
    "Selu": lambda op, value: [Activation("selu")],
    "Tanh": lambda op, value: [Activation("tanh")],
}


def _fuse(steps: Sequence[Step]) -> list[Step]:
    """Folds each bias and batch norm into the operation before it, if possible."""
    fused: list[Step] = []
    for step in steps:
        if not isinstance(step, Affine):
            fused.append(step)
            continue
        before = len(fused) - 1
        # A positive scale and an offset commute with max pooling.
        while before > 0 and isinstance(fused[before], Pool) and np.all(step.scale > 0):
            before -= 1
        layer = fused[before] if fused else None
        if isinstance(layer, Linear) and max(v.ndim for v in step) < 2:
            fused[before] = layer.then(*step)
        elif fused and isinstance(fused[-1], Affine):
            scale, offset = fused.pop()
            fused.append(Affine(scale * step.scale, offset * step.scale + step.offset))
        else:
            fused.append(step)
    # The division of the pixels by 255 goes into the first weights.
    pixels, first, *rest = fused
    return [first.after(np.full(first.w.shape[-2], pixels.scale)), *rest]
