# SPDX-License-Identifier: Apache-2.0
"""Computes the golden results."""

from system import device  # isort: skip  (first: it loads TensorFlow)

import dataclasses
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags

import data
import models
import train
from augment import enlarged, online, plan
from config import Config, define_flags, from_flags
from evaluation import scoring
from models import layers
from system import errors
from training import batches, checkpoints, losses, optimizers, rules, schedules
from training.state import State, Totals

FOLDER = Path(__file__).parent
CHECKPOINT = FOLDER / "checkpoint"

Results = dict[str, Any]  # name → number, text, or list of numbers


def config(*arguments: str) -> Config:
    """Flags of the main run, changed by the arguments.

    With its epochs, batch and rate of the time when most of the results were computed.
    """
    if "epochs" not in flags.FLAGS:
        define_flags()
    flags.FLAGS.unparse_flags()
    flagfile = FOLDER.parent.parent / "lenet.flags"
    then = ["--epochs=60", "--batch_size=64", "--learning_rate=3e-3"]
    flags.FLAGS(["train.py", f"--flagfile={flagfile}", *then, *arguments])
    given = from_flags()
    flags.FLAGS.unparse_flags()
    return given


def numbers(values: Any) -> list[float]:
    """Flat list of numbers; floats have eight digits, which is enough for float32."""
    return [float(f"{x:.8g}") if x % 1 else int(x) for x in np.ravel(values).tolist()]


def noise(name: str, *shape: int) -> np.ndarray:
    """Random uint8, the same with every version of NumPy."""
    text = hashlib.shake_256(name.encode()).digest(math.prod(shape))
    return np.frombuffer(text, np.uint8).reshape(shape)


# --- random draws ---


def draws() -> Results:
    """Batches, shuffles, held-out images, dropout masks, initial weights."""
    results: Results = {}
    for name, sample in sorted(batches.SAMPLERS.items()):
        for seed, step, batch_size, set_size in [
            *((0, 0, 16, 1000), (0, 1, 16, 1000), (1, 0, 16, 1000)),
            *((0, 10**9, 16, 10**6), (3, 5, 24, 10)),  # over the ends of two passes
        ]:
            indices = sample(seed, tf.constant(step, tf.int64), batch_size, set_size)
            what = f"sampler {name}: seed {seed} step {step} of {set_size}"
            results[what] = numbers(indices)
    results["held out of 100"] = numbers(data.split(100, 20, 0)[1])
    for name, dropout in sorted(layers.DROPOUTS.items()):
        for number in (1, 2):
            seed = layers.mask_seed(tf.constant([1, 7]), number)
            y = dropout(tf.fill([16, 32], 3.0), 0.3, training=True, seed=seed).numpy()
            kept = np.packbits(y > 0).tobytes().hex()
            results[f"dropout {name}: mask {number}"] = kept
            results[f"dropout {name}: values {number}"] = numbers(np.unique(y))
    for name in sorted(models.NETWORKS):
        network = models.build(name, seed=5)
        for v in network.trainable_variables:
            if v.shape.rank > 1:
                some = np.ravel(v)[:: v.shape.num_elements() // 7]
                results[f"initial weights: {v.name}"] = numbers(some)
    return results


def of_draws(name: str, place: int) -> float:
    """Tolerance for normal numbers, which take logarithms and cosines to compute."""
    return 1e-5 if name.startswith(("initial", "dropout")) else 0.0


# --- augmentation ---


def shards() -> Results:
    """SHA-256 of every file of two enlarged sets, and of the digits."""
    digits = data.load("digits")
    results: Results = {f"digits {k}": v for k, v in sorted(digits.hashes.items())}
    images, labels = noise("images", 24, 28, 28, 1), np.arange(24, dtype=np.uint8) % 10
    dataset = data.Dataset("noise", images, labels, images, labels, {}, "")
    for settings in (
        plan.settings_from(config()),
        plan.Settings(flip_codes=(0, 1), flip_labels=(0, 8), flip_shifted=True),
    ):
        with tempfile.TemporaryDirectory() as root:
            folder = enlarged.enlarge(dataset, settings, root).directory
            assert folder is not None
            manifest = json.loads((folder / "manifest.json").read_bytes())
        for file, digest in sorted(manifest["sha256"].items()):
            results[f"{folder.name}/{file}"] = digest
    return results


ONLINE = {
    "rotation": ["--rotation=20"],
    "zoom": ["--zoom=0.2"],
    "shift": ["--shift=0.1"],
    "shear": ["--shear=15"],
    "elastic": ["--elastic_alpha=34", "--elastic_sigma=4"],
}


def online_images() -> Results:
    """Two digits after each online transform, and after all of them."""
    images = tf.constant(data.load("digits").train_images[3:5])
    results: Results = {}
    for name, arguments in [*ONLINE.items(), ("all", sum(ONLINE.values(), []))]:
        augment = online.from_config(config(*arguments))
        seen = augment(images, tf.constant([1, 7])).numpy()
        results[f"{name}: pixels"] = numbers(seen)
        results[f"{name}: sum"] = numbers(seen.sum(dtype=np.int64))
    return results


# --- optimizers ---

SIZES = np.array([1e-8, 1e-6, 1e-3, 1.0, 100.0])  # of gradients


def trajectories() -> Results:
    """Twenty steps of each update rule, of the weight average and of the schedules."""
    results: Results = {}
    rate = tf.constant(0.01)
    for rule in sorted(rules.RULES):
        # A kernel, which decays, and a bias, which does not and shows small steps.
        weights = [tf.Variable(tf.ones([1, 5])), tf.Variable(tf.zeros([5]))]
        optimizer = optimizers.Optimizer(rule, weights, weight_decay=0.2)
        path = []
        for step in range(20):
            gradient = tf.constant((7 * step % 11 - 4) * SIZES, tf.float32)
            optimizer.apply(
                [gradient[tf.newaxis], gradient],
                step=tf.constant(step, tf.int64),
                rate=rate,
            )
            path.append(np.concatenate([np.ravel(w) for w in weights]))
        for i, values in enumerate(np.transpose(path)):
            kind, size = ("kernel", "bias")[i // 5], SIZES[i % 5]
            results[f"{rule}: {kind} by gradients of {size:g}"] = numbers(values)
        for slot, variables in optimizer.slots.items():
            results[f"{rule}: slot {slot}"] = numbers(variables[-1])
    average, path = tf.constant(1.0), []
    for step in range(20):
        now = tf.constant(step, tf.int64)
        average = rules.weight_average(
            average, tf.constant(float(step % 3)), step=now, decay=0.6
        )
        path.append(average)
    results["weight average"] = numbers(path)
    for name, schedule in sorted(schedules.SMOOTH.items()):
        progress = tf.range(20.0) / 20
        results[f"schedule {name}"] = numbers([schedule(p) for p in progress])
    stairs = [schedules.step_decay(tf.constant(step), 6, 0.3) for step in range(20)]
    results["schedule step"] = numbers(stairs)
    return results


# --- loss curves ---

STEPS = 50

# How far roundings may move a metric, as a share of it: at the first step, from which
# on each step multiplies it by GROWTH, and at most. Some five times what was seen with
# other kernels (oneDNN off, or held to older instructions), with two threads, and with
# initial weights moved by a bit or by a millionth.
ROUNDINGS = {
    "loss": (5e-5, 0.2),
    "gradient": (2e-3, 0.4),  # a value that crosses a kink is more to it than rounding
    "change": (2e-4, 0.1),
    "weights": (1e-6, 5e-5),
    "slow": (1e-6, 5e-5),
    "averages": (2e-6, 0.02),
    "scored": (5e-5, 0.2),
}
GROWTH = 1.8


def curves(kernels: str = "tensorflow") -> Results:
    """The main run's network on 512 digits, with one replica and with two."""
    return {
        f"replicas {replicas}: {name}": numbers(values)
        for replicas in (1, 2)
        for name, values in _curve(replicas, kernels).items()
    }


def _curve(replicas: int, kernels: str) -> dict[str, list[float]]:
    """Figures after each step that would show any change in it.

    The loss alone would not: ten times Adam's epsilon changes it by less than rounding.
    So we add the norm of the gradient; the mean change of a weight; the norms of the
    weights, of their average and of batch norm's averages; and, at every fifth step,
    the loss of the weight average on 100 test digits.
    """
    arguments = ("--epochs=2", f"--replicas={replicas}", f"--kernels={kernels}")
    values = config(*arguments)
    state, digits = State(values), data.load("digits")
    train_steps = train.make_train_steps(
        state,
        device.tensor(digits.train_images[:512]),
        device.tensor(digits.train_labels[:512]),
        values,
        epoch_steps=STEPS // 2,
    )
    predict = scoring.Predict(state.scored)
    weights = state.network.trainable_variables
    averages = [v for v in state.network.variables if not v.trainable]
    slow = state.scored.trainable_variables  # the weight average
    curve: dict[str, list[float]] = {name: [] for name in ROUNDINGS}
    for step in range(STEPS):
        before = [w.numpy() for w in weights]
        totals = train_steps(step, 1, training=True)
        changes = [np.ravel(w - old) for w, old in zip(weights, before, strict=True)]
        curve["loss"].append(float(totals.loss))
        curve["gradient"].append(float(tf.norm(totals.gradient_norms)))
        curve["change"].append(abs(np.concatenate(changes)).mean(dtype=np.float64))
        curve["weights"].append(float(tf.linalg.global_norm(weights)))
        curve["slow"].append(float(tf.linalg.global_norm(slow)))
        curve["averages"].append(float(tf.linalg.global_norm(averages)))
        if step % 5 == 4:
            logits = predict(digits.test_images[:100])
            loss = losses.softmax_cross_entropy(logits, digits.test_labels[:100])
            curve["scored"].append(float(loss))
    return curve


def of_curve(name: str, place: int) -> float:
    """Tolerance that grows with the steps, since training magnifies roundings."""
    metric = name.rpartition(" ")[2]
    first, most = ROUNDINGS[metric]
    return min(first * GROWTH ** (5 * place + 4 if metric == "scored" else place), most)


# --- a checkpoint ---

CHECKPOINT_STEPS = 8


def write_checkpoint(folder: Path) -> None:
    """Trains a tiny network for a few steps and keeps it in `folder`."""
    state, train_steps = _tiny()
    train_steps(0, CHECKPOINT_STEPS, training=True)
    checkpoints.save(state.checkpoint, folder, CHECKPOINT_STEPS)


def checkpoint() -> Results:
    """Contents of the checkpoint in the repository, and of a run resumed from it."""
    state, train_steps = _tiny()
    step = checkpoints.restore(state.checkpoint, CHECKPOINT)
    assert step is not None, f"no checkpoint in {CHECKPOINT}"
    results: Results = {"step": step}
    for part in ("network", "average", "optimizer", "watch"):
        for i, v in enumerate(getattr(state, part).variables):
            digest = hashlib.sha256(v.numpy().tobytes()).hexdigest()
            results[f"{part} {i}: {v.name}"] = digest
    some = tf.constant(data.load("digits").test_images[:2])
    logits, _ = state.scored(some, training=False)
    results["logits"] = numbers(logits)
    results["loss"] = [
        float(train_steps(step + more, 1, training=True).loss) for more in range(3)
    ]
    return results


def _tiny() -> tuple[State, Callable[..., Totals]]:
    unset: dict[str, Any] = dict.fromkeys(models.OPTIONS)
    unset |= {"network": "mlp", "hidden_units": [4], "seed": 0}
    values = dataclasses.replace(config("--replicas=1"), **unset)
    state, digits = State(values), data.load("digits")
    images, labels = digits.train_images[:256], digits.train_labels[:256]
    return state, train.make_train_steps(
        state, device.tensor(images), device.tensor(labels), values, epoch_steps=4
    )


def keep_readable() -> list[str]:
    """Makes the checkpoint again if it is gone or cannot be read; says why."""
    try:
        if checkpoints.restore(_tiny()[0].checkpoint, CHECKPOINT) is not None:
            return []
        reason = "it was gone"
    except errors.UserError as error:
        reason = str(error)
    shutil.rmtree(CHECKPOINT, ignore_errors=True)
    write_checkpoint(CHECKPOINT)
    return [f"{CHECKPOINT.name}: made again: {reason}"]
