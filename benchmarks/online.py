# SPDX-License-Identifier: Apache-2.0
"""Cost of the online augmentation beside a training step of LeNet-SELU.

    python -m benchmarks.online

A step of 128 images, as `benchmarks.step_peers` has it, and each transform of 128
images, in one process and in turns, so that a slow minute of the machine falls on all
of them. The goal is a share of at most 15 %. Tracing and the first calls are not timed.
"""

import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf
from absl import flags
from tabulate import tabulate

import cli
import train
from augment import online
from augment.online_settings import OnlineSettings
from benchmarks import environment, step_peers

FLAGS = flags.FLAGS

STEP = "training step"
AFFINE = {"rotation": 10.0, "zoom": 0.1, "shift": 0.1}  # system D
ELASTIC = {"elastic_alpha": 34.0, "elastic_sigma": 4.0}  # Simard et al. 2003
TRANSFORMS = {
    "rotation": OnlineSettings(rotation=10.0),
    "zoom": OnlineSettings(zoom=0.1),
    "shift": OnlineSettings(shift=0.1),
    "shear": OnlineSettings(shear=10.0),
    "rotation, zoom, shift": OnlineSettings(**AFFINE),
    "elastic": OnlineSettings(**ELASTIC),
    "all": OnlineSettings(shear=10.0, **AFFINE, **ELASTIC),
}


def transform_timer(settings: OnlineSettings) -> Callable[[int], float]:
    """Returns timer(count): seconds per transform, of `count` in a graph's loop."""
    images = tf.constant(step_peers.noise()[0][: step_peers.BATCH_SIZE])

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([], tf.int32, name="count")]
    )
    def loop(count):
        # Each transforms the result of the one before, so that none can be spared.
        return tf.while_loop(
            lambda number, _: number < count,
            lambda number, x: (
                number + 1,
                online.transform(x, tf.stack([0, number]), settings),
            ),
            [tf.constant(0), images],
            parallel_iterations=1,
        )[1]

    traced = loop.get_concrete_function()

    def timer(count: int) -> float:
        began = time.perf_counter()
        traced(tf.constant(count)).numpy()  # waits for the result
        return (time.perf_counter() - began) / count

    timer(step_peers.WARM_UP_STEPS)
    return timer


def measure(rounds: int, steps: int, threads: int) -> dict[str, list[float]]:
    """Seconds of the step and of each transform in each round, one after the other."""
    loop = step_peers.ours(threads=threads)
    loop.run(step_peers.WARM_UP_STEPS)
    timers = {name: transform_timer(some) for name, some in TRANSFORMS.items()}
    seconds: dict[str, list[float]] = {STEP: [], **{name: [] for name in timers}}
    for number in range(1, rounds + 1):
        seconds[STEP].append(loop.run(steps) / steps)
        for name, timer in timers.items():
            seconds[name].append(timer(steps))
        print(f"round {number} of {rounds}: {STEP} {1e3 * seconds[STEP][-1]:.2f} ms")
    return seconds


def table(seconds: Mapping[str, Sequence[float]]) -> str:
    """One line per transform; shares are medians of those of each round."""
    rows = []
    for name, values in seconds.items():
        shares = [own / of for own, of in zip(values, seconds[STEP], strict=True)]
        rows.append(
            [
                name,
                f"{1e3 * statistics.median(values):.2f}",
                f"{statistics.median(shares):.1%}",
                f"{min(shares):.1%}",
                f"{max(shares):.1%}",
            ]
        )
    headers = ["128 images", "median ms", "of a step", "min", "max"]
    align = ["left"] + ["right"] * 4
    return tabulate(rows, headers, colalign=align, disable_numparse=True)


def define_flags() -> None:
    """The flags of the benchmark."""
    flags.DEFINE_integer("rounds", 5, "Measurements of each.", lower_bound=1)
    flags.DEFINE_integer("steps", 200, "Timed steps of each.", lower_bound=1)
    train.define_flags()  # --threads, and those that the step is configured with
    flags.declare_key_flag("threads")


def main(_: list[str]) -> None:
    """Measures and prints."""
    print(environment.describe(environment.facts()), f"threads={FLAGS.threads}")
    print(table(measure(FLAGS.rounds, FLAGS.steps, FLAGS.threads)))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
