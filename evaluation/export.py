# SPDX-License-Identifier: Apache-2.0
"""A trained network in files that need nothing of this project.

saved_model/   TensorFlow
float.tflite   TensorFlow Lite
int8.tflite    TensorFlow Lite in whole numbers throughout, a quarter of the size
model.onnx     ONNX, where its converter is installed: the extra `onnx`
export.json    sizes, accuracies, the time that one digit takes

Each takes `images`, uint8 [N, 28, 28], 0 for paper and 255 for ink, and gives `class`,
int32 [N], and `probabilities`, float32 [N, 10]; int8.tflite gives these as uint8, in
256ths. Each is read back from the disk and compared with the network itself.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tabulate import tabulate

import cli
import device
import files
from models import layers

EXPORT = "export.json"
CALIBRATION_DIGITS = 500
TOLERANCE = 0.0005  # of the accuracy, for int8: 5 digits of 10,000
LATENCY_CALLS = 100
ONNX_OPSET = 18

# Images uint8 [N, 28, 28] → what each is read as, integers [N].
Read = Callable[[np.ndarray], np.ndarray]


class ExportError(cli.UserError):
    """A network that cannot be exported, or not to that place."""


class Exported(tf.Module):
    """A network with the signature that is exported."""

    def __init__(self, network: tf.Module):
        super().__init__("exported")
        self.network = network

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name="images")],
    )
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _classify(self.network, images[..., tf.newaxis])


def _classify(network: tf.Module, images: tf.Tensor) -> dict[str, tf.Tensor]:
    logits, _ = network(images, training=False)
    return {
        "class": tf.argmax(logits, 1, output_type=tf.int32),
        "probabilities": tf.nn.softmax(logits),
    }


def _write_saved_model(path: Path, exported: Exported, _: np.ndarray) -> None:
    tf.saved_model.save(
        exported,
        str(path),
        signatures={"serving_default": exported.__call__.get_concrete_function()},
    )


def _read_saved_model(path: Path) -> Read:
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda images: signature(images=tf.constant(images))["class"].numpy()


def _write_float(path: Path, exported: Exported, _: np.ndarray) -> None:
    function = exported.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], exported)
    path.write_bytes(converter.convert())


def _write_int8(path: Path, exported: Exported, calibration: np.ndarray) -> None:
    """Weights, activations, input and output in 8 bits, sums in 32.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018.
    """
    function = _integer_function(exported.network)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], exported)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    pixels = calibration.astype(np.float32)
    pixels[0, 0, 0] = 255  # the whole range: a byte of the image is one of the input
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in pixels)
    path.write_bytes(converter.convert())


def _integer_function(network: tf.Module) -> Any:  # a ConcreteFunction
    """The network as the converter can quantise it, of float32 images [N, 28, 28].

    The converter makes bytes of a float input, but leaves a cast from bytes to float
    as it is. So the network's own cast is cut out, and what comes behind it is fed.
    """
    with _integer_activation(network):
        whole = tf.compat.v1.wrap_function(
            lambda images: _classify(network, images),
            [tf.TensorSpec([None, 28, 28, 1], tf.uint8)],
        )
    cast = next(op for op in whole.graph.get_operations() if op.type == "Cast")
    behind_cast = whole.prune(cast.outputs[0], whole.structured_outputs)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, 28, 28], tf.float32, name="images")],
    )
    def function(images):
        return behind_cast(images[..., tf.newaxis])

    return function.get_concrete_function()


@contextlib.contextmanager
def _integer_activation(network: tf.Module) -> Iterator[None]:
    """Gives a network the activation that is the same in other operations.

    TensorFlow Lite has no SELU and makes one with eˣ of all x, whose largest value
    takes all 256 steps: a quarter of the digits are misread. Its ELU is in float. Here
    eˣ is taken of negative x alone. (A minimum with 0 would do that too, but keeps the
    scale of its input, and then the table of eˣ overflows.)
    """

    def elu(x, alpha=1.0):
        positive = tf.nn.relu(x)
        return positive + (alpha * tf.exp(x - positive) - alpha)

    def selu(x):
        return layers.SELU_SCALE * elu(x, layers.SELU_ALPHA)

    activation = network.activation
    by_name = {"elu": elu, "selu": selu}
    replaced = {layers.ACTIVATIONS[name]: form for name, form in by_name.items()}
    network.activation = replaced.get(activation, activation)
    try:
        yield
    finally:
        network.activation = activation


def _read_lite(path: Path) -> Read:
    with warnings.catch_warnings():
        # It is to move to the package ai-edge-litert, which reads the same files.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(str(path), num_threads=1)
    run = interpreter.get_signature_runner()
    return lambda images: run(images=images)["class"]


def _write_onnx(path: Path, exported: Exported, _: np.ndarray) -> None:
    import tf2onnx

    function = exported.__call__
    tf2onnx.convert.from_function(
        function, function.input_signature, opset=ONNX_OPSET, output_path=str(path)
    )


def _read_onnx(path: Path) -> Read:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return lambda images: session.run(["class"], {"images": images})[0]


class Format(NamedTuple):
    """Attributes:
    file: or folder, in the export directory.
    write: makes it of a network; the last argument are digits to calibrate on.
    read: loads it.
    exact: whether it must read every digit as the network does.
    needs: packages that are no requirement of the project.
    """

    file: str
    write: Callable[[Path, Exported, np.ndarray], None]
    read: Callable[[Path], Read]
    exact: bool = True
    needs: tuple[str, ...] = ()


FORMATS = {
    "saved_model": Format("saved_model", _write_saved_model, _read_saved_model),
    "float": Format("float.tflite", _write_float, _read_lite),
    "int8": Format("int8.tflite", _write_int8, _read_lite, exact=False),
    "onnx": Format(
        "model.onnx", _write_onnx, _read_onnx, needs=("tf2onnx", "onnxruntime")
    ),
}


def missing(name: str) -> list[str]:
    """The packages that a format needs and that are not installed."""
    return [p for p in FORMATS[name].needs if importlib.util.find_spec(p) is None]


def choose(names: Sequence[str] | None) -> list[str]:
    """The formats of --export_formats, or all that can be written here.

    Raises:
      UsageError: there is no such format.
    """
    for name in names or []:
        if name not in FORMATS:
            raise cli.UsageError(
                f"--export_formats={name}: expected some of {', '.join(FORMATS)}"
            )
    return [n for n in FORMATS if (n in names if names else not missing(n))]


def check(export_dir: Path, formats: Sequence[str]) -> None:
    """Makes sure that an export may begin.

    Raises:
      ExportError: there is something in that place, it cannot be looked at, or a
        package is missing.
    """
    try:
        free = not export_dir.exists() or (
            export_dir.is_dir() and not any(export_dir.iterdir())
        )
    except OSError as error:
        raise _unwritable(export_dir, error) from None
    if not free:
        raise ExportError(
            f"{export_dir} is there already: choose another --export_dir or delete it"
        )
    for name in formats:
        if packages := missing(name):
            raise ExportError(
                f"--export_formats={name} needs {' and '.join(packages)}: install the"
                " extra onnx, as BUILD.md says, or leave that format out"
            )


def _unwritable(export_dir: Path, error: Exception) -> ExportError:
    return ExportError(
        f"cannot write {export_dir}: {cli.reason(error)}; make room, or choose another"
        " --export_dir"
    )


def export(
    network: tf.Module,
    export_dir: Path,
    formats: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    calibration: np.ndarray,
    facts: Mapping[str, Any],
) -> str:
    """Writes a network in several formats, all of them or none.

    Args:
      network: as it is scored.
      export_dir: must not be there, or be empty; see `check`.
      formats: names in `FORMATS`.
      images: uint8 [N, 28, 28, 1], which each file must read as the network does.
      labels: uint8 [N].
      calibration: uint8 [M, 28, 28, 1], of the training digits, some of which tell
        int8 how large numbers get.
      facts: for export.json.

    Returns:
      Sizes, accuracies and times as a table.

    Raises:
      ExportError: a file reads the digits otherwise than the network, or cannot be
        written; nothing is left of it then.
    """
    check(export_dir, formats)
    export_dir = Path(os.path.abspath(export_dir))
    unfinished = export_dir.with_name(f".{export_dir.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        rows = _write_all(network, unfinished, formats, images, labels, calibration)
        stored = json.dumps({**facts, "formats": rows}, indent=1) + "\n"
        (unfinished / EXPORT).write_text(stored, encoding="utf-8")
        for path in [*unfinished.rglob("*"), unfinished]:
            files.flush(path)
        unfinished.rename(export_dir)
        files.flush(export_dir.parent)
    except (OSError, tf.errors.OpError) as error:
        raise _unwritable(export_dir, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return show(rows)


def _write_all(
    network: tf.Module,
    folder: Path,
    formats: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    calibration: np.ndarray,
) -> list[dict[str, Any]]:
    """Writes and checks each format; the rows of the table, the network's own first."""
    exported = Exported(network)
    chosen = np.random.default_rng(0).permutation(len(calibration))
    calibration = calibration[chosen[:CALIBRATION_DIGITS], ..., 0]
    pixels = images[..., 0]

    def read(pixels):
        return exported(tf.constant(pixels))["class"].numpy()

    own = _read_all(read, pixels)
    rows = [_row("the run's network", None, read, pixels, own, labels, own)]
    for name in formats:
        form = FORMATS[name]
        path = folder / form.file
        with device.quiet():
            form.write(path, exported, calibration)
            read = form.read(path)
            found = _read_all(read, pixels)
        row = _row(name, path, read, pixels, found, labels, own)
        _compare(row, rows[0], form)
        rows.append(row)
    return rows


def _read_all(read: Read, pixels: np.ndarray, batch_size: int = 1000) -> np.ndarray:
    """What all of the images are read as, `batch_size` at a time."""
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
    """What is said of a format; `own` is what the network reads."""
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
    """Raises ExportError unless a file reads the digits as it must."""
    count = row["images"]
    if form.exact and row["read_otherwise"]:
        raise ExportError(
            f"{form.file} reads {row['read_otherwise']} of {count:,} digits otherwise"
            f" than the run's network: leave {row['format']} out of --export_formats"
        )
    # A few hundred digits cannot tell 0.05 points: there, one may be misread.
    allowed = max(1, int(TOLERANCE * count))
    if row["errors"] > own["errors"] + allowed:
        raise ExportError(
            f"{form.file} misreads {row['errors']} of {count:,} digits, the run's"
            f" network {own['errors']}; {allowed} more would do: leave {row['format']}"
            " out of --export_formats"
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of all that a folder holds."""
    return sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())


def _latency(read: Read, pixels: np.ndarray) -> float:
    """Milliseconds from one digit to its class, the median of some calls."""
    seconds = []
    for number in range(LATENCY_CALLS):
        image = pixels[number % len(pixels)][np.newaxis]
        began = time.perf_counter()
        read(image)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for a console."""
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
        ["format", "file", "size", "accuracy", "errors", "read otherwise", "one digit"],
        stralign="right",
        colalign=("left", "left"),
    )
