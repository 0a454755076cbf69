# SPDX-License-Identifier: Apache-2.0
"""Multilayer perceptrons: dense layers only. System C."""

from collections.abc import Sequence

import tensorflow as tf

from models import layers

# Published networks: (784 + 1) · a + (a + 1) · b + … + (… + 1) · 10
PARAMETERS = {(64,): 50_890, (300,): 238_510, (150, 100): 133_860}


class MLP(tf.Module):
    """uint8 images [N, 28, 28, 1] → float32 logits [N, classes].

    Args:
      seed: seed of the initial weights.
      classes: number of classes.
      activation: a name in `layers.ACTIVATIONS`.
      hidden_units: units of each hidden layer; empty for a linear classifier.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        classes: int = 10,
        activation: str = "relu",
        hidden_units: Sequence[int] = (64,),
    ):
        super().__init__("mlp")
        self.activation = layers.ACTIVATIONS[activation]
        self.hidden = [f"dense{number}" for number in range(1, len(hidden_units) + 1)]
        sizes = (784, *hidden_units, classes)
        with self.name_scope:
            for number, name in enumerate([*self.hidden, "logits"], 1):
                layer = layers.Dense(
                    *sizes[number - 1 : number + 1],
                    seed=(seed, -number),
                    init=layers.glorot_uniform,
                    name=name,
                )
                setattr(self, name, layer)

        if classes == 10:
            count = layers.count_parameters(self)
            assert count == PARAMETERS.get(tuple(hidden_units), count), count

    @tf.Module.with_name_scope
    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
        taps: dict[str, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images: see the contract in `models`.

        Training changes nothing: there is no dropout and there are no update_ops.
        """
        taps = {} if taps is None else taps

        x = layers.scale_pixels(self, images)  # [N, 28, 28, 1], in [0, 1]
        x = layers.flatten(x)  # [N, 784]
        for name in self.hidden:
            taps[name] = x = self.activation(getattr(self, name)(x))  # [N, units]
        taps["logits"] = x = self.logits(x)  # [N, classes]
        return x, []
