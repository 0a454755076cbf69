# SPDX-License-Identifier: Apache-2.0
"""Dataset "csv": images as lines of CSV files."""

import os
from collections.abc import Sequence

from data import assemble, places, table
from data.dataset import DataError, Dataset

_SUFFIXES = (".csv", ".tsv")
_EXPECTED = "a CSV file, or a folder with train.csv and, if there is one, test.csv"


def load(data_dir: str | None = None) -> Dataset:
    """Returns the data set in a folder, or in a single file.

    In a folder, the training part is train.csv or the only file with "train" in its
    name, the test part alike. `data.header` says what columns are understood. Without a
    test part, a tenth of the training images is held out; the test part may have no
    labels.

    Raises DataError if a file is missing or has a fault; the message names the line.
    """
    if data_dir is None:
        raise DataError(
            f"csv: nothing given; expected {_EXPECTED}; name it with" " --data_dir"
        )
    if os.path.isfile(data_dir):
        return assemble.dataset("csv", _read(data_dir, True), None, data_dir)
    folder, names = places.split(data_dir, _EXPECTED)
    names = [name for name in names if name.lower().endswith(_SUFFIXES)]
    found = {part: _choose(folder, names, part) for part in places.PARTS}
    path = found["train"]
    if path is None and len(names) == 1:
        path, found["test"] = os.path.join(folder, names[0]), None
    if path is None:
        raise DataError(
            f"{data_dir}: holds no CSV file with train in its name; expected"
            f" {_EXPECTED}; rename the file, or name it with --data_dir"
        )
    train = _read(path, True)
    test = _read(found["test"], False) if found["test"] else None
    return assemble.dataset("csv", train, test, data_dir)


def _choose(folder: str, names: Sequence[str], part: str) -> str | None:
    """Path of the training or test file, if there is one."""
    exact = [name for name in names if os.path.splitext(name)[0].lower() == part]
    found = exact or [name for name in names if places.part(name) == part]
    if len(found) > 1:
        raise places.ambiguous(folder, found, f"{part} images")
    return os.path.join(folder, found[0]) if found else None


def _read(path: str, labelled: bool) -> assemble.Part:
    try:
        content = table.read(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a CSV file; check"
            " what it is and its permissions"
        ) from error
    if labelled and content.labels is None:
        raise DataError(
            f"{path}: line 1 names no column of labels; expected one named label;"
            " add it"
        )
    return assemble.Part(content.images, content.labels, content.names)
