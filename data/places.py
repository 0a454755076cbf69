# SPDX-License-Identifier: Apache-2.0
"""Finds the training and test files of a data set by their names."""

import os
from collections.abc import Sequence

from data.dataset import DataError

# A file's name has one of these words, in capitals or not.
PARTS = {"train": ("train",), "test": ("test", "t10k")}


def split(data_dir: str, expected: str) -> tuple[str, list[str]]:
    """Folder and names of the files of a data set, sorted.

    A path that is no folder is a folder and a prefix: where several sets share one, the
    prefix chooses. Raises DataError if the folder cannot be read, or has no such file.
    """
    folder, prefix = (
        (data_dir, "") if os.path.isdir(data_dir) else os.path.split(data_dir)
    )
    try:
        found = sorted(os.listdir(folder or os.curdir))
    except OSError as error:
        raise DataError(
            f"{data_dir}: cannot be read ({error.strerror}); expected {expected}; check"
            " --data_dir"
        ) from error
    names = [name for name in found if name.startswith(prefix) and name[0] != "."]
    if not names:
        raise DataError(
            f"{data_dir}: no such folder, and no file whose name starts like this;"
            f" expected {expected}; check --data_dir"
        )
    return folder, names


def part(name: str) -> str | None:
    """The part, "train" or "test", that a file's name says; None if not just one."""
    parts = [part for part, words in PARTS.items() if _positions(name, words)]
    return parts[0] if len(parts) == 1 else None


def ambiguous(folder: str, names: Sequence[str], what: str) -> DataError:
    """Error for two files that could both be meant."""
    start = os.path.commonprefix(names)
    words = [word for words in PARTS.values() for word in words]
    end = min(_positions(names[1], words), default=0)
    # The prefix of its set ends before the word, if the sets differ before.
    prefix = names[1][:end].rstrip("-_.") if len(start) < end else ""
    hint = os.path.join(folder, prefix or names[1][: len(start) + 1])
    return DataError(
        f"{os.path.join(folder, names[0])}: {names[1]} is a file of {what}, too;"
        " expected one; move the others away, or choose by prefix, as"
        f" --data_dir={hint}"
    )


def _positions(name: str, words: Sequence[str]) -> list[int]:
    return [name.lower().find(word) for word in words if word in name.lower()]
