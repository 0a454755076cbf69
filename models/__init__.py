# SPDX-License-Identifier: Apache-2.0
"""Networks, by name. A new one is a file here and a line in `NETWORKS`.

The contract: a `tf.Module` that creates all its variables in `__init__`, whose
arguments are keyword-only, have defaults, bear the names of flags, and are `seed` and
what else the network takes; `network(images, training=…, seed=…, taps=…)` returns
`(logits, update_ops)` and changes no variable. `taps` is a dict that the call fills, in
order, with the output of each layer under the name of its attribute, "logits" last.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

import cli
from models.bn_cnn import BNCNN
from models.double_conv import DoubleConv
from models.layers import count_parameters
from models.lenet import LeNet
from models.mlp import MLP

__all__ = ["NETWORKS", "OPTIONS", "build", "count_parameters", "options"]

NETWORKS: dict[str, type[tf.Module]] = {
    "bn_cnn": BNCNN,
    "double_conv": DoubleConv,
    "lenet": LeNet,
    "mlp": MLP,
}


def _defaults(name: str) -> dict[str, Any]:
    """The options of a network and their defaults, in the order of its signature."""
    parameters = inspect.signature(NETWORKS[name].__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


# Flags that are arguments of some network, by the same name.
OPTIONS = tuple(sorted({option for name in NETWORKS for option in _defaults(name)}))


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the network that a configuration names is built with; JSON types only.

    Args:
      config: a run's flags; an option that is None or missing is left to the network.

    Raises:
      cli.UserError: it gives an option that another network has, but not this one.
    """
    name = config["network"]
    defaults = _defaults(name)
    for option in OPTIONS:
        if option not in defaults and config.get(option) is not None:
            taken = ", ".join(f"--{o}" for o in sorted(defaults) if o != "seed")
            raise cli.UserError(f"--network={name} has no --{option}; it takes {taken}")
    given = {option: config.get(option) for option in defaults}
    values = {o: defaults[o] if v is None else v for o, v in given.items()}
    return {o: list(v) if isinstance(v, tuple) else v for o, v in values.items()}


def build(config: Mapping[str, Any]) -> tf.Module:
    """The network that a run's configuration names, with fresh variables.

    Raises:
      cli.UserError: see `options`; or a value that the network cannot take.
    """
    return NETWORKS[config["network"]](**options(config))
