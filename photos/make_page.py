# SPDX-License-Identifier: Apache-2.0
"""Draws pages of MNIST's test digits as a phone would photograph them.

    python -m photos.make_page --pages_dir=pages --pages=3
    python eval.py --run_dir=runs/lenet-s0 --images=pages --readings=readings.csv

page-0.png …   rows of digits of random sizes, on paper in uneven light
digits.csv     file, row, column and digit of each, in reading order

`cut -d, -f1-4 readings.csv | diff - pages/digits.csv | grep -c '^>'` counts the errors.
"""

if __name__ == "__main__":  # first, as the other imports take a while
    from system import console

    console.start()

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

import data
from data.normalise import INK_SIZE, SIZE
from system import cli, files

FLAGS = flags.FLAGS

KEY = "digits.csv"
WIDTH, HEIGHT = 1240, 1754  # pixels: A4 at 150 per inch
MARGIN = 36  # pixels
SMALLEST, LARGEST = 20, 200  # pixels, longer side of a digit's ink


class Page(NamedTuple):
    """A drawn page."""

    picture: np.ndarray  # uint8 [H, W]
    rows: list[list[int]]  # for each row the indices of its digits, from the left
    # int64 [n, 4], left, top, width, height of each digit's frame (its ink and the
    # paper around it, as in MNIST), in reading order.
    boxes: np.ndarray


def draw(images: np.ndarray, seed: int) -> Page:
    """Draws a page of the first digits, uint8 [N, 28, 28, 1], as many as fit.

    Equal arguments give equal pages.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    sizes = rng.integers(SMALLEST, LARGEST + 1, len(images)) * SIZE / INK_SIZE
    ink, rows, boxes = _lay_out(images, sizes.round().astype(int))
    paper = _paper(rng)
    ink *= rng.uniform(0.6, 0.95) / 255
    noise = rng.normal(0, rng.uniform(2, 8), ink.shape)
    picture = (paper * (1 - ink) + noise).round().clip(0, 255).astype(np.uint8)
    return Page(picture, rows, np.array(boxes))


def _lay_out(
    images: np.ndarray, sides: np.ndarray
) -> tuple[np.ndarray, list[list[int]], list[list[int]]]:
    """Places digits of these frame sizes in rows; returns the ink, rows and boxes."""
    import cv2

    ink = np.zeros((HEIGHT, WIDTH), np.float32)
    rows: list[list[int]] = []
    boxes: list[list[int]] = []
    # As high as the largest digit, so that all digits of a row share a middle line.
    row_height = round(LARGEST * SIZE / INK_SIZE)
    top, left = MARGIN - row_height, WIDTH
    for index, (image, side) in enumerate(zip(images[..., 0], sides)):
        if left + side > WIDTH - MARGIN:
            top, left = top + row_height, MARGIN
            if top + row_height > HEIGHT - MARGIN:
                break
            rows.append([])
        start = top + (row_height - side) // 2
        drawn = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        ink[start : start + side, left : left + side] = drawn
        rows[-1].append(index)
        boxes.append([left, start, side, side])
        left += side
    return ink, rows, boxes


def _paper(rng: np.random.Generator) -> np.ndarray:
    """Draws paper with fibres and blotches, unevenly lit: float32 [HEIGHT, WIDTH]."""
    import cv2

    paper = np.full((HEIGHT, WIDTH), rng.uniform(190, 245), np.float32)
    for grain, strength in ((1.5, 0.012), (8, 0.015), (60, 0.02)):
        texture = rng.standard_normal((HEIGHT, WIDTH), np.float32)
        blurred = cv2.GaussianBlur(texture, (0, 0), grain)
        paper *= 1 + strength * blurred / blurred.std()
    return paper * _light(rng)


def _light(rng: np.random.Generator) -> np.ndarray:
    """Draws light from one side, darker corners, and the soft shadow of a hand."""
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    corners = (x - 0.5) ** 2 + (y - 0.5) ** 2
    light = 0.8 + rng.uniform(0, 0.4) * slope - rng.uniform(0, 0.5) * corners
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - rng.uniform(0, 1)) * np.cos(angle) + (y - rng.uniform(0, 1)) * np.sin(
        angle
    )
    light *= 1 - rng.uniform(0, 0.35) / (1 + np.exp(-across / 0.03))
    return light


def store(path: Path, picture: np.ndarray) -> Path:
    """Writes a picture as a PNG file, whole or not at all."""
    import cv2

    with files.replacing(path) as file:
        file.write(cv2.imencode(".png", picture)[1].tobytes())
    return path


def write(folder: Path, images: np.ndarray, labels: np.ndarray, pages: int) -> int:
    """Writes pages of randomly chosen digits, and their key; returns how many digits.

    Images are uint8 [N, 28, 28, 1]. Raises DataError if a file cannot be written.
    """
    lines = ["file,row,column,digit"]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    try:
        os.makedirs(folder, exist_ok=True)
        for number in range(pages):
            page = draw(images[order], seed=number)
            path = store(folder / f"page-{number}.png", page.picture)
            for row, indices in enumerate(page.rows, 1):
                for column, index in enumerate(indices, 1):
                    lines.append(f"{path},{row},{column},{labels[order[index]]}")
            order = np.roll(order, -len(page.boxes))
        with files.replacing(folder / KEY) as file:
            file.write("\n".join([*lines, ""]).encode())
    except OSError as error:
        raise data.DataError(
            f"{folder}: cannot be written to ({error.strerror}); free some space, or"
            " choose another --pages_dir"
        ) from error
    return len(lines) - 1


def main(_: list[str]) -> None:
    """Writes the pages that the flags describe."""
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    assert dataset.test_labels is not None
    folder, pages = Path(FLAGS.pages_dir), FLAGS.pages
    count = write(folder, dataset.test_images, dataset.test_labels, pages)
    print(f"{folder}: {count:,} digits on {pages} page{'' if pages == 1 else 's'}")


if __name__ == "__main__":
    cli.define_path(
        "pages_dir",
        None,
        "Folder for page-0.png … and their key digits.csv; created if need be.",
        required=True,
    )
    flags.DEFINE_integer(
        "pages",
        1,
        "Number of pages, with some 40 digits each; page n is always the same.",
        lower_bound=1,
    )
    flags.DEFINE_enum(
        "dataset",
        "mnist",
        ["digits", "mnist"],
        "Whose test digits to draw: MNIST's, or the 8x8 digits that come with"
        " scikit-learn and need no download.",
    )
    cli.define_path(
        "data_dir", None, "Directory of the dataset's files; default: see BUILD.md."
    )
    cli.run(main)
