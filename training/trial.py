# SPDX-License-Identifier: Apache-2.0
"""A few steps of training that leave nothing behind: no run directory, no state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from system import errors
from training import machine, teachers, weights
from training.cluster import Place
from training.state import State, Totals
from training.workers import Workers

# `train.make_train_steps`, which is above this package and is handed down to it.
MakeTrainSteps = Callable[..., Callable[..., Totals]]


class Trial(NamedTuple):
    """The state, and its steps; see `train.make_train_steps`."""

    state: State
    steps: Callable[..., Totals]


def settled(config: Any) -> machine.Resolved:
    """The settings of a trial, with kernels that compile, from a `config.Config`.

    Raises:
      UsageError: it would need other workers.
    """
    if config.distribute == "multi_worker":
        raise errors.UsageError(
            "--dry_run and --find_rate look at a single process: add --distribute=none"
        )
    resolved = machine.resolve(config, Place())
    machine.set_threads(resolved, Place())
    if resolved.config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return resolved.with_kernels(
        machine.settle(resolved.config.kernels, resolved.chosen)
    )


def begin(
    config: Any,
    images: tf.Tensor,
    labels: tf.Tensor,
    classes: int,
    make_train_steps: MakeTrainSteps,
    start: weights.Start | weights.Whitened | None = None,
    teach: teachers.Teach | None = None,
) -> Trial:
    """Draws weights and traces the steps, for images and labels on the device."""
    workers = Workers(config.distribute, Place(), config.replicas)
    state = State(config, classes=classes, start=start)
    steps = make_train_steps(state, images, labels, config, 1, workers, teach=teach)
    return Trial(state, steps)
