# SPDX-License-Identifier: Apache-2.0
"""Training speed of LeNet-SELU: this project's loop beside Keras' `fit`.

    python -m benchmarks.step

The network is system A1 (batch norm on the convolutions, dropout 0.2, Adam), the batch
128, the data 60,000 images of noise: the speed does not depend on what they show. Each
peer runs in a process of its own, one at a time and in turns, so that a slow minute of
the machine does not fall on one peer alone. Tracing and the first steps are not timed.
"""

import dataclasses
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tabulate import tabulate

import cli
from augment.online_settings import OnlineSettings

# A peer loads its library itself, so that no process holds that of another.

FLAGS = flags.FLAGS

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("tensorflow", "keras", "numpy")

IMAGES = 60_000
BATCH_SIZE = 128
WARM_UP_STEPS = 50
DROPOUT = 0.2
BATCH_NORM_DECAY = 0.9
LEARNING_RATE = 1e-3


class BenchmarkError(cli.UserError):
    """A peer could not be measured."""


def noise() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [60000, 28, 28, 1] and labels uint8 [60000], the same each time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 28, 28, 1), np.uint8)
    return images, rng.integers(0, 10, IMAGES, np.uint8)


def ours(steps: int, threads: int) -> float:
    """Images per second of train.py's loop: `steps` steps in one call of the graph."""
    import device  # isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    import train

    config = {
        "seed": 0,
        "batch_size": BATCH_SIZE,
        "network": "lenet",
        "activation": "selu",
        "batch_norm": "conv",
        "batch_norm_first": True,
        "batch_norm_decay": BATCH_NORM_DECAY,
        "dropout": DROPOUT,
        "dropout_kind": "standard",
        **dataclasses.asdict(OnlineSettings()),
        "sampler": "epochs",
        "loss": "softmax_cross_entropy",
        "label_smoothing": 0.0,
        "optimizer": "adam",
        "learning_rate": LEARNING_RATE,
        "weight_decay": 0.0,
        "weight_average": 0.0,
        "schedule": "constant",
        "epochs": 1,
    }
    device.set_threads(threads)
    images, labels = map(tf.constant, noise())
    total = WARM_UP_STEPS + steps
    state = train.build_state(config)
    train_steps = train.make_train_steps(state, images, labels, config, total)
    train_steps(0, WARM_UP_STEPS, training=True)
    began = time.perf_counter()
    totals = train_steps(WARM_UP_STEPS, steps, training=True)
    done = int(totals.step)  # waits for the result
    seconds = time.perf_counter() - began
    if done != total:  # the loop ends early at a loss that is not finite
        raise BenchmarkError(f"training broke off at step {done} of {total}")
    return steps * BATCH_SIZE / seconds


def keras(steps: int, threads: int) -> float:
    """Images per second of one epoch of `steps` steps in a Keras 3 `fit`.

    Written as its guides have it, SELU before the pool, but for the spared progress
    bar. oneDNN is on; Keras as shipped leaves that to TensorFlow and the processor.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras says
    import device  # isort: skip  (first: it loads TensorFlow)
    import keras
    from keras import layers

    if threads:  # otherwise as Keras has it: one per core, in and between operations
        device.set_threads(threads)
    lecun = {"kernel_initializer": "lecun_normal"}
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(12, 3, padding="same", **lecun),
            layers.BatchNormalization(momentum=BATCH_NORM_DECAY),
            layers.Activation("selu"),
            layers.MaxPooling2D(3, 2),
            layers.Conv2D(16, 3, padding="same", **lecun),
            layers.BatchNormalization(momentum=BATCH_NORM_DECAY),
            layers.Activation("selu"),
            layers.MaxPooling2D(3, 2),
            layers.Flatten(),
            layers.Dense(288, activation="selu", **lecun),
            layers.Dropout(DROPOUT),
            layers.Dense(144, activation="selu", **lecun),
            layers.Dropout(DROPOUT),
            layers.Dense(10, **lecun),
        ]
    )
    network.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, labels = noise()

    def fit(steps, callbacks):
        # As many images, some of them twice if need be, as make whole batches.
        x = np.resize(images, (steps * BATCH_SIZE, 28, 28, 1))
        x = x.astype(np.float32) / 255
        y = np.resize(labels, steps * BATCH_SIZE)
        network.fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=callbacks)

    clock: list[float] = []  # by the epoch: fit copies the images before its first
    tick = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: clock.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: clock.append(time.perf_counter()),
    )
    fit(WARM_UP_STEPS, [])
    fit(steps, [tick])
    began, ended = clock
    return steps * BATCH_SIZE / (ended - began)


# name: function(steps, threads) → images per second, in a process of its own;
# threads 0: one per core.
PEERS: dict[str, Callable[[int, int], float]] = {"ours": ours, "keras": keras}


def run_peer(peer: str, steps: int, threads: int) -> float:
    """Images per second of a peer, measured in a new process.

    Raises:
      BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.step", f"--peer={peer}"]
    command += [f"--steps={steps}", f"--threads={threads}"]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        if done.returncode < 0:
            reason = f"killed by {signal.Signals(-done.returncode).name}"
        else:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BenchmarkError(
            f"the peer {peer} failed: {reason}; to see all it says:"
            f" python {' '.join(command[1:])}"
        )
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def measure(rounds: int, steps: int, threads: int) -> dict[str, list[float]]:
    """Images per second of each peer in each round, one peer after the other."""
    speeds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for number in range(1, rounds + 1):
        for peer, so_far in speeds.items():
            so_far.append(run_peer(peer, steps, threads))
            print(f"round {number} of {rounds}: {peer} {so_far[-1]:,.0f} images/s")
    return speeds


def table(speeds: Mapping[str, Sequence[float]]) -> str:
    """One line per peer; the last column is our median speed in that of the peer."""
    medians = {peer: statistics.median(values) for peer, values in speeds.items()}
    rows = [
        [
            peer,
            *(f"{s:,.0f}" for s in (medians[peer], min(values), max(values))),
            f"{medians['ours'] / medians[peer]:.2f}",
        ]
        for peer, values in speeds.items()
    ]
    headers = ["peer", "median images/s", "min", "max", "ours / peer"]
    # The numbers are text by now, and are to stay as they are.
    align = ["left"] + ["right"] * 4
    return tabulate(rows, headers, colalign=align, disable_numparse=True)


def conditions(threads: int) -> str:
    """Processor, cores, threads, load and versions: what the speeds depend on."""
    load = os.getloadavg()[0]  # before TensorFlow is loaded, which is load as well
    from training import runs

    facts = runs.environment()
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return "\n".join(
        [
            f"{facts['processor']}, {facts['cores']} cores,"
            f" {threads or facts['cores']} threads, load average before {load:.2f}",
            f"lenet-selu {facts['commit']}, python {facts['python']},"
            f" {', '.join(versions)}, TF_ENABLE_ONEDNN_OPTS={facts['onednn']}",
        ]
    )


def define_flags() -> None:
    """The flags of the benchmark."""
    flags.DEFINE_integer("rounds", 5, "Measurements of each peer.", lower_bound=1)
    flags.DEFINE_integer("steps", 469, "Timed steps of each.", lower_bound=1)
    flags.DEFINE_integer(
        "threads", 0, "CPU threads of each peer; 0: one per core.", lower_bound=0
    )
    flags.DEFINE_enum(
        "peer",
        None,
        list(PEERS),
        "Measure this one alone, once, in this process, and print a line of JSON.",
    )


def main(_: list[str]) -> None:
    """Measures one peer, or starts itself for each of them in turn."""
    if FLAGS.peer:
        speed = PEERS[FLAGS.peer](FLAGS.steps, FLAGS.threads)
        print(json.dumps({"images_per_second": speed}))
        return
    print(conditions(FLAGS.threads))
    speeds = measure(FLAGS.rounds, FLAGS.steps, FLAGS.threads)
    print(table(speeds))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
