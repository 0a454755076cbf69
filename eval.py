# SPDX-License-Identifier: Apache-2.0
"""Scores a trained run, exports it, reads photos with it, or compares several runs.

python eval.py --run_dir=runs/lenet-s0
python eval.py --run_dir=runs/kaggle-s0 --data_dir=kaggle --submission=submission.csv
python eval.py --run_dir=runs/lenet-s0 --corruptions
python eval.py --run_dir=runs/lenet-s0 --export_dir=exported
python eval.py --images=photos/*.jpg --annotated_dir=read
python eval.py --compare runs/lenet-s0 runs/lenet_plain-s0 --report=compare.html
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

from system import device  # isort: skip  (first: it loads TensorFlow)

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

import data
import pretrained
from data import decode
from evaluation import corruptions, export, outputs, result, trained
from system import cli, errors, files
from training import runs

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags; everything else comes from the run directory."""
    cli.define_path(
        "run_dir",
        None,
        "Run directory of the network. Default, with --images: pretrained/robust, which"
        " comes with the project.",
    )
    cli.define_path("data_dir", None, "Folder of the data; default: see BUILD.md.")
    cli.define_path(
        "submission",
        None,
        "CSV file for Kaggle's competition: ImageId,Label of each test digit.",
    )
    flags.DEFINE_bool(
        "corruptions",
        False,
        "Also score the digits with fainter ink, blurred, noisy, rotated, shifted and"
        " eroded: how the network bears digits that are not MNIST's. Takes about as"
        " long as eleven scores.",
    )
    export.define_flags()
    flags.adopt_module_key_flags(export)
    cli.define_paths(
        "images",
        "Photos of digits to read: files, folders or patterns such as '*.jpg'; PNG,"
        " JPEG, WebP, BMP, TIFF or HEIC. Arguments that are not flags are photos, too.",
    )
    flags.DEFINE_enum(
        "ink",
        "auto",
        ["auto", "dark", "light"],
        "Whether the digits of --images are darker or lighter than their paper.",
    )
    flags.DEFINE_enum(
        "rotate",
        "0",
        ["0", "90", "180", "270", "auto"],
        "Degrees to turn the --images to the left before they are read; auto: as they"
        " are read best.",
    )
    flags.DEFINE_float(
        "reject",
        0.5,
        "Leave out what is read with a lower probability: where there is no digit, the"
        " network is sure of nothing.",
        lower_bound=0,
        upper_bound=1,
    )
    cli.define_path("readings", None, "File for the digits read, .csv or .json.")
    flags.register_validator(
        "readings",
        lambda name: name is None or name.lower().endswith((".csv", ".json")),
        "expected a file name that ends in .csv or .json",
    )
    cli.define_path(
        "annotated_dir", None, "Folder for copies of --images with the digits read."
    )
    flags.DEFINE_bool(
        "compare", False, "Compare the runs whose directories are the arguments."
    )
    cli.define_path(
        "report",
        None,
        "HTML file for the comparison: the runs' curves, tables and tests as a page.",
    )


def score(_: Sequence[str]) -> None:
    """Scores a run; writes its submission and its export, too, if the flags say so."""
    export_dir = FLAGS.export_dir and Path(FLAGS.export_dir)
    formats = export.choose(FLAGS.export_formats)
    if export_dir:
        export.check(export_dir, formats)
    run = trained.load(Path(FLAGS.run_dir))
    if not FLAGS.submission:  # with it, there may be nothing to score
        files.check_writable(run.directory / result.RESULT, "run_dir")
    dataset = data.load_for(run.config, FLAGS.data_dir)
    runs.check_data(run.directory, run.record, dataset.hashes)
    scored = run.scored(dataset, optional=FLAGS.submission and not FLAGS.export_dir)
    written = outputs.Outputs()
    if FLAGS.submission:
        written.attempt(result.submit, run, dataset, FLAGS.submission)
    if FLAGS.corruptions and scored:  # before the report, which shows them
        written.attempt(corruptions.evaluate, run, scored)
    if scored:
        written.attempt(result.evaluate, run, scored)
    if export_dir:
        written.attempt(export.export_run, run, dataset, scored, export_dir, formats)
    written.report()


def read_photos(photos: Sequence[str]) -> None:
    """Reads the digits of photos, prints them, and writes them if the flags say so.

    A photo that cannot be read does not keep the others from it.
    """
    from photos import annotate, reading  # loads matplotlib

    paths = decode.expand([*FLAGS.images, *photos])
    folder = FLAGS.annotated_dir
    names = annotate.name_files(paths, Path(folder)) if folder else []
    run = trained.load(Path(FLAGS.run_dir or pretrained.ROBUST))
    turn = None if FLAGS.rotate == "auto" else int(FLAGS.rotate)
    pages: list[reading.Page] = []

    def read(path: Path) -> None:
        kind = {"turn": turn, "reject": FLAGS.reject}
        pages.append(reading.read(run.predict, path, FLAGS.ink, run.classes, **kind))

    written = outputs.Outputs()
    for path in paths:
        written.attempt(read, path)
    if pages:
        print(reading.show(pages))
    to_draw = {page.path: page for page in pages}
    for path, name in zip(paths, names):
        if path in to_draw and written.attempt(annotate.write, name, to_draw[path]):
            print(name)
    path = FLAGS.readings
    if pages and path and written.attempt(reading.write, Path(path), pages):
        print(path)
    written.report()


def compare(run_dirs: Sequence[str]) -> None:
    """Compares runs; writes a page of it, too, if the flags say so."""
    from evaluation import comparison  # loads scipy.stats, which takes seconds

    compared = comparison.compare([Path(run_dir) for run_dir in run_dirs])
    print(compared)
    if FLAGS.report:
        from evaluation import comparison_page  # loads matplotlib

        comparison_page.write(Path(FLAGS.report), compared)
        print(FLAGS.report)


class Mode(NamedTuple):
    """Something that eval.py does; the first of its flags chooses it."""

    title: str
    run: Callable[[Sequence[str]], None]
    flags: tuple[str, ...]


PHOTO_FLAGS = ("ink", "rotate", "reject", "readings", "annotated_dir")
SCORE_FLAGS = ("submission", "corruptions", "export_dir", "export_formats")
MODES = (  # if several are chosen, the first
    Mode("Comparing runs", compare, ("compare", "report")),
    Mode("Reading photos", read_photos, ("images", "run_dir", *PHOTO_FLAGS)),
    Mode("Scoring a run", score, ("run_dir", "data_dir", *SCORE_FLAGS)),
)
HEADINGS = {mode.title: mode.flags for mode in reversed(MODES)}


def choose_mode(arguments: Sequence[str]) -> Mode:
    """The mode that the flags choose; UsageError if they do not fit together."""
    given = [n for m in MODES for n in m.flags if FLAGS[n].value != FLAGS[n].default]
    mode = next((mode for mode in MODES if mode.flags[0] in given), None)
    if not mode or arguments and mode.run is score:
        what = f"unexpected argument {arguments[0]!r}" if arguments else "nothing to do"
        raise errors.UsageError(
            f"{what}: give --run_dir=RUN to score a run, --compare RUN RUN to compare"
            " runs, or --run_dir=RUN --images=PHOTO to read photos"
        )
    for name in given:
        if name not in mode.flags:
            other = next(other for other in reversed(MODES) if name in other.flags)
            raise errors.UsageError(
                f"--{name} is for {other.title.lower()}, not for {mode.title.lower()}:"
                f" leave it out, or give --{other.flags[0]}"
            )
    return mode


def main(argv: list[str]) -> None:
    """Runs the mode that the flags choose."""
    _, *arguments = argv
    mode = choose_mode(arguments)
    outputs.check(FLAGS.flag_values_dict())
    device.set_threads(0)
    mode.run(arguments)


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True, groups=HEADINGS)
