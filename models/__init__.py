# SPDX-License-Identifier: Apache-2.0
"""Networks by name. To add one, add a file here and a line in `NETWORKS`.

The contract: a network is a `tf.Module` that creates its variables in `__init__`. Its
arguments are keyword-only, have defaults, and are named like their flags, except for
`classes`, their number, which the dataset decides; one is `seed`. It is called as
`network(images, training=…, seed=…, taps=…)`:

- images: uint8 [N, 28, 28, 1]; anything else raises ValueError.
- training: Python bool or scalar bool tensor; switches batch norm and dropout.
- seed: int32 [2], seed of this step's dropout masks; only training needs it.
- taps: dict that the call fills with the output of each layer, after activation, pool
  and batch norm, under the layer's attribute name; in order, "logits" last.

It returns `(logits, update_ops)`: logits float32 [N, classes], and a list that pairs
each moving average with its next value. A call changes no variable.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import flags

from models.bn_cnn import BNCNN
from models.conv6 import Conv6
from models.double_conv import DoubleConv
from models.lenet import LeNet
from models.mlp import MLP
from system import cli

__all__ = [
    "NETWORKS",
    "OPTIONS",
    "build",
    "options",
]

NETWORKS: dict[str, type[tf.Module]] = {
    "bn_cnn": BNCNN,
    "conv6": Conv6,
    "double_conv": DoubleConv,
    "lenet": LeNet,
    "mlp": MLP,
}

# Flags that are arguments of a network, under the same name.
OPTIONS = tuple(
    sorted(
        {
            p
            for network in NETWORKS.values()
            for p in inspect.signature(network).parameters
        }
        - {"classes"}
    )
)

# Ten times what anyone trains on a CPU; larger networks do not fit in memory.
MAX_WIDTH = 64
MAX_UNITS = 16_384


class UnitsParser(flags.ArgumentParser):
    """Parses comma-separated integers, such as "150,100", into a list."""

    syntactic_help = f"comma-separated whole numbers above 0, up to {MAX_UNITS:,}"

    def parse(self, argument: str | list[int]) -> list[int]:
        if isinstance(argument, list):  # absl passes the default unparsed
            return argument
        words = argument.split(",") if argument else []
        sizes = [int(w) if re.fullmatch("[0-9]{1,9}", w) else 0 for w in words]
        if not all(0 < size <= MAX_UNITS for size in sizes):
            raise ValueError(
                "expected whole numbers above 0, such as 150,100, and none above"
                f" {MAX_UNITS:,}"
            )
        return sizes


def options(network: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a network of `NETWORKS` out of the settings of a run.

    The network's default replaces a missing option or None. Raises UsageError if an
    option belongs to other networks only.
    """
    return cli.options([NETWORKS[network]], OPTIONS, settings, f"--network={network}")


def build(network: str, classes: int = 10, **settings: Any) -> tf.Module:
    """Builds a network with initial weights; settings as of `options`."""
    return NETWORKS[network](classes=classes, **options(network, settings))
