# SPDX-License-Identifier: Apache-2.0
"""What every loader returns. A module of its own, so that loaders can import it."""

import dataclasses
import math
import mmap
from collections.abc import Mapping, Sequence

import numpy as np


def empty(shape: Sequence[int]) -> np.ndarray:
    """A uint8 array that starts with a page of memory.

    TensorFlow can take it over as it is (see `device.tensor`). Numpy's own arrays
    start 16 bytes into a page, which does not suffice; and numpy asks for pages of
    2 MB, the first touch of which takes a virtual machine three times as long.
    """
    size = math.prod(shape)
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(size, 1), flags=kind)
    return np.frombuffer(memory, np.uint8, size).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test images, verified and whole in memory."""

    name: str
    train_images: np.ndarray  # uint8 [N, 28, 28, 1], 0 paper, 255 ink
    train_labels: np.ndarray  # uint8 [N], 0 to 9
    test_images: np.ndarray  # uint8 [M, 28, 28, 1]
    # uint8 [M]; None: the set has none, as a competition's.
    test_labels: np.ndarray | None
    hashes: Mapping[str, str]  # name of a file or array → its SHA-256, in hex
    source: str  # where it was found, for the log
