# SPDX-License-Identifier: Apache-2.0
"""Dataset, which every loader returns, and which validates itself."""

import collections
import dataclasses
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from system import errors

DIGITS = tuple("0123456789")
MIN_CLASSES, MAX_CLASSES = 2, 1000
MAX_NAME_CHARACTERS = 40  # of a class: more does not fit in a table

_REMEDY = "correct the data, or its loader"


class DataError(errors.UserError):
    """Data that is missing, damaged or not as expected."""


def empty(shape: Sequence[int], dtype: DTypeLike = np.uint8) -> np.ndarray:
    """Creates an array that is aligned to a page of memory.

    TensorFlow can use it without a copy (see `device.tensor`). Arrays of numpy start 16
    bytes into a page, which does not suffice; numpy also asks for pages of 2 MB, and a
    virtual machine takes three times as long to touch those for the first time.
    """
    size = math.prod(shape)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(size, 1) * np.dtype(dtype).itemsize, flags=kind)
    return np.frombuffer(memory, dtype, size).reshape(shape)


def label_type(classes: int) -> np.dtype:
    """Type of the labels of so many classes: uint8, or int16 for more than 256."""
    return np.dtype(np.uint8 if classes <= 256 else np.int16)


def check_classes(names: Sequence[str]) -> None:
    """Raises DataError unless these can be the names of classes."""
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"{len(names)} classes; expected {MIN_CLASSES} to {MAX_CLASSES:,}"
        )
    for name in names:
        if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARACTERS):
            raise DataError(
                f"{name!r} cannot be the name of a class; expected text of 1 to"
                f" {MAX_NAME_CHARACTERS} characters"
            )
        if not name.isprintable():
            raise DataError(
                f"{name!r} cannot be the name of a class: it has characters that cannot"
                " be shown"
            )
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise DataError(f"{count} classes are named {name!r}; expected one")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test images in memory, verified.

    Raises DataError if types, shapes, counts, labels or class names are wrong.
    """

    name: str
    train_images: np.ndarray  # uint8 [N, 28, 28, 1], 0 paper, 255 ink
    train_labels: np.ndarray  # [N], 0 to classes - 1, of the type `label_type`
    test_images: np.ndarray  # uint8 [M, 28, 28, 1]
    # [M], as above; None if they are not public, as in a competition.
    test_labels: np.ndarray | None
    hashes: Mapping[str, str]  # name of a file or array → its SHA-256, in hex
    source: str  # where it was found, to report
    classes: tuple[str, ...] = DIGITS  # name of each class, in the order of the labels

    def __post_init__(self) -> None:
        try:
            check_classes(self.classes)
            _check("training", self.train_images, self.train_labels, self.classes)
            _check("test", self.test_images, self.test_labels, self.classes)
        except DataError as error:
            raise DataError(f"dataset {self.name!r}: {error}; {_REMEDY}") from None

    @property
    def missing(self) -> list[str]:
        """Names of the classes without a training image."""
        counts = np.bincount(self.train_labels, minlength=len(self.classes))
        return [name for name, count in zip(self.classes, counts) if not count]


def _check(
    split: str, images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]
) -> None:
    for fault in _faults(split, images, labels, classes):
        raise DataError(fault)


def _faults(
    split: str, images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]
) -> Iterator[str]:
    """Yields what is wrong with the images and labels of a split."""
    if images.dtype != np.uint8:
        yield f"{split} images have the type {images.dtype}; expected uint8"
    if images.ndim != 4 or images.shape[1:] != (28, 28, 1):
        yield f"{split} images are {list(images.shape)}; expected [N, 28, 28, 1]"
    if labels is None:
        return
    if not len(images):
        yield f"there are no {split} images"
    dtype = label_type(len(classes))
    if labels.dtype != dtype:
        yield (
            f"{split} labels have the type {labels.dtype}; expected {dtype} for"
            f" {len(classes)} classes"
        )
    if labels.shape != images.shape[:1]:
        yield (
            f"{split} labels are {list(labels.shape)}; expected [{len(images)}], one"
            " for each image"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if wrong.size:
        yield (
            f"label {labels[wrong[0]]} of {split} image {wrong[0]}, counted from 0;"
            f" expected 0 to {len(classes) - 1}"
        )
