# SPDX-License-Identifier: Apache-2.0
"""A run directory: what a run was asked to do, where it ran, how far it came.

flags.txt        every flag of the run, usable as --flagfile
run.json         settings of the run, with what else the result depends on; `resumed`
                 lists the environments, other than the first, that it was resumed in
metrics.csv      one row per epoch; see training.history
checkpoints/     see training.checkpoints
train/ validation/ test/   TensorBoard events of the training
final/           those of the score, with the points of the projector
result.json      the score, once there is one
predictions.npz  the label and the probabilities of each digit that was scored
report.html      all of it as a page
sweep.json       the flags it was finished with, if a sweep trained it
.lock            of the process that trains it; of no meaning once that has ended

None of these is a link: a directory that came by mail must not lead us to write, or to
read for ever, somewhere else.
"""

import contextlib
import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from system import cli, console, device, errors, files, untrusted
from training import settings

# Number of run.json's format. Runs of version 0.5.1 and before have none, which is 0.
# It has nothing to do with cli.VERSION: only a change of what run.json means raises it.
FORMAT = 1

RUN, FLAGS, LOCK = "run.json", "flags.txt", ".lock"

PROJECT = Path(__file__).resolve().parent.parent

# What training and scoring leave behind besides checkpoints/.
TRACES = (
    *("metrics.csv", "train", "validation", "test", "final", "result.json"),
    *("predictions.npz", "report.html", "sweep.json"),
)
CONTENTS = (LOCK, FLAGS, RUN, "checkpoints", *TRACES)


class RunError(errors.UserError):
    """A run directory that is missing, foreign or damaged."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old one or the new, whole.

    Args:
      path: of the file.
      content: a text is stored as UTF-8.

    Raises:
      RunError: the disk is full, the folder not writable, …
    """
    content = content.encode() if isinstance(content, str) else content
    try:
        with files.replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; make room, or choose another"
            " --run_dir"
        ) from None


def environment() -> dict[str, Any]:
    """What a result depends on besides the flags and the data."""
    return {
        "version": cli.VERSION,
        "commit": _commit(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "processor": _processor(),
        "cores": device.cores(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }


def _commit() -> str:
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(
            describe, cwd=PROJECT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # no git, or no checkout
    return found.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def check_contents(run_dir: Path) -> None:
    """Makes sure that all a run directory holds of a run are files and folders.

    Raises:
      RunError: there is a link, a pipe, a socket or a device, or a folder that cannot
        be read.
    """
    try:
        found = files.find_link(run_dir, CONTENTS)
    except OSError as error:
        raise _no_directory(run_dir, error) from None
    if found:
        path, what = found
        raise RunError(
            f"{path} is {what}, and a run directory holds only files and folders of its"
            " own: put a copy of the file or folder in its place, or delete it"
        )


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Keeps any other process from training in a run directory, which is made.

    The kernel frees the lock of a process that dies.

    Raises:
      RunError: another process holds the lock, or the directory is not one for a run.
    """
    _refuse_foreign(run_dir)
    check_contents(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        opened = files.append(run_dir / LOCK)
    except OSError as error:
        raise _no_directory(run_dir, error) from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read(10).decode("ascii", "replace")
            who = f" {pid}" if pid.isdecimal() else ""
            raise RunError(
                f"{run_dir} is being trained by another process{who}: wait for its end,"
                " or choose another --run_dir"
            ) from None
        except OSError as error:
            raise _no_directory(run_dir, error) from None
        if not _is_open_at(file, run_dir / LOCK):
            raise RunError(
                f"{run_dir} was just removed by the process that held it: start again"
            )
        with contextlib.suppress(OSError):  # a full disk stops what matters more
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        files.remove_leftovers(run_dir)
        try:
            yield
        finally:
            _remove_unused(run_dir)


def _is_open_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_unused(run_dir: Path) -> None:
    """Removes a directory in which no run was begun, as if it had not been made."""
    with contextlib.suppress(OSError):  # gone, or not ours alone
        if [path.name for path in run_dir.iterdir()] == [LOCK]:
            (run_dir / LOCK).unlink()
            run_dir.rmdir()


def _no_directory(run_dir: Path, error: OSError) -> RunError:
    return RunError(
        f"cannot write the run directory {run_dir}: {error.strerror}; choose another"
        " --run_dir"
    )


def _refuse_foreign(run_dir: Path) -> None:
    """Raises RunError if there are files, but no run's."""
    try:
        if not run_dir.exists() or (run_dir / RUN).exists():
            return
        foreign = sorted(p.name for p in run_dir.iterdir() if p.name[0] != ".")
    except OSError as error:
        raise _no_directory(run_dir, error) from None
    if foreign and foreign != [FLAGS]:
        raise RunError(
            f"{run_dir} holds {foreign[0]!r} but no run.json, so it is no run of"
            " this program: choose another --run_dir or empty that one"
        )


def flags_text(lines: Mapping[str, str], chosen: Sequence[str]) -> str:
    """Contents of flags.txt. The run directory is not in it, for that may be moved.

    Args:
      lines: each flag as an argument, "" if it is not set, by its name.
      chosen: names of those that were left to the machine.
    """
    own = [line for name, line in lines.items() if line and name not in chosen]
    left = [lines[name] for name in chosen if lines[name]]
    return "\n".join(
        [
            "# The run in this folder is resumed by train.py --flagfile=…/flags.txt,",
            "# wherever the folder is; a --run_dir after that trains it again there.",
            *own,
            *(["# Chosen by the machine:", *left] if left else []),
            "",
        ]
    )


def resume_command(run_dir: Path) -> str:
    """To be pasted into a shell."""
    return console.command("train.py", f"--flagfile={run_dir / FLAGS}")


def check_settings(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Makes sure that a directory holds no other run than one of this configuration.

    Raises:
      RunError: it does, or something that is no run.
    """
    _refuse_foreign(run_dir)
    if (run_dir / RUN).exists():
        _check_same(run_dir, config)


def open_run(
    run_dir: Path,
    config: Mapping[str, Any],
    flags: str,
    facts: Mapping[str, Any],
) -> None:
    """Makes a run directory, or makes sure that it holds a run of this configuration.

    A run that is gone on with in another environment is warned of, since its last bits
    will be others, and the environment is added to run.json.

    Args:
      run_dir: made if it is not there.
      config: everything that decides the result; JSON types only.
      flags: contents of flags.txt.
      facts: for run.json; among them `environment`, and `data`, the hash of each file
        of the data.

    Raises:
      RunError: the directory holds a run of another configuration or other data,
        something that is no run, or cannot be made.
    """
    check_settings(run_dir, config)
    if (run_dir / RUN).exists():
        check_data(run_dir, facts["data"])
        _compare_environment(run_dir, facts["environment"])
        if not (run_dir / FLAGS).exists():  # killed before it was written
            write_atomically(run_dir / FLAGS, flags)
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_directory(run_dir, error) from None
    run = {"format": FORMAT, "version": cli.VERSION, "config": dict(config), **facts}
    _write_run(run_dir, run)
    write_atomically(run_dir / FLAGS, flags)


def _write_run(run_dir: Path, run: Mapping[str, Any]) -> None:
    write_atomically(run_dir / RUN, json.dumps(run, indent=1) + "\n")


def _compare_environment(run_dir: Path, now: Mapping[str, Any]) -> None:
    """Warns of, and writes down, an environment that the run has not been in last."""
    run = read_run(run_dir)
    resumed = run.get("resumed", [])
    # Until format 1, an environment did not say of which version it was.
    before = {"version": run["version"], **(resumed or [run["environment"]])[-1]}
    changes = [
        f"{name} {before.get(name)}, now {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changes:
        console.warn(
            f"{run_dir} was last trained in another environment ({'; '.join(changes)}):"
            " what is trained from here on may differ in the last bits"
        )
        _write_run(run_dir, {**run, "resumed": [*resumed, dict(now)]})


def _check_same(run_dir: Path, config: Mapping[str, Any]) -> None:
    stored, config = read_run(run_dir)["config"], settings.complete(config)
    first = ("network", "dataset")  # which decide what others there are
    names = [*first, *sorted((stored.keys() | config.keys()) - {*first})]
    for name in names:
        if stored.get(name) != config.get(name):
            raise RunError(
                f"{run_dir} holds a run with --{name}={stored.get(name)}, not"
                f" {config.get(name)}: choose another --run_dir for this one, or resume"
                f" that one by {resume_command(run_dir)}"
            )


def check_data(run_dir: Path, hashes: Mapping[str, str]) -> None:
    """Makes sure that data are those that a run was trained on.

    Raises:
      RunError: they are others.
    """
    if read_run(run_dir)["data"] != dict(hashes):
        raise RunError(
            f"{run_dir} was trained on other files than those that were found: give the"
            " --data_dir of that run, or choose another --run_dir"
        )


def read_run(run_dir: Path) -> dict[str, Any]:
    """Contents of run.json, whichever version wrote it.

    Settings that were added later have the value that the run was trained with.

    Raises:
      RunError: there is no run, one of a format that came later, or its run.json is
        damaged.
    """
    path = run_dir / RUN
    try:
        run = untrusted.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{run_dir} holds no run: {path.name} is missing; give the --run_dir of a"
            " training run"
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; train again") from None
    _check_format(run_dir, run)
    config = settings.complete(run["config"])
    return {**run, "version": str(run.get("version", "0.1.0")), "config": config}


def _check_format(run_dir: Path, run: Any) -> None:
    """Raises RunError unless a run.json has a format that is known, and is whole."""
    path = run_dir / RUN
    if not isinstance(run, dict):
        raise RunError(f"{path} has no configuration in it: train again")
    number = run.get("format", 0)
    if type(number) is not int or number < 0:
        raise RunError(f"{path} is damaged, its format is no number: train again")
    if number > FORMAT:
        version = console.one_line(str(run.get("version")))
        raise RunError(
            f"{path} is of format {number}, and this version, {cli.VERSION}, reads"
            f" formats up to {FORMAT}: use version {version}, which wrote it, or a"
            " later one"
        )
    if not isinstance(run.get("config"), dict):
        raise RunError(f"{path} has no configuration in it: train again")
    if not isinstance(run.get("data"), dict):
        raise RunError(f"{path} does not name its data: train again")
    resumed = run.get("resumed", [])
    if not isinstance(resumed, list) or not all(
        isinstance(environment, dict)
        for environment in [run.get("environment"), *resumed]
    ):
        raise RunError(f"{path} does not say where it was trained: train again")
