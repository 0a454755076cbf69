# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: step → factor on the peak rate.

The smooth ones take `progress`, a float32 scalar that is 0 at the first step and grows
to 1 behind the last, and return a float32 scalar in [0, 1]. `build` makes a function
of the step of any of them.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from system import errors

Schedule = Callable[[tf.Tensor], tf.Tensor]

MAX_STEPS = 2**28  # of a run: `models.layers.mask_seed` counts on fewer


def constant(progress: tf.Tensor) -> tf.Tensor:
    """1 throughout."""
    return tf.ones_like(progress)


def cosine(progress: tf.Tensor) -> tf.Tensor:
    """(1 + cos(π · progress)) / 2. Loshchilov and Hutter, "SGDR", 2017."""
    return 0.5 * (1 + tf.cos(math.pi * progress))


def one_cycle(progress: tf.Tensor, warm_up: float = 0.25) -> tf.Tensor:
    """A half cosine from 1/25 to 1 in the first `warm_up` of the run, then one to 0.

    Smith and Topin, "Super-Convergence", 2018, in the shape that is common today.
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
    """Raises UserError for a --decay_factor that is none."""
    if not 0 < factor <= 1:
        raise errors.UserError("expected a number in (0, 1]")


def count_steps(config: Any, train_count: int) -> tuple[int, int]:
    """Steps of an epoch, and of the whole run.

    Args:
      config: the run's `config.Config`.
      train_count: images in the training set.

    Raises:
      errors.UsageError: `MAX_STEPS` or more.
    """
    images = config.epoch_images or train_count
    epoch_steps = math.ceil(images / config.batch_size)
    total_steps = config.epochs * epoch_steps
    if total_steps >= MAX_STEPS:
        raise errors.UsageError(
            f"--epochs={config.epochs} of {epoch_steps:,} steps are"
            f" {total_steps:,} steps, and a run has at most {MAX_STEPS - 1:,}: lower"
            " --epochs or --epoch_images, or raise --batch_size"
        )
    return epoch_steps, total_steps


def step_decay(step: tf.Tensor, every: int, factor: float) -> tf.Tensor:
    """`factor` to the power of (step div every): a staircase, float32 scalar.

    Args:
      step: scalar integer, counted from 0.
      every: steps on one stair.
      factor: from one stair to the next.
    """
    return factor ** tf.cast(step // every, tf.float32)


class Watch(tf.Module):
    """Follows the validation accuracy: the state of all that is decided by it.

    Attributes:
      best: float32 scalar, the highest accuracy so far; −1 before the first epoch.
      waited: int64 scalar, epochs since.
      factor: float32 scalar, on the peak rate; `plateau` lowers it.
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
        """Takes in the accuracy after an epoch; returns whether it is the best yet."""
        better = bool(accuracy > self.best)
        if better:
            self.best.assign(accuracy)
        self.waited.assign(0 if better else self.waited + 1)
        return better

    def plateau(self, patience: int, factor: float, floor: float) -> None:
        """Lowers the rate once `patience` epochs brought no better accuracy.

        And again after as many more, as Keras' ReduceLROnPlateau does, save that any
        better accuracy counts, and not only one that is better by 0.0001. To be called
        after each `update`.

        Args:
          patience: epochs to wait.
          factor: what the rate is multiplied by.
          floor: the least factor on the peak rate.
        """
        if self.waited > 0 and self.waited % patience == 0:
            lower = tf.maximum(self.factor * factor, floor)
            self.factor.assign(tf.minimum(self.factor, lower))


def build(config: Any, watch: Watch, *, total_steps: int, epoch_steps: int) -> Schedule:
    """The schedule that a run's configuration names, as a function of the step.

    Args:
      config: the run's `config.Config`.
      watch: whose factor is the rate's under the schedule `plateau`.
      total_steps: of the run.
      epoch_steps: of an epoch.

    Returns:
      Scalar int64 step, counted from 0 → float32 scalar.
    """
    name = config.schedule
    if name == "plateau":
        return lambda step: tf.identity(watch.factor)
    if name == "step":
        every = config.decay_epochs * epoch_steps
        return lambda step: step_decay(step, every, config.decay_factor)
    return lambda step: SMOOTH[name](tf.cast(step, tf.float32) / total_steps)
