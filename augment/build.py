# SPDX-License-Identifier: Apache-2.0
"""The enlarged training set of the LeNet-SELU write-up: built once, read ever after.

    python -m augment.build --dataset=mnist --preview=sheet.png

or one of as many digits as one asks for, by two processes:

    python -m augment.build --deform=elastic,affine --multiply=135 --workers=2

A set is a folder of shards, one per transform, in the IDX format of MNIST itself,
and a manifest with the SHA-256 of each. The folder is named after its settings. A build
that was cut short goes on where it was when it is started again.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

import concurrent.futures
import dataclasses
import errno
import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

import data
from augment import online_settings, shards, workers
from augment.online_settings import OnlineSettings
from augment.plan import (
    COPY,
    DIGITS,
    Part,
    Settings,
    define_flags,
    describe,
    plan,
    settings_from,
)
from augment.shift import DIRECTIONS
from augment.stored import Stored
from data.dataset import empty
from system import cli, errors, files, untrusted

ONLINE_ROWS = 3  # of the preview, that show all online transforms together
COPY_ROWS = 8  # of the preview, that show deformed copies, at most

MOVED_TOGETHER = 10_000  # images

FORMAT = 1  # of the folder; a new number makes every set be built again

# Writes one shard, told a folder and a number; returns the SHA-256 of its files.
WriteShard = Callable[[str, int], dict[str, str]]

# A manifest is as long as what is expected of it, and its checksums, each with a name.
_CHECKSUM_BYTES = 200


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
      errors.UserError: if the set would be empty or cannot be written.
    """
    parts = plan(dataset.train_labels, settings)
    manifest = _manifest(dataset, settings, parts)
    memory = _Memory(parts)
    directory = _made(
        dataset, settings, manifest, root, workers.threads, memory.write_shard
    )
    if directory is None:
        return Enlarged(
            dataset.train_images, dataset.train_labels, parts[0].indices, None
        )
    _read(directory, manifest, memory)
    source = np.concatenate([part.indices for part in parts])
    return Enlarged(memory.images, memory.labels, source, directory)


class _Memory:
    """An enlarged set in memory, which shards fill as they are written or read.

    A set that is built and then trained on is so written once, and never read.

    Attributes:
      images: uint8 [M, 28, 28, 1].
      labels: uint8 [M].
      filled: numbers of the shards that are there.
    """

    def __init__(self, parts: Sequence[Part]):
        counts = [len(part.indices) for part in parts]
        self._starts = [0, *itertools.accumulate(counts)]
        self.images = empty((sum(counts), 28, 28, 1))
        self.labels = np.empty(sum(counts), np.uint8)
        self.filled: set[int] = set()

    def part(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The place of a shard's images and labels."""
        here = slice(self._starts[number], self._starts[number + 1])
        return self.images[here], self.labels[here]

    def write_shard(self, folder: str, number: int) -> dict[str, str]:
        """`shards.write`, whose arrays stay here."""
        sums = shards.write(folder, number, self.part(number))
        self.filled.add(number)
        return sums


def make(
    dataset: data.Dataset,
    settings: Settings,
    root: str | os.PathLike[str],
    engine: workers.Engine = workers.threads,
) -> Path | None:
    """Builds the enlarged set if need be, and verifies it; never has it in memory.

    Args:
      dataset, settings, root: as of `enlarge`.
      engine: who builds the shards, one of `augment.workers`.

    Returns:
      The folder of the set; None for plain originals, which are not stored.

    Raises:
      As `enlarge`; errors.UserError also if the workers cannot be had or are lost. What
      is whole by then is kept for the next time.
    """
    manifest = _manifest(dataset, settings, plan(dataset.train_labels, settings))
    directory = _made(dataset, settings, manifest, root, engine, shards.write)
    if directory is not None:
        _verify(directory, manifest)
    return directory


def store(
    dataset: data.Dataset,
    settings: Settings,
    root: str | os.PathLike[str],
    sources: np.ndarray,
) -> Stored:
    """The part of an enlarged set that comes from some of the originals, left on disk.

    Builds the set if need be. Its files have been found and are as long as they should
    be; that no byte of them is altered, `Stored.verify` says.

    Args:
      dataset, settings, root: as of `enlarge`.
      sources: int [n], indices of originals.

    Raises:
      As `enlarge`; errors.UserError also if the set is the plain originals.
    """
    parts = plan(dataset.train_labels, settings)
    manifest = _manifest(dataset, settings, parts)
    directory = _made(dataset, settings, manifest, root, workers.threads, shards.write)
    if directory is None:
        raise errors.UserError(
            "plain originals are always in memory, and only an enlarged set is read"
            " from disk: leave --memory_mb out, or enlarge the set, such as by"
            " --deform=elastic,affine --multiply=135"
        )
    sums = _read_manifest(directory, manifest)
    return Stored(directory, manifest["shards"], _rows(parts, sources), sums)


def _rows(parts: list[Part], sources: np.ndarray) -> list[np.ndarray | None]:
    """For each part, which of its images come from these originals; None: all."""
    found: dict[int, np.ndarray | None] = {}  # deformed copies share their indices
    for part in parts:
        if id(part.indices) not in found:
            kept = np.isin(part.indices, sources)
            found[id(part.indices)] = None if kept.all() else np.flatnonzero(kept)
    return [found[id(part.indices)] for part in parts]


def _made(
    dataset: data.Dataset,
    settings: Settings,
    manifest: dict[str, Any],
    root: str | os.PathLike[str],
    engine: workers.Engine,
    write_shard: WriteShard,
) -> Path | None:
    """Builds the set if it is not there; returns its folder, None if it needs none."""
    if [shard["transform"] for shard in manifest["shards"]] == ["original"]:
        return None
    directory = Path(root) / _directory_name(manifest, settings)
    if not os.path.exists(directory):
        _build(directory, dataset, settings, manifest, engine, write_shard)
    return directory


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
    listed = []
    for number, part in enumerate(parts):
        images, labels = shards.name(number, len(parts))
        listed.append(
            {
                "transform": part.name,
                "count": len(part.indices),
                "images": images,
                "labels": labels,
            }
        )
    manifest = {
        "format": FORMAT,
        "dataset": dataset.name,
        "source": dict(dataset.hashes),
        "settings": describe(settings),
        "shards": listed,
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
    if settings.deform:
        words += [*settings.deform, f"x{settings.multiply}"]
    words += [] if settings.keep_originals else ["without", "originals"]
    text = json.dumps(manifest, sort_keys=True)
    return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:8]])


def _build(
    directory: Path,
    dataset: data.Dataset,
    settings: Settings,
    manifest: dict[str, Any],
    engine: workers.Engine,
    write_shard: WriteShard,
) -> None:
    """Builds the set unless another process has done so in the meantime."""
    root = directory.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        # The kernel frees the lock of a process that dies, so whoever holds it knows
        # that any unfinished folder is a dead one's. The file stays: removing it
        # would let two processes lock two files of one name.
        with files.append(root / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not directory.exists():
                _write(directory, dataset, settings, manifest, engine, write_shard)
    except OSError as error:
        raise errors.UserError(
            f"cannot keep the enlarged set in {root}: {error.strerror or error}; "
            "make room there or choose another --augmented_dir"
        ) from error


def _write(
    directory: Path,
    dataset: data.Dataset,
    settings: Settings,
    manifest: dict[str, Any],
    engine: workers.Engine,
    write_shard: WriteShard,
) -> None:
    """Writes all files beside `directory`, then gives their folder its name.

    What an earlier build that was cut short has left whole is used again. What this
    one leaves, should it be, is kept if any of it is whole.
    """
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    if unfinished.is_symlink():  # all that lies there would be cleared away
        raise OSError(errno.ELOOP, f"{unfinished} is a link: delete it")
    unfinished.mkdir(exist_ok=True)
    listed = manifest["shards"]
    sums = dict(shards.whole(unfinished, listed))
    try:
        shards.clear(unfinished, _files(listed[number] for number in sums))
        for number, some in sums.items():
            shards.note(unfinished, number, some)
        if sums:
            cli.warn(
                f"{len(sums)} of {len(listed)} parts are there from an earlier try"
            )
        shards.prepare(unfinished, dataset.train_images, dataset.train_labels, settings)
        _write_missing(unfinished, len(listed), sums, engine, write_shard)
        shards.clear(unfinished, _files(listed))
        whole = {file: s for number in sorted(sums) for file, s in sums[number].items()}
        path = unfinished / "manifest.json"
        path.write_text(json.dumps({**manifest, "sha256": whole}, indent=1) + "\n")
        files.flush(path)
        files.flush(unfinished)
        unfinished.rename(directory)
        files.flush(directory.parent)
    finally:
        if not sums:
            shutil.rmtree(unfinished, ignore_errors=True)


def _files(listed: Iterable[dict[str, Any]]) -> set[str]:
    """The names of the files of shards."""
    return {shard[kind] for shard in listed for kind in ("images", "labels")}


def _write_missing(
    folder: Path,
    total: int,
    sums: dict[int, dict[str, str]],
    engine: workers.Engine,
    write_shard: WriteShard,
) -> None:
    """Writes all shards that are not in `sums`, and enters them as they are done."""
    # disable=None: no bar where standard error is not a terminal.
    with tqdm(
        None, "augment", total, initial=len(sums), unit="part", disable=None
    ) as bar:
        while len(sums) < total:
            before = len(sums)
            try:
                missing = set(range(total)) - set(sums)
                for number, some in _run(engine, folder, missing, write_shard):
                    sums[number] = some
                    shards.note(folder, number, some)
                    bar.update()
            except concurrent.futures.BrokenExecutor as error:
                # Of a pool of processes none survives the one that was killed.
                if len(sums) == before:
                    raise workers.WorkersError(
                        "the workers were killed before one of them had done a part;"
                        " give them more memory or take fewer, and start again"
                    ) from error
                cli.warn("a worker was killed; going on with new ones")


def _run(
    engine: workers.Engine,
    folder: Path,
    numbers: Iterable[int],
    write_shard: WriteShard,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the number and checksums of each shard when it is written."""
    with engine() as executor:
        jobs = {
            executor.submit(write_shard, str(folder.absolute()), number): number
            for number in sorted(numbers)
        }
        try:
            for done in concurrent.futures.as_completed(jobs):
                yield jobs[done], done.result()
        finally:
            for job in jobs:
                job.cancel()


def _verify(directory: Path, manifest: dict[str, Any]) -> None:
    """Reads every shard, piece by piece, and compares it with its checksum."""
    sums = _read_manifest(directory, manifest)
    expected = [
        pair for shard in manifest["shards"] for pair in shards.sizes(shard).items()
    ]

    def check(pair: tuple[str, int]) -> str | None:
        return shards.fault(directory / pair[0], pair[1], sums.get(pair[0]))

    with workers.threads() as pool:
        for (file, _), fault in zip(expected, pool.map(check, expected)):
            if fault:
                raise shards.unusable(directory / file, fault)


def _read(directory: Path, manifest: dict[str, Any], memory: _Memory) -> None:
    """Reads the shards that are not in memory into their places, and verifies them."""
    sums = _read_manifest(directory, manifest)
    jobs = []
    for number, shard in enumerate(manifest["shards"]):
        if number not in memory.filled:
            images, labels = memory.part(number)
            header = shards.IMAGES_HEADER
            jobs.append((directory / shard["images"], header, images, sums))
            header = shards.LABELS_HEADER
            jobs.append((directory / shard["labels"], header, labels, sums))
    with workers.threads() as pool:
        list(pool.map(lambda job: _read_file(*job), jobs))


def _read_manifest(directory: Path, expected: dict[str, Any]) -> dict[str, str]:
    """Returns the checksums of a manifest that says what is expected of it."""
    path = directory / "manifest.json"
    try:
        most = untrusted.JSON_BYTES + len(json.dumps(expected, indent=1))
        most += 2 * _CHECKSUM_BYTES * len(expected.get("shards", ()))
        manifest = untrusted.read_json(path, most)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise shards.unusable(path, f"cannot be read ({reason})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict):
        raise shards.unusable(path, "is not the manifest of an enlarged set")
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise shards.unusable(path, f"has another {key!r} than was asked for")
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
        raise shards.unusable(path, f"cannot be read ({error.strerror})") from error
    digest.update(into.data)
    # The count as well: what a short file leaves unwritten may, in recycled memory,
    # be the very bytes that are missing.
    if count < into.nbytes or rest:
        raise shards.unusable(path, f"is not {header_bytes + into.nbytes} bytes long")
    if digest.hexdigest() != sums.get(path.name):
        raise shards.unusable(path, "has another SHA-256 than its manifest says")


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
    # A set that is deformed has no part but the originals and many copies.
    shown = COPY_ROWS + 1 if settings.deform else None
    for part in plan(present, settings)[:shown]:
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
    from system import device  # isort: skip  (first: it loads TensorFlow)
    from augment import online

    device.set_threads(0)
    # Each row is a graph of its own, of which TensorFlow would warn.
    device.tf.get_logger().setLevel("ERROR")
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
      errors.UserError: if it cannot be written, or there is nothing to show.
    """
    # matplotlib is slow to load, and only a preview needs it here.
    from augment.preview import write_contact_sheet

    rows = preview_rows(dataset, settings) + online_rows(dataset, online)
    write_contact_sheet(rows, path)


def _engine(values: Mapping[str, Any]) -> workers.Engine:
    """Who builds, as the flags have it."""
    if values["dask_scheduler"]:
        return functools.partial(workers.dask, values["dask_scheduler"])
    if values["workers"]:
        return functools.partial(workers.processes, values["workers"])
    return workers.threads


def _check_engine(values: Mapping[str, Any]) -> None:
    workers.check_scheduler(values["dask_scheduler"])
    if values["dask_scheduler"] and values["workers"]:
        raise errors.UserError(
            "workers are processes of this machine, and dask_scheduler has its own:"
            " give one of the two"
        )


def _table(parts: list[Part]) -> list[tuple[str, int]]:
    """The parts and their sizes; copies, of which there may be many, as one."""
    rows = []
    for name, some in itertools.groupby(parts, lambda p: p.name.partition(COPY)[0]):
        sizes = [len(part.indices) for part in some]
        rows.append((name if len(sizes) == 1 else f"{name}× {len(sizes)}", sum(sizes)))
    return [*rows, ("total", sum(size for _, size in rows))]


def _check_preview(path: str) -> None:
    """Raises errors.UserError for a picture that cannot be written, before the work."""
    try:
        files.check_writable(path)
    except OSError as error:
        raise errors.UserError(
            f"--preview={path} cannot be written ({cli.reason(error)}); choose another"
            " place"
        ) from None


def main(argv: list[str]) -> None:
    """Builds, or verifies, the set that the flags describe."""
    import tabulate  # here, because train.py, which imports this module, needs none

    values = flags.FLAGS.flag_values_dict()
    settings = settings_from(values)
    online = online_settings.settings_from(values)
    if values["preview"]:
        _check_preview(values["preview"])
    dataset = data.load(values["dataset"], values["data_dir"])
    directory = make(dataset, settings, values["augmented_dir"], _engine(values))
    rows = _table(plan(dataset.train_labels, settings))
    print(tabulate.tabulate(rows, headers=["transform", "images"], intfmt=","))
    print(directory or "plain originals: nothing to keep on disk")
    if values["preview"]:
        preview(dataset, settings, values["preview"], online)
        print(values["preview"])


if __name__ == "__main__":
    define_flags()
    online_settings.define_flags()
    flags.DEFINE_enum("dataset", "mnist", sorted(data.DATASETS), "What to enlarge.")
    cli.define_path("data_dir", None, "Where the files of the dataset lie.")
    cli.define_path(
        "preview", None, "PNG file to draw a contact sheet to, online transforms too."
    )
    flags.DEFINE_integer(
        "workers",
        0,
        "Processes that build the set; 0 for a few threads of this one.",
        lower_bound=0,
        upper_bound=workers.MAX_PROCESSES,
    )
    flags.DEFINE_string(
        "dask_scheduler",
        None,
        "Address of a Dask scheduler, tcp://…, whose workers build the set; they must"
        " see --augmented_dir at the same place.",
    )
    flags.register_multi_flags_validator(
        ["workers", "dask_scheduler"], cli.validator(_check_engine)
    )
    cli.run(main)
