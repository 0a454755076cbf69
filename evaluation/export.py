# SPDX-License-Identifier: Apache-2.0
"""Exports a trained network to files that do not need this project.

saved_model/   TensorFlow
float.tflite   TensorFlow Lite
int8.tflite    TensorFlow Lite in integers throughout, a quarter of the size; see
               `evaluation.equalise`
model.onnx     ONNX, if its converter is installed: the extra `onnx`
export.json    sizes, accuracies, and the latency for one digit

Each takes `images`, uint8 [N, 28, 28], 0 for paper and 255 for ink, and gives `class`,
int32 [N], and `probabilities`, float32 [N, classes]; int8.tflite gives these as uint8,
in 256ths. Called as a function, saved_model/ also takes floats from 0 to 1, and
[N, 28, 28, 1], and refuses other floats; the other formats have one type, and a float
is an error. We read each file back and compare it with the network; one that fails is
deleted. For no images the answer is empty, but TensorFlow Lite needs at least one.
"""

import json
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from tabulate import tabulate

import data
from evaluation import result
from evaluation.chain import ExportError
from evaluation.formats import FORMATS, Exported, Format, Read, missing
from evaluation.trained import Scored
from system import cli, device, errors, files
from training.environment import current_environment

EXPORT = "export.json"
CALIBRATION_DIGITS = 500
TOLERANCE = 0.0005  # of the accuracy, for int8: 5 digits of 10,000
LATENCY_CALLS = 100
NOT_SEVERAL = (
    "only a single network can be computed in integers, without --ensemble and --shifts"
)


def define_flags() -> None:
    """Defines the flags of an export."""
    cli.define_path(
        "export_dir",
        None,
        "New folder for the network in formats that other programs load. Each file is"
        " compared with the network on the digits scored, and left out if it fails.",
    )
    flags.DEFINE_list(
        "export_formats",
        None,
        "Some of saved_model, float, int8 (both TensorFlow Lite) and onnx, separated by"
        " commas; default: all whose converters are installed.",
    )
    cli.require_together(["export_dir", "export_formats"], _check_formats)


def _check_formats(values: Any) -> None:
    if values.export_formats and not values.export_dir:
        raise errors.UsageError("--export_formats needs --export_dir")


def choose(names: Sequence[str] | None, several: bool = False) -> list[str]:
    """The formats of --export_formats, or all whose converters are installed.

    Args:
      names: the value of the flag.
      several: whether it is the mean of several networks, or of shifts, that is to be
        exported: there is no int8 of these.
    """
    for name in names or []:
        if name not in FORMATS:
            raise errors.UsageError(
                f"--export_formats={name}: expected some of {', '.join(FORMATS)}"
            )
    if several and "int8" in (names or []):
        raise errors.UsageError(f"--export_formats=int8: {NOT_SEVERAL}")
    possible = [n for n in FORMATS if not (several and n == "int8")]
    if several and not names:
        print(f"int8.tflite is left out: {NOT_SEVERAL}")
    return [n for n in possible if (n in names if names else not missing(n))]


def check(export_dir: Path, formats: Sequence[str]) -> None:
    """Raises ExportError if the folder is not empty or a converter is missing."""
    try:
        free = not export_dir.exists() or (
            export_dir.is_dir() and not any(export_dir.iterdir())
        )
    except OSError as error:
        raise _unwritable(export_dir, error) from None
    if not free:
        raise ExportError(
            f"{export_dir} exists already: choose another --export_dir or delete it"
        )
    for name in formats:
        if packages := missing(name):
            raise ExportError(
                f"--export_formats={name} needs {' and '.join(packages)}: install the"
                " extra onnx, as BUILD.md says, or leave that format out"
            )


def _unwritable(export_dir: Path, error: Exception) -> ExportError:
    return ExportError(
        f"cannot write {export_dir}: {errors.reason(error)}; make room, or choose"
        " another --export_dir"
    )


def export_run(
    run: Any,
    dataset: data.Dataset,
    scored: Scored,
    export_dir: Path,
    formats: Sequence[str],
) -> None:
    """Exports what a run predicts by, checked on the digits that the run is scored on.

    The run is a `TrainedRun` or an `Ensemble`. Raises ExportError if a format failed;
    the others are written.
    """
    split = result.scored_split(scored)
    size, seed = run.config.validation_size, run.config.split_seed
    trained_on, _ = data.split(len(dataset.train_labels), size, seed)
    table, refused = export(
        run.predict.network,
        export_dir,
        formats,
        *scored[split],
        calibration=dataset.train_images[trained_on],
        facts={
            **run.origin,
            "checked_on": split,
            "classes": list(run.classes),
            "environment": current_environment(),
        },
    )
    print(f"\n{table}\n{export_dir}")
    if refused:
        raise ExportError("; ".join(refused))


def export(
    network: tf.Module,
    export_dir: Path,
    formats: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    calibration: np.ndarray,
    facts: Mapping[str, Any],
) -> tuple[str, list[str]]:
    """Writes a network in several formats and keeps those that pass their check.

    Args:
      export_dir: new or empty folder.
      formats: names in `FORMATS`.
      images, labels: uint8 [N, 28, 28, 1] and [N], on which each file is compared with
        the network.
      calibration: uint8 [M, 28, 28, 1], training digits; some of them set the scales of
        int8.
      facts: further entries of export.json.

    Returns:
      A table of sizes, accuracies and latencies, and why other formats failed.

    Raises:
      ExportError: all formats failed, or the folder cannot be written; nothing is left.
    """
    check(export_dir, formats)
    export_dir = Path(os.path.abspath(export_dir))
    unfinished = export_dir.with_name(f".{export_dir.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        rows, refused = _write_all(
            network, unfinished, formats, images, labels, calibration
        )
        if len(refused) == len(formats):
            raise ExportError("; ".join(refused))
        stored = {**facts, "formats": rows, "refused": refused}
        text = json.dumps(stored, indent=1) + "\n"
        (unfinished / EXPORT).write_text(text, encoding="utf-8")
        _put_in_place(unfinished, export_dir)
    except (OSError, tf.errors.OpError) as error:
        raise _unwritable(export_dir, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return show(rows), refused


def _put_in_place(unfinished: Path, export_dir: Path) -> None:
    """Gives a folder its name, once all of it is on the disk."""
    for path in [*unfinished.rglob("*"), unfinished]:
        files.flush(path)
    unfinished.rename(export_dir)
    files.flush(export_dir.parent)


def _write_all(
    network: tf.Module,
    folder: Path,
    formats: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    calibration: np.ndarray,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes and checks each format, and deletes those that fail.

    Returns rows of the table, the network first, and why each other format failed.
    """
    exported = Exported(network)
    chosen = np.random.default_rng(0).permutation(len(calibration))
    calibration = calibration[chosen[:CALIBRATION_DIGITS], ..., 0]
    pixels = images[..., 0]

    def read(pixels):
        return exported(tf.constant(pixels))["class"].numpy()

    own = _read_all(read, pixels)
    rows = [_row("the run's network", None, read, pixels, own, labels, own)]
    refused = []
    for name in formats:
        form = FORMATS[name]
        path = folder / form.file
        try:
            with device.quiet():
                form.write(path, exported, calibration)
                read = form.read(path)
                found = _read_all(read, pixels)
            row = _row(name, path, read, pixels, found, labels, own)
            _compare(row, rows[0], form)
            rows.append(row)
        except Exception as error:  # converters raise anything
            refused.append(f"{form.file} is not kept: {errors.reason(error)}")
            _remove(path)
    return rows, refused


def _remove(path: Path) -> None:
    """Deletes a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_all(read: Read, pixels: np.ndarray, batch_size: int = 1000) -> np.ndarray:
    """Classes predicted for all images, `batch_size` at a time."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([read(pixels[s : s + batch_size]) for s in starts])


def _row(
    name: str,
    path: Path | None,
    read: Read,
    pixels: np.ndarray,
    found: np.ndarray,
    labels: np.ndarray,
    own: np.ndarray,
) -> dict[str, Any]:
    """A row of the table; `own` are the classes that the network predicts."""
    errors = int((found != labels).sum())
    return {
        "format": name,
        "file": path.name if path else None,
        "bytes": _size(path) if path else None,
        "images": len(labels),
        "accuracy": 1 - errors / len(labels),
        "errors": errors,
        "read_otherwise": int((found != own).sum()),
        "milliseconds_for_one": _latency(read, pixels),
    }


def _compare(row: Mapping[str, Any], own: Mapping[str, Any], form: Format) -> None:
    """Raises ExportError if the predictions of a file differ too much."""
    count = row["images"]
    if form.exact and row["read_otherwise"]:
        raise ExportError(
            f"it classifies {row['read_otherwise']} of {count:,} digits differently"
            " from the run's network"
        )
    # On a few hundred digits, one error is more than 0.05 points.
    allowed = max(1, int(TOLERANCE * count))
    if row["errors"] > own["errors"] + allowed:
        raise ExportError(
            f"it misclassifies {row['errors']} of {count:,} digits, the run's network"
            f" {own['errors']}; up to {own['errors'] + allowed} are allowed"
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())


def _latency(read: Read, pixels: np.ndarray) -> float:
    """Median latency for one digit, in milliseconds."""
    seconds = []
    for number in range(LATENCY_CALLS):
        image = pixels[number % len(pixels)][np.newaxis]
        began = time.perf_counter()
        read(image)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for the console."""
    return tabulate(
        [
            [
                row["format"],
                row["file"],
                f"{row['bytes'] / 1000:,.0f} kB" if row["bytes"] else None,
                f"{row['accuracy']:.2%}",
                row["errors"],
                row["read_otherwise"],
                f"{row['milliseconds_for_one']:.3f} ms",
            ]
            for row in rows
        ],
        ["format", "file", "size", "accuracy", "errors", "differ", "one digit"],
        stralign="right",
        colalign=("left", "left"),
    )
