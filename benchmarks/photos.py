# SPDX-License-Identifier: Apache-2.0
"""Measures accuracy on photos, from the pixels of a page to its digits.

    python -m benchmarks.photos --run_dir=runs/fast995-s0 --first_seed=10001 --pages=30

Pages of MNIST's test digits, drawn by photos.make_page with a seed each, are read as
eval.py --images reads them. A digit is correct if exactly one reading lies in its frame
and has its class. Missed digits, digits in two pieces, two digits read as one, and
readings where there is no digit are errors.
"""

if __name__ == "__main__":  # first, as the other imports take a while
    from system import console

    console.start()

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

import data
from evaluation import trained
from photos import make_page, reading
from system import cli

FLAGS = flags.FLAGS


class Count(NamedTuple):
    """Numbers of digits."""

    digits: int  # on the pages
    correct: int  # found and classified correctly
    misclassified: int  # found, but classified as another digit
    missed: int  # not found, or not as one
    extra: int  # readings where there is no digit

    @property
    def accuracy(self) -> float:
        """Correct digits over all digits and extra readings."""
        return self.correct / (self.digits + self.extra)


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
        "Number of pages, with some 40 digits each. More pages narrow the uncertainty"
        " and take longer.",
        lower_bound=1,
    )
    cli.define_path(
        "data_dir", None, "Directory of MNIST's files; default: see BUILD.md."
    )


def count(
    boxes: np.ndarray, labels: np.ndarray, readings: Sequence[reading.Reading]
) -> Count:
    """Compares the readings of a page with its digits.

    Boxes are int64 [n, 4]: left, top, width, height of each digit's frame.
    """
    correct = misclassified = extra = 0
    inside: list[list[int | str]] = [[] for _ in boxes]
    for one in readings:
        left, top, width, height = one.box
        middle = np.array([left + width / 2, top + height / 2])
        within = (boxes[:, :2] <= middle) & (middle < boxes[:, :2] + boxes[:, 2:])
        places = np.flatnonzero(within.all(1))
        extra += not places.size
        for place in places:
            inside[place].append(one.digit)
    for read, label in zip(inside, labels, strict=True):
        correct += read == [label]
        misclassified += len(read) == 1 and read != [label]
    missed = len(boxes) - correct - misclassified
    return Count(len(boxes), correct, misclassified, missed, extra)


def measure(run_dir: Path, dataset: data.Dataset, seeds: Sequence[int]) -> Count:
    """Draws a page of test digits for each seed, and reads it."""
    predict = trained.load(run_dir).predict
    total = Count(0, 0, 0, 0, 0)
    assert dataset.test_labels is not None
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            order = np.random.Generator(np.random.PCG64(seed)).permutation(
                len(dataset.test_images)
            )
            page = make_page.draw(dataset.test_images[order], seed)
            path = make_page.store(Path(folder) / f"page-{seed}.png", page.picture)
            (result,) = reading.read(predict, [path])
            labels = dataset.test_labels[order[: len(page.boxes)]]
            counts = count(page.boxes, labels, result.readings)
            total = Count(*map(sum, zip(total, counts)))
    return total


def main(_: list[str]) -> None:
    """Reads the pages that the flags name."""
    dataset = data.load("mnist", FLAGS.data_dir)
    first = FLAGS.first_seed
    seeds = range(first, first + FLAGS.pages)
    total = measure(Path(FLAGS.run_dir), dataset, seeds)
    print(
        f"{FLAGS.pages} pages, seeds {seeds[0]} to {seeds[-1]}, {total.digits:,}"
        f" digits: {total.accuracy:.2%} accuracy; {total.misclassified} misclassified,"
        f" {total.missed} missed, {total.extra} extra"
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
