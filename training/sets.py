# SPDX-License-Identifier: Apache-2.0
"""The data of a run: held-out images set apart, the rest enlarged."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import data
from augment import plan
from augment.enlarged import enlarge, store
from data.dataset import empty
from training import windows


class Sets(NamedTuple):
    """uint8 images [N, 28, 28, 1] and labels [N].

    Attributes:
      train_images: enlarged, without the held-out ones.
      train_labels: their labels.
      scored: images and labels of "validation" and "test", where there are any.
      stored: the training set if it stays on disk; the two above are then empty.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]]
    stored: windows.Source | None = None

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray, windows.Source | None]:
        """The training set, as `windows.feed` takes it."""
        return self.train_images, self.train_labels, self.stored

    @property
    def train_count(self) -> int:
        """How many images there are to train on."""
        return len(self.train_labels if self.stored is None else self.stored)


def load(dataset: data.Dataset, config: Any) -> Sets:
    """Splits a data set and enlarges its training images, as the settings say."""
    size, seed = config.validation_size, config.split_seed
    settings, memory_mb = plan.settings_from(vars(config)), config.memory_mb
    train, _ = data.split(len(dataset.train_labels), size, seed)
    scored = data.scored(dataset, size, seed)
    if memory_mb:
        stored = store(dataset, settings, config.augmented_dir, train)
        if not windows.fits(len(stored), memory_mb):
            return Sets(empty((0, 28, 28, 1)), empty((0,)), scored, stored)
    enlarged = enlarge(dataset, settings, config.augmented_dir, train if size else None)
    return Sets(enlarged.images, enlarged.labels, scored)
