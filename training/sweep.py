# SPDX-License-Identifier: Apache-2.0
"""Trains flagfiles with several seeds, one run after another, and compares the runs.

    python -m training.sweep flags/lenet_plain.flags --seeds=0-4 -- --threads=1

Each run is a process of train.py, so that it inherits nothing from the one before. It
goes to runs/<flagfile>-s<seed>, and its output to runs/logs/<flagfile>-s<seed>.log.
The same command resumes an interrupted sweep.
"""

if __name__ == "__main__":  # first, since the other imports take a while
    from system import console

    console.start()

import collections
import errno
import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from tqdm import tqdm

from system import cli, console, errors, files, untrusted
from training import sweep_plan
from training.sweep_plan import Run, SweepError

FLAGS = flags.FLAGS

EVAL = Path(__file__).resolve().parent.parent / "eval.py"

LOG_LINES = 10  # shown of a failed run
GRACE_SECONDS = 10.0  # for an interrupted run to end before it is killed
POLL_SECONDS = 0.2


class Child(NamedTuple):
    """A run that is being trained."""

    run: Run
    flags: list[str]  # the run's settings when it was started
    process: subprocess.Popen  # of train.py
    log_start: int  # where in the log its output starts

    def last_lines(self) -> list[str]:
        """Its last lines of output; \\r also ends one, as in a progress bar."""
        content = self.run.log.read_bytes()[self.log_start :].decode(errors="replace")
        return [line for line in re.split(r"[\r\n]+", content) if line][-LOG_LINES:]


def sweep(runs: Sequence[Run], jobs: int = 1, results: Path | None = None) -> None:
    """Trains the runs that are not finished yet, in order, so many `jobs` at a time.

    The folder of results gets a copy of each run's result.json. Raises SweepError if a
    run failed or could not be started. We then wait for those that are training, and
    start no others.
    """
    for folder in sorted({run.directory.parent for run in runs}):
        files.check_writable(folder, "runs", is_folder=True)
    if results:
        files.check_writable(results, "results", is_folder=True)
    waiting = collections.deque(runs)
    children: list[Child] = []
    failures: list[str] = []
    # disable=None: no bar unless standard error is a terminal.
    with tqdm(total=len(runs), unit="run", disable=None) as bar:
        try:
            while children or (waiting and not failures):
                try:
                    while waiting and not failures and len(children) < jobs:
                        run = waiting.popleft()
                        if sweep_plan.is_finished(run):
                            _report(run, results, bar)
                        else:
                            children.append(_start(run))
                    for child in [c for c in children if c.process.poll() is not None]:
                        children.remove(child)
                        _finish(child, results, bar)
                except SweepError as error:
                    failures.append(str(error))
                bar.set_description(" ".join(child.run.name for child in children))
                if children:
                    time.sleep(POLL_SECONDS)
        finally:
            _end(children)  # there are some only after an interrupt
    if failures:
        raise SweepError("; ".join(failures))


def _start(run: Run) -> Child:
    """Starts train.py with its output in the log.

    The log stays locked as long as train.py lives. So if the sweep is killed, another
    sweep does not train in the same directory meanwhile.
    """
    try:
        if run.log.parent.is_symlink():
            raise OSError(errno.ELOOP, f"{run.log.parent} is a link: delete it")
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with files.append(run.log) as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log.write(f"$ {shlex.join(run.command)}\n".encode())
            log.flush()
            settings, start = run.settings(), log.tell()
            process = subprocess.Popen(
                run.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A bar that is redrawn ten times a second would fill the log.
                env={**os.environ, "TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"},
            )
            return Child(run, settings, process, start)
    except BlockingIOError:
        raise SweepError(
            f"{run.directory} is being trained by another sweep: wait until it ends"
        ) from None
    except OSError as error:
        raise SweepError(
            f"cannot write {run.log}: {error.strerror}; choose another --runs"
        ) from None


def _end(children: Sequence[Child]) -> None:
    """Ends the runs that are training; their last checkpoints are whole at any time."""
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _finish(child: Child, results: Path | None, bar: tqdm) -> None:
    """Marks a run as finished, after train.py has ended.

    Raises SweepError if train.py failed; we show the end of its log.
    """
    code = child.process.returncode
    if code == 0 and sweep_plan.is_scored(child.run):
        marker = child.run.directory / sweep_plan.FINISHED
        _write(marker, json.dumps(child.flags).encode())
        _report(child.run, results, bar)
        return
    for line in child.last_lines():
        bar.write(f"{child.run.name}: {line}", file=sys.stderr)
    missing = f"has no {' and '.join(sweep_plan.SCORED)}"
    how = f"failed with exit code {code}" if code else missing
    command = shlex.join(child.run.command)
    raise SweepError(f"{child.run.name} {how}: see {child.run.log}; command: {command}")


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
    flags.DEFINE_integer(
        "jobs",
        1,
        "Runs to train at a time. Each takes all cores, unless --threads follows"
        " after --.",
        lower_bound=1,
    )
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
    sweep(runs, FLAGS.jobs, Path(FLAGS.results) if FLAGS.results else None)
    if len(runs) > 1:
        # If the runs cannot be compared, eval.py says so; the sweep has succeeded.
        directories = [str(run.directory) for run in runs]
        compare = [sys.executable, str(EVAL), "--compare", *directories]
        print(flush=True)  # before eval.py prints
        subprocess.run(compare, check=False)


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True)
