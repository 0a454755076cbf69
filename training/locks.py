# SPDX-License-Identifier: Apache-2.0
"""Lock of a run directory: one process trains in it at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from system import files, untrusted
from training import runs


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keeps other processes from training in a run directory; creates it if missing.

    The kernel frees the lock of a process that dies.

    Raises:
      RunError: another process holds the lock, or the directory is not one for a run.
    """
    runs.refuse_foreign(run_dir)
    runs.check_contents(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        opened = files.append(run_dir / runs.LOCK)
    except OSError as error:
        raise runs.not_writable(run_dir, error) from None
    with opened as file:
        _acquire(file, run_dir)
        with contextlib.suppress(OSError):  # a full disk will be reported elsewhere
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        files.remove_leftovers(run_dir)
        try:
            yield
        finally:
            _remove_unused(run_dir)


def is_held(run_dir: Path) -> bool:
    """Whether another process trains in a run directory; OSError if we cannot know.

    We try the lock only if its owner seems alive, so as not to be in the way of a
    process that starts to train.
    """
    path = run_dir / runs.LOCK
    if not path.exists():
        return False
    with untrusted.open_file(path) as file:
        pid = file.read(10)
        if not (pid.isdigit() and files.is_running(int(pid))):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _acquire(file: BinaryIO, run_dir: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read(10).decode("ascii", "replace")
        who = f" {pid}" if pid.isdecimal() else ""
        raise runs.RunError(
            f"{run_dir} is being trained by another process{who}: wait until it ends,"
            " or choose another --run_dir"
        ) from None
    except OSError as error:
        raise runs.not_writable(run_dir, error) from None
    if not _is_open_at(file, run_dir / runs.LOCK):
        raise runs.RunError(
            f"{run_dir} was just removed by the process that held it: start again"
        )


def _is_open_at(file: BinaryIO, path: Path) -> bool:
    """Whether a path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_unused(run_dir: Path) -> None:
    """Removes a directory in which no run was started."""
    with contextlib.suppress(OSError):  # gone, or shared with others
        if [path.name for path in run_dir.iterdir()] == [runs.LOCK]:
            (run_dir / runs.LOCK).unlink()
            run_dir.rmdir()
