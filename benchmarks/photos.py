# SPDX-License-Identifier: Apache-2.0
"""Measures accuracy on photos, from the pixels of a page to its digits, by kind.

    python -m benchmarks.photos --run_dir=runs/robust-s0 --first_seed=10001 --pages=30
    python -m benchmarks.photos --photos_dir=PHOTOS   # other people's photos, with keys

Pages of MNIST's test digits, drawn by photos.make_page with a seed each, and photos of
other people's digits, are read as eval.py --images reads them; and, beside it, by the
fifteen lines of OpenCV that many users write, with the same network.

Digits are aligned by edit distance; those of cheques and of made pages, by their boxes.
benchmarks/pictures.py says what the folder of photos holds.
"""

if __name__ == "__main__":  # first, as the other imports take a while
    from system import console

    console.start()

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import collections
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from absl import flags

import data
from benchmarks import pictures as sets
from benchmarks.pictures import Box, Picture
from data import decode
from data.normalise import normalise
from evaluation import scoring, trained
from photos import reading
from system import cli

FLAGS = flags.FLAGS


class Found(NamedTuple):
    """What a program reads at a place."""

    box: Box
    digit: int | str


class Count(NamedTuple):
    """Numbers of pictures and digits, and the time that they took."""

    pictures: int
    exact: int  # pictures: all digits right and nothing besides
    digits: int
    right: int  # digits found and classified correctly
    besides: int  # readings where there is no digit
    seconds: float

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]
        return Count._make(a + b for a, b in zip(self, other))


Program = Callable[[Path], list[Found]]


def define_flags() -> None:
    cli.define_path(
        "run_dir", None, "Run directory of the network that reads.", required=True
    )
    flags.DEFINE_integer(
        "first_seed",
        0,
        "Seed of the first page; the others follow. Measure a change of the reader on"
        " seeds that you did not tune it on.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "pages",
        30,
        "Number of made pages, with some 40 digits each. More pages narrow the"
        " uncertainty and take longer.",
        lower_bound=0,
    )
    cli.define_path(
        "photos_dir", None, "Folder of photos with keys; default: made pages only."
    )
    cli.define_path(
        "data_dir", None, "Directory of MNIST's files; default: see BUILD.md."
    )


def ours(predict: scoring.Predict) -> Program:
    """The project's reader."""

    def read(path: Path) -> list[Found]:
        readings = reading.read(predict, path).readings
        return [Found(one.box, one.digit) for one in readings]

    return read


_LOWEST_BOX_SHARE = 0.02  # of the picture's height


def otsu(predict: scoring.Predict) -> Program:
    """What many people write: blur, Otsu's threshold, contours, boxes that are large.

    The digits go from left to right, in rows of boxes that overlap in height.
    """

    def read(path: Path) -> list[Found]:
        pixels, k = decode.read(path)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        if np.median(grey) > 127:
            grey = 255 - grey
        blurred = cv2.GaussianBlur(grey, (5, 5), 0)
        mask = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1]
        outlines = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        around = [cv2.boundingRect(outline) for outline in outlines]
        lowest = _LOWEST_BOX_SHARE * len(grey)
        boxes = _in_reading_order([box for box in around if box[3] >= lowest])
        if not boxes:
            return []
        images = [
            normalise(np.ascontiguousarray(mask[top : top + h, left : left + w]))
            for left, top, w, h in boxes
        ]
        logits = scoring.predict_all(predict, np.stack(images)[..., np.newaxis])
        return [
            Found((k * left, k * top, k * w, k * h), int(digit))
            for (left, top, w, h), digit in zip(boxes, logits.argmax(1))
        ]

    return read


def _in_reading_order(boxes: Iterable[Sequence[int]]) -> list[Box]:
    """Sorts boxes by rows: a box's middle is in the first box of its row."""
    rows: list[list[Box]] = []
    for left, top, width, height in sorted(boxes, key=lambda b: b[1] + b[3] / 2):
        box = left, top, width, height
        if rows and box[1] + box[3] / 2 < rows[-1][0][1] + rows[-1][0][3]:
            rows[-1].append(box)
        else:
            rows.append([box])
    return [box for row in rows for box in sorted(row)]


def compare(picture: Picture, found: Sequence[Found], seconds: float) -> Count:
    """Compares what was read in a picture with its key."""
    read = "".join(str(one.digit) for one in found)
    if picture.boxes is not None:
        right, besides = _match(picture.digits, picture.boxes, found)
    elif picture.ordered:
        right, besides = _align(picture.digits, read)
    else:
        common = collections.Counter(picture.digits) & collections.Counter(read)
        right, besides = common.total(), max(0, len(read) - len(picture.digits))
    exact = right == len(picture.digits) == len(read)
    if picture.ordered:
        exact = exact and read == picture.digits
    return Count(1, int(exact), len(picture.digits), right, besides, seconds)


def _align(digits: str, read: str) -> tuple[int, int]:
    """Digits right and readings besides, of the alignment of least edit distance.

    Of several such alignments, one with the most digits right.
    """
    # Edit distance, −right and besides, of each start of `read` and one of `digits`.
    row = [(j, 0, j) for j in range(len(read) + 1)]
    for i, digit in enumerate(digits, 1):
        above, row = row, [(i, 0, 0)]
        for j, other in enumerate(read, 1):
            distance, right, besides = above[j - 1]
            equal = digit == other
            kept = (distance + (not equal), right - equal, besides)
            missed = (above[j][0] + 1, *above[j][1:])
            extra = (row[j - 1][0] + 1, row[j - 1][1], row[j - 1][2] + 1)
            row.append(min(kept, missed, extra))
    _, right, besides = row[-1]
    return -right, besides


_LEAST_OVERLAP = 0.3  # intersection over union


def _match(
    digits: str, boxes: Sequence[Box], found: Sequence[Found]
) -> tuple[int, int]:
    """Digits right and readings besides, matched by boxes, greatest overlap first."""
    overlaps = sorted(
        (
            (_overlap(box, one.box), i, j)
            for i, box in enumerate(boxes)
            for j, one in enumerate(found)
        ),
        reverse=True,
    )
    right, used_boxes, used = 0, set(), set()
    for overlap, i, j in overlaps:
        if overlap >= _LEAST_OVERLAP and i not in used_boxes and j not in used:
            used_boxes.add(i)
            used.add(j)
            right += str(found[j].digit) == digits[i]
    return right, len(found) - len(used)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


_NOTHING = Count(0, 0, 0, 0, 0, 0.0)


def measure(program: Program, pictures: Sequence[Picture]) -> dict[str, Count]:
    """Reads all pictures; returns the counts by kind, in order of appearance."""
    counts: dict[str, Count] = {}
    for picture in pictures:
        start = time.perf_counter()
        found = program(picture.path)
        count = compare(picture, found, time.perf_counter() - start)
        for kind in picture.kinds:
            counts[kind] = counts.get(kind, _NOTHING) + count
    return counts


def table(by_program: dict[str, dict[str, Count]]) -> str:
    """The counts of all programs, a row for each kind of picture."""
    from tabulate import tabulate

    first, *_ = by_program.values()
    rows = []
    for kind, whole in first.items():
        row: list[object] = [kind, whole.pictures, whole.digits]
        for show in (
            lambda c: f"{c.exact / c.pictures:.1%}",
            lambda c: f"{c.right / c.digits:.2%}",
            lambda c: c.besides,
            lambda c: f"{c.seconds / c.pictures:.2f}",
        ):
            row += [show(counts[kind]) for counts in by_program.values()]
        rows.append(row)
    columns = ("exact", "right", "besides", "s each")
    names = [f"{column}: {name}" for column in columns for name in by_program]
    header = ["kind", "pictures", "digits", *names]
    return tabulate(rows, header, "github", disable_numparse=True)


_HARD_PAGES = 10  # of each kind, with 40 digits each


def main(_: list[str]) -> None:
    """Reads the pages and photos that the flags name."""
    predict = trained.load(Path(FLAGS.run_dir)).predict
    with tempfile.TemporaryDirectory() as folder:
        pictures: list[Picture] = []
        if FLAGS.pages:
            seeds = range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.pages)
            dataset = data.load("mnist", FLAGS.data_dir)
            pictures += sets.made_pages(Path(folder), dataset, seeds)
            pictures += sets.hard(Path(folder), dataset, seeds[:_HARD_PAGES])
        if FLAGS.photos_dir:
            pictures += sets.keyed(Path(FLAGS.photos_dir))
        print(
            table(
                {
                    "ours": measure(ours(predict), pictures),
                    "Otsu": measure(otsu(predict), pictures),
                }
            )
        )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
