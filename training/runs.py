# SPDX-License-Identifier: Apache-2.0
"""A run directory: what a run was asked to do, where it ran, how far it came.

flags.txt        every flag of the run, usable as --flagfile
run.json         the same as JSON, with what else the result depends on
metrics.csv      one row per epoch
checkpoints/     see training.checkpoints
best/            with --keep_best: the weights of the best validation accuracy so far
train/ validation/ test/   TensorBoard events
result.json      the score, once there is one
predictions.npz  the label and the probabilities of each digit that was scored
report.html      all of it as a page
sweep.json       the flags it was finished with, if a sweep trained it
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import cli
import device
import files
import untrusted

PROJECT = Path(__file__).resolve().parent.parent

_METRICS_BYTES = 1 << 24  # 100,000 epochs
_PLACE = {"epoch", "step", "seconds"}  # columns that say where in the run a row is


class RunError(cli.UserError):
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


def open_run(
    run_dir: Path,
    config: Mapping[str, Any],
    flags_text: str,
    facts: Mapping[str, Any],
) -> None:
    """Makes a run directory, or makes sure that it holds a run of this configuration.

    Args:
      run_dir: made if it is not there.
      config: everything that decides the result; JSON types only.
      flags_text: for flags.txt.
      facts: the environment and the like, for run.json; among them `data`, the hash
        of each file of the data.

    Raises:
      RunError: the directory holds a run of another configuration or other data,
        something that is no run, or cannot be made.
    """
    if (run_dir / "run.json").exists():
        _check_same(run_dir, config)
        check_data(run_dir, facts["data"])
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        foreign = sorted(p.name for p in run_dir.iterdir() if p.name[0] != ".")
        if foreign and foreign != ["flags.txt"]:
            raise RunError(
                f"{run_dir} holds {foreign[0]!r} but no run.json, so it is no run of"
                " this program: choose another --run_dir or empty that one"
            )
        write_atomically(run_dir / "flags.txt", flags_text)
        run = {"version": cli.VERSION, "config": dict(config), **facts}
        write_atomically(run_dir / "run.json", json.dumps(run, indent=1) + "\n")
    except OSError as error:
        raise RunError(
            f"cannot write the run directory {run_dir}: {error.strerror};"
            " choose another --run_dir"
        ) from None


def _check_same(run_dir: Path, config: Mapping[str, Any]) -> None:
    stored = read_run(run_dir)["config"]
    for name in sorted(stored.keys() | config.keys()):
        if stored.get(name) != config.get(name):
            raise RunError(
                f"{run_dir} holds a run with --{name}={stored.get(name)}, not"
                f" {config.get(name)}: choose another --run_dir for this one, or go on"
                f" with that one by --flagfile={run_dir / 'flags.txt'}"
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
    """What `open_run` stored in run.json.

    Raises:
      RunError: there is no run, one of another version, or its run.json is damaged.
    """
    path = run_dir / "run.json"
    try:
        run = untrusted.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{run_dir} holds no run: {path.name} is missing; give the --run_dir of a"
            " training run"
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; train again") from None
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict):
        raise RunError(f"{path} has no configuration in it: train again")
    if (version := run.get("version", "0.1.0")) != cli.VERSION:
        raise RunError(
            f"{run_dir} holds a run of version {cli.one_line(str(version))} of this"
            f" project, and this is {cli.VERSION}, whose settings are others: use that"
            " version, or train again in another --run_dir"
        )
    if not isinstance(run.get("data"), dict):
        raise RunError(f"{path} does not name its data: train again")
    return run


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, numbers throughout; none if there is no file.

    Raises:
      RunError: it is damaged or cannot be read.
    """
    path = run_dir / "metrics.csv"
    try:
        text = untrusted.read(path, _METRICS_BYTES).decode("utf-8")
        return _parse_metrics(text)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({cli.one_line(str(error))}): delete the folder"
            f" {run_dir} and train again"
        ) from None


def _parse_metrics(text: str) -> list[dict[str, float]]:
    """The rows of a metrics.csv; ValueError at what `write_metrics` never wrote."""
    if not text:
        return []
    header, *lines = [line.split(",") for line in text.removesuffix("\n").split("\n")]
    if len(set(header)) < len(header) or not _PLACE <= set(header):
        raise ValueError(f"not one column each of {', '.join(sorted(_PLACE))}")
    rows = [dict(zip(header, map(float, line), strict=True)) for line in lines]
    if not all(0 <= row[name] < math.inf for row in rows for name in _PLACE):
        raise ValueError("an epoch without its place")
    return rows


def write_metrics(run_dir: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Replaces metrics.csv."""
    lines = [",".join(rows[0])]
    lines += [",".join(f"{value:.9g}" for value in row.values()) for row in rows]
    write_atomically(run_dir / "metrics.csv", "\n".join(lines) + "\n")
