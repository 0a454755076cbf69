# SPDX-License-Identifier: Apache-2.0
"""Draws accuracy on photos against each threshold of the reader: is it flat there?

    python -m benchmarks.thresholds --photos_dir=PHOTOS --plot=docs/thresholds.png

Each curve changes one threshold, and leaves the others as they are. What is read are
hard pages, and photos of a folder with keys (see benchmarks/pictures.py).
"""

if __name__ == "__main__":  # first, as the other imports take a while
    from system import console

    console.start()

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from absl import flags
from matplotlib.figure import Figure

import data
import pretrained
from benchmarks import photos, pictures
from evaluation import figures, trained
from photos import broken, reading, segment, touching
from system import cli, files

FLAGS = flags.FLAGS


class Threshold(NamedTuple):
    """A threshold of the reader, and values to try."""

    label: str
    module: ModuleType
    name: str
    values: Sequence[float]


THRESHOLDS = (
    Threshold(
        "least probability (--reject)",
        *(reading, "REJECT", (0.2, 0.35, 0.5, 0.65, 0.8)),
    ),
    Threshold(
        "size of a fleck / usual digit",
        *(segment, "_FLECK_SIZE", (0.2, 0.3, 0.4, 0.5, 0.6)),
    ),
    Threshold(
        "slenderness of a fleck / usual",
        *(segment, "_FLECK_SLENDERNESS", (0.15, 0.3, 0.45, 0.6, 0.75)),
    ),
    Threshold(
        "stroke of a remnant / usual",
        *(segment, "_REMNANT_STROKE", (0.3, 0.4, 0.5, 0.6, 0.7)),
    ),
    Threshold(
        "cost of width, nats", touching, "_WIDTH_COST", (1.0, 2.0, 4.0, 6.0, 8.0)
    ),
    Threshold(
        "sure of a whole mark",
        *(touching, "_SURE_PROBABILITY", (0.8, 0.9, 0.95, 0.99, 0.999)),
    ),
    Threshold(
        "gap in a stroke / digit", broken, "_GAP_SHARE", (0.2, 0.35, 0.5, 0.8, 1.2)
    ),
    Threshold(
        "gain of joining, nats", broken, "_LEAST_GAIN", (0.2, 0.4, 0.6, 1.0, 1.5)
    ),
)


@contextlib.contextmanager
def changed(threshold: Threshold, value: float) -> Iterator[None]:
    """Gives a threshold another value for a while."""
    before = getattr(threshold.module, threshold.name)
    setattr(threshold.module, threshold.name, value)
    try:
        yield
    finally:
        setattr(threshold.module, threshold.name, before)


def measure(
    program: photos.Program, read: Sequence[pictures.Picture]
) -> dict[str, list[tuple[float, photos.Count]]]:
    """For each threshold, the values and the counts of all pictures together."""
    found: dict[str, list[tuple[float, photos.Count]]] = {}
    for threshold in THRESHOLDS:
        points = []
        for value in threshold.values:
            with changed(threshold, value):
                counts = photos.measure(program, read)
            points.append((value, counts[ALL]))
        found[threshold.label] = points
    return found


ALL = "all"


def plot(found: dict[str, list[tuple[float, photos.Count]]]) -> Figure:
    """Digits right, and besides, in % of all digits, against each threshold."""

    @figures.styled
    def draw() -> Figure:
        figure = Figure(figsize=(figures.WIDTH, 6.4), layout="constrained")
        panels = figure.subplots(4, 2, sharey=True)
        for axes, threshold in zip(panels.flat, THRESHOLDS):
            values, counts = zip(*found[threshold.label])
            axes.plot(
                values, [100 * c.right / c.digits for c in counts], "o-", c=figures.BLUE
            )
            axes.plot(
                *(values, [100 - 100 * c.besides / c.digits for c in counts]),
                *("s-",),
                c=figures.ORANGE,
            )
            chosen = getattr(threshold.module, threshold.name)
            axes.axvline(chosen, color=figures.GREY, linestyle="--")
            axes.set_xlabel(threshold.label)
        figure.supylabel("% of digits: right (blue), 100 − besides (orange)")
        return figure

    return draw()


def main(_: list[str]) -> None:
    """Measures and draws."""
    run = trained.load(Path(FLAGS.run_dir))

    def program(path: Path) -> list[photos.Found]:
        page = reading.read(run.predict, path, reject=reading.REJECT)
        return [photos.Found(one.box, one.digit) for one in page.readings]

    with tempfile.TemporaryDirectory() as folder:
        dataset = data.load("mnist", FLAGS.data_dir)
        read = list(pictures.hard(Path(folder), dataset, range(FLAGS.pages)))
        if FLAGS.photos_dir:
            read += list(pictures.keyed(Path(FLAGS.photos_dir)))[:: FLAGS.every]
        found = measure(program, [one._replace(kinds=[ALL]) for one in read])
    for label, points in found.items():
        for value, count in points:
            print(f"{label}: {value}: {count.right} right, {count.besides} besides")
    files.write(Path(FLAGS.plot), figures.png(figures.raster(plot(found))))


def define_flags() -> None:
    cli.define_path("run_dir", str(pretrained.ROBUST), "Network that reads.")
    cli.define_path("photos_dir", None, "Folder of photos with keys; default: none.")
    cli.define_path("plot", None, "PNG file for the curves.", required=True)
    flags.DEFINE_integer("every", 4, "Read every n-th photo only.", lower_bound=1)
    flags.DEFINE_integer("pages", 3, "Hard pages of each kind.", lower_bound=1)
    cli.define_path(
        "data_dir", None, "Directory of MNIST's files; default: see BUILD.md."
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
