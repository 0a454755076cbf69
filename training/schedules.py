# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: step → factor by which the peak rate is multiplied.

The smooth schedules take `progress`, a float32 scalar that grows from 0 at the first
step to 1 after the last, and return a float32 scalar in [0, 1]. `build` turns any
schedule into a function of the step.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from system import errors

Schedule = Callable[[tf.Tensor], tf.Tensor]

MAX_STEPS = 2**28  # per run; `models.layers.mask_seed` has no room for more


def constant(progress: tf.Tensor) -> tf.Tensor:
    """Always 1."""
    return tf.ones_like(progress)


def cosine(progress: tf.Tensor) -> tf.Tensor:
    """(1 + cos(π · progress)) / 2. Loshchilov and Hutter, "SGDR", 2017."""
    return 0.5 * (1 + tf.cos(math.pi * progress))


def one_cycle(progress: tf.Tensor, warm_up: float = 0.25) -> tf.Tensor:
    """Half a cosine from 1/25 up to 1, then half a cosine down to 0.

    Smith and Topin, "Super-Convergence", 2018, in the shape that is common today.
    `warm_up` is the share of the run in which the rate rises.
    """
    up = 1 / 25 + (1 - 1 / 25) * (1 - cosine(progress / warm_up))
    down = cosine((progress - warm_up) / (1 - warm_up))
    return tf.where(progress < warm_up, up, down)


SMOOTH: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
NAMES = (*SMOOTH, "plateau", "step")


def check_factor(factor: float) -> None:
    """Raises UserError if this cannot be a --decay_factor."""
    if not 0 < factor <= 1:
        raise errors.UserError("expected a number in (0, 1]")


def count_steps(config: Any, train_count: int) -> tuple[int, int]:
    """Number of steps per epoch and of the whole run, for `train_count` images.

    Raises UsageError if the run has `MAX_STEPS` steps or more.
    """
    images = config.epoch_images or train_count
    epoch_steps = math.ceil(images / config.batch_size)
    total_steps = config.epochs * epoch_steps
    if total_steps >= MAX_STEPS:
        raise errors.UsageError(
            f"--epochs={config.epochs} of {epoch_steps:,} steps make"
            f" {total_steps:,} steps, but a run can have at most {MAX_STEPS - 1:,}:"
            " lower --epochs or --epoch_images, or raise --batch_size"
        )
    return epoch_steps, total_steps


def step_decay(step: tf.Tensor, every: int, factor: float) -> tf.Tensor:
    """A staircase: `factor` to the power of (step div every), a float32 scalar."""
    return factor ** tf.cast(step // every, tf.float32)


class Watch(tf.Module):
    """Watches the validation accuracy, for all that depends on it.

    Attributes:
      best: float32 scalar, highest accuracy so far; −1 before the first epoch.
      waited: int64 scalar, number of epochs since then.
      factor: float32 scalar by which the peak rate is multiplied; see `plateau`.
    """

    def __init__(self):
        super().__init__("watch")
        with self.name_scope:
            self.best = tf.Variable(-1.0, trainable=False, name="best")
            self.waited = tf.Variable(
                tf.constant(0, tf.int64), trainable=False, name="waited"
            )
            self.factor = tf.Variable(1.0, trainable=False, name="factor")

    def update(self, accuracy: float) -> bool:
        """Notes the accuracy after an epoch; returns whether it is the best so far."""
        better = bool(accuracy > self.best)
        if better:
            self.best.assign(accuracy)
        self.waited.assign(0 if better else self.waited + 1)
        return better

    def plateau(self, patience: int, factor: float, floor: float) -> None:
        """Lowers the rate after every `patience` epochs without a better accuracy.

        Call it after each `update`. It does what Keras' ReduceLROnPlateau does, except
        that any improvement counts, not only one of 0.0001 or more. `floor` is the
        lower limit of `self.factor`.
        """
        if self.waited > 0 and self.waited % patience == 0:
            lower = tf.maximum(self.factor * factor, floor)
            self.factor.assign(tf.minimum(self.factor, lower))


def build(config: Any, watch: Watch, epoch_steps: int) -> Schedule:
    """Returns a run's schedule: scalar int64 step, counted from 0 → float32 scalar."""
    name, total_steps = config.schedule, config.epochs * epoch_steps
    if name == "plateau":
        return lambda step: tf.identity(watch.factor)
    if name == "step":
        every = config.decay_epochs * epoch_steps
        return lambda step: step_decay(step, every, config.decay_factor)
    return lambda step: SMOOTH[name](tf.cast(step, tf.float32) / total_steps)
