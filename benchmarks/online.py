# SPDX-License-Identifier: Apache-2.0
"""Cost of online augmentation, relative to a training step of LeNet-SELU.

In one process, we time the step of 128 images of `benchmarks.ours` and each
transform of 128 images, in as many parts as the step has replicas and by the same
kernels. They take turns, so that a slow minute of the machine hits all of them. The
goal is at most 10 % of a step, and 5 % for a change of grey levels. Tracing and the
first calls are not timed.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import ours, peers, results

STEP = "training step"
AFFINE = {"rotation": 10.0, "zoom": 0.1, "shift": 0.1}  # system D
ELASTIC = {"elastic_alpha": 34.0, "elastic_sigma": 4.0}  # Simard et al. 2003
TRANSFORMS: dict[str, dict[str, float]] = {  # flags and their values
    "rotation": {"rotation": 10.0},
    "zoom": {"zoom": 0.1},
    "shift": {"shift": 0.1},
    "shear": {"shear": 10.0},
    "rotation, zoom, shift": AFFINE,
    "elastic": ELASTIC,
    "all of these": {"shear": 10.0, **AFFINE, **ELASTIC},
    "thickness": {"thickness": 1.0},
    "cut-out": {"cutout": 0.5},
    "blur": {"blur": 1.5},
    "contrast": {"contrast": 0.6},
    "brightness": {"brightness": 0.3},
    "noise": {"noise": 0.3},
    "outliers": {"outliers": 0.1},
    "continental": {"continental": 0.5},
    "mixup": {"mixup": 0.2},
}
THREADS = (0, 1)  # 0: one per core
STEPS = 200  # per round


def transform_loop(
    settings: Mapping[str, Any], sizes: Sequence[int], kernels: str | None = None
) -> Callable[[int], float]:
    """Function from a count to the seconds of that many transforms in one call.

    The settings are values of train.py's flags, by name; sizes are the numbers of
    images in each part of a batch.
    """
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    from augment import batch
    from config import Config

    augment = batch.from_config(Config(kernels=kernels, **settings))
    images, labels = map(tf.constant, ours.noise(ours.BATCH_SIZE))

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([], tf.int32, name="count")]
    )
    def loop(count):
        def transform(number, x):
            # Each transforms the result of the one before, so that none is skipped.
            seed = tf.stack([0, number])
            parts = zip(tf.split(x, sizes), tf.split(labels, sizes))
            done = [augment(images, labels, seed)[0] for images, labels in parts]
            return number + 1, tf.concat(done, axis=0)

        return tf.while_loop(
            lambda number, _: number < count,
            transform,
            [tf.constant(0), images],
            parallel_iterations=1,
        )[1]

    traced = loop.get_concrete_function()

    def run(count: int) -> float:
        began = time.perf_counter()
        traced(tf.constant(count)).numpy()  # waits for the result
        return time.perf_counter() - began

    return run


def step_and_transforms(
    *, threads: int, names: Sequence[str]
) -> Callable[[int], dict[str, float]]:
    """The step, with its default number of replicas, and transforms of these names.

    Returns a function from a number of steps to the seconds of one step and of each
    transform, by name.
    """
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)
    from training import machine, replicas

    config = ours.train_config(threads=threads)
    config = dataclasses.replace(config, **machine.choose(config))
    sizes = replicas.sizes(ours.BATCH_SIZE, config.replicas)
    loops = {STEP: ours.loop(threads=threads).run}
    for name in names:
        loops[name] = transform_loop(TRANSFORMS[name], sizes, config.kernels)

    def answer(steps: int) -> dict[str, float]:
        return {name: run(steps) / steps for name, run in loops.items()}

    answer(ours.WARM_UP_STEPS)
    return answer


PEERS = {"step_and_transforms": step_and_transforms}


def measure(
    rounds: int, steps: int = STEPS, names: Sequence[str] = tuple(TRANSFORMS)
) -> dict[str, Any]:
    """Measures both: {"threads": {number of threads: {name: seconds by round}}}."""
    found = {}
    for threads in THREADS:
        settings = {"threads": threads, "names": [*names]}
        with peers.Peer(__name__, "step_and_transforms", settings) as peer:
            answers = [peer.ask(steps) for _ in range(rounds)]
        found[str(threads)] = {
            name: [answer[name] for answer in answers] for name in answers[0]
        }
    return {"threads": found}


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a table; shares are medians of the rounds' shares."""
    rows = []
    for threads, seconds in result["threads"].items():
        for name, values in seconds.items():
            shares = [own / of for own, of in zip(values, seconds[STEP], strict=True)]
            rows.append(
                [
                    threads,
                    name,
                    f"{1e3 * statistics.median(values):.2f}",
                    f"{statistics.median(shares):.1%}",
                    f"{min(shares):.1%}",
                    f"{max(shares):.1%}",
                ]
            )
    headers = [
        "threads",
        f"{ours.BATCH_SIZE} images",
        "median ms",
        "share of a step",
    ]
    headers += ["min", "max"]
    table = results.table(rows, headers, texts=2)
    return f"## Online augmentation\n\n{table}\n\nThreads 0: one per core."
