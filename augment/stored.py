# SPDX-License-Identifier: Apache-2.0
"""An enlarged set that stays on disk: its images are read when they are wanted.

With plain reads, which take 40 microseconds of a core for 128 images. A memory map was
faster by half; but a shard that is cut short kills the process that has mapped it, and
what has been looked at counts as its memory. tf.data was slower by a factor of 25.
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
from augment.plan import DIGITS
from system import untrusted

IMAGE_BYTES = 28 * 28


class Stored:
    """Some of the images of an enlarged set, in its order: by part, then by original.

    Args:
      directory: of the set.
      listed: the shards of its manifest.
      rows: of each shard the images that count, int [n], ascending; None: all.
      sums: SHA-256 in hex of each file, by name.

    Raises:
      data.idx.DataError: a file is missing or has another length.
    """

    def __init__(
        self,
        directory: Path,
        listed: Sequence[Mapping[str, Any]],
        rows: Sequence[np.ndarray | None],
        sums: Mapping[str, str],
    ):
        self._rows, self._sums = rows, sums
        self._paths = [
            (directory / shard["images"], directory / shard["labels"])
            for shard in listed
        ]
        counts = [
            shard["count"] if some is None else len(some)
            for shard, some in zip(listed, rows, strict=True)
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
        """Reads pieces of images that follow each other, one piece behind the other.

        Args:
          pieces: number of the first image, and how many.
          images: uint8 [n, 28, 28, 1], contiguous; is filled.
          labels: uint8 [n]; is filled.

        Raises:
          data.idx.DataError: a file cannot be read, or not so far, or has a label that
            is no digit. What else may be altered in it, `verify` finds.
        """
        # By shard, so that each file is opened once.
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
            _read(of_labels, shards.LABELS_HEADER, 1, runs[number], labels)
            if any(labels[run.into].max() not in DIGITS for run in runs[number]):
                raise shards.unusable(of_labels, "has a label that is no digit")

    def _runs(self, number: int, first: int, stop: int, done: int) -> list["_Run"]:
        """Where in a shard images that count lie, and where they go from `done` on."""
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
        """Reads every shard, piece by piece, and compares it with its checksum.

        Args:
          stop: set, it leaves the rest.

        Raises:
          data.idx.DataError: one is altered.
        """
        for path, size in self._sizes.items():
            if stop.is_set():
                return
            shards.check(path, size, self._sums.get(path.name))


class _Run(NamedTuple):
    """Rows of a shard that follow each other.

    Attributes:
      row: the first one.
      into: where in the arrays they go.
    """

    row: int
    into: slice


def _read(
    path: Path, header: int, item_bytes: int, runs: Sequence[_Run], into: np.ndarray
) -> None:
    """Reads items of a shard's file into an array."""
    view = into.reshape(-1).data
    try:
        with untrusted.open_file(path) as file:
            for row, here in runs:
                file.seek(header + item_bytes * row)
                some = view[item_bytes * here.start : item_bytes * here.stop]
                if file.readinto(some) < len(some):
                    raise shards.unusable(path, "is shorter than its manifest says")
    except OSError as error:
        raise shards.unreadable(path, error) from error
