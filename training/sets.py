# SPDX-License-Identifier: Apache-2.0
"""The data of a run: held-out images, and the other ones enlarged for training."""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import data
from augment import plan
from augment.enlarged import enlarge, store
from data.dataset import empty
from system import device
from training import windows


class Sets(NamedTuple):
    """Images and labels of a run: uint8 [N, 28, 28, 1] and, as in `Dataset`, [N]."""

    train_images: np.ndarray  # the enlarged training set, without the held-out images
    train_labels: np.ndarray
    # Images and labels of "validation" and "test", if there are any.
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]]
    # The training set if it stays on disk; the first two are then empty, and
    # `training.windows` reads it part by part.
    stored: windows.Source | None = None
    classes: tuple[str, ...] = data.DIGITS  # their names

    @property
    def train_count(self) -> int:
        """Number of images in the training set."""
        return len(self.train_labels if self.stored is None else self.stored)


def load(dataset: data.Dataset, config: Any) -> Sets:
    """Splits a dataset and enlarges its training images by the run's `config.Config`.

    The enlarged set is built in --augmented_dir first, unless it is there already.
    """
    size, seed = config.validation_size, config.split_seed
    classes, memory_mb = dataset.classes, config.memory_mb
    settings = plan.settings_from(config, classes)
    train, _ = data.split(len(dataset.train_labels), size, seed)  # indices
    scored = data.scored(dataset, size, seed)  # held-out images and test images
    if memory_mb:  # 0: the set goes into memory, whatever its size
        stored = store(dataset, settings, config.augmented_dir, train)
        if not windows.fits(len(stored), memory_mb):
            labels = empty((0,), dataset.train_labels.dtype)
            return Sets(empty((0, 28, 28, 1)), labels, scored, stored, classes)
    enlarged = enlarge(dataset, settings, config.augmented_dir, train if size else None)
    return Sets(enlarged.images, enlarged.labels, scored, None, classes)


class Whole:
    """A set in memory, images and labels: one window for all steps."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        # Copied to the device once, as bytes.
        images, labels = map(device.tensor, (images, labels))
        self._window = windows.Window(images, labels, sys.maxsize)

    def at(self, step: int) -> windows.Window:
        """Returns the window of a step."""
        return self._window

    def first(self, count: int) -> tf.Tensor:
        """Returns the first images of the set, uint8 [up to `count`, 28, 28, 1]."""
        return self._window.images[:count]

    def verified(self) -> None:
        """Does nothing: the set was verified when it was read."""

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, *_: object) -> None:
        pass


Feed = Whole | windows.Windows


def feed(data_sets: Sets, config: Any, steps: int) -> Feed:
    """Returns the training set of `Sets`: in windows if it stays on disk."""
    if data_sets.stored is None:
        return Whole(data_sets.train_images, data_sets.train_labels)
    return windows.Windows(
        data_sets.stored,
        sampler=config.sampler,
        seed=config.seed,
        batch_size=config.batch_size,
        length=windows.length(config.memory_mb, config.batch_size),
        steps=steps,
        label_type=data_sets.train_labels.dtype,
    )
