# SPDX-License-Identifier: Apache-2.0
"""Scores of a network on labelled images, and how they are shown and stored."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training import runs, summaries

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Scores:
    """Attributes:
    labels: uint8 [N].
    probabilities: float32 [N, 10].
    loss: mean cross-entropy, in nats.
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


class Predict:
    """A network as a graph with the write-up's two placeholders.

    predict(images uint8 [N, 28, 28, 1], training bool [] = False) → logits float32
    [N, 10]; N may differ from call to call.

    Attributes:
      graph: for TensorBoard.
    """

    def __init__(self, network: tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="images"),
                tf.TensorSpec([], tf.bool, name="training"),
            ]
        )
        def predict(images, training):
            logits, _ = network(images, training=training, seed=tf.zeros([2], tf.int32))
            return logits

        self._predict = predict
        self.graph: tf.Graph = predict.get_concrete_function().graph

    def __call__(self, images: np.ndarray, training: bool = False) -> tf.Tensor:
        return self._predict(images, tf.constant(training))


def score(
    predict: Callable[..., tf.Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int = 1000,
) -> Scores:
    """Scores all the images, `batch_size` at a time so that memory stays bounded."""
    logits = np.concatenate(
        [
            predict(images[start : start + batch_size]).numpy()
            for start in range(0, len(images), batch_size)
        ]
    ).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return Scores(labels, np.exp(log_probabilities).astype(np.float32), float(loss))


def summarise(scores: Scores) -> dict[str, Any]:
    """Accuracy, errors, loss, confusion matrix and per-class figures, for JSON."""
    from sklearn import metrics  # takes a second to load, and is wanted only here

    classes = list(range(CLASSES))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        scores.labels, scores.predictions, labels=classes, zero_division=0
    )
    return {
        "accuracy": scores.accuracy,
        "errors": scores.errors,
        "images": len(scores.labels),
        "loss": scores.loss,
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
            f" {summary['images']:,}  ·  loss {summary['loss']:.4f}",
        ]
    )


def report(
    run_dir: Path,
    predict: Predict,
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Scores a finished run on its test set: console, result.json and TensorBoard."""
    summary = summarise(score(predict, images, labels))
    if not (rows := runs.read_metrics(run_dir)):
        raise runs.RunError(f"{run_dir} has no metrics.csv: train it to its end first")
    result = {
        "test": summary,
        "epochs": len(rows),
        "steps": int(rows[-1]["step"]),
        "training_seconds": rows[-1]["seconds"],
        "test_accuracy_by_epoch": [row["test_accuracy"] for row in rows],
        **runs.read_run(run_dir),
    }
    runs.write_atomically(run_dir / "result.json", json.dumps(result, indent=1) + "\n")
    summaries.write_score(run_dir, result["steps"], show(summary), summary)
    print(show(summary))
