# SPDX-License-Identifier: Apache-2.0
"""Reads the digits of photos by a network, and lists them as a table, CSV or JSON."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

import data
from data import decode
from evaluation import scoring
from photos import components, orientation, paper, segment
from system import console, errors, files

# Readings below are marked. On other people's photos, two in five of those were wrong,
# and one in 270 of the others (docs/photos.md).
DOUBTFUL_PROBABILITY = 0.9
REJECT = 0.5  # readings below are left out: more likely than not, they are no digits
_MUCH_DARK_SHARE = 0.4  # of a page; less may be the table beside the sheet
COLUMNS = (
    *("file", "row", "column", "digit", "probability", "runner_up"),
    *("runner_up_probability", "doubtful", "left", "top", "width", "height"),
)


class ReadingError(errors.UserError):
    """Readings or pictures that cannot be written."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A digit of a photo as the network classifies it."""

    row: int  # place in reading order, counted from 1
    column: int
    # Left, top, width, height in pixels of the upright photo.
    box: tuple[int, int, int, int]
    digit: int | str  # the most probable class; an integer if classes are digits
    probability: float
    runner_up: int | str  # the second one
    runner_up_probability: float

    @property
    def doubtful(self) -> bool:
        return self.probability < DOUBTFUL_PROBABILITY


@dataclasses.dataclass(frozen=True)
class Page:
    """A photo and its readings."""

    path: Path
    readings: list[Reading]
    turned: int = 0  # degrees by which it was turned to the left, to be read
    warning: str = ""  # what makes its readings doubtful, to show with them


def read(
    predict: Callable[..., tf.Tensor],
    path: Path,
    ink: str = "auto",
    classes: Sequence[str] = data.DIGITS,
    *,
    turn: int | None = 0,
    reject: float = REJECT,
) -> Page:
    """Reads the digits of a photo.

    Args:
      predict: a network that takes uint8 images [N, 28, 28, 1], and returns logits.
      path: the photo.
      ink: a name in `paper.INKS`.
      classes: names of what the network reads, digits or other characters.
      turn: degrees to turn the photo to the left before it is read, a multiple of 90;
        None: as it is read best. Boxes are in pixels of the photo as it was.
      reject: readings that are less probable are left out.

    Raises:
      PhotoError or PageError: the photo cannot be read, or has thousands of marks, or
        marks nested in one another.
    """

    def classify(images: np.ndarray) -> np.ndarray:
        logits = scoring.predict_all(predict, images[..., np.newaxis])
        return tf.nn.softmax(logits).numpy()

    photo = decode.read(path)
    grey = cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2GRAY)
    scale = photo.scale
    del photo  # three times as large as `grey`
    values = [int(n) if n in data.DIGITS else n for n in classes]
    try:
        if turn is None:
            turn = orientation.best(segment.find(grey, ink), classify)
        dark = paper.dark_share(grey)
        turned = np.ascontiguousarray(np.rot90(grey, turn // 90))
        digits = segment.find(turned, ink, classify, reject)
    except components.PageError as error:
        raise components.PageError(f"{path}: {error}") from None
    warning = ""
    if dark >= _MUCH_DARK_SHARE:
        warning = (
            f"{path}: {dark:.0%} of it is nearly black, where no ink can be seen;"
            " photograph it in even light"
        )
    readings = []
    for digit in digits:
        box = orientation.turned_back(digit.box, turn, grey.shape)
        left, top, width, height = (scale * side for side in box)
        readings.append(_reading(digit, (left, top, width, height), values))
    return Page(path, readings, turn, warning)


def _reading(
    digit: segment.Digit, box: tuple[int, int, int, int], values: Sequence[int | str]
) -> Reading:
    probabilities = digit.probabilities
    assert probabilities is not None  # as there was a network
    second, first = np.argsort(probabilities)[-2:].tolist()
    return Reading(
        digit.row,
        digit.column,
        box,
        values[first],
        float(probabilities[first]),
        values[second],
        float(probabilities[second]),
    )


def show(pages: Sequence[Page]) -> str:
    """Formats all readings as a table for the console."""
    from tabulate import tabulate

    rows = [
        [
            console.one_line(str(page.path)),
            f"{r.row}.{r.column}",
            r.digit,
            f"{r.probability:.1%}",
            f"{r.runner_up}  {r.runner_up_probability:.1%}",
            "?" if r.doubtful else "",
        ]
        for page in pages
        for r in page.readings
    ]
    header = ["file", "row.column", "digit", "probability", "runner-up", ""]
    align = ("left", "right", "right", "right", "right", "left")
    lines = []
    for page in pages:
        name = console.one_line(str(page.path))
        if page.turned:
            lines.append(f"{name}: turned by {page.turned}° to the left")
        if not page.readings:
            lines.append(f"{name}: no digits found")
    if rows:
        # As a number, place 1.10 would become 1.1.
        table = tabulate(rows, header, colalign=align, disable_numparse=True)
        lines = [table, *lines]
        if doubtful := sum(row[-1] == "?" for row in rows):
            lines.append(
                f"{doubtful} of {len(rows)} marked ?: probability below"
                f" {DOUBTFUL_PROBABILITY:.0%}"
            )
    return "\n".join(lines)


def write(path: Path, pages: Sequence[Page]) -> None:
    """Writes all readings as JSON if the file's suffix is .json, else as CSV.

    CSV has a row per digit, with the columns of `COLUMNS`; JSON a list of pages, also
    of those without digits: `{"file": …, "digits": [{"row": 1, …}]}`.
    """
    content = _json(pages) if path.suffix.lower() == ".json" else _csv(pages)
    # The user chose this name, so it may be a link.
    files.write(path, content.encode("utf-8", "surrogateescape"), follow=True)


def _csv(pages: Sequence[Page]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writeheader()
    for page in pages:
        name = _cell(str(page.path))
        # Some spreadsheets start a new cell at a semicolon.
        writer = csv.DictWriter(
            text,
            COLUMNS,
            lineterminator="\n",
            quoting=csv.QUOTE_NONNUMERIC if ";" in name else csv.QUOTE_MINIMAL,
        )
        writer.writerows({"file": name, **_no_formulas(r)} for r in page.readings)
    return text.getvalue()


_FORMULA_STARTS = tuple("=+-@＝＋－＠")  # in one spreadsheet or another


def _cell(path: str) -> str:
    """Writes a path so that no spreadsheet takes it for a formula.

    ./=1.png is the same file as =1.png. Control characters are escaped.
    """
    path = console.printable(path)
    return f"./{path}" if path.startswith(_FORMULA_STARTS) else path


def _no_formulas(reading: Reading) -> dict[str, Any]:
    """Record whose classes no spreadsheet takes for a formula."""
    record = _record(reading)
    for name in ("digit", "runner_up"):
        text = str(record[name])
        if len(text) > 1 and text.startswith(_FORMULA_STARTS):
            record[name] = f"'{text}"
    return record


def _json(pages: Sequence[Page]) -> str:
    records = [
        {"file": str(page.path), "digits": [_record(r) for r in page.readings]}
        for page in pages
    ]
    return json.dumps(records, indent=1) + "\n"


def _record(reading: Reading) -> dict[str, Any]:
    record = dataclasses.asdict(reading)
    for name in ("probability", "runner_up_probability"):
        record[name] = round(record[name], 6)
    left, top, width, height = record.pop("box")
    box = {"left": left, "top": top, "width": width, "height": height}
    return {**record, "doubtful": int(reading.doubtful), **box}
