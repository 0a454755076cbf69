# SPDX-License-Identifier: Apache-2.0
"""Draws pages of MNIST's test digits as people's own pages are: ten kinds of trouble.

    python -m benchmarks.hard_pages --pages_dir=hard

Each is a page of `LINES` lines of digits by one pen, 40 to 60 pixels high, and one
thing that goes wrong. `benchmarks.photos` reads them beside the pages of
photos.make_page, which have none of it.
"""

if __name__ == "__main__":  # first, as the other imports take a while
    from system import console

    console.start()

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from absl import flags

import data
from photos import make_page
from system import cli

FLAGS = flags.FLAGS

LINES, DIGITS = 5, 8  # of a page; digits in each line
WIDTH, HEIGHT = 900, 700
MARGIN, PITCH = 90, 110  # pixels: to the left of a line, from one line to the next


class HardPage(NamedTuple):
    """A drawn page."""

    picture: np.ndarray  # uint8 [H, W]
    digits: list[int]  # indices of its digits, in reading order


Random = np.random.Generator


def draw(kind: str, images: np.ndarray, seed: int) -> HardPage:
    """Draws a page of a kind of `KINDS` with the first of some digits.

    Images are uint8 [N, 28, 28, 1]. Equal arguments give equal pages.
    """
    rng = np.random.Generator(np.random.PCG64([seed, list(KINDS).index(kind)]))
    return KINDS[kind](images[..., 0], rng)


def _ink(
    images: np.ndarray, rng: Random, *, touching: bool = False, count: int = DIGITS
) -> np.ndarray:
    """Lines of digits as ink, float32 [HEIGHT, WIDTH], 0 to 1."""
    ink = np.zeros((HEIGHT, WIDTH), np.float32)
    for line in range(LINES):
        left = MARGIN
        for image in images[count * line : count * (line + 1)]:
            columns = np.flatnonzero(image.any(0))
            image = image[:, columns[0] : columns[-1] + 1]
            scale = rng.uniform(2.2, 2.9)
            digit = cv2.resize(image, None, fx=scale, fy=scale).astype(np.float32)
            height, width = digit.shape
            top = MARGIN // 2 + PITCH * line + int(rng.integers(0, 12))
            window = ink[top : top + height, left : left + width]
            np.maximum(window, digit / 255, out=window)
            left += width + (-4 if touching else int(rng.integers(16, 34)))
    return ink


def _on_paper(
    ink: np.ndarray, rng: Random, light: np.ndarray | float = 1, depth: float = 0.75
) -> np.ndarray:
    """A photo of ink on paper, with noise: uint8 [H, W]."""
    grey = 225 * light * (1 - depth * np.clip(ink, 0, 1)) + rng.normal(0, 3, ink.shape)
    return grey.round().clip(0, 255).astype(np.uint8)


def _all(images: np.ndarray) -> list[int]:
    return list(range(LINES * DIGITS))


def touching(images: np.ndarray, rng: Random) -> HardPage:
    """Digits that touch their neighbours, in pairs and longer chains."""
    return HardPage(_on_paper(_ink(images, rng, touching=True), rng), _all(images))


def ruled(images: np.ndarray, rng: Random) -> HardPage:
    """Ruled paper, two degrees askew, whose lines the digits stand on."""
    ink = _ink(images, rng)
    for line in range(LINES + 1):
        y = MARGIN // 2 - 30 + PITCH * line
        ends = (0, y), (WIDTH, y + round(WIDTH * 0.035))
        cv2.line(ink, *ends, 0.6, 2, cv2.LINE_AA)
    return HardPage(_on_paper(ink, rng), _all(images))


def squared(images: np.ndarray, rng: Random) -> HardPage:
    """Squared paper with faint lines."""
    ink = _ink(images, rng)
    squares = np.zeros_like(ink)
    squares[::28] = squares[1::28] = 0.3
    squares[:, ::28] = squares[:, 1::28] = 0.3
    return HardPage(_on_paper(np.maximum(ink, squares), rng), _all(images))


def cells(images: np.ndarray, rng: Random) -> HardPage:
    """A form: each digit in a cell of its own, not always in its middle."""
    ink = np.zeros((HEIGHT, WIDTH), np.float32)
    side = 80
    for line in range(LINES):
        for column in range(DIGITS):
            top, left = 60 + 110 * line, 100 + side * column
            cv2.rectangle(ink, (left, top), (left + side, top + side), 0.7, 2)
            digit = cv2.resize(images[DIGITS * line + column], (64, 64)) / 255
            y, x = top + 8 + rng.integers(-6, 7), left + 8 + rng.integers(-6, 7)
            window = ink[y : y + 64, x : x + 64]
            np.maximum(window, digit, out=window)
    return HardPage(_on_paper(ink, rng), _all(images))


def flecks(images: np.ndarray, rng: Random) -> HardPage:
    """Dirt, and print that shines through."""
    ink = _ink(images, rng)
    for _ in range(120):
        x, y = rng.integers(0, WIDTH), rng.integers(0, HEIGHT)
        cv2.circle(ink, (int(x), int(y)), int(rng.integers(1, 5)), 0.8, cv2.FILLED)
    print_ = np.zeros((HEIGHT, WIDTH), np.uint8)
    for line in range(LINES):
        place = (60, 75 + PITCH * line)
        cv2.putText(print_, "back of page", place, cv2.FONT_HERSHEY_SIMPLEX, 3, 20, 6)
    ink = np.maximum(ink, print_[:, ::-1].astype(np.float32) / 255)
    return HardPage(_on_paper(ink, rng), _all(images))


def shadow(images: np.ndarray, rng: Random) -> HardPage:
    """The soft shadow of a hand through the digits."""
    x = np.arange(WIDTH) - WIDTH * rng.uniform(0.4, 0.6)
    y = np.arange(HEIGHT)[:, np.newaxis] * 0.3
    light = 1 - 0.55 / (1 + np.exp(-(x + y) / 12))
    return HardPage(_on_paper(_ink(images, rng), rng, light), _all(images))


def faint(images: np.ndarray, rng: Random) -> HardPage:
    """A pencil that hardly marks the paper, whose strokes are broken."""
    ink = _ink(images, rng)
    grain = cv2.GaussianBlur(rng.standard_normal(ink.shape), (0, 0), 1.5)
    ink *= np.clip(1 + 1.2 * grain / grain.std(), 0, 1)
    return HardPage(_on_paper(ink, rng, depth=0.35), _all(images))


def light_ink(images: np.ndarray, rng: Random) -> HardPage:
    """Chalk on a slate that lies on a light table."""
    ink = _ink(images, rng)
    grey = 60 + 150 * ink + rng.normal(0, 4, ink.shape)
    grey[:25] = grey[-25:] = 215
    grey[:, :25] = grey[:, -25:] = 215
    return HardPage(grey.round().clip(0, 255).astype(np.uint8), _all(images))


def edges(images: np.ndarray, rng: Random) -> HardPage:
    """A sheet on a dark table, a little askew, and the edges of those below it."""
    page = _on_paper(_ink(images, rng), rng).astype(np.float32)
    for x in (18, 25, 34):
        cv2.line(page, (x, 0), (x + 6, HEIGHT), 120, 2, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 1.5, 0.94)
    turned = cv2.warpAffine(page, turn, (WIDTH, HEIGHT), borderValue=45)
    return HardPage(turned.round().clip(0, 255).astype(np.uint8), _all(images))


def crossed_out(images: np.ndarray, rng: Random) -> HardPage:
    """The last digit of each line is crossed out with many strokes."""
    ink = np.zeros((HEIGHT, WIDTH), np.float32)
    kept = [i for i in _all(images) if i % DIGITS < DIGITS - 1]
    ink = _ink(images[kept], rng, count=DIGITS - 1)
    for line in range(LINES):
        left, top = WIDTH - 120, MARGIN // 2 + PITCH * line
        points = np.array([left, top]) + rng.integers(0, 60, (14, 2))
        points[:, 0] += np.linspace(0, 20, 14).astype(int)
        cv2.polylines(ink, [points], False, 1, 4, cv2.LINE_AA)
    return HardPage(_on_paper(ink, rng), kept)


KINDS: dict[str, Callable[[np.ndarray, Random], HardPage]] = {
    "touching": touching,
    "ruled": ruled,
    "squared": squared,
    "cells": cells,
    "flecks": flecks,
    "shadow": shadow,
    "faint": faint,
    "light ink": light_ink,
    "edges": edges,
    "crossed out": crossed_out,
}


def main(_: list[str]) -> None:
    """Writes a page of each kind."""
    folder = Path(FLAGS.pages_dir)
    folder.mkdir(parents=True, exist_ok=True)
    images = data.load("mnist", FLAGS.data_dir).test_images
    for kind in KINDS:
        page = draw(kind, images, seed=0)
        print(make_page.store(folder / f"{kind.replace(' ', '_')}.png", page.picture))


if __name__ == "__main__":
    cli.define_path("pages_dir", None, "Folder for a page of each kind.", required=True)
    cli.define_path(
        "data_dir", None, "Directory of MNIST's files; default: see BUILD.md."
    )
    cli.run(main)
