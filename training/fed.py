# SPDX-License-Identifier: Apache-2.0
"""fed.json: images as the network was fed them, for the report and TensorBoard."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from augment import batch, outliers
from system import untrusted
from training import batches, replicas, runs, windows

FED = "fed.json"
MAX_SHOWN = 40


class Fed(NamedTuple):
    """The first images of a batch, as the network was fed them."""

    images: np.ndarray  # uint8 [N, 28, 28, 1]
    labels: Sequence[str]  # [N], names of their classes


def draw(config: Any, window: windows.Window, step: int, classes: Sequence[str]) -> Fed:
    """Draws the batch of a step and transforms it online, as `train_step` does.

    Args:
      config: the run's `config.Config`.
      window: images and labels to draw from at this step.
      step: number of the step.
      classes: names of the classes.
    """
    images, labels, _ = window
    sample, augment = batches.SAMPLERS[config.sampler], batch.from_config(config)
    number = tf.constant(step, tf.int64)
    indices = sample(config.seed, number, config.batch_size, labels.shape[0])
    seed = tf.constant([config.seed, step], tf.int32)
    # Whole parts, since a transform's random numbers depend on how many it draws.
    pieces, seeds, _ = replicas.split(indices, seed, config.replicas)
    shown, names = [], []
    for piece, part_seed in zip(pieces, seeds, strict=True):
        x, y = tf.gather(images, piece), tf.gather(labels, piece)
        x, y, _ = augment(x, y, part_seed)
        shown.append(x)
        names += [
            "–" if label == outliers.NO_CLASS else classes[label] for label in y.numpy()
        ]
    return Fed(tf.concat(shown, 0)[:MAX_SHOWN].numpy(), names[:MAX_SHOWN])


def write(run_dir: Path, fed: Fed) -> None:
    """Writes fed.json; RunError if it cannot be written."""
    pixels = base64.b64encode(fed.images.tobytes()).decode()
    content = {"labels": list(fed.labels), "pixels": pixels}
    runs.write_atomically(run_dir / FED, json.dumps(content) + "\n")


def read(run_dir: Path) -> Fed | None:
    """Reads fed.json; None if it is damaged or missing, as it is in older runs."""
    try:
        stored = untrusted.read_json(run_dir / FED)
        labels = [str(label) for label in stored["labels"][:MAX_SHOWN]]
        pixels = np.frombuffer(base64.b64decode(stored["pixels"]), np.uint8)
        return Fed(pixels.reshape(len(labels), 28, 28, 1), labels)
    except (OSError, ValueError, LookupError, TypeError):
        return None
