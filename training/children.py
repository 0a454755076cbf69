# SPDX-License-Identifier: Apache-2.0
"""A run trained by a process of train.py: started, watched, ended and judged.

A sweep and a search have their runs trained here, in threads of their own or on the
workers of a Dask cluster; `training.engines` has both. We need no TensorFlow.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from system import cli, errors, files
from training import history, leash, sweep_plan
from training.sweep_plan import Run, SweepError

LOG_LINES = 10  # shown of a failed run
GRACE_SECONDS = 10.0  # for an interrupted run to end before it is killed
# For a run whose sweep or worker was killed: it is on a leash, and saves first.
LOCK_SECONDS = leash.GRACE_SECONDS + 10
POLL_SECONDS = 0.2

FINISHED, PRUNED, DIVERGED = "finished", "pruned", "diverged"
FAILED, STOPPED = "failed", "stopped"

Rows = list[dict[str, float]]  # of metrics.csv


class Rule(NamedTuple):
    """Ends a run that is worse than others were after as many epochs.

    Attributes:
      column: of metrics.csv.
      sign: 1 if more is better, -1 if less is.
      limits: by epoch, the value that the run must have reached by then, at least once.
    """

    column: str
    sign: int
    limits: Mapping[int, float]

    def cut(self, rows: Rows) -> Rows | None:
        """Rows up to the first epoch at which the run is to end; None if it is not.

        Depends on the rows alone: on no clock, and not on how many there are by now.
        """
        best = -float("inf")
        for number, row in enumerate(rows):
            best = max(best, self.sign * row[self.column])
            limit = self.limits.get(int(row["epoch"]))
            if limit is not None and best < self.sign * limit:
                return rows[: number + 1]
        return None


class Job(NamedTuple):
    """A run to train, with all that a worker has to know."""

    run: Run
    flags: list[str]  # the run's settings, as `Run.settings`
    folder: str  # current folder of the sweep, where relative paths start
    version: str = cli.VERSION
    rule: Rule | None = None

    @property
    def directory(self) -> Path:
        """Run directory, wherever we are."""
        return Path(self.folder, self.run.directory)


class Outcome(NamedTuple):
    """How training a run has ended."""

    state: str
    rows: Rows = []  # epochs; of a pruned run, those up to its end
    code: int = 0  # exit code of train.py
    lines: tuple[str, ...] = ()  # the last that it printed
    error: str = ""  # if it could not be started or watched


def job(run: Run, rule: Rule | None = None) -> Job:
    """Makes the job to train a run; SweepError if its flagfile cannot be read."""
    return Job(run, run.settings(), os.getcwd(), cli.VERSION, rule)


def train(job: Job, stopped: Callable[[], bool]) -> Outcome:
    """Trains or resumes a run until it is finished, its rule ends it, or we are asked.

    It fails, too, if train.py cannot be started, or another sweep trains the run.
    """
    try:
        return _train(job, stopped)
    except errors.UserError as error:
        return Outcome(FAILED, error=str(error))


def _train(job: Job, stopped: Callable[[], bool]) -> Outcome:
    if job.version != cli.VERSION:
        raise SweepError(
            f"the worker has version {cli.VERSION} of this project, and the sweep"
            f" {job.version}: install the same version on all machines"
        )
    with _log(job, stopped) as log:
        if not log:
            return Outcome(STOPPED)
        start = log.tell()
        process = _start(job, log)
        try:
            while process.poll() is None:
                if stopped():
                    return Outcome(STOPPED)
                if job.rule and job.rule.cut(history.read(job.directory)):
                    break
                time.sleep(POLL_SECONDS)
        finally:
            _end(process)
        return _judge(job, process.returncode, _last_lines(log, start))


@contextlib.contextmanager
def _log(job: Job, stopped: Callable[[], bool]) -> Iterator[BinaryIO | None]:
    """Opens and locks a run's log, to which we add the command; None if stopped first.

    The log stays locked as long as train.py lives. So if a sweep is killed, another
    sweep does not train in the same directory meanwhile.
    """
    path = job.run.log
    try:
        if Path(job.folder, path).parent.is_symlink():
            raise OSError(errno.ELOOP, f"{path.parent} is a link: delete it")
        Path(job.folder, path).parent.mkdir(parents=True, exist_ok=True)
        log = files.append(Path(job.folder, path))
    except OSError as error:
        raise _not_writable(path, error) from None
    with log:
        if not _lock(log, job, stopped):
            yield None
            return
        try:
            log.write(f"$ {shlex.join(job.run.command)}\n".encode())
            log.flush()
        except OSError as error:
            raise _not_writable(path, error) from None
        yield log


def _not_writable(path: Path, error: OSError) -> SweepError:
    return SweepError(f"cannot write {path}: {error.strerror}; choose another --runs")


def _lock(log: BinaryIO, job: Job, stopped: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while not stopped():
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SweepError(
                    f"{job.run.directory} is being trained by another sweep: wait until"
                    " it ends"
                ) from None
        except OSError as error:
            raise _not_writable(job.run.log, error) from None
        time.sleep(POLL_SECONDS)
    return False


def _start(job: Job, log: BinaryIO) -> subprocess.Popen:
    """Starts train.py, on a leash."""
    command = job.run.command
    try:
        return subprocess.Popen(
            [command[0], leash.__file__, *command[1:]],
            cwd=job.folder,
            stdin=subprocess.PIPE,  # the leash
            stdout=log,
            stderr=subprocess.STDOUT,
            # A bar that is redrawn ten times a second would fill the log.
            env={**os.environ, "TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"},
        )
    except OSError as error:
        raise SweepError(
            f"cannot start train.py in {job.folder} ({error.strerror}): start all"
            " workers where they find this folder by the same path"
        ) from None


def _end(process: subprocess.Popen) -> None:
    """Ends train.py if it runs; its last checkpoint is whole at any time."""
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


def _last_lines(log: BinaryIO, start: int) -> tuple[str, ...]:
    """The last lines of a log; \\r also ends one, as in a progress bar."""
    log.seek(start)
    content = log.read().decode(errors="replace")
    return tuple(line for line in re.split(r"[\r\n]+", content) if line)[-LOG_LINES:]


def ended(job: Job) -> Outcome | None:
    """How a run has ended; None if it is still to be trained, or further.

    Raises UserError if its metrics.csv is damaged.
    """
    rows = history.read(job.directory)
    if job.rule and (kept := job.rule.cut(rows)):
        return Outcome(PRUNED, kept)
    return Outcome(FINISHED, rows) if sweep_plan.is_finished(job.run) else None


def _judge(job: Job, code: int, lines: tuple[str, ...]) -> Outcome:
    """Decides how a run has ended, and marks it if it is finished."""
    rows = history.read(job.directory)
    # First, as a run may have gone on for some epochs, or to its end, before we looked.
    if job.rule and (kept := job.rule.cut(rows)):
        return Outcome(PRUNED, kept)
    if code == errors.DIVERGED:
        return Outcome(DIVERGED, rows, code, lines)
    if code or not sweep_plan.is_scored(job.directory):
        return Outcome(FAILED, rows, code, lines)
    mark = json.dumps(job.flags)
    files.write(job.directory / sweep_plan.FINISHED, mark, remedy="another --runs")
    return Outcome(FINISHED, rows)
