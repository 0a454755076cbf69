# SPDX-License-Identifier: Apache-2.0
"""Peer of the training step: the network of `benchmarks.ours` in JAX.

Written from JAX's own operations, with Adam by hand: no further package is needed.
Images stay in memory as bytes. The whole loop can be one call, as ours is; on a CPU,
XLA computes a step inside of its loops at a third of the speed, so that each step can
be a call, too.
"""

import math
import os
import time
from typing import Any

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

# Settings to try, the most promising first; with Keras, those of its `fit`.
SETTINGS: list[dict[str, Any]] = [
    {"multi_thread": multi_thread, "channels_last": channels_last, "in_graph": in_graph}
    for in_graph in (False, True)
    for multi_thread in (True, False)
    for channels_last in (True, False)
]
KERAS_SETTINGS: list[dict[str, Any]] = [
    {"multi_thread": True, "jit_compile": "auto", "steps_per_execution": 1},
    {"multi_thread": True, "jit_compile": True, "steps_per_execution": 32},
    {"multi_thread": False, "jit_compile": "auto", "steps_per_execution": 1},
]

Arrays = dict[str, Any]  # of JAX, by name

# Kernels of the layers, [height, width, inputs, outputs] or [inputs, outputs].
SHAPES = {
    "conv1": (3, 3, 1, 12),
    "conv2": (3, 3, 12, 16),
    "dense1": (576, 288),
    "dense2": (288, 144),
    "logits": (144, 10),
}
BETA1, BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8


def set_flags(multi_thread: bool) -> None:
    """Adds to XLA's flags whether its operations share the cores, before it loads."""
    given = os.environ.get("XLA_FLAGS", "")
    value = str(multi_thread).lower()
    os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_multi_thread_eigen={value}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"  # and no search for a GPU


def loop(*, multi_thread: bool, channels_last: bool, in_graph: bool) -> Loop:
    """A loop in JAX.

    Args:
      multi_thread: whether an operation uses all cores; True is XLA's default.
      channels_last: layout of the images in convolutions and pools.
      in_graph: whether all steps are one call, or each step is.
    """
    set_flags(multi_thread)
    import jax
    from jax import lax

    weights, averages = _variables()
    zeros = jax.tree.map(jax.numpy.zeros_like, weights)
    adam = {"m": zeros, "v": zeros}
    # Of JAX's generators, the fastest: masks need no better one.
    key = jax.random.key(0, impl="unsafe_rbg")
    state: Any = (weights, averages, adam, jax.numpy.int32(0))
    # A step overwrites its state, so that no two arrays may be the same.
    state = jax.tree.map(lambda x: jax.numpy.array(x, copy=True), state)
    images, labels = map(jax.numpy.asarray, noise())
    in_epoch = IMAGES // BATCH_SIZE

    def step(number, state, order, images, labels):
        weights, averages, adam, done = state
        indices = lax.dynamic_index_in_dim(order, number % in_epoch, keepdims=False)
        mask_key = jax.random.fold_in(key, done)
        gradients, averages = jax.grad(_loss, has_aux=True)(
            weights, averages, images[indices], labels[indices], mask_key, channels_last
        )
        weights, adam = _adam(weights, gradients, adam, done + 1)
        return weights, averages, adam, done + 1

    def draw(key):
        order = jax.random.permutation(key, IMAGES)[: in_epoch * BATCH_SIZE]
        return order.reshape(in_epoch, BATCH_SIZE)

    @jax.jit
    def all_steps(state, steps, images, labels):
        order = draw(jax.random.fold_in(key, state[3]))

        def body(number, state):
            return step(number, state, order, images, labels)

        return lax.fori_loop(0, steps, body, state)

    draw_order, one_step = jax.jit(draw), jax.jit(step, donate_argnums=1)

    def run(steps: int) -> float:
        nonlocal state
        began = time.perf_counter()
        if in_graph:
            state = all_steps(state, steps, images, labels)
        else:
            order = draw_order(jax.random.fold_in(key, state[3]))
            for number in range(steps):
                state = one_step(number, state, order, images, labels)
        jax.block_until_ready(state)
        return time.perf_counter() - began

    return Loop(run, sum(math.prod(w.shape) for w in jax.tree.leaves(weights)))


def _variables() -> tuple[dict[str, Arrays], dict[str, Arrays]]:
    """Weights and moving averages of each layer; none of the latter for the last."""
    import jax
    from jax import numpy as jnp

    weights, averages = {}, {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        w = jax.random.normal(jax.random.key(number), shape)
        zeros, ones = jnp.zeros(shape[-1]), jnp.ones(shape[-1])
        weights[name] = {"w": w / math.sqrt(math.prod(shape[:-1])), "b": zeros}
        if name != "logits":
            weights[name] |= {"scale": ones, "offset": zeros}
            averages[name] = {"mean": zeros, "variance": ones}
    return weights, averages


def _loss(weights, averages, images, labels, key, channels_last):
    """Mean cross-entropy of a batch, and the next moving averages."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    layout = "NHWC" if channels_last else "NCHW"
    channels = layout.index("C")

    def along(b, x):
        return b.reshape([-1 if axis == channels else 1 for axis in range(x.ndim)])

    def activate(x, name):
        layer = weights[name]
        axes = tuple(axis for axis in range(x.ndim) if axis != channels % x.ndim)
        x = jax.nn.selu(x + along(layer["b"], x))
        mean = x.mean(axes)
        variance = jnp.square(x - along(mean, x)).mean(axes)
        factor = layer["scale"] * lax.rsqrt(variance + BATCH_NORM_EPSILON)
        found = {"mean": mean, "variance": variance}
        following[name] = {
            k: BATCH_NORM_DECAY * v + (1 - BATCH_NORM_DECAY) * found[k]
            for k, v in averages[name].items()
        }
        return (x - along(mean, x)) * along(factor, x) + along(layer["offset"], x)

    following: dict[str, Arrays] = {}
    x = images.reshape(-1, 28, 28, 1) if channels_last else images[:, None, ..., 0]
    x = x.astype(jnp.float32) / 255
    for name in ("conv1", "conv2"):
        x = lax.conv_general_dilated(
            x,
            weights[name]["w"],
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=(layout, "HWIO", layout),
        )
        for axis in map(layout.index, "HW"):
            x = _max_of_three(x, axis)
        x = activate(x, name)
    x, channels = x.reshape(len(images), -1), 1
    for number, name in enumerate(("dense1", "dense2")):
        x = activate(x @ weights[name]["w"], name)
        kept = jax.random.bernoulli(
            jax.random.fold_in(key, number), 1 - DROPOUT, x.shape
        )
        x = jnp.where(kept, x / (1 - DROPOUT), 0)
    logits = x @ weights["logits"]["w"] + weights["logits"]["b"]
    of_label = jnp.take_along_axis(logits, labels[:, None].astype(jnp.int32), 1)
    losses = jax.nn.logsumexp(logits, 1) - of_label[:, 0]
    return losses.mean(), lax.stop_gradient(following)


def _max_of_three(x, axis):
    """Max pool of size 3 and stride 2 along an axis.

    By slices: XLA's gradient of a max pool takes most of a step on a CPU.
    """
    from jax import lax
    from jax import numpy as jnp

    last = x.shape[axis] - 2
    first, second, third = (
        lax.slice_in_dim(x, start, last + start, 2, axis) for start in range(3)
    )
    return jnp.maximum(jnp.maximum(first, second), third)


def _adam(weights, gradients, adam, step):
    """Next weights and slots. Kingma and Ba, "Adam", 2015."""
    import jax
    from jax import numpy as jnp

    def mean(decay, values, slots):
        return jax.tree.map(lambda v, s: decay * s + (1 - decay) * v, values, slots)

    m = mean(BETA1, gradients, adam["m"])
    v = mean(BETA2, jax.tree.map(jnp.square, gradients), adam["v"])
    rate = LEARNING_RATE * jnp.sqrt(1 - BETA2**step) / (1 - BETA1**step)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + ADAM_EPSILON), weights, m, v
    )
    return weights, {"m": m, "v": v}
