# SPDX-License-Identifier: Apache-2.0
"""Networks, by name. A new one is a file here and a line in `NETWORKS`.

The contract: a `tf.Module` that creates all its variables in `__init__`;
`network(images, training=…, seed=…)` returns `(logits, update_ops)` and changes none.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.lenet import LeNet

NETWORKS = {"lenet": LeNet}

# Flags that are arguments of a network, by the same name.
OPTIONS = (
    "seed",
    "activation",
    "batch_norm",
    "batch_norm_first",
    "batch_norm_decay",
    "dropout",
    "dropout_kind",
)


def build(config: Mapping[str, Any]) -> tf.Module:
    """The network that a run's configuration names, with fresh variables."""
    options = {name: config[name] for name in OPTIONS}
    return NETWORKS[config["network"]](**options)


def count_parameters(network: tf.Module) -> int:
    """How many numbers training adjusts."""
    return sum(v.shape.num_elements() for v in network.trainable_variables)
