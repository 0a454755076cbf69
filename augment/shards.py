# SPDX-License-Identifier: Apache-2.0
"""Shards of an enlarged set: two IDX files each, images and labels.

A worker is given a folder and a shard's number; everything else it needs is in the
folder. A shard is a pure function of the set's settings and this number, so it has the
same bytes whichever process on whichever machine writes it.
"""

import dataclasses
import hashlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from augment.plan import Part, Settings, plan, settings_from
from data import idx
from data.dataset import DataError
from system import cli, errors, files, untrusted

IMAGES_HEADER, LABELS_HEADER = 16, 8  # bytes of the two IDX headers

# Entry of a shard in the manifest: bytes of a label, if more than 1.
LABEL_BYTES = "label_bytes"

Checksums = dict[str, str]  # file name → SHA-256 in hex

_JOB = "job.json"
_IMAGES = "source-images-idx3-ubyte"
_LABELS = "source-labels-idx1-ubyte"
_IMAGES_AT_A_TIME = 1000  # these stay in the processor's cache


def name(number: int, total: int) -> tuple[str, str]:
    """Names of a shard's images file and labels file."""
    digits = max(2, len(str(total)))
    stem = f"part-{number:0{digits}d}-of-{total:0{digits}d}"
    return f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"


def sizes(shard: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of each file of a shard, which is described by its manifest entry."""
    count = shard["count"]
    return {
        shard["images"]: IMAGES_HEADER + 28 * 28 * count,
        shard["labels"]: LABELS_HEADER + shard.get(LABEL_BYTES, 1) * count,
    }


# --- Writing ---


def prepare(
    folder: Path, images: np.ndarray, labels: np.ndarray, settings: Settings
) -> None:
    """Writes the originals and the settings to an existing folder, for `write`."""
    idx.write_idx(folder / _IMAGES, images)
    idx.write_idx(folder / _LABELS, labels)
    job = {
        "count": len(labels),
        "label_type": str(labels.dtype),
        "settings": dataclasses.asdict(settings),
        "versions": _versions(),
    }
    (folder / _JOB).write_text(json.dumps(job, indent=1))


def is_prepared(folder: Path) -> bool:
    """Whether a folder was prepared by the versions that are installed here."""
    try:
        job = untrusted.read_json(folder / _JOB)
    except (OSError, ValueError):
        return False
    return isinstance(job, dict) and job.get("versions") == _versions()


def write(
    folder: str, number: int, into: tuple[np.ndarray, np.ndarray] | None = None
) -> Checksums:
    """Writes a shard; its files get their names when they are complete.

    Args:
      folder: a folder that was prepared.
      number: index of the shard's part in the plan.
      into: arrays to fill with the shard's images and labels, for a caller that wants
        them in memory too.

    Raises:
      UserError: the folder cannot be seen from here, other versions are installed here,
        or the disk is full.
    """
    place = Path(folder)
    job = _read_job(place)
    labels = mapped(place / _LABELS, [job["count"]], job["label_type"])
    images = mapped(place / _IMAGES, [job["count"], 28, 28])[..., np.newaxis]
    parts = plan(labels, settings_from(SimpleNamespace(**job["settings"])))
    part = parts[number]
    count = len(part.indices)
    if into is None:
        into = np.empty((count, 28, 28, 1), np.uint8), np.empty(count, labels.dtype)
    _fill(into[0], images, part)
    into[1][...] = labels[part.indices]
    sums = {}
    # A hidden folder of our own: another machine may be writing the same shard.
    with tempfile.TemporaryDirectory(prefix=".", dir=place) as hidden:
        for file, array in zip(name(number, len(parts)), into):
            path = Path(hidden, file)
            sums[file] = idx.write_idx(path, array)
            files.flush(path)
        for file in sums:
            os.replace(Path(hidden, file), place / file)
    return sums


def _fill(into: np.ndarray, images: np.ndarray, part: Part) -> None:
    step = _IMAGES_AT_A_TIME if part.piecewise else len(into)
    for start in range(0, len(into), step):
        rows = slice(start, start + step)
        into[rows] = part.apply(images[part.indices[rows]])


def _read_job(folder: Path) -> dict[str, Any]:
    host = socket.gethostname()
    try:
        job = untrusted.read_json(folder / _JOB)
    except OSError as error:
        raise errors.UserError(
            f"the worker on {host} cannot read {folder / _JOB} ({error.strerror});"
            " choose an --augmented_dir that all workers can reach by the same path"
        ) from error
    for package, version in _versions().items():
        expected = job["versions"].get(package)
        if version != expected:
            raise errors.UserError(
                f"the worker on {host} has {package} {version}, but the build was"
                f" started with {expected}; shards could differ, so install the same"
                " version on all machines"
            )
    return job


def _versions() -> dict[str, str]:
    """Versions of everything that the bytes of a shard depend on."""
    import cv2
    import scipy

    return {
        "lenet-selu": cli.VERSION,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "scipy": scipy.__version__,
    }


# --- Reading ---


def mapped(path: Path, shape: Sequence[int], dtype: str = "uint8") -> np.ndarray:
    """Maps an uncompressed IDX file of this shape; only wide values are copied.

    Raises OSError if the file cannot be opened, ValueError if it is too short.
    """
    with untrusted.open_file(path) as file:
        header, stored = 4 + 4 * len(shape), np.dtype(dtype).newbyteorder(">")
        values = np.memmap(file, stored, "r", header, tuple(shape))
        return values.astype(dtype, copy=False)


def from_big_endian(values: np.ndarray) -> None:
    """Gives values that were read from an IDX file our byte order, in place."""
    if values.itemsize > 1 and sys.byteorder == "little":
        values.byteswap(inplace=True)


def read(path: Path, header_bytes: int, into: np.ndarray, digest: str | None) -> None:
    """Reads an IDX file after its header straight into an array; verifies it.

    Raises DataError if it cannot be read, or has another length or SHA-256.
    """
    try:
        with untrusted.open_file(path) as file:
            sha256 = hashlib.sha256(file.read(header_bytes))
            count = file.readinto(into.view(np.uint8).data)
            rest = file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error
    sha256.update(into.view(np.uint8).data)
    # Check the count as well: what a short file leaves unwritten may, in recycled
    # memory, be the very bytes that are missing.
    if count < into.nbytes or rest:
        raise _wrong_size(path, header_bytes + into.nbytes)
    if sha256.hexdigest() != digest:
        raise _wrong_digest(path)
    from_big_endian(into)


def check_size(path: Path, size: int) -> None:
    """Raises DataError unless a file can be found and has `size` bytes."""
    try:
        actual = os.stat(path).st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if actual != size:
        raise _wrong_size(path, size)


def check(path: Path, size: int, digest: str | None) -> None:
    """Raises DataError unless a file has `size` bytes and this SHA-256."""
    check_size(path, size)
    try:
        actual = untrusted.sha256(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if actual != digest:
        raise _wrong_digest(path)


def unusable(path: Path, why: str) -> DataError:
    """The error for a damaged file of a set; `why` follows the file's name."""
    return DataError(
        f"{path} {why}; delete the folder {path.parent} and it will be built again"
    )


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file of a set that cannot be read."""
    return unusable(path, f"cannot be read ({errors.reason(error)})")


def _wrong_size(path: Path, size: int) -> DataError:
    return unusable(path, f"is not {size} bytes long")


def _wrong_digest(path: Path) -> DataError:
    return unusable(path, "does not have the SHA-256 that its manifest lists")
