# SPDX-License-Identifier: Apache-2.0
"""Trains flagfiles over seeds, one run after another, and compares the runs.

    python -m training.sweep flags/lenet_plain.flags --seeds=0-4 -- --threads=1

A run is a process of train.py, so that none inherits anything from the one before. It
goes to runs/<flagfile>-s<seed>, and what it says to runs/logs/<flagfile>-s<seed>.log.
The same command goes on where an interrupted sweep stopped.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from tqdm import tqdm

from system import cli, console, errors, files, flagfiles, untrusted

FLAGS = flags.FLAGS

PROJECT = Path(__file__).resolve().parent.parent
TRAIN = PROJECT / "train.py"
EVAL = PROJECT / "eval.py"

RESULT = "result.json"
SCORED = (RESULT, "predictions.npz")  # what a finished run has
FINISHED = "sweep.json"  # in a run directory: settings that it was finished with
OWN_FLAGS = ("flagfile", "run_dir", "seed")  # that a sweep itself gives to train.py

MAX_RUNS = 1000
LOG_LINES = 10  # of a failed run, shown
GRACE = 10.0  # seconds that a run has to end before it is killed
POLL = 0.2  # seconds


class SweepError(errors.UserError):
    """A sweep that cannot begin, or of which a run failed."""


class Run(NamedTuple):
    """Attributes:
    name: such as "lenet-s0".
    directory: of the run.
    arguments: of train.py.
    """

    name: str
    directory: Path
    arguments: list[str]

    @property
    def log(self) -> Path:
        """In a folder of all the logs.

        train.py wants to make the run's directory itself, and the shell's runs/lenet-s*
        is to be runs only.
        """
        return self.directory.with_name("logs") / f"{self.name}.log"

    @property
    def command(self) -> list[str]:
        """That trains it, or goes on with it."""
        return [sys.executable, str(TRAIN), *self.arguments]

    def flags(self) -> list[str]:
        """Its arguments with the flagfiles' lines in their place.

        Raises:
          SweepError: a flagfile cannot be read.
        """
        try:
            return flagfiles.expand(self.arguments)
        except flags.Error as error:
            raise SweepError(
                f"{self.arguments[0]}: {error}; the paths in a flagfile too count from"
                " the current folder"
            ) from None

    def settings(self) -> list[str]:
        """Its flags but for the directory: a finished run may be moved."""
        return [flag for flag in self.flags() if not flag.startswith("--run_dir=")]


class Child(NamedTuple):
    """Attributes:
    run: that is at work.
    flags: settings of the run, as they were when it was started.
    process: of train.py.
    start: where in the log this process begins.
    """

    run: Run
    flags: list[str]
    process: subprocess.Popen
    start: int

    def last_lines(self) -> list[str]:
        """What it said last. A progress bar returns to its line with \\r."""
        said = self.run.log.read_bytes()[self.start :].decode(errors="replace")
        return [line for line in re.split(r"[\r\n]+", said) if line][-LOG_LINES:]


def parse_seeds(text: str) -> list[int]:
    """Seeds out of numbers and ranges such as "0-4" or "0,2,5-7".

    Raises:
      errors.UserError: it is none of these, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part.strip(), re.ASCII)
        if not match:
            raise errors.UserError(
                f"{part!r} is neither a seed nor a range: expected such as 0-4 or 0,2,5"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < 2**31:
            raise errors.UserError(
                f"{part!r} is no range of seeds: expected 0 to {2**31 - 1}, ascending"
            )
        if len(seeds) + last - first >= MAX_RUNS:
            raise errors.UserError(f"{text!r} are more than {MAX_RUNS} seeds")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise errors.UserError(f"{text!r} names a seed twice")
    return seeds


def plan(
    flagfiles: Sequence[Path],
    seeds: Iterable[int],
    folder: Path,
    extra: Sequence[str] = (),
) -> list[Run]:
    """The runs of a sweep, in order.

    Args:
      flagfiles: of the recipes.
      seeds: of each.
      folder: where the run directories lie.
      extra: flags of train.py that overrule those in the flagfiles.

    Raises:
      SweepError: a flagfile cannot be read, or two would share their directories.
      errors.UsageError: an extra flag is one that the sweep itself sets.
    """
    for argument in extra:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in OWN_FLAGS:
            raise errors.UsageError(
                f"a sweep sets --{name} itself: leave {argument!r} out behind --"
            )
    stems = collections.Counter(flagfile.stem for flagfile in flagfiles)
    for stem, count in stems.items():
        if count > 1:
            raise SweepError(
                f"{count} flagfiles are named {stem}, and their runs would share"
                f" {folder / stem}-s0, …: sweep them one by one with a --runs each"
            )
    sweep_runs = []
    for flagfile in flagfiles:
        for seed in seeds:
            name = f"{flagfile.stem}-s{seed}"
            own = [f"--seed={seed}", f"--run_dir={folder / name}"]
            arguments = [f"--flagfile={flagfile}", *extra, *own]
            sweep_runs.append(Run(name, folder / name, arguments))
            sweep_runs[-1].flags()
    return sweep_runs


def is_finished(run: Run) -> bool:
    """Whether a sweep has finished the run with the very flags that it has now.

    Of any other run train.py itself knows best: it goes on, finds nothing left to be
    done, or refuses flags that are not those of the run.
    """
    try:
        finished = untrusted.read_json(run.directory / FINISHED)
    except (OSError, ValueError):
        return False
    return finished == run.settings() and _is_scored(run)


def _is_scored(run: Run) -> bool:
    return all((run.directory / name).is_file() for name in SCORED)


def sweep(
    sweep_runs: Sequence[Run], jobs: int = 1, results: Path | None = None
) -> None:
    """Trains the runs that are not finished yet.

    Args:
      sweep_runs: in the order in which they are begun.
      jobs: how many at a time.
      results: folder for a copy of each run's result.json.

    Raises:
      SweepError: a run failed or could not be begun; those at work then were waited
        for, no other was begun.
    """
    folders = {run.directory.parent for run in sweep_runs}
    for folder in [*sorted(folders), *([results] if results else [])]:
        _check_writable(folder)
    waiting = collections.deque(sweep_runs)
    children: list[Child] = []
    failures: list[str] = []
    # disable=None: no bar where standard error is not a terminal.
    with tqdm(total=len(sweep_runs), unit="run", disable=None) as bar:
        try:
            while children or (waiting and not failures):
                try:
                    while waiting and not failures and len(children) < jobs:
                        run = waiting.popleft()
                        if is_finished(run):
                            _conclude(run, results, bar)
                        else:
                            children.append(_start(run))
                    for child in [c for c in children if c.process.poll() is not None]:
                        children.remove(child)
                        _finish(child, results, bar)
                except SweepError as error:
                    failures.append(str(error))
                bar.set_description(" ".join(child.run.name for child in children))
                if children:
                    time.sleep(POLL)
        finally:  # at an interrupt; else there is none left
            _end(children)
    if failures:
        raise SweepError("; ".join(failures))


def _start(run: Run) -> Child:
    """Starts train.py, its output going to the log.

    The log is locked, and the lock is train.py's as long as it lives: were the sweep
    killed, another one would not train in the same directory beside it.
    """
    try:
        if run.log.parent.is_symlink():
            raise OSError(errno.ELOOP, f"{run.log.parent} is a link: delete it")
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with files.append(run.log) as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log.write(f"$ {shlex.join(run.command)}\n".encode())
            log.flush()
            own_flags, start = run.settings(), log.tell()
            process = subprocess.Popen(
                run.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A bar that is redrawn ten times a second would fill the log.
                env={**os.environ, "TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"},
            )
            return Child(run, own_flags, process, start)
    except BlockingIOError:
        raise SweepError(
            f"{run.directory} is being trained by another sweep: wait for its end"
        ) from None
    except OSError as error:
        raise SweepError(
            f"cannot write {run.log}: {error.strerror}; choose another --runs"
        ) from None


def _end(children: Sequence[Child]) -> None:
    """Ends what is still at work; its last checkpoint is whole whenever that is."""
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _finish(child: Child, results: Path | None, bar: tqdm) -> None:
    """Marks as finished what train.py has trained and scored.

    Raises:
      SweepError: train.py failed; the end of its log is shown.
    """
    if child.process.returncode == 0 and _is_scored(child.run):
        _write(child.run.directory / FINISHED, json.dumps(child.flags).encode())
        _conclude(child.run, results, bar)
        return
    for line in child.last_lines():
        bar.write(f"{child.run.name}: {line}", file=sys.stderr)
    code = child.process.returncode
    how = f"failed with exit code {code}" if code else f"has no {' and '.join(SCORED)}"
    command = shlex.join(child.run.command)
    raise SweepError(f"{child.run.name} {how}: see {child.run.log}; command: {command}")


def _conclude(run: Run, results: Path | None, bar: tqdm) -> None:
    """Tells the score of a finished run, and keeps a copy of its result.

    Raises:
      SweepError: the result is damaged or an old one, or the copy cannot be written.
    """
    path = run.directory / RESULT
    try:
        content = untrusted.read(path, untrusted.JSON_BYTES)
        result = untrusted.parse_json(content)
        split = "test" if "test" in result else "validation"
        score = result[split]
        if not (0 <= score["accuracy"] <= 1 and 0 <= score["errors"]):
            raise ValueError(path)
        told = (
            f"{split} accuracy {score['accuracy']:.2%}, {score['errors']} errors of"
            f" {score['images']:,}, binary accuracy {score['binary_accuracy']:.2%}"
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SweepError(
            f"{path} is damaged or of an older version ({type(error).__name__}): run"
            f" {console.command('eval.py', f'--run_dir={run.directory}')} to make"
            " it again"
        ) from None
    bar.write(f"{run.name}: {told}")
    bar.update()
    if results:
        _write(results / f"{run.name}.json", content)


def _check_writable(folder: Path) -> None:
    """Raises SweepError for a folder that no run could be written to."""
    try:
        files.check_writable(folder / RESULT, parents=True)
    except OSError as error:
        raise SweepError(
            f"cannot write to {folder}: {error.strerror}; choose another --runs or"
            " --results"
        ) from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise SweepError(f"cannot write {path}: {error.strerror}") from None


def define_flags() -> None:
    """The flags of a sweep; those of train.py follow after --."""
    flags.DEFINE_string("seeds", "0-4", "Seeds of each flagfile: 0-4, or 0,2,5.")
    flags.DEFINE_integer("jobs", 1, "Runs at a time.", lower_bound=1)
    cli.define_path("runs", "runs", "Folder for the directories of the runs.")
    cli.define_path("results", None, "Folder for a copy of each result.json.")
    flags.register_validator("seeds", cli.validator(parse_seeds))


def main(argv: list[str]) -> None:
    """Trains all runs of the sweep, then shows them side by side."""
    extra = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    flagfiles = argv[1 : len(argv) - len(extra)]
    if not flagfiles:
        raise errors.UsageError(
            "no flagfile given: expected such as"
            f" {console.command('-m', 'training.sweep', 'lenet.flags', '--seeds=0-4')}"
        )
    sweep_runs = plan(
        [Path(flagfile) for flagfile in flagfiles],
        parse_seeds(FLAGS.seeds),
        Path(FLAGS.runs),
        extra,
    )
    # To be told to end is to be interrupted: the runs are ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep(sweep_runs, FLAGS.jobs, Path(FLAGS.results) if FLAGS.results else None)
    if len(sweep_runs) > 1:
        # It says so itself where the runs cannot be compared; trained they are.
        directories = [str(run.directory) for run in sweep_runs]
        compare = [sys.executable, str(EVAL), "--compare", *directories]
        print(flush=True)  # before the other program does
        subprocess.run(compare, check=False)


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True)
