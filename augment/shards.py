# SPDX-License-Identifier: Apache-2.0
"""The shards of an enlarged set: who builds one is told a folder and a number.

All else stands in the folder, so that a shard is a pure function of the settings, with
their seed, and its number, whichever process on whichever machine writes it. It gets
its names when it is whole; written twice, it has the same bytes.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.plan import Settings, plan, settings_from
from data import idx
from system import cli, errors, files, untrusted

IMAGES_HEADER, LABELS_HEADER = 16, 8  # bytes, of the two IDX formats

_JOB = "job.json"
_IMAGES = "source-images-idx3-ubyte"
_LABELS = "source-labels-idx1-ubyte"
_JOURNAL = "finished.jsonl"
_LINE_BYTES = 400  # of the journal, at most
_CHUNK_BYTES = 1 << 20
_APPLIED_TOGETHER = 1000  # images


def name(number: int, total: int) -> tuple[str, str]:
    """Returns the names of the two files of a shard, of its images and labels."""
    digits = max(2, len(str(total)))
    stem = f"part-{number:0{digits}d}-of-{total:0{digits}d}"
    return f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"


def sizes(shard: Mapping[str, Any]) -> dict[str, int]:
    """The files of a shard of a manifest, and how many bytes each has."""
    count = shard["count"]
    return {
        shard["images"]: IMAGES_HEADER + 28 * 28 * count,
        shard["labels"]: LABELS_HEADER + count,
    }


def mapped(path: Path, shape: Sequence[int]) -> np.ndarray:
    """The values of an uncompressed IDX file where they lie, read when looked at.

    Args:
      path: of images or labels.
      shape: of the array that it holds, [N, 28, 28] or [N].

    Returns:
      uint8 of that shape, read-only.

    Raises:
      OSError: it cannot be opened.
      ValueError: it is shorter.
    """
    with untrusted.open_file(path) as file:
        header = 4 + 4 * len(shape)
        return np.memmap(file, np.uint8, "r", header, tuple(shape))


def prepare(
    folder: Path, images: np.ndarray, labels: np.ndarray, settings: Settings
) -> None:
    """Writes down what whoever is told the folder and a number needs to know.

    Args:
      folder: exists.
      images: uint8 [N, 28, 28, 1], the source.
      labels: uint8 [N].
      settings: of the set.
    """
    idx.write_idx(folder / _IMAGES, images)
    idx.write_idx(folder / _LABELS, labels)
    job = {
        "count": len(labels),
        "settings": dataclasses.asdict(settings),
        "versions": _versions(),
    }
    (folder / _JOB).write_text(json.dumps(job, indent=1))


def _versions() -> dict[str, str]:
    """Of all that the bytes of a shard depend on."""
    import cv2
    import scipy

    return {
        "lenet-selu": cli.VERSION,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "scipy": scipy.__version__,
    }


def write(
    folder: str, number: int, into: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, str]:
    """Writes one shard; returns the SHA-256 of each of its files.

    Args:
      folder: where `prepare` was.
      number: of the part in the plan.
      into: arrays that are filled with its images and labels, for who wants them too.

    Raises:
      errors.UserError: the folder is not to be seen from here, other versions are
        installed here, or there is no room.
    """
    here = Path(folder)
    try:
        job = untrusted.read_json(here / _JOB)
    except OSError as error:
        raise errors.UserError(
            f"a worker on {socket.gethostname()} cannot read {here / _JOB}"
            f" ({error.strerror}): give an --augmented_dir that all workers see at the"
            " same place"
        ) from error
    _check_versions(job["versions"])
    labels = mapped(here / _LABELS, [job["count"]])
    parts = plan(labels, settings_from(job["settings"]))
    part = parts[number]
    source = mapped(here / _IMAGES, [job["count"], 28, 28])[..., np.newaxis]
    count = len(part.indices)
    shape = (count, 28, 28, 1)
    contents = into or (np.empty(shape, np.uint8), np.empty(count, np.uint8))
    # A few at a time stay in the processor's cache.
    step = _APPLIED_TOGETHER if part.piecewise else count
    for first in range(0, count, step):
        some = slice(first, first + step)
        contents[0][some] = part.apply(source[part.indices[some]])
    contents[1][...] = labels[part.indices]
    sums = {}
    # Under a name that no other machine gives, should two write the same.
    with tempfile.TemporaryDirectory(prefix=".", dir=here) as hidden:
        for file, array in zip(name(number, len(parts)), contents):
            path = Path(hidden, file)
            sums[file] = idx.write_idx(path, array)
            files.flush(path)
        for file in sums:
            os.replace(Path(hidden, file), here / file)
    return sums


def _check_versions(expected: Mapping[str, str]) -> None:
    for package, version in _versions().items():
        if version != expected.get(package):
            raise errors.UserError(
                f"a worker on {socket.gethostname()} has {package} {version}, and the"
                f" build {expected.get(package)}, so that its shards might differ:"
                " install the same on all"
            )


def fault(path: Path, size: int, digest: str | None) -> str | None:
    """What is wrong with a file, in words that follow its name; None: nothing.

    Args:
      path: of the file, which is read piece by piece.
      size: that it should have, in bytes.
      digest: its SHA-256, in hex, as it should be.
    """
    sha256, left = hashlib.sha256(), size + 1
    try:
        with untrusted.open_file(path) as file:
            while some := file.read(min(left, _CHUNK_BYTES)):
                sha256.update(some)
                left -= len(some)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if left != 1:
        return f"is not {size} bytes long"
    if sha256.hexdigest() != digest:
        return "has another SHA-256 than its manifest says"
    return None


def unusable(path: Path, why: str) -> idx.DataError:
    """The error of a file of a set; `why` follows its name."""
    return idx.DataError(
        f"{path} {why}; delete the folder {path.parent} and it will be built again"
    )


# --- the journal: which shards are whole, should the build be cut short ---


def note(folder: Path, number: int, sums: Mapping[str, str]) -> None:
    """Writes down that a shard is whole. What a power cut takes is built again."""
    line = json.dumps({"shard": number, "sha256": sums})
    with open(folder / _JOURNAL, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def whole(
    folder: Path, shards: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields each shard that is noted and still as noted: number, SHA-256 by file.

    None if the build was begun with other versions: its shards may differ from those
    that are yet to be built.

    Args:
      folder: of a build that may have been cut short at any byte.
      shards: of the manifest.
    """
    if not _begun_here(folder):
        return
    for number, sums in _noted(folder, len(shards)).items():
        expected = sizes(shards[number])
        if sums.keys() == expected.keys() and not any(
            fault(folder / file, size, sums[file]) for file, size in expected.items()
        ):
            yield number, sums


def _begun_here(folder: Path) -> bool:
    """Whether the versions of an unfinished build are the present ones."""
    try:
        job = untrusted.read_json(folder / _JOB)
    except (OSError, ValueError):
        return False
    return isinstance(job, dict) and job.get("versions") == _versions()


def _noted(folder: Path, total: int) -> dict[int, dict[str, str]]:
    """What the journal says, as far as it says anything that can be."""
    try:
        lines = untrusted.read(folder / _JOURNAL, total * _LINE_BYTES).splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            entry = untrusted.parse_json(line)
            number, sums = entry["shard"], entry["sha256"]
            if number in range(total) and isinstance(sums, dict):
                found[int(number)] = sums
        except (ValueError, TypeError, KeyError):  # cut off in the midst
            continue
    return found


def clear(folder: Path, keep: Collection[str]) -> None:
    """Removes all but some files from a folder."""
    for path in folder.iterdir():
        if path.name not in keep:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
