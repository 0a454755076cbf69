# SPDX-License-Identifier: Apache-2.0
"""Scores of a network on labelled images, and how they are shown and stored."""

import dataclasses
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from evaluation import calibration
from models import layers
from system import console, untrusted
from training import losses, runs

PREDICTIONS = "predictions.npz"
_MOST_BYTES = 1 << 26  # 1.5 million digits
# What zipfile and numpy raise at a file that is no sound archive of arrays.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, struct.error),
)

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Scores:
    """Attributes:
    labels: uint8 [N].
    probabilities: float32 [N, 10].
    loss: mean of the loss that the run trained with, label smoothing left out.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    loss: float

    @property
    def predictions(self) -> np.ndarray:
        """The class of the highest probability, int64 [N]."""
        return self.probabilities.argmax(1)

    @property
    def errors(self) -> int:
        """How many predictions are wrong."""
        return int((self.predictions != self.labels).sum())

    @property
    def accuracy(self) -> float:
        """The share of right predictions, in [0, 1]."""
        return 1 - self.errors / len(self.labels)

    @property
    def binary_accuracy(self) -> float:
        """The share of right answers to "is it a 0?", …, "is it a 9?", in [0, 1].

        Each of the ten outputs answers yes above 0.5. What Keras calls accuracy when
        the loss is binary cross-entropy: one wrong digit costs at most 2 answers in
        10, so that the figure flatters.
        """
        truth = self.labels[:, np.newaxis] == np.arange(CLASSES)
        return float(((self.probabilities > 0.5) == truth).mean())


def predict_logits(
    network: tf.Module,
    images: tf.Tensor,
    *,
    training: layers.Training,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Logits of images, or of none: float32 [N, 10], N from 0.

    TensorFlow's pools and batch norm refuse an empty batch: it gets a blank image,
    whose logits are cut off again.

    Args:
      network: as of `models`.
      images: uint8 [N, 28, 28, 1].
      training: as of the network.
      seed: as of the network.
    """
    count = tf.shape(images)[0]
    blank = tf.zeros([tf.cast(count < 1, tf.int32), *images.shape[1:]], images.dtype)
    all_logits, _ = network(tf.concat([images, blank], 0), training=training, seed=seed)
    return all_logits[:count]


class Predict:
    """A network as a graph with the write-up's two placeholders.

    predict(images uint8 [N, 28, 28, 1], training bool [] = False) → logits float32
    [N, 10]; N may differ from call to call.

    Attributes:
      network: that is predicted with.
      graph: for TensorBoard.
    """

    def __init__(self, network: tf.Module):
        @tf.function(
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="images"),
                tf.TensorSpec([], tf.bool, name="training"),
            ],
        )
        def predict(images, training):
            return predict_logits(
                network, images, training=training, seed=tf.zeros([2], tf.int32)
            )

        self.network = network
        self._predict = predict
        self.graph: tf.Graph = predict.get_concrete_function().graph

    def __call__(self, images: np.ndarray, training: bool = False) -> tf.Tensor:
        return self._predict(images, tf.constant(training))


def score(
    predict: Callable[..., tf.Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    loss: str = "softmax_cross_entropy",
    batch_size: int = 1000,
) -> Scores:
    """Scores all the images, `batch_size` at a time so that memory stays bounded.

    Args:
      predict: uint8 images [N, 28, 28, 1] → logits [N, 10].
      images: uint8 [N, 28, 28, 1].
      labels: uint8 [N].
      loss: a name in `losses.LOSSES`.
      batch_size: images at a time.
    """
    logits = predict_all(predict, images, batch_size)
    mean_loss = losses.LOSSES[loss](tf.constant(logits), labels)
    return Scores(labels, tf.nn.softmax(logits).numpy(), float(mean_loss))


def predict_all(
    predict: Callable[..., tf.Tensor], images: np.ndarray, batch_size: int = 1000
) -> np.ndarray:
    """Logits of all the images, float32 [N, 10], `batch_size` at a time."""
    return np.concatenate(
        [
            predict(images[start : start + batch_size]).numpy()
            for start in range(0, max(len(images), 1), batch_size)
        ]
    )


def summarise(scores: Scores) -> dict[str, Any]:
    """Accuracy, errors, loss, calibration, confusions, per-class figures, for JSON."""
    from sklearn import metrics  # takes a second to load, and is wanted only here

    classes = list(range(CLASSES))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        scores.labels, scores.predictions, labels=classes, zero_division=0
    )
    return {
        "accuracy": scores.accuracy,
        "binary_accuracy": scores.binary_accuracy,
        "errors": scores.errors,
        "images": len(scores.labels),
        "loss": scores.loss,
        "calibration_error": calibration.expected_calibration_error(
            scores.probabilities.max(1), scores.predictions == scores.labels
        ),
        "confusion_matrix": metrics.confusion_matrix(
            scores.labels, scores.predictions, labels=classes
        ).tolist(),
        "classes": [
            {
                "class": digit,
                "precision": float(precision[digit]),
                "recall": float(recall[digit]),
                "f1": float(f1[digit]),
                "images": int(support[digit]),
            }
            for digit in classes
        ],
    }


def show(summary: dict[str, Any]) -> str:
    """The summary as text for a console."""
    from tabulate import tabulate

    confusion = [
        [true, *(count or "·" for count in row)]
        for true, row in enumerate(summary["confusion_matrix"])
    ]
    classes = [
        [c["class"], f"{c['precision']:.2%}", f"{c['recall']:.2%}", c["images"]]
        for c in summary["classes"]
    ]
    return "\n\n".join(
        [
            tabulate(confusion, ["true \\ read", *range(CLASSES)], stralign="right"),
            tabulate(
                classes, ["digit", "precision", "recall", "images"], stralign="right"
            ),
            f"accuracy {summary['accuracy']:.2%}  ·  {summary['errors']} errors of"
            f" {summary['images']:,}  ·  loss {summary['loss']:.4f}  ·  binary"
            f" accuracy {summary['binary_accuracy']:.2%}",
        ]
    )


def write_predictions(run_dir: Path, scores: Scores) -> None:
    """Keeps labels and probabilities in predictions.npz.

    Raises:
      RunError: it cannot be written.
    """
    content = io.BytesIO()
    np.savez(content, labels=scores.labels, probabilities=scores.probabilities)
    runs.write_atomically(run_dir / PREDICTIONS, content.getvalue())


def read_predictions(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """What `write_predictions` kept: labels uint8 [N], probabilities float32 [N, 10].

    Raises:
      RunError: there is no such file, or it is damaged.
    """
    path = run_dir / PREDICTIONS
    remedy = (
        f"run {console.command('eval.py', f'--run_dir={run_dir}')} to make it again"
    )
    try:
        return _parse_predictions(untrusted.read(path, _MOST_BYTES))
    except FileNotFoundError:
        raise runs.RunError(f"{path} is missing: {remedy}") from None
    except _DAMAGE as error:
        raise runs.RunError(
            f"{path} is damaged ({console.one_line(str(error))}): {remedy}"
        ) from None


def _parse_predictions(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a predictions.npz; an error out of _DAMAGE if it is none.

    `np.load` would inflate what is compressed and make room for what is announced,
    however much that is.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if [info.filename for info in infos] != ["labels.npy", "probabilities.npy"]:
            raise ValueError("not the arrays labels and probabilities")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("compressed, as this project writes none")
        labels, probabilities = (_parse_array(archive.read(info)) for info in infos)
    if (labels.dtype, probabilities.dtype) != (np.uint8, np.float32) or (
        probabilities.shape != (*labels.shape, CLASSES) or not len(labels)
    ):
        raise ValueError("no predictions of ten digits")
    sound = (probabilities >= 0) & (probabilities < 1.001)  # neither of a NaN
    if labels.max() >= CLASSES or not sound.all():
        raise ValueError("a label or a probability that is none")
    return labels, probabilities


def _parse_array(content: bytes) -> np.ndarray:
    """An array of numbers out of an .npy file, which holds just as many bytes."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the array format")
    shape, transposed, dtype = np.lib.format.read_array_header_1_0(file)
    if transposed or dtype.kind not in "fu":
        raise ValueError("an array of another kind")
    return np.frombuffer(file.read(), dtype).reshape(shape).copy()
