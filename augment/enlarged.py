# SPDX-License-Identifier: Apache-2.0
"""The enlarged training set: built once on disk, then read into memory.

A set that is built here and then trained on is never read back: each shard is
transformed in its place in memory and written from there.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import data
from augment import shards, workers
from augment.folder import Folder
from augment.plan import Part, Settings
from augment.stored import Stored
from data.dataset import empty
from system import errors

_MOVED_AT_A_TIME = 10_000  # images


@dataclasses.dataclass(frozen=True)
class Enlarged:
    """An enlarged training set in memory, ordered by part, then by original."""

    images: np.ndarray  # uint8 [M, 28, 28, 1]
    labels: np.ndarray  # [M], of the type of the dataset's labels
    source: np.ndarray  # int32 [M], index of the original that an image comes from
    directory: Path | None  # of the set; None for plain originals, which are not stored


def enlarge(
    dataset: data.Dataset,
    settings: Settings,
    root: str | os.PathLike[str],
    sources: np.ndarray | None = None,
) -> Enlarged:
    """Returns the enlarged training set; builds it first if need be.

    Args:
      dataset: dataset whose training images are enlarged.
      settings: transforms to apply.
      root: folder of all enlarged sets; created if it is missing.
      sources: int [n], indices of the originals to use; None for all. Held-out images
        are left out this way, with all that was made of them.

    Raises:
      UserError: the set would be empty, is damaged, or cannot be written.
    """
    folder = Folder(dataset, settings, root)
    if folder.is_plain:
        images, labels = dataset.train_images, dataset.train_labels
        enlarged = Enlarged(images, labels, folder.parts[0].indices, None)
    else:
        memory = _Memory(folder.parts, dataset.train_labels.dtype)
        folder.build(workers.threads, memory.write)
        memory.read(folder)
        source = np.concatenate([part.indices for part in folder.parts])
        enlarged = Enlarged(memory.images, memory.labels, source, folder.path)
    return enlarged if sources is None else _keep(enlarged, sources)


def make(
    dataset: data.Dataset,
    settings: Settings,
    root: str | os.PathLike[str],
    engine: workers.Engine = workers.threads,
) -> Path | None:
    """Builds the enlarged set, or verifies it if it exists; needs little memory.

    Arguments and errors are those of `enlarge`; the engine is one of `augment.workers`.
    If workers are lost, finished shards are kept for the next build.

    Returns the folder of the set; None for plain originals, which are not stored.
    """
    folder = Folder(dataset, settings, root)
    if folder.is_plain:
        return None
    if not folder.build(engine, shards.write):
        folder.verify()
    return folder.path


def store(
    dataset: data.Dataset,
    settings: Settings,
    root: str | os.PathLike[str],
    sources: np.ndarray,
) -> Stored:
    """Returns the enlarged set left on disk; builds it first if need be.

    Its files exist and have the right length; `Stored.verify` compares their contents.
    Arguments and errors are those of `enlarge`, but plain originals are an error, too.
    """
    folder = Folder(dataset, settings, root)
    if folder.is_plain:
        raise errors.UserError(
            "--memory_mb reads an enlarged set from disk, but plain originals are"
            " always in memory: leave --memory_mb out, or enlarge the set, for example"
            " with --deform=elastic,affine --multiply=135"
        )
    folder.build(workers.threads, shards.write)
    rows = _rows(folder.parts, sources)
    return Stored(folder.path, folder.shards, rows, folder.checksums(), dataset.classes)


class _Memory:
    """Arrays for a whole set, filled shard by shard as it is built or read."""

    def __init__(self, parts: Sequence[Part], label_type: np.dtype):
        counts = [len(part.indices) for part in parts]
        self._starts = [0, *itertools.accumulate(counts)]
        self.images = empty((sum(counts), 28, 28, 1))
        self.labels = np.empty(sum(counts), label_type)
        self._written: set[int] = set()

    def _views(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(self._starts[number], self._starts[number + 1])
        return self.images[rows], self.labels[rows]

    def write(self, folder: str, number: int) -> shards.Checksums:
        """Writes a shard as `shards.write` does, and keeps it in memory."""
        sums = shards.write(folder, number, self._views(number))
        self._written.add(number)
        return sums

    def read(self, folder: Folder) -> None:
        """Reads and verifies all shards that were not written by `write`."""
        sums = folder.checksums()

        def read(number: int) -> None:
            images, labels = self._views(number)
            for kind, header, into in (
                ("images", shards.IMAGES_HEADER, images),
                ("labels", shards.LABELS_HEADER, labels),
            ):
                file = folder.shards[number][kind]
                shards.read(folder.path / file, header, into, sums.get(file))

        missing = [n for n in range(len(folder.shards)) if n not in self._written]
        with workers.threads() as pool:
            list(pool.map(read, missing))


def _keep(enlarged: Enlarged, sources: np.ndarray) -> Enlarged:
    """Returns the images that come from these originals, in the same order.

    They are moved within their array, so that no second set is needed in memory:
    `enlarged` must not be used any more. Plain originals belong to the dataset, and
    are copied.
    """
    rows = np.flatnonzero(np.isin(enlarged.source, sources))
    images = enlarged.images
    if enlarged.directory is None:
        images = empty((len(rows), *images.shape[1:]))
    for start in range(0, len(rows), _MOVED_AT_A_TIME):
        # Images move towards the front, so none is overwritten before its turn.
        moved = rows[start : start + _MOVED_AT_A_TIME]
        images[start : start + len(moved)] = enlarged.images[moved]
    return Enlarged(
        images[: len(rows)],
        enlarged.labels[rows],
        enlarged.source[rows],
        enlarged.directory,
    )


def _rows(parts: Sequence[Part], sources: np.ndarray) -> list[np.ndarray | None]:
    """For each part, the rows that come from these originals; None for all rows."""
    rows: dict[int, np.ndarray | None] = {}  # deformed copies share their indices
    for part in parts:
        if id(part.indices) not in rows:
            kept = np.isin(part.indices, sources)
            rows[id(part.indices)] = None if kept.all() else np.flatnonzero(kept)
    return [rows[id(part.indices)] for part in parts]
