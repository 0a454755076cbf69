# SPDX-License-Identifier: Apache-2.0
"""Trains flagfiles with several seeds, and compares the runs.

    python -m training.sweep flags/lenet_plain.flags --seeds=0-4 -- --threads=1

Each run is a process of train.py, so that it inherits nothing from the one before. It
goes to runs/<flagfile>-s<seed>, and its output to runs/logs/<flagfile>-s<seed>.log.
The same command resumes an interrupted sweep. The runs are trained one after another,
several at a time with --jobs=N, or on the workers of a Dask cluster, by
--dask_scheduler=tcp://HOST:PORT.
"""

if __name__ == "__main__":  # first, since the other imports take a while
    from system import console

    console.start()

import contextlib
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from system import cli, console, errors, files, untrusted
from training import children, engines, sweep_plan
from training.children import Job, Outcome
from training.sweep_plan import Run, SweepError

FLAGS = flags.FLAGS

EVAL = Path(__file__).resolve().parent.parent / "eval.py"


def sweep(
    runs: Sequence[Run], engine: engines.Engine, results: Path | None = None
) -> None:
    """Trains the runs that are not finished yet, in order, by an engine.

    The folder of results gets a copy of each run's result.json. Raises SweepError if a
    run failed or could not be started. We then wait for those that are training, and
    start no others.
    """
    for folder in sorted({run.directory.parent for run in runs}):
        files.check_writable(folder, "runs", is_folder=True)
    if results:
        files.check_writable(results, "results", is_folder=True)
    # disable=None: no bar unless standard error is a terminal.
    with tqdm(total=len(runs), unit="run", disable=None) as bar:
        waiting: deque[Job] = deque()
        for run in runs:
            if sweep_plan.is_finished(run):
                _report(run, results, bar)
            else:
                waiting.append(children.job(run))
        failures = []
        with contextlib.closing(engines.run(engine, waiting)) as ended:
            for job, outcome in ended:
                try:
                    check(job, outcome, bar)
                    _report(job.run, results, bar)
                except SweepError as error:
                    failures.append(str(error))
                    waiting.clear()
    if failures:
        raise SweepError("; ".join(failures))


def check(job: Job, outcome: Outcome, bar: tqdm) -> None:
    """Raises SweepError if a run has failed; we show the end of its log."""
    if outcome.state == children.FINISHED:
        return
    if outcome.error:
        raise SweepError(outcome.error)
    run = job.run
    for line in outcome.lines:
        bar.write(f"{run.name}: {line}", file=sys.stderr)
    missing = f"has no {' and '.join(sweep_plan.SCORED)}"
    how = f"failed with exit code {outcome.code}" if outcome.code else missing
    command = shlex.join(run.command)
    raise SweepError(f"{run.name} {how}: see {run.log}; command: {command}")


def _report(run: Run, results: Path | None, bar: tqdm) -> None:
    """Prints the score of a finished run, and keeps a copy of its result.

    Raises SweepError if the result is damaged or too old, or cannot be copied.
    """
    path = run.directory / sweep_plan.RESULT
    try:
        content = untrusted.read(path, untrusted.JSON_BYTES)
        result = untrusted.parse_json(content)
        split = "test" if "test" in result else "validation"
        score = result[split]
        if not (0 <= score["accuracy"] <= 1 and 0 <= score["errors"]):
            raise ValueError(path)
        line = (
            f"{split} accuracy {score['accuracy']:.2%}, {score['errors']} errors of"
            f" {score['images']:,}, binary accuracy {score['binary_accuracy']:.2%}"
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SweepError(
            f"{path} is damaged or from an older version ({type(error).__name__}): run"
            f" {console.command('eval.py', f'--run_dir={run.directory}')} to write it"
            " again"
        ) from None
    bar.write(f"{run.name}: {line}")
    bar.update()
    if results:
        _write(results / f"{run.name}.json", content)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise SweepError(f"cannot write {path}: {error.strerror}") from None


def define_flags() -> None:
    """Defines the sweep's flags; those of train.py follow after --."""
    flags.DEFINE_string(
        "seeds", "0-4", "Seeds to train each flagfile with, such as 0-4 or 0,2,5."
    )
    engines.define_flags()
    cli.define_path("runs", "runs", "Folder for the run directories.")
    cli.define_path("results", None, "Folder for a copy of each run's result.json.")
    flags.register_validator("seeds", cli.validator(sweep_plan.parse_seeds))


def main(argv: list[str]) -> None:
    """Trains all runs of the sweep, then compares them."""
    extra = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    paths = argv[1 : len(argv) - len(extra)]
    if not paths:
        raise errors.UsageError(
            "no flagfile given: expected, for example,"
            f" {console.command('-m', 'training.sweep', 'lenet.flags', '--seeds=0-4')}"
        )
    runs = sweep_plan.plan(
        [Path(path) for path in paths],
        sweep_plan.parse_seeds(FLAGS.seeds),
        Path(FLAGS.runs),
        extra,
    )
    # SIGTERM is treated as Ctrl-C, so that it ends the runs too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Path(FLAGS.results) if FLAGS.results else None
    sweep(runs, engines.from_flags(), results)
    if len(runs) > 1:
        # If the runs cannot be compared, eval.py says so; the sweep has succeeded.
        directories = [str(run.directory) for run in runs]
        compare = [sys.executable, str(EVAL), "--compare", *directories]
        print(flush=True)  # before eval.py prints
        subprocess.run(compare, check=False)


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True)
