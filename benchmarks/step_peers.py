# SPDX-License-Identifier: Apache-2.0
"""The training step of one network in three libraries, and a matrix product.

The network is that of lenet.flags: batch norm behind the pool of each convolution and
behind each hidden dense layer, dropout 0.3; Adam at a constant rate, no weight decay,
no average of the weights. All have SELU behind the pool, where there is a quarter of
the values. Initial weights are each library's own: speed does not depend on them, nor
on the images, which are noise. Tracing, compiling and the first steps are not timed.
"""

import copy
import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import peers
from data import dataset

# A peer loads its library itself, so that no process holds that of another.

IMAGES = 60_000
BATCH_SIZE = 128
WARM_UP_STEPS = 50
WARM_UP_SECONDS = 5  # where that many steps would take minutes
BLOCK_STEPS = 10  # no fewer are timed at once
DROPOUT = 0.3
BATCH_NORM_DECAY = 0.9
BATCH_NORM_EPSILON = 1e-3
LEARNING_RATE = 1e-3
GEMM_SIZE = 2048

# From a number of seconds to {"images_per_second": …, "parameters": …}.
Timer = Callable[[float], dict[str, float]]


def noise(count: int = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [count, 28, 28, 1] and labels uint8 [count], the same each time."""
    rng = np.random.default_rng(0)
    images = dataset.empty((count, 28, 28, 1))
    for first in range(0, count, IMAGES):  # in parts: beside the set is little memory
        part = images[first : first + IMAGES]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    return images, rng.integers(0, 10, count, np.uint8)


class Loop(NamedTuple):
    """A training loop.

    Attributes:
      run: takes that many steps and returns how many seconds they took.
      parameters: how many weights it trains.
    """

    run: Callable[[int], float]
    parameters: int


def timer(loop: Loop) -> Timer:
    """Warms a loop up; then as many steps as will take about the seconds asked for.

    A number of seconds rather than of steps, so that a round takes no longer on a slow
    machine, and a peer that stalls there, as OpenMP's threads do when others want the
    cores too, does not hold up the rest.
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


def train_config(**settings: Any) -> dict[str, Any]:
    """A configuration of train.py: the network of lenet.flags, trained plainly.

    Args:
      settings: values of further flags, by name.
    """
    from config import define_flags

    if "epochs" not in flags.FLAGS:  # the program, or a test, may have come before
        define_flags()
    plain = {
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "weight_average": 0,
        "weight_decay": 0,
    }
    values = copy.deepcopy(flags.FLAGS)  # those of the program stay as they are
    values.unparse_flags()
    values(
        ["train.py", f"--flagfile={peers.PROJECT / 'lenet.flags'}"]
        + [f"--{name}={value}" for name, value in (plain | settings).items()]
    )
    return values.flag_values_dict()


def ours(set_size: int = IMAGES, **settings: Any) -> Loop:
    """train.py's loop, all steps in one call of the graph.

    Args:
      set_size: images to train on.
      settings: values of train.py's flags, such as threads.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    import train
    from config import choose
    from training.state import State

    config = train_config(**settings)
    config |= choose(config)
    device.set_threads(config["threads"], config["replicas"])
    images, labels = map(device.tensor, noise(set_size))
    state = State(config)
    epoch_steps = math.ceil(set_size / config["batch_size"])
    train_steps = train.make_train_steps(state, images, labels, config, epoch_steps)
    step = 0

    def run(steps: int) -> float:
        nonlocal step
        began = time.perf_counter()
        totals = train_steps(step, steps, training=True)
        done = int(totals.step)  # waits for the result
        seconds = time.perf_counter() - began
        step += steps
        if done != step:  # the loop ends early at a loss that is not finite
            raise peers.BenchmarkError(f"training broke off at step {done} of {step}")
        return seconds

    weights = state.network.trainable_variables
    return Loop(run, sum(int(tf.size(w)) for w in weights))


def keras(*, threads: int, jit_compile: bool | str, steps_per_execution: int) -> Loop:
    """An epoch of Keras 3's `fit`, written as its guides have it, oneDNN on.

    Args:
      threads: 0 for one per core in and between operations, as Keras is shipped; else
        of an operation, and operations one after another.
      jit_compile: "auto" as shipped, or whether XLA compiles the step.
      steps_per_execution: steps per call of the graph; 1 as shipped.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras says
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import keras
    from keras import layers

    if threads:
        device.set_threads(threads)

    def norm():
        return layers.BatchNormalization(
            momentum=BATCH_NORM_DECAY, epsilon=BATCH_NORM_EPSILON
        )

    def conv_block(maps):
        return [
            layers.Conv2D(maps, 3, padding="same"),
            layers.MaxPooling2D(3, 2),
            layers.Activation("selu"),
            norm(),
        ]

    def dense_block(units):
        dense = layers.Dense(units, activation="selu")
        return [dense, norm(), layers.Dropout(DROPOUT)]

    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *conv_block(12),
            *conv_block(16),
            layers.Flatten(),
            *dense_block(288),
            *dense_block(144),
            layers.Dense(10),
        ]
    )
    network.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    images, labels = noise()

    def run(steps: int) -> float:
        # As many images, some of them twice if need be, as make whole batches.
        x = np.resize(images, (steps * BATCH_SIZE, 28, 28, 1))
        x = x.astype(np.float32) / 255
        y = np.resize(labels, steps * BATCH_SIZE)
        clock: list[float] = []  # by the epoch: fit copies the images before its first
        tick = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: clock.append(time.perf_counter()),
            on_epoch_end=lambda epoch, logs: clock.append(time.perf_counter()),
        )
        network.fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[tick])
        began, ended = clock
        return ended - began

    return Loop(run, sum(math.prod(w.shape) for w in network.trainable_weights))


def torch_eager(*, threads: int, channels_last: bool) -> Loop:
    """A plain loop in PyTorch. Args as of `_torch`."""
    return _torch(threads, channels_last, lambda function: function)


def torch_compile(*, threads: int, channels_last: bool) -> Loop:
    """The same loop, network and loss through `torch.compile`. Args as of `_torch`.

    Raises:
      peers.Missing: there is nothing here to compile its C++ with.
    """
    import torch

    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if not shutil.which(compiler):
        raise peers.Missing(f"torch.compile needs a C++ compiler, such as {compiler}")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        raise peers.Missing(f"torch.compile needs Python's headers, {header}")
    return _torch(threads, channels_last, torch.compile)


def _torch(
    threads: int, channels_last: bool, wrap: Callable[[Callable], Callable]
) -> Loop:
    """A PyTorch loop at its best: fused Adam, images on the device as bytes, no loader.

    Args:
      threads: within an operation; 0 for PyTorch's own choice.
      channels_last: memory format of images and kernels.
      wrap: what to do to the function from a batch to its loss.
    """
    import torch
    from torch import nn

    if threads:
        torch.set_num_threads(threads)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    norm = {"momentum": 1 - BATCH_NORM_DECAY, "eps": BATCH_NORM_EPSILON}

    def conv_block(inputs, maps):
        conv = nn.Conv2d(inputs, maps, 3, padding=1)
        return [conv, nn.MaxPool2d(3, 2), nn.SELU(), nn.BatchNorm2d(maps, **norm)]

    def dense_block(inputs, units):
        norm1d = nn.BatchNorm1d(units, **norm)
        return [nn.Linear(inputs, units), nn.SELU(), norm1d, nn.Dropout(DROPOUT)]

    network = nn.Sequential(
        *conv_block(1, 12),
        *conv_block(12, 16),
        nn.Flatten(),
        *dense_block(576, 288),
        *dense_block(288, 144),
        nn.Linear(144, 10),
    ).to(memory_format=memory)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    loss_function = nn.CrossEntropyLoss()
    numpy_images, numpy_labels = noise()
    images = torch.from_numpy(numpy_images).reshape(IMAGES, 1, 28, 28)
    labels = torch.from_numpy(numpy_labels).long()

    @wrap
    def loss_of(x, y):
        x = (x.float() / 255).contiguous(memory_format=memory)
        return loss_function(network(x), y)

    def run(steps: int) -> float:
        began = time.perf_counter()
        passes = math.ceil(steps * BATCH_SIZE / IMAGES)
        order = torch.cat([torch.randperm(IMAGES) for _ in range(passes)])
        for indices in order[: steps * BATCH_SIZE].split(BATCH_SIZE):
            optimizer.zero_grad(set_to_none=True)
            loss_of(images[indices], labels[indices]).backward()
            optimizer.step()
        return time.perf_counter() - began

    return Loop(run, sum(weight.numel() for weight in network.parameters()))


def gemm() -> Callable[[float], dict[str, float]]:
    """What the machine's own matrix product allows, with a thread per core.

    Returns:
      From a number of seconds to {"gflops": …}, the rate of the fastest of the products
      of two 2048 × 2048 float32 matrices that fit into them.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    device.set_threads(0)
    a, b = (tf.random.stateless_normal([GEMM_SIZE] * 2, [0, n]) for n in range(2))

    def seconds() -> float:
        began = time.perf_counter()
        tf.matmul(a, b).numpy()  # waits for the result
        return time.perf_counter() - began

    def answer(budget: float) -> dict[str, float]:
        fastest, end = math.inf, time.perf_counter() + budget
        while time.perf_counter() < end or fastest == math.inf:
            fastest = min(fastest, seconds())
        return {"gflops": 2 * GEMM_SIZE**3 / fastest / 1e9}

    seconds()
    return answer


LOOPS: dict[str, Callable[..., Loop]] = {
    "ours": ours,
    "keras": keras,
    "torch_eager": torch_eager,
    "torch_compile": torch_compile,
}


def _maker(make_loop: Callable[..., Loop]) -> Callable[..., Timer]:
    return lambda **settings: timer(make_loop(**settings))


# name: maker(**settings), for benchmarks.peers.
PEERS = {name: _maker(loop) for name, loop in LOOPS.items()} | {"gemm": gemm}
