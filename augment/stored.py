# SPDX-License-Identifier: Apache-2.0
"""An enlarged set that stays on disk; images are read when they are needed.

We use plain reads, which take 40 microseconds of a core for 128 images. A memory map
took half of that, but a shard that is truncated kills a process that has mapped it, and
the pages that were read count as its memory. tf.data was slower by a factor of 25.
"""

import bisect
import collections
import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from augment import shards
from data.dataset import DIGITS
from system import untrusted

IMAGE_BYTES = 28 * 28


class Stored:
    """Images of an enlarged set that come from some of its originals, in its order.

    Args:
      directory: folder of the set.
      listed: entries of its shards in the manifest.
      rows: for each shard the rows to use, int [n], ascending; None for all.
      sums: SHA-256 in hex of each file, by name.
      classes: names of the classes.

    Raises:
      DataError: a file is missing or has the wrong length.
    """

    def __init__(
        self,
        directory: Path,
        listed: Sequence[Mapping[str, Any]],
        rows: Sequence[np.ndarray | None],
        sums: Mapping[str, str],
        classes: Sequence[str] = DIGITS,
    ):
        self._rows, self._sums, self._classes = rows, sums, len(classes)
        self._paths = [
            (directory / shard["images"], directory / shard["labels"])
            for shard in listed
        ]
        counts = [
            shard["count"] if kept is None else len(kept)
            for shard, kept in zip(listed, rows, strict=True)
        ]
        self._starts = list(itertools.accumulate(counts, initial=0))
        self._ends = self._starts[1:]
        self._sizes = {
            directory / file: size
            for shard in listed
            for file, size in shards.sizes(shard).items()
        }
        for path, size in self._sizes.items():
            shards.check_size(path, size)

    def __len__(self) -> int:
        return self._ends[-1]

    def read(
        self, pieces: Sequence[tuple[int, int]], images: np.ndarray, labels: np.ndarray
    ) -> None:
        """Reads ranges of images, each a first number and a count, one after another.

        Fills images, uint8 [n, 28, 28, 1], contiguous, and labels [n]. Raises DataError
        if a file cannot be read, is too short, or has a label of no class. Any other
        damage is found by `verify`.
        """
        # Grouped by shard, so that each file is opened once.
        runs: dict[int, list[_Run]] = collections.defaultdict(list)
        done = 0
        for first, count in pieces:
            end = first + count
            while first < end:
                number = bisect.bisect_right(self._ends, first)
                stop = min(end, self._ends[number])
                runs[number] += self._runs(number, first, stop, done)
                done += stop - first
                first = stop
        for number in sorted(runs):
            of_images, of_labels = self._paths[number]
            _read(of_images, shards.IMAGES_HEADER, IMAGE_BYTES, runs[number], images)
            size = labels.itemsize
            _read(of_labels, shards.LABELS_HEADER, size, runs[number], labels)
            for run in runs[number]:
                part = labels[run.into]
                shards.from_big_endian(part)
                if part.min() < 0 or part.max() >= self._classes:
                    raise shards.unusable(of_labels, "has a label of no class")

    def _runs(self, number: int, first: int, stop: int, done: int) -> list["_Run"]:
        """Runs of a shard's rows for images `first` to `stop`, to go to `done`."""
        start = first - self._starts[number]
        count = stop - first
        rows = self._rows[number]
        if rows is None:
            return [_Run(start, slice(done, done + count))]
        wanted = rows[start : start + count]
        cuts = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist(), count]
        return [
            _Run(int(wanted[a]), slice(done + a, done + b))
            for a, b in itertools.pairwise(cuts)
        ]

    def verify(self, stop: threading.Event) -> None:
        """Compares every file with its checksum, until `stop` is set.

        Raises DataError if a file is altered.
        """
        for path, size in self._sizes.items():
            if stop.is_set():
                return
            shards.check(path, size, self._sums.get(path.name))


class _Run(NamedTuple):
    """Consecutive rows of a shard: the first one, and where they all go."""

    row: int
    into: slice


def _read(
    path: Path, header: int, item_bytes: int, runs: Sequence[_Run], into: np.ndarray
) -> None:
    """Reads runs of a shard's file into an array."""
    view = into.reshape(-1).view(np.uint8).data
    try:
        with untrusted.open_file(path) as file:
            for row, rows in runs:
                file.seek(header + item_bytes * row)
                part = view[item_bytes * rows.start : item_bytes * rows.stop]
                if file.readinto(part) < len(part):
                    raise shards.unusable(path, "is shorter than its manifest says")
    except OSError as error:
        raise shards.unreadable(path, error) from error
