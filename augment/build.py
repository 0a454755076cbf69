# SPDX-License-Identifier: Apache-2.0
"""The enlarged training set of the LeNet-SELU write-up: built once, read ever after.

    python -m augment.build --dataset=mnist --preview=sheet.png

A set is a folder of shards, one per transform, in the IDX format of MNIST itself,
and a manifest with the SHA-256 of each. The folder is named after its settings.
"""

import concurrent.futures
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

import cli
import data
import files
import untrusted
from augment import online_settings
from augment.online_settings import OnlineSettings
from augment.plan import DIGITS, Part, Settings, define_flags, plan, settings_from
from augment.shift import DIRECTIONS
from data import idx
from data.dataset import empty

ONLINE_ROWS = 3  # of the preview, that show all online transforms together

MOVED_TOGETHER = 10_000  # images

FORMAT = 1  # of the folder; a new number makes every set be built again
# scipy and hashlib let go of the interpreter lock, so threads suffice. Each holds a
# few copies of one part: more workers would cost memory on large machines.
WORKERS = min(4, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Enlarged:
    """An enlarged training set, ordered by part, then by source image.

    Attributes:
      images: uint8 [M, 28, 28, 1].
      labels: uint8 [M].
      source: int32 [M], index of the original that each image comes from, so that
        the descendants of held-out images can be left out.
      directory: where it is kept; None for plain originals, which are not stored.
    """

    images: np.ndarray
    labels: np.ndarray
    source: np.ndarray
    directory: Path | None


def enlarge(
    dataset: data.Dataset, settings: Settings, root: str | os.PathLike[str]
) -> Enlarged:
    """Returns the enlarged training set: builds it if need be, reads and verifies it.

    Args:
      dataset: whose training images are enlarged.
      settings: which transforms to apply.
      root: folder of all enlarged sets; it is made if it is missing.

    Raises:
      data.idx.DataError: if what is on disk is not what was asked for, byte by byte.
      cli.UserError: if the set would be empty or cannot be written.
    """
    parts = plan(dataset.train_labels, settings)
    if [part.name for part in parts] == ["original"]:
        return Enlarged(
            dataset.train_images, dataset.train_labels, parts[0].indices, None
        )
    manifest = _manifest(dataset, settings, parts)
    directory = Path(root) / _directory_name(manifest, settings)
    if not os.path.exists(directory):
        _build(directory, dataset, parts, manifest)
    return _read(directory, parts, manifest)


def keep(enlarged: Enlarged, sources: np.ndarray) -> Enlarged:
    """The part of an enlarged set that comes from some of the originals, in order.

    Its images move together where they are, so that there is never a second set in
    memory: `enlarged` is not to be used any more. Plain originals, which belong to the
    data set, are left alone and copied.

    Args:
      enlarged: the whole set.
      sources: int [n], indices of originals.
    """
    rows = np.flatnonzero(np.isin(enlarged.source, sources))
    images = enlarged.images
    if enlarged.directory is None:
        images = empty((len(rows), *images.shape[1:]))
    for start in range(0, len(rows), MOVED_TOGETHER):
        # No image moves back, so none is overwritten before its turn.
        some = rows[start : start + MOVED_TOGETHER]
        images[start : start + len(some)] = enlarged.images[some]
    return Enlarged(
        images[: len(rows)],
        enlarged.labels[rows],
        enlarged.source[rows],
        enlarged.directory,
    )


def _manifest(
    dataset: data.Dataset, settings: Settings, parts: list[Part]
) -> dict[str, Any]:
    """Describes the set as its manifest does, all but the checksums of its files."""
    digits = max(2, len(str(len(parts))))
    shards = []
    for number, part in enumerate(parts):
        stem = f"part-{number:0{digits}d}-of-{len(parts):0{digits}d}"
        shards.append(
            {
                "transform": part.name,
                "count": len(part.indices),
                "images": f"{stem}-images-idx3-ubyte",
                "labels": f"{stem}-labels-idx1-ubyte",
            }
        )
    manifest = {
        "format": FORMAT,
        "dataset": dataset.name,
        "source": dict(dataset.hashes),
        "settings": dataclasses.asdict(settings),
        "shards": shards,
    }
    # As it comes back from a file, where tuples are lists.
    return json.loads(json.dumps(manifest))


def _directory_name(manifest: dict[str, Any], settings: Settings) -> str:
    """Names a set: its settings for people, a hash of all it depends on for us."""
    words = [manifest["dataset"]]
    if settings.shift_directions:
        words.append(f"shift{settings.shift_pixels}")
        words += ["diagonal"] if settings.shift_diagonal else []
        if len(settings.shift_directions) < len(DIRECTIONS):
            words += settings.shift_directions
    if settings.flip_codes and settings.flip_labels:
        words.append("flip" + "".join(map(str, settings.flip_codes)))
        if len(settings.flip_labels) < len(DIGITS):
            words.append("of" + "".join(map(str, settings.flip_labels)))
        words += ["shifted"] if settings.flip_shifted else []
    words += [] if settings.keep_originals else ["without", "originals"]
    text = json.dumps(manifest, sort_keys=True)
    return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:8]])


def _build(
    directory: Path, dataset: data.Dataset, parts: list[Part], manifest: dict[str, Any]
) -> None:
    """Builds the set unless another process has done so in the meantime."""
    root = directory.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        # The kernel frees the lock of a process that dies, so whoever holds it knows
        # that any unfinished folder is a dead one's. The file stays: removing it
        # would let two processes lock two files of one name.
        # Opened to append, lest a link of that name empty what it leads to.
        with open(root / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not directory.exists():
                _write(directory, dataset, parts, manifest)
    except OSError as error:
        raise cli.UserError(
            f"cannot keep the enlarged set in {root}: {error.strerror or error}; "
            "make room there or choose another --augmented_dir"
        ) from error


def _write(
    directory: Path, dataset: data.Dataset, parts: list[Part], manifest: dict[str, Any]
) -> None:
    """Writes all files beside `directory`, then gives their folder its name."""
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir()
    try:
        write = functools.partial(_write_shard, unfinished, dataset)
        sums: dict[str, str] = {}
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            done = pool.map(write, parts, manifest["shards"])
            # disable=None: no bar where standard error is not a terminal.
            for some in tqdm(
                done, "augment", total=len(parts), unit="part", disable=None
            ):
                sums |= some
        path = unfinished / "manifest.json"
        path.write_text(json.dumps({**manifest, "sha256": sums}, indent=1) + "\n")
        files.flush(path)
        files.flush(unfinished)
        unfinished.rename(directory)
        files.flush(directory.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_shard(
    folder: Path, dataset: data.Dataset, part: Part, shard: dict[str, Any]
) -> dict[str, str]:
    """Writes one part; returns the SHA-256 of each of its files."""
    images = part.apply(dataset.train_images[part.indices])
    idx.write_idx(folder / shard["images"], images)
    idx.write_idx(folder / shard["labels"], dataset.train_labels[part.indices])
    sums = {}
    for name in (shard["images"], shard["labels"]):
        files.flush(folder / name)
        sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return sums


def _read(directory: Path, parts: list[Part], manifest: dict[str, Any]) -> Enlarged:
    """Reads every shard into its place in one array, and verifies it."""
    sums = _read_manifest(directory, manifest)
    source = np.concatenate([part.indices for part in parts])
    images = empty((len(source), 28, 28, 1))
    labels = np.empty(len(source), np.uint8)
    ends = np.cumsum([len(part.indices) for part in parts])
    jobs = []
    for shard, end in zip(manifest["shards"], ends):
        here = slice(end - shard["count"], end)
        jobs.append((directory / shard["images"], 16, images[here], sums))
        jobs.append((directory / shard["labels"], 8, labels[here], sums))
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda job: _read_file(*job), jobs))
    return Enlarged(images, labels, source, directory)


def _read_manifest(directory: Path, expected: dict[str, Any]) -> dict[str, str]:
    """Returns the checksums of a manifest that says what is expected of it."""
    path = directory / "manifest.json"
    try:
        manifest = untrusted.read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unusable(path, f"cannot be read ({reason})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict):
        raise _unusable(path, "is not the manifest of an enlarged set")
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise _unusable(path, f"has another {key!r} than was asked for")
    return manifest["sha256"]


def _read_file(
    path: Path, header_bytes: int, into: np.ndarray, sums: dict[str, str]
) -> None:
    """Reads an IDX file straight into its place, so that no second copy is needed."""
    try:
        with untrusted.open_file(path) as file:
            digest = hashlib.sha256(file.read(header_bytes))
            count = file.readinto(into.data)
            rest = file.read(1)
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    digest.update(into.data)
    # The count as well: what a short file leaves unwritten may, in recycled memory,
    # be the very bytes that are missing.
    if count < into.nbytes or rest:
        raise _unusable(path, f"is not {header_bytes + into.nbytes} bytes long")
    if digest.hexdigest() != sums.get(path.name):
        raise _unusable(path, "has another SHA-256 than its manifest says")


def _unusable(path: Path, why: str) -> idx.DataError:
    return idx.DataError(
        f"{path} {why}; delete the folder {path.parent} and it will be built again"
    )


def preview_rows(
    dataset: data.Dataset, settings: Settings
) -> list[tuple[str, list[np.ndarray | None]]]:
    """Applies each transform to the first training image of each digit.

    Returns:
      Per transform its name and ten images, uint8 [28, 28, 1]; None for a digit
      that it is not applied to.
    """
    present, first = np.unique(dataset.train_labels, return_index=True)
    images = dataset.train_images[first]
    rows = []
    for part in plan(present, settings):
        digits = present[part.indices].tolist()
        cells = dict(zip(digits, part.apply(images[part.indices])))
        rows.append((part.name, [cells.get(digit) for digit in DIGITS]))
    return rows


def online_rows(
    dataset: data.Dataset, settings: OnlineSettings
) -> list[tuple[str, list[np.ndarray | None]]]:
    """Transforms the first training image of each digit as training may, at random.

    Returns:
      As of `preview_rows`, for each online transform alone, then for all together,
      at seed 0 and a few steps; empty if none is on.
    """
    alone = online_settings.each_alone(settings)
    if not alone:
        return []
    # Here, because loading TensorFlow takes longer than building a set.
    import device  # isort: skip  (first: it loads TensorFlow)
    from augment import online

    device.set_threads(0)
    present, first = np.unique(dataset.train_labels, return_index=True)
    images = device.tf.constant(dataset.train_images[first])
    together = [(f"online, step {step}", settings, step) for step in range(ONLINE_ROWS)]
    rows = []
    for label, some, step in [*((*pair, 0) for pair in alone), *together]:
        seed = device.tf.constant([0, step])
        cells = dict(
            zip(present.tolist(), online.transform(images, seed, some).numpy())
        )
        rows.append((label, [cells.get(digit) for digit in DIGITS]))
    return rows


def preview(
    dataset: data.Dataset,
    settings: Settings,
    path: str | os.PathLike[str],
    online: OnlineSettings = OnlineSettings(),
) -> None:
    """Writes a contact sheet of the transforms, offline and then online, a PNG.

    Raises:
      cli.UserError: if it cannot be written, or there is nothing to show.
    """
    # matplotlib is slow to load, and only a preview needs it here.
    from augment.preview import write_contact_sheet

    rows = preview_rows(dataset, settings) + online_rows(dataset, online)
    write_contact_sheet(rows, path)


def main(argv: list[str]) -> None:
    """Builds, or verifies, the set that the flags describe."""
    import tabulate  # here, because train.py, which imports this module, needs none

    values = flags.FLAGS.flag_values_dict()
    settings = settings_from(values)
    online = online_settings.settings_from(values)
    dataset = data.load(values["dataset"], values["data_dir"])
    enlarged = enlarge(dataset, settings, values["augmented_dir"])
    rows = [
        (part.name, len(part.indices)) for part in plan(dataset.train_labels, settings)
    ]
    rows.append(("total", len(enlarged.labels)))
    print(tabulate.tabulate(rows, headers=["transform", "images"], intfmt=","))
    print(enlarged.directory or "plain originals: nothing to keep on disk")
    if values["preview"]:
        preview(dataset, settings, values["preview"], online)
        print(values["preview"])


if __name__ == "__main__":
    define_flags()
    online_settings.define_flags()
    flags.DEFINE_enum("dataset", "mnist", sorted(data.DATASETS), "What to enlarge.")
    flags.DEFINE_string("data_dir", None, "Where the files of the dataset lie.")
    flags.DEFINE_string(
        "preview", None, "PNG file to draw a contact sheet to, online transforms too."
    )
    cli.run(main)
