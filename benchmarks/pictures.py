# SPDX-License-Identifier: Apache-2.0
"""Pictures of digits with their keys: drawn pages, and other people's photos.

A folder of photos holds key.csv, with columns file, digits (in reading order, "/"
between rows), source, scattered (1: no rows, so the order does not count) and form (1:
printed cells carry the digits); and cheques/key.csv with file, digits and boxes (left,
top, width, height of each).
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
from benchmarks import hard_pages
from photos import make_page

# Left, top, width and height in pixels.
Box = tuple[int, int, int, int]


class Picture(NamedTuple):
    """A picture with its key."""

    kinds: Sequence[str]  # the rows of the table in which it counts
    path: Path
    digits: str  # in reading order
    boxes: Sequence[Box] | None  # of each digit, where they are known
    ordered: bool  # whether the order counts


def made_pages(
    folder: Path, dataset: data.Dataset, seeds: Sequence[int]
) -> Iterator[Picture]:
    """Draws a page of test digits for each seed into a folder."""
    for seed in seeds:
        images, labels = _shuffled(dataset, seed)
        page = make_page.draw(images, seed)
        path = make_page.store(folder / f"page-{seed}.png", page.picture)
        digits = "".join(map(str, labels[: len(page.boxes)]))
        boxes = [
            _ink_box(image[..., 0], frame)
            for image, frame in zip(images, page.boxes.tolist())
        ]
        yield Picture(["made pages"], path, digits, boxes, True)


def hard(
    folder: Path, dataset: data.Dataset, seeds: Sequence[int]
) -> Iterator[Picture]:
    """Draws a page of each kind of `hard_pages` for each seed into a folder."""
    for seed in seeds:
        images, labels = _shuffled(dataset, seed)
        for kind in hard_pages.KINDS:
            page = hard_pages.draw(kind, images, seed)
            path = make_page.store(folder / f"{kind}-{seed}.png", page.picture)
            digits = "".join(map(str, labels[page.digits]))
            yield Picture(["hard pages", f"hard: {kind}"], path, digits, None, True)


def _shuffled(dataset: data.Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The test images and their labels, in the order of a seed."""
    assert dataset.test_labels is not None
    rng = np.random.Generator(np.random.PCG64(seed))
    order = rng.permutation(len(dataset.test_images))
    return dataset.test_images[order], dataset.test_labels[order]


def _ink_box(image: np.ndarray, frame: Sequence[int]) -> Box:
    """The box of a digit's ink, where the image fills a frame of the page."""
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    scale = frame[2] / len(image)
    return (
        frame[0] + round(scale * left),
        frame[1] + round(scale * top),
        round(scale * width),
        round(scale * height),
    )


_FIRST_SET = 108  # the folder's README counts the pictures after it apart


def keyed(folder: Path) -> Iterator[Picture]:
    """Reads the keys of a folder of photos."""
    for row in _rows(folder / "key.csv"):
        late = int(Path(row["file"]).stem) > _FIRST_SET
        where = f"from {_FIRST_SET + 1}" if late else f"up to {_FIRST_SET}"
        if row["form"] == "1" and row["source"] == "photo":
            kinds = ["photographed forms"]
        else:
            kinds = [where, f"{where}: {row['source']}"]
        digits = row["digits"].replace("/", "")
        ordered = row["scattered"] != "1"
        yield Picture(kinds, folder / row["file"], digits, None, ordered)
    cheques = folder / "cheques"
    for row in _rows(cheques / "key.csv"):
        boxes = [
            (int(left), int(top), int(width), int(height))
            for left, top, width, height in (b.split(",") for b in row["boxes"].split())
        ]
        yield Picture(["cheques"], cheques / row["file"], row["digits"], boxes, True)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise data.DataError(
            f"{path}: cannot be read ({error.strerror}); expected the key of a folder"
            " of photos, see benchmarks/photos.py"
        ) from error
