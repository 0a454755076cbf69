# SPDX-License-Identifier: Apache-2.0
"""Dataset, which every loader returns."""

import dataclasses
import math
import mmap
from collections.abc import Mapping, Sequence

import numpy as np


def empty(shape: Sequence[int]) -> np.ndarray:
    """Creates a uint8 array that is aligned to a page of memory.

    TensorFlow can use it without a copy (see `device.tensor`). Arrays of numpy start 16
    bytes into a page, which does not suffice; numpy also asks for pages of 2 MB, and a
    virtual machine takes three times as long to touch those for the first time.
    """
    size = math.prod(shape)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(size, 1), flags=kind)
    return np.frombuffer(memory, np.uint8, size).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test images in memory, verified."""

    name: str
    train_images: np.ndarray  # uint8 [N, 28, 28, 1], 0 paper, 255 ink
    train_labels: np.ndarray  # uint8 [N], 0 to 9
    test_images: np.ndarray  # uint8 [M, 28, 28, 1]
    # uint8 [M]; None if they are not public, as in a competition.
    test_labels: np.ndarray | None
    hashes: Mapping[str, str]  # name of a file or array → its SHA-256, in hex
    source: str  # where it was found, to report
