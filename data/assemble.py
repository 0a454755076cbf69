# SPDX-License-Identifier: Apache-2.0
"""From what a reader found to a Dataset: classes, labels, test part, hashes."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data.dataset import Dataset, label_type

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class Part(NamedTuple):
    """The training or the test part of a data set, as its files have it."""

    images: np.ndarray  # uint8 [N, 28, 28, 1]
    labels: np.ndarray | None  # integers [N]: indices of `names`; None: it has none
    names: Sequence[str]  # what the labels are called there, in any order

    @classmethod
    def numbered(cls, images: np.ndarray, labels: np.ndarray) -> "Part":
        """A part whose labels, integers [N], are their own names."""
        numbers, indices = np.unique(labels, return_inverse=True)
        return cls(images, indices, [str(number) for number in numbers])


def dataset(
    name: str,
    train: Part,
    test: Part | None,
    source: str,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Makes a Dataset whose classes are the names found; see `classes_of`.

    Args:
      name: name of the data set.
      train: training part.
      test: test part; None holds out a tenth of the training part, which `source` will
        say.
      source: where the files are, and what was done to them.
      classes: names of the classes in their order, if the files give it.

    Raises:
      DataError: see `Dataset`.
    """
    names = {name for part in (train, test) if part for name in part.names}
    numeric = _are_numbers(names)
    classes = classes_of(names) if classes is None else classes
    place = {name: number for number, name in enumerate(classes)}

    def placed(part: Part) -> np.ndarray:
        assert part.labels is not None
        numbers = [place[str(int(n)) if numeric else n] for n in part.names]
        return np.array(numbers, label_type(len(place)))[part.labels]

    train_images, train_labels = train.images, placed(train)
    test_labels = None
    if test:
        test_images = test.images
        if test.labels is not None:
            test_labels = placed(test)
    else:
        held_out = _tenth(train_labels, len(classes))
        test_images, test_labels = train_images[held_out], train_labels[held_out]
        train_images, train_labels = train_images[~held_out], train_labels[~held_out]
        source += (
            f"; has no test part, so a tenth of each class, {len(test_labels):,}"
            " images, is held out as one"
        )
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
    }
    if test_labels is not None:
        arrays["test_labels"] = test_labels
    hashes = {
        key: _sha256(np.ascontiguousarray(array).data) for key, array in arrays.items()
    }
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        hashes={**hashes, "classes": _sha256("\n".join(classes).encode())},
        source=source,
        classes=tuple(classes),
    )


def classes_of(names: Iterable[str]) -> list[str]:
    """Classes by the names found; whole numbers are sorted as such, and 07 is 7."""
    distinct = set(names)
    if _are_numbers(distinct):
        return sorted({str(int(name)) for name in distinct}, key=int)
    return sorted(distinct)


def _are_numbers(names: Iterable[str]) -> bool:
    return all(map(_INTEGER.fullmatch, names))


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _tenth(labels: np.ndarray, classes: int) -> np.ndarray:
    """Mask of a random tenth of each class, always the same: at least one of two."""
    rng = np.random.Generator(np.random.PCG64(0))
    mask = np.zeros(len(labels), bool)
    for number in range(classes):
        members = rng.permutation(np.flatnonzero(labels == number))
        count = max(len(members) // 10, int(len(members) > 1))
        mask[members[:count]] = True
    return mask
