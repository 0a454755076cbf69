# SPDX-License-Identifier: Apache-2.0
"""From disk to verified uint8 arrays, by name."""

import sys
from collections.abc import Callable

from system import console

if sys.argv[:1] == ["-m"]:  # python -m data…: this is loaded before the program
    console.start()

import numpy as np

from data import digits, kaggle, mnist
from data.dataset import Dataset
from data.idx import DataError
from system import errors

__all__ = ["DATASETS", "DataError", "Dataset", "load", "scored", "split"]

# A new data set is one more line: its name and what loads it from a folder, or from
# wherever it is found when the folder is None.
DATASETS: dict[str, Callable[[str | None], Dataset]] = {
    "digits": digits.load,
    "kaggle": kaggle.load,
    "mnist": mnist.load,
}


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Returns a data set of the registry.

    Args:
      name: a key of `DATASETS`.
      data_dir: the folder that holds it; None searches where the loader says.

    Raises:
      DataError: no such name, or the data is missing or damaged.
    """
    if name not in DATASETS:
        raise DataError(
            f"no data set is named {name!r}; expected one of {', '.join(DATASETS)}"
        )
    return DATASETS[name](data_dir)


def split(
    labels_count: int, validation_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the training images into those to train on and those to choose by.

    At random and not stratified: the classes' shares of the held-out images differ from
    those of the set by chance, as of any sample of that size.

    Args:
      labels_count: how many there are.
      validation_size: how many to hold out; may be 0.
      seed: 0 or more; the same arguments always give the same split.

    Returns:
      Indices for training and for validation: int64, sorted, disjoint, together all.

    Raises:
      UserError: the size is negative or leaves nothing to train on.
    """
    if not 0 <= validation_size < labels_count:
        raise errors.UserError(
            f"a validation set of {validation_size} out of {labels_count} images; "
            f"expected 0 to {labels_count - 1}, so that some are left to train on"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(labels_count)
    return np.sort(order[validation_size:]), np.sort(order[:validation_size])


def scored(
    dataset: Dataset, validation_size: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What there is to score a network on, by name: "validation", "test".

    Args:
      dataset: its test digits count if they have labels.
      validation_size: as of `split`; 0 leaves "validation" out.
      seed: as of `split`.

    Returns:
      Images uint8 [N, 28, 28, 1] and labels uint8 [N] of each.
    """
    _, held_out = split(len(dataset.train_labels), validation_size, seed)
    found = {}
    if len(held_out):
        found["validation"] = (
            dataset.train_images[held_out],
            dataset.train_labels[held_out],
        )
    if dataset.test_labels is not None:
        found["test"] = dataset.test_images, dataset.test_labels
    return found
