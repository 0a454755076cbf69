# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's event files: writes and checks them, truncates them on resuming.

TensorBoard must never show a point twice. It can be told to forget all points after a
step, but our tags count different things as steps. So a resumed run first truncates its
events to their length at the checkpoint. TensorFlow's writer says nothing of a full
disk or a missing folder, so we read back what it wrote.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import tensorflow as tf
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from system import errors, files, untrusted
from training import runs

TRAINING_SUFFIX = ".training.v2"
SCORE_SUFFIX = ".score.v2"
# TensorBoard reads the files of a folder in order of name, and TensorFlow's names start
# with the zero-padded time, so this one comes first.
KEPT = f"events.out.tfevents.0000000000.kept{TRAINING_SUFFIX}"

HEADER_BYTES, FOOTER_BYTES = 12, 4  # of a record, around its data


def rewind(run_dir: Path, split: str, length: int) -> None:
    """Truncates a split's training events to whole records within `length` bytes.

    Afterwards they are in one file. If it is killed, it can be called again. Raises
    RunError if the folder cannot be written.
    """
    folder = run_dir / split
    parts = _parts(folder)
    try:
        kept = _read(parts, length)
        if kept:
            with files.replacing(folder / KEPT) as file:
                file.write(kept)
        for part in parts:
            if part.name != KEPT or not kept:
                part.unlink()
        if parts:
            files.remove_leftovers(folder)
            files.flush(folder)
    except OSError as error:
        raise _not_written(folder, errors.reason(error)) from None


def lost(run_dir: Path, lengths: Mapping[str, int]) -> list[str]:
    """Splits that have lost some of their events; `lengths` are earlier `total_bytes`.

    Raises RunError if the events cannot be read, TypeError or ValueError if a length is
    not a number of bytes.
    """
    if not isinstance(lengths, dict):
        raise TypeError("lengths that have no names")
    shorter = []
    for split, length in lengths.items():
        if length < 0:
            raise ValueError("a length below 0")
        folder = run_dir / split
        try:
            if len(_read(_parts(folder), length)) < length:
                shorter.append(split)
        except OSError as error:
            raise _not_written(folder, errors.reason(error)) from None
    return shorter


def total_bytes(run_dir: Path, split: str) -> int:
    """Bytes of a split's training events, including those from before a resume."""
    return sum(part.stat().st_size for part in _parts(run_dir / split))


def _parts(folder: Path) -> list[Path]:
    """Files of training events, in order."""
    return sorted(folder.glob(f"*{TRAINING_SUFFIX}"))


def _read(parts: Iterable[Path], length: int) -> bytes:
    """Whole records within the first `length` bytes of events."""
    content = b""
    for part in parts:
        with untrusted.open_file(part) as file:
            # `length` may be absurd, so do not read more than the file has.
            size = os.fstat(file.fileno()).st_size
            content += file.read(min(length - len(content), size))
    return content[: _end_of_records(content)]


def _end_of_records(content: bytes) -> int:
    """Position after the last whole record: length, checksum, data, checksum."""
    end = 0
    while end + HEADER_BYTES <= len(content):
        length, checksum = content[end : end + 8], content[end + 8 : end + HEADER_BYTES]
        if masked_crc32c(length) != int.from_bytes(checksum, "little"):
            break
        following = end + HEADER_BYTES + int.from_bytes(length, "little") + FOOTER_BYTES
        if following > len(content):
            break
        end = following
    return end


def _not_written(folder: Path, reason: str) -> runs.RunError:
    return runs.RunError(
        f"cannot write TensorBoard's events to {folder}: {reason}; make room, or choose"
        " another --run_dir"
    )


class Writer:
    """TensorFlow's event writer, but checks what was written.

    Creates the folder of a split if it is missing; in it, only `KEPT` may already have
    this suffix. This and all methods raise RunError if the events cannot be written.
    """

    def __init__(self, folder: Path, suffix: str):
        self._folder = folder
        self._checked_bytes = 0
        self._dirty = True  # TensorFlow starts a file with its version
        try:
            # Not left to TensorFlow, which would recreate a deleted run directory.
            folder.mkdir(exist_ok=True)
            self._writer = tf.summary.create_file_writer(
                str(folder), filename_suffix=suffix
            )
            self._writer.flush()
        except (OSError, tf.errors.OpError) as error:
            raise _not_written(folder, errors.reason(error)) from None
        names = {path.name for path in folder.glob(f"*{suffix}")} - {KEPT}
        if not names:
            raise _not_written(folder, "the file is not there")
        self._path = folder / max(names)
        self.flush()

    @contextlib.contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Makes `tf.summary`'s operations write to this file, at this step."""
        self._dirty = True
        try:
            with self._writer.as_default(step):
                yield
        except tf.errors.OpError as error:  # it is not always silent
            raise _not_written(self._folder, errors.reason(error)) from None

    def flush(self) -> None:
        """Writes everything to disk and checks that it is complete."""
        if not self._dirty:
            return
        try:
            self._writer.flush()
            files.flush(self._path)
            with open(self._path, "rb") as file:
                file.seek(self._checked_bytes)
                added = file.read()
        except (OSError, tf.errors.OpError) as error:
            raise _not_written(self._folder, errors.reason(error)) from None
        if not added or _end_of_records(added) < len(added):
            raise _not_written(self._folder, "the disk is full or faulty")
        self._checked_bytes += len(added)
        self._dirty = False

    def close(self) -> None:
        """Closes the file; call `flush` before, or the last events may be lost."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()
