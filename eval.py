# SPDX-License-Identifier: Apache-2.0
"""Scores a trained run, exports it, reads photos with it, or compares several runs.

python eval.py --run_dir=runs/lenet-s0
python eval.py --run_dir=runs/kaggle-s0 --data_dir=kaggle --submission=submission.csv
python eval.py --run_dir=runs/lenet-s0 --corruptions
python eval.py --run_dir=runs/lenet-s0 --export_dir=exported
python eval.py --images=photos/*.jpg --annotated_dir=read
python eval.py --ensemble runs/lenet-s* --shifts=1 --ensemble_dir=runs/lenet-mean
python eval.py --compare runs/lenet-s0 runs/lenet_plain-s0 --report=compare.html
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

from system import device  # isort: skip  (first: it loads TensorFlow)

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

import pretrained
from evaluation import (
    corruptions,
    ensemble,
    export,
    options,
    outputs,
    result,
    temperature,
    trained,
)
from photos import program
from system import cli, errors, files

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags; everything else comes from the run directory."""
    for module in (options, export, program):
        module.define_flags()
        flags.adopt_module_key_flags(module)


def score(_: Sequence[str]) -> None:
    """Scores a run; fits its temperature before, if the flags say so."""
    run_dir = Path(FLAGS.run_dir)
    formats = check_export()
    if FLAGS.calibrate:
        temperature.calibrate(run_dir, Path(FLAGS.calibrate), FLAGS.data_dir)
    run = trained.load(run_dir).averaged(FLAGS.shifts)
    if not FLAGS.submission:  # with it, there may be nothing to score
        files.check_writable(run.directory / result.RESULT, "run_dir")
    write_all(run, result.evaluate, formats)


def average(run_dirs: Sequence[str]) -> None:
    """Scores the mean of several runs."""
    formats = check_export()
    folder = FLAGS.ensemble_dir and Path(FLAGS.ensemble_dir)
    run = ensemble.load([Path(name) for name in run_dirs], folder)
    write_all(run.averaged(FLAGS.shifts), ensemble.evaluate, formats)


def read_photos(arguments: Sequence[str]) -> None:
    """Reads photos with a run, an ensemble, or what comes with the project."""
    if FLAGS.ensemble and FLAGS.run_dir:
        raise errors.UsageError(
            "--run_dir and --ensemble both name runs: leave one of them out"
        )

    def load() -> Any:
        if FLAGS.ensemble:
            members = ensemble.load([Path(name) for name in arguments])
            return members.averaged(FLAGS.shifts)
        run = trained.load(Path(FLAGS.run_dir or pretrained.ROBUST))
        return run.averaged(FLAGS.shifts)

    photos = [*FLAGS.images, *(() if FLAGS.ensemble else arguments)]
    values: dict[str, Any] = {name: FLAGS[name].value for name in program.FLAGS}
    program.read_all(load, photos, **values)


def check_export() -> list[str]:
    """The formats to export; UserError if they cannot be, before any work."""
    if not FLAGS.export_dir:
        return []
    several = FLAGS.ensemble or FLAGS.shifts > 0
    formats = export.choose(FLAGS.export_formats, several)
    export.check(Path(FLAGS.export_dir), formats)
    return formats


def write_all(run: Any, evaluate: Callable[..., None], formats: list[str]) -> None:
    """Writes the score of a run or an ensemble, and what else the flags say."""
    dataset = trained.load_data(run.members, FLAGS.data_dir)
    scored = run.scored(dataset, optional=FLAGS.submission and not FLAGS.export_dir)
    written = outputs.Outputs()
    if FLAGS.submission:
        written.attempt(result.submit, run, dataset, FLAGS.submission)
    if FLAGS.corruptions and scored:  # before the report, which shows them
        written.attempt(corruptions.evaluate, run, scored)
    if scored:
        written.attempt(evaluate, run, scored)
    if formats:
        folder = Path(FLAGS.export_dir)
        written.attempt(export.export_run, run, dataset, scored, folder, formats)
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


READ = ("images", *program.FLAGS, "run_dir", "ensemble", "shifts")
EXPORT = ("export_dir", "export_formats")
SCORE = ("data_dir", "submission", "corruptions", "shifts", *EXPORT)
MODES = (  # if several are chosen, the first
    Mode("Comparing runs", compare, ("compare", "report")),
    Mode("Reading photos", read_photos, READ),
    Mode("Scoring an ensemble", average, ("ensemble", "ensemble_dir", *SCORE)),
    Mode("Scoring a run", score, ("run_dir", "calibrate", *SCORE)),
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
            " runs, --ensemble RUN RUN for their mean, or --run_dir=RUN --images=PHOTO"
            " to read photos"
        )
    for name in given:
        if name not in mode.flags:
            other = next(other for other in reversed(MODES) if name in other.flags)
            first = other.flags[0]
            instead = (
                f"leave out --{mode.flags[0]}" if name == first else f"give --{first}"
            )
            raise errors.UsageError(
                f"--{name} is for {other.title.lower()}, not for {mode.title.lower()}:"
                f" leave it out, or {instead}"
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
