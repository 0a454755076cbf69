# SPDX-License-Identifier: Apache-2.0
"""What the columns of a CSV file of images are, by its first line.

An image has 784 pixels, row by row. Their columns may be named and ordered in any of
the usual ways: pixel0 … pixel783, p1 … p784, 1x1 … 28x28, V2 … V785 (as R does it).
Kaggle, pandas, R and spreadsheets write such files, some without a header.
"""

import codecs
import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.dataset import DataError

SIZE = 28
PIXELS = SIZE * SIZE

_LABELS = ("label", "labels", "class", "y", "target")
# What pandas and R call their row numbers, if anything.
_ROW_NUMBERS = ("", "id", "index", "rownames", "unnamed: 0")
_SEPARATORS = (",", ";", "\t")
_COMPRESSED = (b"PK\x03\x04", b"\x1f\x8b")  # zip, as Kaggle sends the files, and gzip
_EXPECTED = f"expected a CSV file with {PIXELS} columns of pixels and one of labels"
_NUMBER = re.compile(r"\d{1,6}", re.ASCII)
_NUMBERED = re.compile(r"(.*?)(\d{1,6})", re.ASCII)
_ROW_AND_COLUMN = re.compile(r"(.*?)(\d{1,2})\D(\d{1,2})", re.ASCII)


class Columns(NamedTuple):
    """The columns of a file; a column is known by its place, from 0."""

    names: list[str]
    has_header: bool  # or the first line is an image, and names are "1", "2", …
    separator: str
    label: int | None  # None: the images have no labels
    row_number: int | None
    # Place of each pixel among the columns of pixels, [784]; None: in order.
    order: np.ndarray | None


def understand(line: bytes, path: str) -> Columns:
    """Reads the first line of a file; raises DataError if it is none of such a file."""
    if not line:
        raise DataError(f"{path}: is empty; {_EXPECTED}; check the path")
    if line.startswith(_COMPRESSED):
        raise DataError(f"{path}: is a compressed file; {_EXPECTED}; unpack it")
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is UTF-16 text; {_EXPECTED}; save it as CSV UTF-8")
    text = without_mark(line).decode("utf-8", "backslashreplace").rstrip("\r\n")
    separator = max(_SEPARATORS, key=text.count)
    try:
        cells = next(csv.reader([text], delimiter=separator, strict=True), [""])
    except csv.Error as error:
        raise DataError(
            f"{path}: line 1 is no line of a CSV file ({error}); {_EXPECTED}; save it"
            " as CSV again"
        ) from None
    cells = [cell.strip() for cell in cells] or [""]
    cells = [cell if cell.isprintable() else ascii(cell) for cell in cells]
    if _is_header(cells):
        return _named(cells, separator, path)
    _check_count(len(cells) - (len(cells) > PIXELS), path)
    label = 0 if len(cells) > PIXELS else None
    names = [str(number) for number in range(1, len(cells) + 1)]
    return Columns(names, False, separator, label, None, None)


def without_mark(line: bytes) -> bytes:
    """A first line without its byte order mark, if it has one."""
    return line.removeprefix(codecs.BOM_UTF8)


def _is_header(cells: Sequence[str]) -> bool:
    """Tells names of columns from an image, which is mostly numbers.

    Names may be numbers, too, but then they count.
    """
    numbers = [int(cell) for cell in cells if _NUMBER.fullmatch(cell)]
    if 2 * len(numbers) < len(cells):
        return True
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _named(cells: list[str], separator: str, path: str) -> Columns:
    """The columns of a file with a header."""
    small = [cell.lower() for cell in cells]
    labels = [place for place, name in enumerate(small) if name in _LABELS]
    if len(labels) > 1:
        names = " and ".join(repr(cells[place]) for place in labels[:3])
        raise DataError(
            f"{path}: line 1 names {len(labels)} columns of labels, {names}; expected"
            " one; remove or rename the others"
        )
    label = labels[0] if labels else None
    row_number = 0 if small[0] in _ROW_NUMBERS else None
    rest = [p for p in range(len(cells)) if p not in (label, row_number)]
    if label is None and len(rest) == PIXELS + 1:
        label = rest[_unnamed_label([cells[place] for place in rest])]
        rest.remove(label)
    _check_count(len(rest), path)
    order = _order([cells[place] for place in rest], path)
    return Columns(cells, True, separator, label, row_number, order)


def _unnamed_label(names: Sequence[str]) -> int:
    """Place of the label among 785 columns: the first, or the last if that differs."""
    return -1 if not _numbers(names[1:]) and _numbers(names[:-1]) else 0


def _check_count(count: int, path: str) -> None:
    if count != PIXELS:
        raise DataError(
            f"{path}: line 1 has {count} columns of pixels; {_EXPECTED}; check the"
            " path, and that the images have 28×28 pixels"
        )


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Numbers of columns that are all named alike, such as p1, p2, …; else None."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    if len({match and match[1] for match in matches}) != 1 or matches[0] is None:
        return None
    return [int(match[2]) for match in matches if match]


def _order(names: Sequence[str], path: str) -> np.ndarray | None:
    """Place of each pixel among the columns of pixels; None if they are in order."""
    numbers = _numbers(names)
    if numbers is None:
        matches = [_ROW_AND_COLUMN.fullmatch(name) for name in names]
        if not all(matches) or len({match and match[1] for match in matches}) != 1:
            return None
        pairs = [(int(match[2]), int(match[3])) for match in matches if match]
        first = min(pairs)
        numbers = [
            (
                (row - first[0]) * SIZE + column - first[1]
                if 0 <= column - first[1] < SIZE
                else -1
            )
            for row, column in pairs
        ]
    start = min(numbers)
    missing = set(range(start, start + PIXELS)) - set(numbers)
    if missing:
        wrong = sorted(missing)[0] - start
        raise DataError(
            f"{path}: line 1 names {names[0]} to {names[-1]}, but pixel {wrong} of 0 to"
            f" {PIXELS - 1} has no column; expected one column for each; correct the"
            " header"
        )
    order = np.argsort(numbers)
    return None if (order == np.arange(PIXELS)).all() else order
