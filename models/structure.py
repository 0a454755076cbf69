# SPDX-License-Identifier: Apache-2.0
"""Layers of a network: name, output shape and variables of each, whatever its class."""

from typing import NamedTuple

import tensorflow as tf


class Layer(NamedTuple):
    """A layer with its batch norm, if it has one.

    Attributes:
      name: attribute of the network, such as "conv1".
      kinds: names of the classes that own its variables, such as ("Conv", "BatchNorm").
      shape: output for one image, after activation, pool and batch norm.
      weights: trainable variables.
      averages: moving averages of its batch norm.
    """

    name: str
    kinds: tuple[str, ...]
    shape: tuple[int, ...]
    weights: tuple[tf.Variable, ...]
    averages: tuple[tf.Variable, ...]

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(w.shape.num_elements() for w in self.weights)


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
                tuple(type(m).__name__ for m in used),
                tuple(output.shape[1:]),
                tuple(v for v in variables if v.trainable),
                tuple(v for v in variables if not v.trainable),
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
