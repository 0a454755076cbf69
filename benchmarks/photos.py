# SPDX-License-Identifier: Apache-2.0
"""Accuracy on photos, from the pixels of a page to its digits.

    python -m benchmarks.photos --run_dir=runs/fast995-s0 --first_seed=10001 --pages=30

Pages of MNIST's test digits as photos.make_page draws them, each of a seed of its own,
are read as eval.py --images reads them. A digit is right if one thing is found in its
place, and read as what it is: a missed digit, one in two pieces and two in one are
errors, and so is whatever is found besides.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
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
import eval as program
from evaluation import scoring
from photos import make_page, reading
from system import cli

FLAGS = flags.FLAGS


class Count(NamedTuple):
    """Attributes:
    digits: on the pages.
    right: found and read as what they are.
    misread: found, but read as another.
    missed: not found, or not as one.
    besides: found where there is none.
    """

    digits: int
    right: int
    misread: int
    missed: int
    besides: int

    @property
    def accuracy(self) -> float:
        """Share of what is or was found that is right."""
        return self.right / (self.digits + self.besides)


def define_flags() -> None:
    """The flags of the program."""
    cli.define_path("run_dir", None, "Of the run that reads.", required=True)
    flags.DEFINE_integer("first_seed", 0, "Of the first page.", lower_bound=0)
    flags.DEFINE_integer("pages", 30, "How many.", lower_bound=1)
    cli.define_path("data_dir", None, "Where the data lie; default: see BUILD.md.")


def count(
    boxes: np.ndarray, labels: np.ndarray, found: Sequence[reading.Reading]
) -> Count:
    """Compares what was read on a page with what is there.

    Args:
      boxes: int64 [n, 4], left, top, width, height of each digit's frame.
      labels: [n].
      found: on the page.
    """
    right = misread = besides = 0
    inside: list[list[int]] = [[] for _ in boxes]
    for one in found:
        left, top, width, height = one.box
        middle = np.array([left + width / 2, top + height / 2])
        within = (boxes[:, :2] <= middle) & (middle < boxes[:, :2] + boxes[:, 2:])
        places = np.flatnonzero(within.all(1))
        besides += not places.size
        for place in places:
            inside[place].append(one.digit)
    for read, label in zip(inside, labels, strict=True):
        right += read == [label]
        misread += len(read) == 1 and read != [label]
    return Count(len(boxes), right, misread, len(boxes) - right - misread, besides)


def measure(run_dir: Path, dataset: data.Dataset, seeds: Sequence[int]) -> Count:
    """Reads a page of each seed.

    Args:
      run_dir: of the run that reads.
      dataset: whose test digits are drawn.
      seeds: of the pages; each draws other digits, in another order.
    """
    network, _ = program.load_network(run_dir)
    predict = scoring.Predict(network)
    total = Count(0, 0, 0, 0, 0)
    assert dataset.test_labels is not None
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            order = np.random.Generator(np.random.PCG64(seed)).permutation(
                len(dataset.test_images)
            )
            page = make_page.draw(dataset.test_images[order], seed)
            path = make_page.store(Path(folder) / f"page-{seed}.png", page.picture)
            (read,) = reading.read(predict, [path])
            labels = dataset.test_labels[order[: len(page.boxes)]]
            counted = count(page.boxes, labels, read.readings)
            total = Count(*map(sum, zip(total, counted)))
    return total


def main(_: list[str]) -> None:
    """Reads the pages that the flags name."""
    dataset = data.load("mnist", FLAGS.data_dir)
    first = FLAGS.first_seed
    seeds = range(first, first + FLAGS.pages)
    total = measure(Path(FLAGS.run_dir), dataset, seeds)
    print(
        f"{FLAGS.pages} pages, seeds {seeds[0]} to {seeds[-1]}, {total.digits:,}"
        f" digits: {total.accuracy:.2%} right; {total.misread} misread,"
        f" {total.missed} not found as one, {total.besides} found besides"
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
