# SPDX-License-Identifier: Apache-2.0
"""Reads CSV files of images, one per line; files are not trusted.

Every pixel must be a whole number in plain digits, 0 to 255: no sign, point, space or
exponent. Cells may be quoted, and blank lines may follow the last image.
"""

import csv
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from data import header
from data.dataset import MAX_CLASSES, MAX_NAME_CHARACTERS, DataError
from data.header import PIXELS, SIZE
from data.idx import MAX_BYTES
from system import untrusted

_BLOCK_BYTES = 1 << 22  # parsed at a time: about 2,300 images, as 64-bit numbers
_LINE_BYTES = 1 << 16  # longest line to accept; a valid one has some 5,000 bytes
_REMEDY = "correct it, or replace the file with an intact copy"


class Table(NamedTuple):
    """The images of a file."""

    images: np.ndarray  # uint8 [N, 28, 28, 1]
    labels: np.ndarray | None  # int32 [N]: indices of `names`; None: it has none
    names: list[str]  # different labels, in the order in which they come
    sha256: str  # of the file, in hex


def any_label(cell: bytes) -> str | None:
    """The label in a cell, without leading zeros of numbers; None if there is none."""
    if cell.isdigit():
        cell = cell.lstrip(b"0") or b"0"
    try:
        text = cell.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    valid = 0 < len(text) <= MAX_NAME_CHARACTERS and text.isprintable()
    return text if valid else None


_LABEL = f"a label of 1 to {MAX_NAME_CHARACTERS} printable characters"


def read(
    path: str,
    label_of: Callable[[bytes], str | None] = any_label,
    expected: str = _LABEL,
) -> Table:
    """Reads a file.

    Args:
      path: the file.
      label_of: returns the label in a cell, None if it is invalid.
      expected: what labels are valid, for the message.

    Raises:
      DataError: the file cannot be read, or has a fault; the message names the line,
        counted from 1, and the column. OSError is left to the caller.
    """
    digest = hashlib.sha256()
    with untrusted.open_file(path) as file:
        first = file.readline(_LINE_BYTES)
        digest.update(first)
        rows = _Rows(path, header.understand(first, path), label_of, expected)
        if not rows.columns.has_header:
            rows.add(1, header.without_mark(first))
        for number, block in _blocks(file, path):
            digest.update(block)
            rows.add(number, block)
    if not rows.pixels:
        raise DataError(
            f"{path}: ends after its header; expected at least one image; replace the"
            " file with an intact copy"
        )
    images = np.frombuffer(rows.pixels, np.uint8).reshape(-1, SIZE, SIZE, 1)
    labelled = rows.columns.label is not None
    labels = np.frombuffer(rows.labels, np.int32) if labelled else None
    return Table(images, labels, list(rows.names), digest.hexdigest())


def _blocks(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines after the first in blocks: number of the first line, lines."""
    number = 2
    while block := file.read(_BLOCK_BYTES):
        rest = file.readline(_LINE_BYTES)
        if len(rest) == _LINE_BYTES:
            number += block.count(b"\n")
            raise DataError(
                f"{path}: line {number} is longer than {_LINE_BYTES} bytes; expected"
                f" one image per line; {_REMEDY}"
            )
        yield number, block + rest
        number += block.count(b"\n") + rest.count(b"\n")


class _Rows:
    """Collects the images of a file, block by block."""

    def __init__(
        self,
        path: str,
        columns: header.Columns,
        label_of: Callable[[bytes], str | None],
        expected: str,
    ):
        self.path, self.columns = path, columns
        self.pixels, self.labels = bytearray(), bytearray()
        self.names: dict[str, int] = {}
        self._label_of, self._expected = label_of, expected
        self._codes: dict[bytes, int] = {}  # of cells
        self._blank = 0  # number of the first blank line
        # Of the columns that hold no pixels, from the last to the first.
        places = (columns.label, columns.row_number)
        self._places = sorted((p for p in places if p is not None), reverse=True)
        self._separator = columns.separator.encode()
        inside = rb'[^"\n%s]' % self._separator
        outside = rb"[^\n%s]" % self._separator
        # A cell in quotes that do nothing.
        self._quoted = re.compile(rb'(?<!%s)"(%s*)"(?!%s)' % (outside, inside, outside))

    def add(self, number: int, block: bytes) -> None:
        """Adds the images in a block of lines; the first line has this number.

        Raises DataError for the first fault.
        """
        block = block.replace(b"\r\n", b"\n")
        end = self._end(block)
        rows = block[:end]
        if rows and self._blank:
            raise self._blank_fault(self._blank)
        if len(rows) < len(block) and not self._blank:
            self._blank = number + rows.count(b"\n")
        if not rows:
            return
        if b'"' in rows:
            rows = self._quoted.sub(rb"\1", rows)
        try:
            values = self._parse(rows)
        except (ValueError, OverflowError, csv.Error):
            # numpy is fast but does not say where the fault is: look again, slowly.
            self._check(rows, number)
            raise  # the two disagree: a bug of ours
        self.pixels += values.tobytes()
        if len(self.pixels) > MAX_BYTES:
            raise DataError(
                f"{self.path}: holds more images than the {MAX_BYTES // PIXELS:,} that"
                " are accepted; leave some out"
            )

    def _end(self, block: bytes) -> int:
        """Length of a block without the blank lines at its end."""
        end = min(len(block), len(block.rstrip(b"\n")) + 1)
        while end:
            start = block.rfind(b"\n", 0, end - 1) + 1
            if block[start:end].strip(b'\n "' + self._separator):
                return end
            end = start  # spreadsheets write rows of empty cells
        return 0

    def _parse(self, rows: bytes) -> np.ndarray:
        """Returns the pixels of valid lines, uint8 [n, 784], and adds their labels.

        Any other lines raise an error.
        """
        separator, columns = self._separator, self.columns
        # We count before we split: blank lines would become millions of objects.
        count = rows.count(b"\n") + (not rows.endswith(b"\n"))
        if rows.count(separator) < count * (len(columns.names) - 1):
            raise ValueError("wrong number of columns")
        lines = rows.removesuffix(b"\n").split(b"\n")
        labels: list[bytes] = []
        if self._places:
            lines = [self._cut(line, labels) for line in lines]
        if any(line.count(separator) != PIXELS - 1 for line in lines):
            raise ValueError("wrong number of columns")
        cells = separator.join(lines)
        # np.fromstring would accept 1.0, 1e2, +1, " 1" and more as whole numbers.
        if cells.translate(None, b"0123456789" + separator):
            raise ValueError("more than digits")
        if separator != b",":
            cells = cells.replace(separator, b",")
        with warnings.catch_warnings():
            # Before numpy 2.3, an empty cell ends the values with just a warning.
            warnings.simplefilter("ignore", DeprecationWarning)
            parsed = np.fromstring(cells, np.int64, sep=",")
        values = parsed.reshape(count, PIXELS)  # or a ValueError
        if values.max() > 255:
            raise ValueError("a value too large")
        codes = [self._code(cell) for cell in labels]
        self.labels += np.array(codes, np.int32).tobytes()
        values = values.astype(np.uint8)
        return values if columns.order is None else values[:, columns.order]

    def _cells(self, line: bytes, most: int = -1) -> list[bytes]:
        """Cells of a line; the last one holds the rest after `most` separators."""
        if b'"' not in line:
            return line.split(self._separator, most)
        text = line.decode("utf-8", "surrogateescape")
        reader = csv.reader([text], delimiter=self.columns.separator, strict=True)
        return [cell.encode("utf-8", "surrogateescape") for cell in next(reader)]

    def _cut(self, line: bytes, labels: list[bytes]) -> bytes:
        """Returns the pixels of a line, and appends its label."""
        cells = self._cells(line, self._places[0] + 1)
        if self.columns.label is not None:
            if self.columns.label >= len(cells):
                raise ValueError("wrong number of columns")
            labels.append(cells[self.columns.label])
        for place in self._places:
            del cells[place : place + 1]
        return self._separator.join(cells)

    def _code(self, cell: bytes) -> int:
        """Index of a label in `names`, to which a new one is added."""
        if cell not in self._codes:
            label = self._label_of(cell)
            if label is None or not self._has_room(label):
                raise ValueError("no label, or too many")
            self._codes[cell] = self.names.setdefault(label, len(self.names))
        return self._codes[cell]

    def _has_room(self, label: str) -> bool:
        return label in self.names or len(self.names) < MAX_CLASSES

    def _check(self, rows: bytes, number: int) -> None:
        """Raises DataError for the first fault in a block of lines."""
        for number, row in enumerate(io.BytesIO(rows), number):
            line = row.removesuffix(b"\n")
            if not line:
                raise self._blank_fault(number)
            try:
                cells = self._cells(line)
            except csv.Error as error:
                raise self._fault(number, f" cannot be read ({error})") from None
            count = len(self.columns.names)
            if len(cells) != count:
                what = f" has {len(cells)} columns; expected {count}"
                raise self._fault(number, what)
            for place, cell in enumerate(cells):
                self._check_cell(number, place, cell)

    def _check_cell(self, number: int, place: int, cell: bytes) -> None:
        if place == self.columns.row_number:
            return
        if place == self.columns.label:
            label, valid = self._label_of(cell), self._expected
            if label is not None:
                if self._has_room(label):
                    self.names.setdefault(label, len(self.names))
                    return
                valid = f"at most {MAX_CLASSES:,} different labels"
        # As a float, because Python refuses integers of thousands of digits.
        elif cell.isdigit() and float(cell) <= 255:
            return
        else:
            valid = "a whole number from 0 to 255"
        column = self.columns.names[place][:40] or place + 1
        what = f", column {column} holds {_text(cell)}; expected {valid}"
        raise self._fault(number, what)

    def _blank_fault(self, number: int) -> DataError:
        count = len(self.columns.names)
        return self._fault(number, f" is blank; expected {count} values")

    def _fault(self, number: int, what: str) -> DataError:
        return DataError(f"{self.path}: line {number}{what}; {_REMEDY}")


def _text(cell: bytes) -> str:
    """Text of a cell for a message: short, and in one line."""
    if not cell:
        return "nothing"
    text = repr(cell[:40].decode("utf-8", "backslashreplace"))
    return text if len(cell) <= 40 else f"{text}…"
