# SPDX-License-Identifier: Apache-2.0
"""Dataset "kaggle": reads and writes the files of Kaggle's "Digit Recognizer".

train.csv     label,pixel0,…,pixel783: 42,000 digits in the competition
test.csv      pixel0,…,pixel783: 28,000 digits, whose labels are secret
submission    ImageId,Label: predictions for test.csv, counted from 1

Pixel i lies in row i div 28 and column i mod 28; 0 is paper, 255 ink.
"""

import codecs
import csv
import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from data.dataset import DIGITS, DataError, Dataset
from data.idx import MAX_BYTES, Path
from system import console, files, untrusted

TRAIN = "train.csv"
TEST = "test.csv"
LABEL = "label"
PIXELS = tuple(f"pixel{i}" for i in range(28 * 28))

_BLOCK_BYTES = 1 << 22  # parsed at a time: about 2,300 digits, as 64-bit numbers
_LINE_BYTES = 1 << 16  # longest line to accept; a valid one has under 3,200 bytes
_COMPRESSED = (b"PK\x03\x04", b"\x1f\x8b")  # zip, as Kaggle sends the files, and gzip
_REMEDY = "correct it, or replace the file with an intact copy"


def _how_to_make() -> str:
    return console.command("-m", "data.make_kaggle", "--kaggle_dir=kaggle")


def load(data_dir: str | None = None) -> Dataset:
    """Returns the competition's digits; its test digits have no labels.

    The files are not trusted: every cell must be a whole number in plain digits, within
    the range of its column. No data_dir is an error, because only members of Kaggle can
    download train.csv and test.csv.

    Raises DataError if a file is missing or invalid; the message names the line,
    counted from 1, and the column.
    """
    if data_dir is None:
        raise DataError(
            f"kaggle: no folder given; expected one with Kaggle's {TRAIN} and {TEST},"
            " which only members can download; name it with --data_dir, or make such"
            f" files from MNIST with {_how_to_make()}"
        )
    train, train_sum = _read(os.path.join(data_dir, TRAIN), (LABEL, *PIXELS))
    test, test_sum = _read(os.path.join(data_dir, TEST), PIXELS)
    return Dataset(
        name="kaggle",
        train_images=train[:, 1:].reshape(-1, 28, 28, 1),
        train_labels=train[:, 0].copy(),
        test_images=test.reshape(-1, 28, 28, 1),
        test_labels=None,
        hashes={TRAIN: train_sum, TEST: test_sum},
        source=data_dir,
    )


def _read(path: str, names: Sequence[str]) -> tuple[np.ndarray, str]:
    """Returns a file's values, uint8 [rows, columns], and its SHA-256."""
    digest = hashlib.sha256()
    table = bytearray()
    try:
        with untrusted.open_file(path) as file:
            digest.update(_read_header(file, path, names))
            for number, block in _blocks(file, path):
                digest.update(block)
                table += _parse(block, path, number, names).tobytes()
                if len(table) > MAX_BYTES:
                    raise DataError(
                        f"{path}: holds more digits than the {MAX_BYTES // len(names)}"
                        " that are accepted; leave some out"
                    )
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; expected Kaggle's {os.path.basename(path)}; check"
            f" --data_dir, or make such files from MNIST with {_how_to_make()}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a CSV file; check"
            " what it is and its permissions"
        ) from error
    if not table:
        raise DataError(
            f"{path}: ends after its header; expected at least one digit; replace the"
            " file with an intact copy"
        )
    return np.frombuffer(table, np.uint8).reshape(-1, len(names)), digest.hexdigest()


def _read_header(file: BinaryIO, path: str, names: Sequence[str]) -> bytes:
    """Reads and checks the first line; returns it."""
    header = file.readline(_LINE_BYTES)
    expected = f"{names[0]},…,{names[-1]}"
    if not header:
        raise DataError(
            f"{path}: is empty; expected the header {expected}; replace the file with"
            " an intact copy"
        )
    if header.startswith(_COMPRESSED):
        raise DataError(
            f"{path}: is a compressed file; expected a CSV file with the header"
            f" {expected}; unpack it"
        )
    if header.startswith(codecs.BOM_UTF8):
        raise DataError(
            f"{path}: line 1 begins with a byte order mark; expected the header"
            f" {expected}; save the file as UTF-8 without that mark"
        )
    cells = header.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b",")
    for number, (cell, name) in enumerate(zip(cells, names), 1):
        if cell != name.encode():
            raise DataError(
                f"{path}: line 1, column {number} is named {_text(cell)}; expected"
                f" {name!r}; correct the header, or check that {TRAIN} and {TEST} are"
                " not swapped"
            )
    if len(cells) != len(names):
        raise DataError(
            f"{path}: line 1 names {len(cells)} columns; expected {len(names)},"
            f" {expected}; {_REMEDY}"
        )
    return header


def _blocks(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines after the header in blocks: number of the first line, lines."""
    number = 2
    while block := file.read(_BLOCK_BYTES):
        rest = file.readline(_LINE_BYTES)
        if len(rest) == _LINE_BYTES:
            number += block.count(b"\n")
            raise DataError(
                f"{path}: line {number} is longer than {_LINE_BYTES} bytes; expected"
                f" one digit per line; {_REMEDY}"
            )
        yield number, block + rest
        number += block.count(b"\n") + rest.count(b"\n")


def _parse(block: bytes, path: str, number: int, names: Sequence[str]) -> np.ndarray:
    """Returns the values of a block of lines; the first line has this number."""
    block = block.replace(b"\r\n", b"\n")
    try:
        return _parse_valid(block, names)
    except (ValueError, OverflowError):
        # numpy is fast but does not say where the fault is: look again, slowly.
        _check(block, path, number, names)
        raise  # the two disagree: a bug of ours


def _parse_valid(block: bytes, names: Sequence[str]) -> np.ndarray:
    """Returns the values of a valid block; any other raises an error."""
    # np.fromstring would accept 1.0, 1e2, +1, " 1" and more as whole numbers, …
    if block.translate(None, b"0123456789,\n"):
        raise ValueError("more than digits, commas and line ends")
    # … and ignore line ends. We count before we split, because a block of blank lines
    # would become millions of objects.
    columns = len(names)
    count = block.count(b"\n") + (not block.endswith(b"\n"))
    if block.count(b",") != count * (columns - 1):
        raise ValueError("wrong number of columns")
    lines = block.splitlines()
    if any(line.count(b",") != columns - 1 for line in lines):
        raise ValueError("wrong number of columns")
    with warnings.catch_warnings():
        # Before numpy 2.3, an empty cell ends the values with just a warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        parsed = np.fromstring(b",".join(lines), np.int64, sep=",")
    values = parsed.reshape(count, columns)  # or a ValueError
    if (values.max(0) > _limits(names)).any():
        raise ValueError("a value too large")
    return values.astype(np.uint8)


def _limits(names: Sequence[str]) -> list[int]:
    return [9 if name == LABEL else 255 for name in names]


def _check(block: bytes, path: str, number: int, names: Sequence[str]) -> None:
    """Raises DataError for the first fault in a block of lines."""
    limits = _limits(names)
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), number):
        where = f"{path}: line {number}"
        if not line:
            raise DataError(
                f"{where} is blank; expected {len(names)} values; {_REMEDY}"
            )
        count = line.count(b",") + 1
        if count != len(names):
            raise DataError(
                f"{where} has {count} columns; expected {len(names)}; {_REMEDY}"
            )
        for name, cell, limit in zip(names, line.split(b","), limits):
            # As a float, because Python refuses integers of thousands of digits.
            if not (cell.isdigit() and float(cell) <= limit):
                raise DataError(
                    f"{where}, column {name} holds {_text(cell)}; expected a whole"
                    f" number from 0 to {limit}; {_REMEDY}"
                )


def _text(cell: bytes) -> str:
    """Text of a cell for a message: short, and in one line."""
    if not cell:
        return "nothing"
    text = repr(cell[:40].decode("utf-8", "backslashreplace"))
    return text if len(cell) <= 40 else f"{text}…"


def write_digits(
    path: Path, images: np.ndarray, labels: np.ndarray | None = None
) -> None:
    """Writes a train.csv, or a test.csv if there are no labels, atomically.

    Images are uint8 [N, 28, 28, 1], labels uint8 [N]. Raises UserError if that fails.
    """
    names: tuple[str, ...] = PIXELS
    rows: np.ndarray = images.reshape(-1, len(PIXELS))
    if labels is not None:
        names, rows = (LABEL, *PIXELS), np.column_stack([labels, rows])
    files.write(path, _csv(names, rows), follow=True)


def write_submission(
    path: Path, predictions: np.ndarray, classes: Sequence[str] = DIGITS
) -> None:
    """Writes the names of predictions, integers [N], in the order of test.csv.

    Raises ValueError if they are none, UserError if the file cannot be written.
    """
    if predictions.ndim != 1 or predictions.dtype.kind not in "iu":
        raise ValueError(
            f"predictions are {predictions.dtype} {list(predictions.shape)}; expected"
            " integers [N]"
        )
    if not np.isin(predictions, range(len(classes))).all():
        raise ValueError(
            f"predictions are not all classes; expected 0 to {len(classes) - 1}"
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("ImageId", "Label"))
    writer.writerows((i, classes[p]) for i, p in enumerate(predictions.tolist(), 1))
    files.write(path, table.getvalue().encode(), follow=True)


def _csv(names: Sequence[str], rows: np.ndarray) -> bytes:
    header = f"{','.join(names)}\n".encode()
    return header + b"".join(
        f"{','.join(map(str, r.tolist()))}\n".encode() for r in rows
    )
