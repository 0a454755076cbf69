# SPDX-License-Identifier: Apache-2.0
"""--dry_run: what a run would be, how large, how long; then nothing is trained."""

import os
import resource
import shutil
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import data
from augment import plan
from models import structure
from system import console, flagfiles
from training import (
    checkpoints,
    epochs,
    runs,
    schedules,
    teachers,
    trial,
    weights,
    windows,
)

MEASURED_SECONDS = 1.0  # of steps
WARM_UP_STEPS = 10
MEASURED_IMAGES = 60_000  # random ones, as many as MNIST has


def show(config: Any, make_train_steps: trial.MakeTrainSteps) -> None:
    """Prints settings, layers, sizes and time of a run; errors are those of a run.

    Args:
      config: settings of the run, a `config.Config`.
      make_train_steps: see `trial`.
    """
    resolved = trial.settled(config)
    config = resolved.config
    run_dir = Path(config.run_dir)
    done = _steps_done(run_dir, config)
    print(f"{run_dir}: {f'resumed from step {done:,}' if done else 'a new run'}")
    print(*_settings(config, resolved.chosen), sep="\n")
    start = weights.start(run_dir, config)
    dataset = data.load_for(config, config.data_dir)
    classes, count = len(dataset.classes), count_images(dataset, config)
    epoch_steps, total_steps = schedules.count_steps(config, count)
    labels_type = dataset.train_labels.dtype
    images, labels = _random_set(min(count, MEASURED_IMAGES), classes, labels_type)
    known = teachers.load(run_dir, config, dataset.classes)
    teach = teachers.imitate(config, known, classes)
    tried = trial.begin(config, images, labels, classes, make_train_steps, teach=teach)
    print(f"\n{layers_table(tried.state.network, config.freeze)}\n")
    if start:
        print(start.describe(tried.state.network))
    seconds, measured = _measure(tried)
    left = max(0, total_steps - done)
    for name, text in {
        "images": f"{count:,} to train on, of {dataset.name}; {classes} classes",
        "steps": f"{total_steps:,}: {config.epochs:,} epochs of {epoch_steps:,} steps"
        f" of {config.batch_size} images",
        "memory": _memory(count, dataset, config, tried.state.variables),
        "time": f"about {console.duration(seconds * left + 1)} for {left:,} steps of"
        f" {1000 * seconds:.2f} ms, measured over {measured:,} steps on random images;"
        " reading data, scoring and logging come on top",
    }.items():
        print(_wrap(f"{name + ':':<10}{text}"))
    print("nothing was trained, and nothing written")


def _wrap(text: str) -> str:
    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * 10,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _steps_done(run_dir: Path, config: Any) -> int:
    """Steps of the run in a directory; RunError if it could not be resumed."""
    if not (run := runs.check_settings(run_dir, config)):
        return 0
    epochs.check(run_dir, run, config)
    return max(checkpoints.steps(run_dir / checkpoints.FOLDER), default=0)


def _settings(config: Any, chosen: dict[str, Any]) -> list[str]:
    """Lines with the settings that are not the defaults, as arguments."""
    plain = type(config)()
    default = type(config)(network=config.network, optimizer=config.optimizer)
    defaults = {**vars(default.resolved()), "network": plain.network}
    defaults |= {"optimizer": plain.optimizer, "run_dir": config.run_dir}
    changed = [n for n, v in vars(config).items() if not _equal(v, defaults[n])]
    lines = config.arguments()
    arguments = [flagfiles.line(lines[n]) for n in changed if n not in chosen]
    by_machine = [f"--{name}={value}" for name, value in chosen.items()]
    lines = {"settings": arguments or ["the defaults"], "machine": by_machine}
    return [_wrap(f"{k + ':':<10}{' '.join(v)}") for k, v in lines.items() if v]


def _equal(one: Any, other: Any) -> bool:
    """Whether two values of a setting are the same; a default list is a tuple."""
    return one == (list(other) if isinstance(other, tuple) else other)


def count_images(dataset: data.Dataset, config: Any) -> int:
    """Number of images that `sets.load` would make of a dataset to train on."""
    size, seed = config.validation_size, config.split_seed
    train, _ = data.split(len(dataset.train_labels), size, seed)
    settings = plan.settings_from(config, dataset.classes)
    parts = plan.plan(dataset.train_labels[train], settings)
    return sum(len(part.indices) for part in parts)


def layers_table(network: tf.Module, frozen: list[str]) -> str:
    """Table of a network's layers with the shape of one image's output."""
    from tabulate import tabulate  # no run needs it to start

    layers = structure.layers(network)
    rows = [
        [
            layer.name + " (frozen)" * (layer.name in frozen),
            layer.kind,
            "×".join(map(str, layer.shape)),
            f"{layer.parameters:,}",
        ]
        for layer in layers
    ]
    rows.append(["all", "", "", f"{sum(layer.parameters for layer in layers):,}"])
    header = ["layer", "consists of", "output", "parameters"]
    align = ("left", "left", "right", "right")
    return tabulate(rows, header, colalign=align, disable_numparse=True)


def _random_set(
    count: int, classes: int, labels_type: np.dtype
) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    return tf.constant(images), tf.constant(
        rng.integers(0, classes, count).astype(labels_type)
    )


def _measure(tried: trial.Trial) -> tuple[float, int]:
    """Seconds per step, and the number of steps that were measured."""
    first, count = 0, WARM_UP_STEPS
    for measured in (False, False, True):
        start = time.perf_counter()
        totals = tried.steps(first, count, training=True)
        done = max(1, int(totals.step) - first)  # fewer if the loss is not finite
        seconds = (time.perf_counter() - start) / done
        if measured:
            break
        first = int(totals.step)
        count = WARM_UP_STEPS if first == count else int(MEASURED_SECONDS / seconds) + 1
    return seconds, done


def _memory(
    count: int, dataset: data.Dataset, config: Any, variables: list[tf.Variable]
) -> str:
    """Sentence on the memory of images and weights, and on what we use without them."""
    megabyte = windows.MB
    set_bytes = count * windows.ITEM_BYTES
    if config.memory_mb:
        set_bytes = min(set_bytes, config.memory_mb * megabyte)
    originals = len(dataset.train_images) + len(dataset.test_images)
    weights_bytes = sum(v.shape.num_elements() * v.dtype.size for v in variables)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if os.uname().sysname == "Darwin":
        peak_bytes //= 1024
    return (
        f"about {set_bytes / megabyte:,.0f} MB for the training images,"
        f" {originals * windows.ITEM_BYTES / megabyte:,.0f} MB for the files' images,"
        f" {weights_bytes / megabyte:,.1f} MB for weights and the optimizer's state;"
        f" estimated. This process has taken {peak_bytes / megabyte:,.0f} MB"
    )
