# SPDX-License-Identifier: Apache-2.0
"""Layers of a network: name, output shape and variables of each, whatever its class."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from models.batch_norm import BatchNorm
from system import errors


class Layer(NamedTuple):
    """A layer with its batch norm, if it has one.

    Attributes:
      name: attribute of the network, such as "conv1".
      shape: output for one image, after activation, pool and batch norm.
      weights: trainable variables.
      averages: moving averages of its batch norm.
      owners: modules that own its variables.
    """

    name: str
    shape: tuple[int, ...]
    weights: tuple[tf.Variable, ...]
    averages: tuple[tf.Variable, ...]
    owners: tuple[tf.Module, ...]

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(w.shape.num_elements() for w in self.weights)

    @property
    def kind(self) -> str:
        """Names of the classes that own its variables, such as "Conv, BatchNorm"."""
        return ", ".join(type(owner).__name__ for owner in self.owners)


def layers(network: tf.Module) -> list[Layer]:
    """Layers of a network of `models.NETWORKS`, in the order of its forward pass.

    We show it a blank image. The layers are what it puts into `taps`; a layer owns the
    variables that its output depends on and that of no layer before it does.
    """
    taps: dict[str, tf.Tensor] = {}
    with tf.GradientTape(persistent=True) as tape:
        network(tf.zeros([1, 28, 28, 1], tf.uint8), training=False, taps=taps)
    owners = [m for m in (network, *network.submodules) if _own(m)]
    found = []
    for name, output in taps.items():
        used = [m for m in owners if _reaches(tape, m, output)]
        owners = [m for m in owners if m not in used]
        variables = [v for m in used for v in _own(m)]
        found.append(
            Layer(
                name,
                tuple(output.shape[1:]),
                tuple(v for v in variables if v.trainable),
                tuple(v for v in variables if not v.trainable),
                tuple(used),
            )
        )
    return found


def _own(module: tf.Module) -> list[tf.Variable]:
    """Variables that are attributes of a module itself, not of modules in it."""
    return [v for v in vars(module).values() if isinstance(v, tf.Variable)]


def _reaches(tape: tf.GradientTape, module: tf.Module, output: tf.Tensor) -> bool:
    """Whether an output depends on a module's weights."""
    weights = [v for v in _own(module) if v.trainable]
    return any(g is not None for g in tape.gradient(output, weights))


def freeze(network: tf.Module, names: Sequence[str]) -> list[tf.Variable]:
    """Freezes layers of a network; returns the weights that are left to train.

    A frozen batch norm uses its averages in training, too, and so is the same function
    in training and evaluation; Keras does the same.

    Raises:
      UserError: the network has no such layer, or no other.
    """
    if not names:
        return list(network.trainable_variables)
    found = {layer.name: layer for layer in layers(network)}
    for name in names:
        if name not in found:
            raise errors.UserError(
                f"--freeze={name}: the network has no such layer; it has"
                f" {', '.join(found)}"
            )
    if set(found) == set(names):
        raise errors.UserError("--freeze names all layers: leave one to be trained")
    for owner in (owner for name in names for owner in found[name].owners):
        if isinstance(owner, BatchNorm):
            owner.frozen = True
    frozen = {v.ref() for name in names for v in found[name].weights}
    return [v for v in network.trainable_variables if v.ref() not in frozen]


def ends(network: tf.Module) -> list[tf.Variable]:
    """Kernels of the first and of the last layer, in the order of the forward pass."""
    kernels = [
        [w for w in layer.weights if w.shape.rank > 1] for layer in layers(network)
    ]
    kernels = [of_layer for of_layer in kernels if of_layer]
    return kernels[0] + kernels[-1]
