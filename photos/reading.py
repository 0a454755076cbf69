# SPDX-License-Identifier: Apache-2.0
"""What a network reads on photos: as a table, as CSV or JSON, drawn on the photo."""

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

from evaluation import figures, scoring
from photos import components, decode, segment
from system import console, errors, files

DOUBTFUL = 0.8  # a lower probability is marked
SUFFIXES = (".csv", ".json")  # of a file of readings
COLUMNS = (
    *("file", "row", "column", "digit", "probability", "runner_up"),
    *("runner_up_probability", "doubtful", "left", "top", "width", "height"),
)

_FORMULA = tuple("=+-@＝＋－＠")  # what begins one in some spreadsheet
_SMALLEST_PICTURE = 800  # pixels, longer side: below, it is enlarged


class ReadingError(errors.UserError):
    """What was read cannot be written."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A digit as it was read.

    Attributes:
      row, column: place in reading order, counted from 1.
      box: left, top, width, height in pixels of the upright photo.
      digit, probability: the likeliest class.
      runner_up, runner_up_probability: the next one.
    """

    row: int
    column: int
    box: tuple[int, int, int, int]
    digit: int
    probability: float
    runner_up: int
    runner_up_probability: float

    @property
    def doubtful(self) -> bool:
        """Whether the network is unsure."""
        return self.probability < DOUBTFUL


@dataclasses.dataclass(frozen=True)
class Page:
    """A photo and what was read on it."""

    path: Path
    readings: list[Reading]


def read(
    predict: Callable[..., tf.Tensor], paths: Sequence[Path], ink: str = "auto"
) -> list[Page]:
    """Reads the digits of photos.

    Args:
      predict: uint8 images [N, 28, 28, 1] → logits [N, 10].
      paths: of the photos.
      ink: a name in `paper.INKS`.

    Raises:
      PhotoError: a photo cannot be read.
      PageError: there are thousands of marks on one.
    """
    found = [_find(path, ink) for path in paths]
    images = [digit.image for digits in found for digit in digits]
    if not images:
        return [Page(path, []) for path in paths]
    logits = scoring.predict_all(predict, np.stack(images)[..., np.newaxis])
    probabilities = iter(tf.nn.softmax(logits).numpy())
    return [
        Page(path, [_reading(digit, next(probabilities)) for digit in digits])
        for path, digits in zip(paths, found, strict=True)
    ]


def _find(path: Path, ink: str) -> list[segment.Digit]:
    photo = decode.read(path)
    grey = cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2GRAY)
    scale = photo.scale
    del photo  # three times as large
    try:
        return [
            dataclasses.replace(digit, box=_scaled(digit.box, scale))
            for digit in segment.find(grey, ink)
        ]
    except components.PageError as error:
        raise components.PageError(f"{path}: {error}") from None


def _scaled(box: tuple[int, int, int, int], scale: int) -> tuple[int, int, int, int]:
    left, top, width, height = (scale * side for side in box)
    return left, top, width, height


def _reading(digit: segment.Digit, probabilities: np.ndarray) -> Reading:
    second, first = np.argsort(probabilities)[-2:].tolist()
    return Reading(
        digit.row,
        digit.column,
        digit.box,
        first,
        float(probabilities[first]),
        second,
        float(probabilities[second]),
    )


def show(pages: Sequence[Page]) -> str:
    """All that was read, as text for a console."""
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
    lines = [
        f"{console.one_line(str(page.path))}: no digits found"
        for page in pages
        if not page.readings
    ]
    if rows:
        # Or 1.10 would be the number 1.1.
        table = tabulate(rows, header, colalign=align, disable_numparse=True)
        lines = [table, *lines]
        if doubtful := sum(row[-1] == "?" for row in rows):
            lines.append(
                f"{doubtful} of {len(rows)} marked ?: read with a probability below"
                f" {DOUBTFUL:.0%}"
            )
    return "\n".join(lines)


def write(path: Path, pages: Sequence[Page]) -> None:
    """Writes all that was read, as CSV or JSON by the suffix of the file.

    CSV has a row for each digit, with the columns of `COLUMNS`; JSON a list of pages,
    those without digits too: `{"file": …, "digits": [{"row": 1, …}]}`.

    Raises:
      ReadingError: it cannot be written.
    """
    if path.suffix.lower() == ".json":
        content = _json(pages)
    else:
        content = _csv(pages)
    # The user names this file, and may have a link there.
    _store(path, content.encode("utf-8", "surrogateescape"), follow=True)


def _csv(pages: Sequence[Page]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writeheader()
    for page in pages:
        name = _cell(str(page.path))
        # Some spreadsheets begin another cell at a semicolon.
        writer = csv.DictWriter(
            text,
            COLUMNS,
            lineterminator="\n",
            quoting=csv.QUOTE_NONNUMERIC if ";" in name else csv.QUOTE_MINIMAL,
        )
        writer.writerows({"file": name, **_record(r)} for r in page.readings)
    return text.getvalue()


def _cell(path: str) -> str:
    """A path as a spreadsheet takes it: a name, no formula; nor does it move a cursor.

    ./=1.png is the same file as =1.png.
    """
    path = console.printable(path)
    return f"./{path}" if path.startswith(_FORMULA) else path


def _json(pages: Sequence[Page]) -> str:
    found = [
        {"file": str(page.path), "digits": [_record(r) for r in page.readings]}
        for page in pages
    ]
    return json.dumps(found, indent=1) + "\n"


def _record(reading: Reading) -> dict[str, Any]:
    record = dataclasses.asdict(reading)
    for name in ("probability", "runner_up_probability"):
        record[name] = round(record[name], 6)
    left, top, width, height = record.pop("box")
    box = {"left": left, "top": top, "width": width, "height": height}
    return {**record, "doubtful": int(reading.doubtful), **box}


def annotated_names(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Where each annotated picture goes: named like its photo, and by number if two
    photos have one name.

    Raises:
      UsageError: the folder is one that photos lie in, which might be replaced.
    """
    for path in paths:
        if path.parent.resolve() == folder.resolve():
            raise errors.UsageError(
                f"--annotated_dir={folder} is where {path.name} lies, which a picture"
                " might replace: name another folder"
            )
    names: dict[Path, None] = {}
    for path in paths:
        name, number = folder / f"{path.stem}.png", 2
        while name in names:
            name, number = folder / f"{path.stem}-{number}.png", number + 1
        names[name] = None
    return list(names)


def write_annotated(path: Path, page: Page) -> None:
    """Draws what was read on the photo and writes it as a PNG file.

    Raises:
      PhotoError: the photo cannot be read again.
      ReadingError: the picture cannot be written.
    """
    photo = decode.read(page.path)
    picture = annotate(photo.pixels, page.readings, photo.scale)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadingError(
            f"{path.parent}: cannot be made a folder ({error.strerror}); choose"
            " another --annotated_dir"
        ) from None
    _store(path, figures.png(picture))


def annotate(
    picture: np.ndarray, readings: Sequence[Reading], reduced: int = 1
) -> np.ndarray:
    """A photo with a box around each digit and what it was read as.

    Args:
      picture: uint8 [H, W, 3], RGB; enlarged if it is small.
      readings: of this photo.
      reduced: how many times the picture is smaller than the photo, each way.

    Returns:
      uint8 [H', W', 3].
    """
    scale = max(1, _SMALLEST_PICTURE // max(picture.shape[:2]))
    canvas = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    line = max(1, round(max(canvas.shape) / 800))
    rim = 3 * line
    for reading in readings:
        left, top, width, height = (side * scale // reduced for side in reading.box)
        # Doubt is told by colour and by a sign, for whom has no colours.
        colour = _rgb(figures.ORANGE if reading.doubtful else figures.BLUE)
        corners = (left - rim, top - rim), (left + width + rim, top + height + rim)
        cv2.rectangle(canvas, *corners, colour, line)
        text = f"{reading.digit}{'?' if reading.doubtful else ''}"
        _label(canvas, text, (left - rim, top - rim), height, colour, line)
    return canvas


def _label(
    canvas: np.ndarray,
    text: str,
    corner: tuple[int, int],
    height: int,
    colour: tuple[int, int, int],
    line: int,
) -> None:
    """White letters on a coloured field above the corner, or below if none is left."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    size = max(14 * line, height // 4)
    scale = cv2.getFontScaleFromHeight(font, size, line)
    (width, _), _ = cv2.getTextSize(text, font, scale, line)
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - width - size // 2))
    bottom = max(corner[1], size * 3 // 2)
    field = (left, bottom - size * 3 // 2), (left + width + size // 2, bottom)
    cv2.rectangle(canvas, *field, colour, cv2.FILLED)
    start = left + size // 4, bottom - size // 4
    weight = max(1, size // 8)
    cv2.putText(canvas, text, start, font, scale, (255,) * 3, weight, cv2.LINE_AA)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _store(path: Path, content: bytes, *, follow: bool = False) -> None:
    try:
        with files.replacing(path, follow=follow) as file:
            file.write(content)
    except OSError as error:
        raise ReadingError(
            f"{path}: cannot be written ({error.strerror}); make room, or choose"
            " another place"
        ) from None
