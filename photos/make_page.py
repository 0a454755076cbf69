# SPDX-License-Identifier: Apache-2.0
"""Writes pages of handwriting from MNIST's test digits, as a telephone would see them.

    python -m photos.make_page --pages_dir=pages --pages=3
    python eval.py --run_dir=runs/lenet-s0 --images=pages --readings=readings.csv

page-0.png …   rows of digits of random sizes, on paper in uneven light
digits.csv     file, row, column and digit of each, in reading order

`cut -d, -f1-4 readings.csv | diff - pages/digits.csv | grep -c '^>'` counts the errors.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

import data
from system import cli, files

KEY = "digits.csv"
WIDTH, HEIGHT = 1240, 1754  # A4 at 150 dots an inch
MARGIN = 36
SMALLEST, LARGEST = 20, 200  # pixels, longer side of a digit
INK_SIZE, FRAME_SIZE = 20, 28  # of MNIST's digits


class Page(NamedTuple):
    """Attributes:
    picture: uint8 [H, W].
    rows: for each row the indices of its digits, from the left.
    boxes: int64 [n, 4], left, top, width, height of each digit's 28×28 frame, in
      reading order.
    """

    picture: np.ndarray
    rows: list[list[int]]
    boxes: np.ndarray


def draw(images: np.ndarray, seed: int) -> Page:
    """Draws the first of the digits, as many as one page takes.

    Args:
      images: uint8 [N, 28, 28, 1], 0 paper.
      seed: 0 or more; the same arguments always draw the same.
    """
    import cv2

    rng = np.random.Generator(np.random.PCG64(seed))
    ink = np.zeros((HEIGHT, WIDTH), np.float32)
    rows: list[list[int]] = []
    boxes: list[list[int]] = []
    sizes = rng.integers(SMALLEST, LARGEST + 1, len(images)) * FRAME_SIZE / INK_SIZE
    top, left, row_height = MARGIN, WIDTH, 0
    for index, (image, side) in enumerate(
        zip(images[..., 0], sizes.round().astype(int))
    ):
        if left + side > WIDTH - MARGIN:
            top, left = top + row_height, MARGIN
            # The tallest of those that may come, so that all of a row have one middle.
            row_height = round(LARGEST * FRAME_SIZE / INK_SIZE)
            if top + row_height > HEIGHT - MARGIN:
                break
            rows.append([])
        start = top + (row_height - side) // 2
        drawn = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        ink[start : start + side, left : left + side] = drawn
        rows[-1].append(index)
        boxes.append([left, start, side, side])
        left += side
    paper = _paper(rng)
    ink *= rng.uniform(0.6, 0.95) / 255
    noise = rng.normal(0, rng.uniform(2, 8), ink.shape)
    picture = (paper * (1 - ink) + noise).round().clip(0, 255).astype(np.uint8)
    return Page(picture, rows, np.array(boxes))


def _paper(rng: np.random.Generator) -> np.ndarray:
    """Paper with fibres and blotches, lit from one side: float32 [HEIGHT, WIDTH]."""
    import cv2

    paper = np.full((HEIGHT, WIDTH), rng.uniform(190, 245), np.float32)
    for grain, strength in ((1.5, 0.012), (8, 0.015), (60, 0.02)):
        texture = rng.standard_normal((HEIGHT, WIDTH), np.float32)
        blurred = cv2.GaussianBlur(texture, (0, 0), grain)
        paper *= 1 + strength * blurred / blurred.std()
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    corners = (x - 0.5) ** 2 + (y - 0.5) ** 2
    light = 0.8 + rng.uniform(0, 0.4) * slope - rng.uniform(0, 0.5) * corners
    # The shadow of a hand or a telephone, with a soft edge.
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - rng.uniform(0, 1)) * np.cos(angle) + (y - rng.uniform(0, 1)) * np.sin(
        angle
    )
    light *= 1 - rng.uniform(0, 0.35) / (1 + np.exp(-across / 0.03))
    return paper * light


def store(path: Path, picture: np.ndarray) -> Path:
    """Writes a picture as a PNG file, whole or not at all."""
    import cv2

    with files.replacing(path) as file:
        file.write(cv2.imencode(".png", picture)[1].tobytes())
    return path


def write(folder: Path, images: np.ndarray, labels: np.ndarray, pages: int) -> int:
    """Writes pages and their key, each whole or not at all.

    Args:
      folder: made if need be.
      images: uint8 [N, 28, 28, 1], from which the digits are drawn at random.
      labels: uint8 [N].
      pages: how many.

    Returns:
      How many digits are on them.

    Raises:
      DataError: a file cannot be written.
    """
    lines = ["file,row,column,digit"]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    try:
        os.makedirs(folder, exist_ok=True)
        for number in range(pages):
            page = draw(images[order], seed=number)
            path = store(folder / f"page-{number}.png", page.picture)
            for row, some in enumerate(page.rows, 1):
                for column, index in enumerate(some, 1):
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
    values = flags.FLAGS.flag_values_dict()
    dataset = data.load(values["dataset"], values["data_dir"])
    assert dataset.test_labels is not None
    folder = Path(values["pages_dir"])
    count = write(folder, dataset.test_images, dataset.test_labels, values["pages"])
    print(f"{folder}: {count:,} digits on {values['pages']} pages")


if __name__ == "__main__":
    cli.define_path("pages_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_integer("pages", 1, "How many.", lower_bound=1)
    flags.DEFINE_enum("dataset", "mnist", ["digits", "mnist"], "Where from.")
    cli.define_path("data_dir", None, "Where the files of the dataset lie.")
    cli.run(main)
