# SPDX-License-Identifier: Apache-2.0
"""Our training loop as a peer of the benchmarks, and what all of them share.

The network is that of lenet.flags: batch norm after the pool of each convolution and
after each hidden dense layer, dropout 0.3. We train it on noise, as speed does not
depend on the images, with Adam at a constant rate, without weight decay or weight
average.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import peers
from data import dataset

IMAGES = 60_000
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
# Of the peers; ours takes them from lenet.flags, and a test compares.
DROPOUT = 0.3
BATCH_NORM_DECAY = 0.9
BATCH_NORM_EPSILON = 1e-3
WARM_UP_STEPS = 50
WARM_UP_SECONDS = 5  # limit, if that many steps would take minutes
BLOCK_STEPS = 10  # fewest steps that are timed together

# Function from a number of seconds to {"images_per_second": …, "parameters": …}.
Timer = Callable[[float], dict[str, float]]


def noise(count: int = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 [count, 28, 28, 1], labels uint8 [count]; always the same."""
    rng = np.random.default_rng(0)
    images = dataset.empty((count, 28, 28, 1))
    for first in range(0, count, IMAGES):  # in parts, as memory is scarce
        part = images[first : first + IMAGES]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    return images, rng.integers(0, 10, count, np.uint8)


class Loop(NamedTuple):
    """A training loop."""

    run: Callable[[int], float]  # takes a number of steps, returns their seconds
    parameters: int  # number of weights that it trains


def timer(loop: Loop) -> Timer:
    """Warms up a loop; returns a function that times it for about so many seconds.

    We ask for seconds rather than steps so that a slow machine takes no longer, and a
    peer that stalls, as OpenMP's threads do on a busy machine, does not delay the rest.
    """
    loop.run(BLOCK_STEPS)  # traces and compiles
    began = time.perf_counter()
    for _ in range(BLOCK_STEPS, WARM_UP_STEPS, BLOCK_STEPS):
        step_seconds = loop.run(BLOCK_STEPS) / BLOCK_STEPS
        if time.perf_counter() - began > WARM_UP_SECONDS:
            break

    def answer(seconds: float) -> dict[str, float]:
        nonlocal step_seconds
        steps = max(BLOCK_STEPS, round(seconds / step_seconds))
        step_seconds = loop.run(steps) / steps
        return {
            "images_per_second": BATCH_SIZE / step_seconds,
            "parameters": loop.parameters,
        }

    return answer


def train_config(**settings: Any) -> Any:
    """The `Config` of lenet.flags with a constant rate, no decay, no average.

    Settings are values of further flags, by name.
    """
    from config import define_flags, from_flags

    if "epochs" not in flags.FLAGS:  # train.py or a test may have defined them
        define_flags()
    plain = {
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "weight_average": 0,
        "weight_decay": 0,
    }
    values = copy.deepcopy(flags.FLAGS)  # so that those of the program stay
    values.unparse_flags()
    values(
        ["train.py", f"--flagfile={peers.PROJECT / 'lenet.flags'}"]
        + [f"--{name}={value}" for name, value in (plain | settings).items()]
    )
    return from_flags(values)


def prepare(**settings: Any) -> tuple[Any, Any]:
    """A `Config` (see `train_config`) suited to this machine, and its `State`."""
    from system import device  # isort: skip  (first: it loads TensorFlow)
    from training import machine
    from training.state import State

    config = train_config(**settings)
    config = dataclasses.replace(config, **machine.choose(config))
    device.set_threads(config.threads, config.replicas)
    return config, State(config)


def loop(set_size: int = IMAGES, **settings: Any) -> Loop:
    """train.py's loop on so many images, with all steps in one call of the graph.

    Further settings are values of train.py's flags, such as threads.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    import train

    config, state = prepare(**settings)
    images, labels = map(device.tensor, noise(set_size))
    epoch_steps = math.ceil(set_size / config.batch_size)
    train_steps = train.make_train_steps(state, images, labels, config, epoch_steps)
    step = 0

    def run(steps: int) -> float:
        nonlocal step
        began = time.perf_counter()
        totals = train_steps(step, steps, training=True)
        done = int(totals.step)  # waits for the result
        seconds = time.perf_counter() - began
        step += steps
        if done != step:  # the loop stops early if a loss is not finite
            raise peers.BenchmarkError(f"training stopped at step {done} of {step}")
        return seconds

    weights = state.network.trainable_variables
    return Loop(run, sum(int(tf.size(w)) for w in weights))
