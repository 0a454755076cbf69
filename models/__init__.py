# SPDX-License-Identifier: Apache-2.0
"""Networks by name. To add one, add a file here and a line in `NETWORKS`.

The contract: a network is a `tf.Module` that creates its variables in `__init__`. Its
arguments are keyword-only, have defaults, and are named like their flags; one is
`seed`. It is called as `network(images, training=…, seed=…, taps=…)`:

- images: uint8 [N, 28, 28, 1]; anything else raises ValueError.
- training: Python bool or scalar bool tensor; switches batch norm and dropout.
- seed: int32 [2], seed of this step's dropout masks; only training needs it.
- taps: dict that the call fills with the output of each layer, after activation, pool
  and batch norm, under the layer's attribute name; in order, "logits" last.

It returns `(logits, update_ops)`: logits float32 [N, 10], and a list that pairs each
moving average with its next value. A call changes no variable.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import flags

from models import batch_norm, kernels, layers, lenet
from models.bn_cnn import BNCNN
from models.double_conv import DoubleConv
from models.lenet import LeNet
from models.mlp import MLP
from system import cli

__all__ = [
    "NETWORKS",
    "OPTIONS",
    "build",
    "define_flags",
    "options",
]

NETWORKS: dict[str, type[tf.Module]] = {
    "bn_cnn": BNCNN,
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
    )
)

# Ten times what anyone trains on a CPU; larger networks do not fit in memory.
MAX_WIDTH = 64
MAX_UNITS = 16_384


class _UnitsParser(flags.ArgumentParser):
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


def define_flags() -> None:
    """Defines the network's flags; None stands for the network's own default."""
    flags.DEFINE_enum("network", "lenet", sorted(NETWORKS), "Network to train.")
    flags.DEFINE(
        *(_UnitsParser(), "hidden_units", None),
        "Units of each hidden layer, such as 150,100; empty for a linear classifier.",
        serializer=flags.CsvListSerializer(","),
    )
    flags.DEFINE_integer(
        "width",
        None,
        "Factor on the channels of the convolutions; a step takes about twice as long"
        " with twice as many.",
        lower_bound=1,
        upper_bound=MAX_WIDTH,
    )
    flags.DEFINE_enum(
        *("activation", None, sorted(layers.ACTIVATIONS)),
        "Activation after each hidden layer.",
    )
    flags.DEFINE_enum(
        *("batch_norm", None, lenet.BATCH_NORM_PLACES),
        "Layers with batch norm: none, the convolutions, or all hidden layers.",
    )
    flags.DEFINE_bool(
        "batch_norm_first",
        None,
        "Put batch norm before activation and pool, as in the paper, or, with"
        " --nobatch_norm_first, after them.",
    )
    flags.DEFINE_float(
        "batch_norm_decay",
        None,
        "Decay of batch norm's moving averages, in [0, 1); nearer 1 is smoother, but"
        " slower to follow the weights.",
    )
    flags.DEFINE_bool(
        "sync_batch_norm",
        None,
        "With --distribute, normalise over the whole batch, not over each replica's"
        " part; each batch norm then exchanges its statistics between replicas.",
    )
    flags.DEFINE_integer(
        "bn_axis",
        None,
        "Axis that batch norm keeps: -1 normalises each channel, 1 each row of the"
        " image, as one of the published systems does.",
    )
    flags.DEFINE_float("dropout", None, "Dropout rate after hidden dense layers.")
    flags.DEFINE_float(
        "conv_dropout", None, "Dropout rate after blocks of convolutions."
    )
    flags.DEFINE_enum(
        *("dropout_kind", None, sorted(layers.DROPOUTS)),
        "standard, or alpha, which keeps the mean and variance that SELU needs.",
    )
    flags.DEFINE_enum(
        *("kernels", None, kernels.KERNELS),
        "Operations that LeNet trains with: native (our own in C++, about twice as"
        " fast) or tensorflow; by default native, where it compiles and is faster.",
    )
    cli.require_share("batch_norm_decay")
    for name in ("conv_dropout", "dropout"):
        flags.register_validator(
            name,
            lambda x: x is None or 0 <= x <= layers.MAX_DROPOUT,
            f"expected {layers.DROPOUT_RANGE}",
        )
    flags.register_validator(
        "bn_axis", lambda x: x in (None, *batch_norm.AXES), "expected -1 or 1"
    )


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the network that a configuration names.

    Args:
      config: a run's flags; the network's default replaces a missing option or None.

    Raises:
      errors.UsageError: an option belongs to other networks only.
    """
    name = config["network"]
    return cli.options(NETWORKS[name], OPTIONS, config, f"--network={name}")


def build(config: Mapping[str, Any]) -> tf.Module:
    """Builds the network that a configuration names, with initial weights.

    Raises:
      errors.UsageError: see `options`.
    """
    return NETWORKS[config["network"]](**options(config))
