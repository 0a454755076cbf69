# SPDX-License-Identifier: Apache-2.0
"""predictions.npz: the label and the probabilities of each digit that was scored."""

import io
import zipfile
from pathlib import Path

import numpy as np

from data import npz
from data.dataset import MAX_CLASSES, MIN_CLASSES, label_type
from evaluation.scoring import Scores
from system import console, untrusted
from training import runs

PREDICTIONS = "predictions.npz"

_MAX_BYTES = 1 << 28  # 6 million digits, or 67,000 images of a thousand classes


def write(run_dir: Path, scores: Scores) -> None:
    """Writes predictions.npz."""
    content = io.BytesIO()
    np.savez(content, labels=scores.labels, probabilities=scores.probabilities)
    runs.write_atomically(run_dir / PREDICTIONS, content.getvalue())


def read(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads predictions.npz: labels integers [N], probabilities float32 [N, classes].

    Raises RunError if the file is missing or damaged.
    """
    path = run_dir / PREDICTIONS
    remedy = (
        f"run {console.command('eval.py', f'--run_dir={run_dir}')} to write it again"
    )
    try:
        return _parse(untrusted.read(path, _MAX_BYTES))
    except FileNotFoundError:
        raise runs.RunError(f"{path} is missing: {remedy}") from None
    except npz.DAMAGE as error:
        raise runs.RunError(
            f"{path} is damaged ({console.one_line(str(error))}): {remedy}"
        ) from None


def _parse(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Parses a predictions.npz; one of `npz.DAMAGE` if it is none.

    `np.load` would decompress anything, and allocate whatever size a header claims.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if [info.filename for info in infos] != ["labels.npy", "probabilities.npy"]:
            raise ValueError("not the arrays labels and probabilities")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("compressed, which this project never does")
        labels, probabilities = (_parse_array(archive.read(info)) for info in infos)
    classes = probabilities.shape[-1] if probabilities.ndim == 2 else 0
    if not (len(labels) and MIN_CLASSES <= classes <= MAX_CLASSES):
        raise ValueError("not labels and probabilities")
    types, shape = (label_type(classes), np.float32), (*labels.shape, classes)
    if (labels.dtype, probabilities.dtype) != types or probabilities.shape != shape:
        raise ValueError("not labels and probabilities")
    valid = (probabilities >= 0) & (probabilities < 1.001)  # NaN fails both
    if labels.min() < 0 or labels.max() >= classes or not valid.all():
        raise ValueError("a label or a probability out of range")
    return labels, probabilities


def _parse_array(content: bytes) -> np.ndarray:
    """Parses an .npy file of numbers, which must be exactly as long as it says."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the array format")
    shape, transposed, dtype = np.lib.format.read_array_header_1_0(file)
    if transposed or dtype.kind not in "fui":
        raise ValueError("not an array of plain numbers")
    return np.frombuffer(file.read(), dtype).reshape(shape).copy()
