# SPDX-License-Identifier: Apache-2.0
"""Peers of the training step: ours, Keras, PyTorch, JAX, and a matrix product.

All train the network of `benchmarks.ours` and apply SELU after the pool, where there is
a quarter of the values. Initial weights are each library's own, as speed does not
depend on them. Tracing, compiling and the first steps are not timed. Each peer imports
its library itself, so that no process loads that of another.
"""

import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours, peers, step_jax
from benchmarks.ours import (
    BATCH_NORM_DECAY,
    BATCH_NORM_EPSILON,
    BATCH_SIZE,
    DROPOUT,
    IMAGES,
    LEARNING_RATE,
    Loop,
    noise,
)

GEMM_SIZE = 2048

Settings = dict[str, Any]

# Settings that each peer tries, the most promising first; threads 0: its default.
SETTINGS: dict[str, list[Settings]] = {
    "ours": [
        {"threads": 0},
        {"threads": 0, "replicas": 1},
        {"threads": 1},
        {"threads": 0, "kernels": "tensorflow"},
    ],
    "keras": [
        {"threads": 0, "jit_compile": "auto", "steps_per_execution": 1},  # as shipped
        {"threads": 0, "jit_compile": False, "steps_per_execution": 32},
        {"threads": 0, "jit_compile": False, "steps_per_execution": 1},
        {"threads": 2, "jit_compile": False, "steps_per_execution": 32},
        {"threads": 1, "jit_compile": False, "steps_per_execution": 32},
    ],
    **{
        peer: [
            {"threads": threads, "channels_last": channels_last}
            for threads in (0, 1)
            for channels_last in (True, False)
        ]
        for peer in ("torch_eager", "torch_compile")
    },
    "jax": step_jax.SETTINGS,
    "keras_jax": step_jax.KERAS_SETTINGS,
}


def keras(*, threads: int, jit_compile: bool | str, steps_per_execution: int) -> Loop:
    """An epoch of Keras 3's `fit`, written as in its guides, with oneDNN.

    Args:
      threads: 0: Keras' default, one per core in and between operations; otherwise
        threads of an operation, one operation at a time.
      jit_compile: "auto" is the default; or whether XLA compiles the step.
      steps_per_execution: steps per call of the graph; 1 is the default.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras says
    from system import device  # isort: skip  (first: it loads TensorFlow)

    if threads:
        device.set_threads(threads)
    return _fit(jit_compile, steps_per_execution)


def keras_jax(
    *, multi_thread: bool, jit_compile: bool | str, steps_per_execution: int
) -> Loop:
    """The same epoch with Keras on JAX; for the arguments, see `step_jax` and above."""
    os.environ["KERAS_BACKEND"] = "jax"
    step_jax.set_flags(multi_thread)
    import jax  # noqa: F401  (if it is missing, that is said before Keras is loaded)

    return _fit(jit_compile, steps_per_execution)


def _fit(jit_compile: bool | str, steps_per_execution: int) -> Loop:
    import keras

    network = _keras_network()
    network.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    images, labels = noise()

    def run(steps: int) -> float:
        # Whole batches; images are repeated if there are too few.
        x = np.resize(images, (steps * BATCH_SIZE, 28, 28, 1))
        x = x.astype(np.float32) / 255
        y = np.resize(labels, steps * BATCH_SIZE)
        clock: list[float] = []  # of the epoch only: fit copies the images before it
        tick = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: clock.append(time.perf_counter()),
            on_epoch_end=lambda epoch, logs: clock.append(time.perf_counter()),
        )
        network.fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[tick])
        began, ended = clock
        return ended - began

    return Loop(run, sum(math.prod(w.shape) for w in network.trainable_weights))


def _keras_network():
    import keras
    from keras import layers

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

    return keras.Sequential(
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


def torch_eager(*, threads: int, channels_last: bool) -> Loop:
    """A plain loop in PyTorch; for the arguments, see `_torch`."""
    return _torch(threads, channels_last, lambda function: function)


def torch_compile(*, threads: int, channels_last: bool) -> Loop:
    """The same loop, with network and loss compiled by `torch.compile`; see `_torch`.

    Raises Missing if there is no C++ compiler, or no header of Python.
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
    """A PyTorch loop at its best: fused Adam, images in memory as bytes, no DataLoader.

    Args:
      threads: threads of an operation; 0: PyTorch's default.
      channels_last: memory format of images and kernels.
      wrap: decorator of the function from a batch to its loss.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    network = _torch_network().to(memory_format=memory)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    loss_function = torch.nn.CrossEntropyLoss()
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


def _torch_network():
    from torch import nn

    norm = {"momentum": 1 - BATCH_NORM_DECAY, "eps": BATCH_NORM_EPSILON}

    def conv_block(inputs, maps):
        conv = nn.Conv2d(inputs, maps, 3, padding=1)
        return [conv, nn.MaxPool2d(3, 2), nn.SELU(), nn.BatchNorm2d(maps, **norm)]

    def dense_block(inputs, units):
        norm1d = nn.BatchNorm1d(units, **norm)
        return [nn.Linear(inputs, units), nn.SELU(), norm1d, nn.Dropout(DROPOUT)]

    return nn.Sequential(
        *conv_block(1, 12),
        *conv_block(12, 16),
        nn.Flatten(),
        *dense_block(576, 288),
        *dense_block(288, 144),
        nn.Linear(144, 10),
    )


def gemm() -> Callable[[float], dict[str, float]]:
    """The machine's speed in TensorFlow's matrix product, on one thread per core.

    Returns a function from a number of seconds to {"gflops": …} of the fastest product
    in that time of two 2048 × 2048 float32 matrices.
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
    "ours": ours.loop,
    "keras": keras,
    "torch_eager": torch_eager,
    "torch_compile": torch_compile,
    "jax": step_jax.loop,
    "keras_jax": keras_jax,
}


def _maker(make_loop: Callable[..., Loop]) -> Callable[..., ours.Timer]:
    return lambda **settings: ours.timer(make_loop(**settings))


# {name: maker(**settings)}; see benchmarks.peers.
PEERS = {name: _maker(loop) for name, loop in LOOPS.items()} | {"gemm": gemm}
