# SPDX-License-Identifier: Apache-2.0
"""Datasets by name: from disk to verified uint8 arrays."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from system import console

if sys.argv[:1] == ["-m"]:  # python -m data: this file is loaded before the program
    console.start()

import numpy as np

from data import csv_files, digits, folder, idx_files, kaggle, mnist, npz
from data.dataset import DIGITS, DataError, Dataset
from data.settings import Data
from system import cli, errors

__all__ = [
    "DATASETS",
    "DIGITS",
    "Data",
    "DataError",
    "Dataset",
    "load",
    "load_for",
    "scored",
    "split",
]

# To add a dataset: a line here with its name and its loader. A loader takes a folder,
# or None to search for the data. Its keyword-only arguments are settings, and fields of
# data/settings.py.
DATASETS: dict[str, Callable[..., Dataset]] = {
    "csv": csv_files.load,
    "digits": digits.load,
    "folder": folder.load,
    "idx": idx_files.load,
    "kaggle": kaggle.load,
    "mnist": mnist.load,
    "npz": npz.load,
}

OPTIONS = tuple(field.name for field in dataclasses.fields(Data))


def load(name: str, data_dir: str | None = None, **options: Any) -> Dataset:
    """Loads a dataset of `DATASETS`; no data_dir searches the places its loader lists.

    Options are the settings of `settings.Data`; None stands for the loader's default.

    Raises DataError if no dataset has this name, or its files are missing or damaged;
    UsageError for an option that belongs to other datasets only.
    """
    if name not in DATASETS:
        raise DataError(
            f"no dataset is named {name!r}; expected one of {', '.join(DATASETS)}"
        )
    loader = DATASETS[name]
    return loader(
        data_dir, **cli.options([loader], OPTIONS, options, f"--dataset={name}")
    )


def load_for(config: Any, data_dir: str | None) -> Dataset:
    """Loads the dataset of a run, from a folder, as the run's own settings say.

    `config` is a `config.Config`, or a program's flags of the same names.
    """
    options = {name: getattr(config, name) for name in OPTIONS}
    return load(config.dataset, data_dir, **options)


def split(
    labels_count: int, validation_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the training images at random into training and validation images.

    The split is not stratified: as in any random sample, the shares of the classes
    differ a little from those of the dataset. The same arguments always give the same
    split.

    Returns indices for training and for validation: int64, sorted, disjoint, together
    all. Raises UserError if no image is left to train on.
    """
    if not 0 <= validation_size < labels_count:
        raise errors.UserError(
            f"validation_size is {validation_size}, of {labels_count} training images;"
            f" expected 0 to {labels_count - 1}, so that some are left to train on"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(labels_count)
    return np.sort(order[validation_size:]), np.sort(order[:validation_size])


def scored(
    dataset: Dataset, validation_size: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labelled images to score a network on: "validation" and "test".

    "test" is left out if the test images have no labels, "validation" if its size is 0.
    Returns images uint8 [N, 28, 28, 1] and labels uint8 [N] by name.
    """
    _, held_out = split(len(dataset.train_labels), validation_size, seed)
    sets = {}
    if len(held_out):
        sets["validation"] = (
            dataset.train_images[held_out],
            dataset.train_labels[held_out],
        )
    if dataset.test_labels is not None:
        sets["test"] = dataset.test_images, dataset.test_labels
    return sets
