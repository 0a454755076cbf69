# SPDX-License-Identifier: Apache-2.0
"""Folder of an enlarged set: one shard per transform, and a manifest.

The folder is named after the settings of the set. manifest.json says what the set was
made of and lists the SHA-256 of each file. An unfinished folder starts with a dot and
holds a journal of its finished shards, from which an interrupted build resumes.
"""

import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import data
from augment import shards, workers
from augment.plan import DIGITS, Part, Settings, describe, plan
from augment.shards import Checksums
from augment.shift import DIRECTIONS
from data.dataset import DataError
from system import console, errors, files, untrusted

FORMAT = 1  # of the folder; a new number makes every set be built again

MANIFEST = "manifest.json"
_CHECKSUM_BYTES = 200  # of the manifest, at most, for a file's name and SHA-256
_JOURNAL = "finished.jsonl"
_LINE_BYTES = 400  # of the journal, at most


# Writes a shard, given a folder and a number; returns the checksums of its files.
WriteShard = Callable[[str, int], Checksums]


class Folder:
    """The folder of an enlarged set, which may have to be built yet.

    Raises UserError if the set would be empty.

    Attributes:
      path: where the set is, or will be.
      parts: parts of the set; a shard has the number of its part.
      shards: the shards' entries in the manifest.
    """

    def __init__(
        self, dataset: data.Dataset, settings: Settings, root: str | os.PathLike[str]
    ):
        self._dataset, self._settings = dataset, settings
        self.parts = plan(dataset.train_labels, settings)
        self._manifest = _manifest(dataset, settings, self.parts)
        self.shards = self._manifest["shards"]
        self.path = Path(root) / _directory_name(self._manifest, settings)

    @property
    def is_plain(self) -> bool:
        """Whether the set is just the originals, which are never stored."""
        return [part.name for part in self.parts] == ["original"]

    def build(self, engine: workers.Engine, write: WriteShard) -> bool:
        """Builds the set unless it exists. Returns whether it was built just now.

        The workers of the engine call `write`: `shards.write`, or a function that does
        a little more. Raises UserError if the set cannot be written or workers were
        lost; finished shards are kept for the next build.
        """
        if os.path.exists(self.path):
            return False
        root = self.path.parent
        try:
            root.mkdir(parents=True, exist_ok=True)
            # The kernel releases the lock of a process that dies, so whoever holds it
            # knows that an unfinished folder is abandoned. The lock file stays: if it
            # were removed, two processes could lock two files of the same name.
            with files.append(root / ".lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.path.exists():  # another process was faster
                    return False
                self._write(engine, write)
                return True
        except OSError as error:
            raise errors.UserError(
                f"cannot write the enlarged set to {root}: {errors.reason(error)}; free"
                " some space, or choose another --augmented_dir"
            ) from error

    def _write(self, engine: workers.Engine, write: WriteShard) -> None:
        """Writes all files to a hidden folder, then gives it the set's name."""
        hidden = self.path.with_name(f".{self.path.name}.unfinished")
        if hidden.is_symlink():  # we would clear the folder that it leads to
            raise OSError(errno.ELOOP, f"{hidden} is a link: delete it")
        hidden.mkdir(exist_ok=True)
        sums = _resume(hidden, self.shards)
        try:
            images, labels = self._dataset.train_images, self._dataset.train_labels
            shards.prepare(hidden, images, labels, self._settings)
            missing = [n for n in range(len(self.shards)) if n not in sums]
            job = functools.partial(write, str(hidden.absolute()))
            # disable=None: no bar if standard error is not a terminal.
            with tqdm(
                desc="augment",
                total=len(self.shards),
                initial=len(sums),
                unit="shard",
                disable=None,
            ) as bar:
                for number, checksums in workers.run(engine, job, missing):
                    sums[number] = checksums
                    _note(hidden, number, checksums)
                    bar.update()
            self._finish(hidden, sums)
        finally:
            if not sums:
                shutil.rmtree(hidden, ignore_errors=True)

    def _finish(self, hidden: Path, sums: Mapping[int, Checksums]) -> None:
        """Adds the manifest, removes all that is no shard, and renames the folder."""
        _clear(hidden, _file_names(self.shards))
        # A worker on another machine may have written to a disk of its own.
        for shard in self.shards:
            for file, size in shards.sizes(shard).items():
                shards.check_size(hidden / file, size)
        listed = {f: s for number in sorted(sums) for f, s in sums[number].items()}
        path = hidden / MANIFEST
        path.write_text(
            json.dumps({**self._manifest, "sha256": listed}, indent=1) + "\n"
        )
        files.flush(path)
        files.flush(hidden)
        hidden.rename(self.path)
        files.flush(self.path.parent)

    def checksums(self) -> Checksums:
        """Reads the SHA-256 of each file from the manifest; see `read_checksums`."""
        return read_checksums(self.path, self._manifest)

    def verify(self) -> None:
        """Compares each shard with its checksum.

        Raises DataError if a file is missing or altered.
        """
        sums = self.checksums()
        expected = [pair for s in self.shards for pair in shards.sizes(s).items()]

        def check(pair: tuple[str, int]) -> None:
            shards.check(self.path / pair[0], pair[1], sums.get(pair[0]))

        with workers.threads() as pool:
            list(pool.map(check, expected))


def _manifest(
    dataset: data.Dataset, settings: Settings, parts: list[Part]
) -> dict[str, Any]:
    """The manifest of a set, without its checksums."""
    listed = []
    for number, part in enumerate(parts):
        images, labels = shards.name(number, len(parts))
        entry: dict[str, Any] = {
            "transform": part.name,
            "count": len(part.indices),
            "images": images,
            "labels": labels,
        }
        if (size := dataset.train_labels.itemsize) > 1:
            entry[shards.LABEL_BYTES] = size
        listed.append(entry)
    manifest = {
        "format": FORMAT,
        "dataset": dataset.name,
        "source": dict(dataset.hashes),
        "settings": describe(settings),
        "shards": listed,
    }
    # As it comes back from a file, where tuples are lists.
    return json.loads(json.dumps(manifest))


def _directory_name(manifest: Mapping[str, Any], settings: Settings) -> str:
    """Name of a set: its settings to read, and a hash of all that it depends on."""
    words = [manifest["dataset"]]
    if settings.shift_directions:
        words.append(f"shift{settings.shift_pixels}")
        words += ["diagonal"] if settings.shift_diagonal else []
        if len(settings.shift_directions) < len(DIRECTIONS):
            words += settings.shift_directions
    if settings.flip_codes and settings.flip_labels:
        words.append("flip" + "".join(map(str, settings.flip_codes)))
        if settings.flip_labels != DIGITS:
            words.append("of" + _labels(settings.flip_labels))
        words += ["shifted"] if settings.flip_shifted else []
    if settings.deform:
        words += [*settings.deform, f"x{settings.multiply}"]
    words += [] if settings.keep_originals else ["without", "originals"]
    text = json.dumps(manifest, sort_keys=True)
    return "-".join([*words, hashlib.sha256(text.encode()).hexdigest()[:8]])


def _labels(labels: Sequence[int]) -> str:
    """Labels for a name of a set: 018, but 2-11-25, and of many only how many."""
    if len(labels) > 10:
        return f"{len(labels)}classes"
    return ("" if max(labels) < 10 else "-").join(map(str, labels))


def read_checksums(folder: Path, expected: Mapping[str, Any]) -> Checksums:
    """Reads the checksums of a manifest, whose other entries must be as expected.

    Raises DataError if the manifest is damaged, or describes another set.
    """
    path = folder / MANIFEST
    max_bytes = untrusted.JSON_BYTES + len(json.dumps(expected, indent=1))
    max_bytes += 2 * _CHECKSUM_BYTES * len(expected.get("shards", ()))
    try:
        manifest = untrusted.read_json(path, max_bytes)
    except (OSError, ValueError) as error:
        raise shards.unreadable(path, error) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict):
        raise shards.unusable(path, "is not the manifest of an enlarged set")
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise shards.unusable(path, f"describes another set: its {key!r} differs")
    return manifest["sha256"]


def _file_names(entries: Iterable[Mapping[str, Any]]) -> set[str]:
    return {entry[kind] for entry in entries for kind in ("images", "labels")}


def _clear(folder: Path, keep: Collection[str]) -> None:
    """Removes everything from a folder but the files to keep."""
    for path in folder.iterdir():
        if path.name not in keep:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


# --- Journal of finished shards ---


def _note(folder: Path, number: int, sums: Checksums) -> None:
    """Enters a finished shard; an entry lost to a power cut is just built again."""
    line = json.dumps({"shard": number, "sha256": sums})
    with open(folder / _JOURNAL, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _resume(folder: Path, listed: list[dict[str, Any]]) -> dict[int, Checksums]:
    """Keeps the finished shards of an interrupted build, and removes all else."""
    sums = dict(_finished(folder, listed))
    _clear(folder, _file_names(listed[number] for number in sums))
    for number, checksums in sums.items():
        _note(folder, number, checksums)
    if sums:
        console.warn(f"resuming: {len(sums)} of {len(listed)} shards are built already")
    return sums


def _finished(
    folder: Path, listed: list[dict[str, Any]]
) -> Iterator[tuple[int, Checksums]]:
    """Yields the number and checksums of each shard that is as the journal says.

    Yields none if other versions started the build: their shards may differ from ours.
    """
    if not shards.is_prepared(folder):
        return
    for number, sums in _read_journal(folder, len(listed)).items():
        expected = shards.sizes(listed[number])
        if sums.keys() == expected.keys():
            try:
                for file, size in expected.items():
                    shards.check(folder / file, size, sums[file])
            except DataError:
                continue
            yield number, sums


def _read_journal(folder: Path, total: int) -> dict[int, Checksums]:
    """Checksums by shard; lines that make no sense are skipped."""
    try:
        lines = untrusted.read(folder / _JOURNAL, total * _LINE_BYTES).splitlines()
    except OSError:
        return {}
    entries = {}
    for line in lines:
        try:
            entry = untrusted.parse_json(line)
            number, sums = entry["shard"], entry["sha256"]
            if number in range(total) and isinstance(sums, dict):
                entries[int(number)] = sums
        except (ValueError, TypeError, KeyError):  # a torn line
            continue
    return entries
