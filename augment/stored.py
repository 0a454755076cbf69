# SPDX-License-Identifier: Apache-2.0
"""An enlarged set that stays on disk: its images are read when they are wanted.

With plain reads. A memory map was faster by half, which at a third of a percent of a
step does not show; but a shard that is cut short kills the process that has mapped it,
and what has been looked at counts as its memory. tf.data was slower by a factor of 25.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import untrusted
from augment import shards
from augment.plan import DIGITS

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
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._sizes = {
            directory / file: size
            for shard in listed
            for file, size in shards.sizes(shard).items()
        }
        for path, size in self._sizes.items():
            try:
                found = os.stat(path).st_size
            except OSError as error:
                raise shards.unusable(path, _cannot(error)) from error
            if found != size:
                raise shards.unusable(path, f"is not {size} bytes long")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, first: int, images: np.ndarray, labels: np.ndarray) -> None:
        """Reads images that follow each other.

        Args:
          first: number of the first one.
          images: uint8 [n, 28, 28, 1], contiguous; is filled.
          labels: uint8 [n]; is filled.

        Raises:
          data.idx.DataError: a file cannot be read, or not so far, or has a label that
            is no digit. What else may be altered in it, `verify` finds.
        """
        done = 0
        while done < len(labels):
            at = first + done
            number = int(np.searchsorted(self._ends, at, side="right"))
            here = slice(done, min(len(labels), done + int(self._ends[number]) - at))
            start = at - int(self._starts[number])
            runs = self._runs(number, start, here.stop - here.start)
            of_images, of_labels = self._paths[number]
            _read(of_images, shards.IMAGES_HEADER, IMAGE_BYTES, runs, images[here])
            _read(of_labels, shards.LABELS_HEADER, 1, runs, labels[here])
            if labels[here].max() not in DIGITS:
                raise shards.unusable(of_labels, "has a label that is no digit")
            done = here.stop

    def _runs(self, number: int, start: int, count: int) -> list[tuple[int, int]]:
        """Where in a shard images that count lie: first row and length of each run."""
        rows = self._rows[number]
        if rows is None:
            return [(start, count)]
        wanted = rows[start : start + count]
        cuts = np.flatnonzero(np.diff(wanted) != 1) + 1
        return [(int(run[0]), len(run)) for run in np.split(wanted, cuts)]

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
            if fault := shards.fault(path, size, self._sums.get(path.name)):
                raise shards.unusable(path, fault)


def _read(
    path: Path,
    header: int,
    item_bytes: int,
    runs: Sequence[tuple[int, int]],
    into: np.ndarray,
) -> None:
    """Reads runs of items of a shard's file, one behind the other, into an array."""
    view, done = into.reshape(-1).data, 0
    try:
        with untrusted.open_file(path) as file:
            for first, count in runs:
                file.seek(header + item_bytes * first)
                some = view[done : done + item_bytes * count]
                if file.readinto(some) < len(some):
                    raise shards.unusable(path, "is shorter than its manifest says")
                done += len(some)
    except OSError as error:
        raise shards.unusable(path, _cannot(error)) from error


def _cannot(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"
