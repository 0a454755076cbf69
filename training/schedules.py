# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: progress of the run → factor on the peak rate.

Each takes `progress`, a float32 scalar tensor that is 0 at the first step and grows
to 1 behind the last, and returns a float32 scalar in [0, 1].
"""

import math
from collections.abc import Callable

import tensorflow as tf

Schedule = Callable[[tf.Tensor], tf.Tensor]


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


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
