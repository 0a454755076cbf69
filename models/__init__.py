# SPDX-License-Identifier: Apache-2.0
"""Networks, by name. A new one is a file here and a line in `NETWORKS`.

The contract: a `tf.Module` that creates all its variables in `__init__`, whose
arguments are keyword-only, have defaults, bear the names of flags, and are `seed` and
what else the network takes; `network(images, training=…, seed=…, taps=…)` returns
`(logits, update_ops)` and changes no variable. `taps` is a dict that the call fills, in
order, with the output of each layer under the name of its attribute, "logits" last.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import flags

from models import layers, lenet
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


# Flags that are arguments of some network, by the same name.
OPTIONS = tuple(
    sorted(
        {
            p
            for network in NETWORKS.values()
            for p in inspect.signature(network).parameters
        }
    )
)


# Ten times what anyone trains on a CPU: beyond it a network does not fit into memory.
MAX_WIDTH = 64
MAX_UNITS = 16_384


class _UnitsParser(flags.ArgumentParser):
    """Turns the text of a flag, such as "150,100", into a list of integers."""

    syntactic_help = f"comma-separated whole numbers above 0, up to {MAX_UNITS:,}"

    def parse(self, argument: str | list[int]) -> list[int]:
        if isinstance(argument, list):  # absl hands the default over as it is
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
    """The flags of the network; None stands for the network's own default."""
    flags.DEFINE_enum("network", "lenet", sorted(NETWORKS), "What to train.")
    flags.DEFINE(
        *(_UnitsParser(), "hidden_units", None),
        "Units of each hidden layer, such as 150,100; empty for none.",
        serializer=flags.CsvListSerializer(","),
    )
    flags.DEFINE_integer(
        "width",
        None,
        "Factor on the maps of the convolutions.",
        lower_bound=1,
        upper_bound=MAX_WIDTH,
    )
    flags.DEFINE_enum(
        "activation", None, sorted(layers.ACTIVATIONS), "After each hidden layer."
    )
    flags.DEFINE_enum(
        "batch_norm", None, lenet.BATCH_NORM_PLACES, "Layers with batch norm."
    )
    flags.DEFINE_bool(
        "batch_norm_first", None, "Batch norm before activation and pool, or after."
    )
    flags.DEFINE_float("batch_norm_decay", None, "Of the moving averages, in [0, 1).")
    flags.DEFINE_bool(
        "sync_batch_norm",
        None,
        "Batch norm over the whole batch, though --distribute cuts it into parts; else"
        " over each part.",
    )
    flags.DEFINE_integer(
        "bn_axis",
        None,
        "What batch norm normalises: -1 for each channel; 1 for each row of the image,"
        " as one of the published systems does.",
    )
    flags.DEFINE_float("dropout", None, "Dropout rate after hidden dense layers.")
    flags.DEFINE_float(
        "conv_dropout", None, "Dropout rate after blocks of convolutions."
    )
    flags.DEFINE_enum(
        "dropout_kind",
        None,
        sorted(layers.DROPOUTS),
        "standard, or alpha: the one made for SELU.",
    )
    flags.DEFINE_enum(
        "kernels",
        None,
        lenet.KERNELS,
        "Operations that a LeNet trains with: the project's own, in C++, or"
        " TensorFlow's; default: the project's, if they can be compiled here.",
    )
    cli.require_share("batch_norm_decay")
    for name in ("conv_dropout", "dropout"):
        flags.register_validator(
            name,
            lambda x: x is None or 0 <= x <= layers.MAX_DROPOUT,
            f"expected {layers.DROPOUT_RANGE}",
        )
    flags.register_validator(
        "bn_axis", lambda x: x in (None, *layers.BATCH_NORM_AXES), "expected -1 or 1"
    )


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the network that a configuration names is built with.

    Args:
      config: a run's flags; an option that is None or missing is left to the network.

    Raises:
      errors.UsageError: it gives an option that another network has, but not this one.
    """
    name = config["network"]
    return cli.options(NETWORKS[name], OPTIONS, config, f"--network={name}")


def build(config: Mapping[str, Any]) -> tf.Module:
    """The network that a run's configuration names, with fresh variables.

    Raises:
      errors.UsageError: see `options`.
    """
    return NETWORKS[config["network"]](**options(config))
