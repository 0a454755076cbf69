# SPDX-License-Identifier: Apache-2.0
"""Scores of a network on labelled images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import data
from data import inputs
from evaluation import calibration
from models import layers
from training import losses


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a network predicts for some images, next to their labels."""

    labels: np.ndarray  # integers [N]
    probabilities: np.ndarray  # float32 [N, classes]
    loss: float  # mean training loss, without label smoothing
    classes: Sequence[str] = data.DIGITS  # their names

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class, int64 [N]."""
        return self.probabilities.argmax(1)

    @property
    def errors(self) -> int:
        """Number of misclassified images."""
        return int((self.predictions != self.labels).sum())

    @property
    def accuracy(self) -> float:
        """Accuracy, in [0, 1]."""
        return 1 - self.errors / len(self.labels)

    @property
    def binary_accuracy(self) -> float:
        """Share of correct answers to "is it a 0?", …, "is it a 9?", in [0, 1].

        Each output answers yes above 0.5. This is what Keras calls accuracy when the
        loss is binary cross-entropy. It flatters: of ten answers, one misclassified
        digit costs at most 2.
        """
        truth = self.labels[:, np.newaxis] == np.arange(len(self.classes))
        return float(((self.probabilities > 0.5) == truth).mean())


def predict_logits(
    network: tf.Module,
    images: tf.Tensor,
    *,
    training: layers.Training,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Logits, float32 [N, classes], of images uint8 [N, 28, 28, 1], where N may be 0.

    TensorFlow's pooling and batch norm refuse an empty batch, so that one is given a
    blank image, whose logits are cut off again.
    """
    count = tf.shape(images)[0]
    blank = tf.zeros([tf.cast(count < 1, tf.int32), *images.shape[1:]], images.dtype)
    all_logits, _ = network(tf.concat([images, blank], 0), training=training, seed=seed)
    return all_logits[:count]


class Predict:
    """A network as a graph with the write-up's two placeholders.

    predict(images uint8 [N, 28, 28, 1], training bool [] = False) → logits float32
    [N, classes]; N may differ from call to call. Other images are converted, or refused
    with an InputError: see `inputs.images`.

    Attributes:
      network: the network.
      graph: its graph, for TensorBoard.
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
            # The seed is for dropout, in case `training` is True.
            return predict_logits(
                network, images, training=training, seed=tf.zeros([2], tf.int32)
            )

        self.network = network
        self._predict = predict
        self.graph: tf.Graph = predict.get_concrete_function().graph

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        return self._predict(inputs.images(images), tf.constant(training))


def score(
    predict: Callable[..., tf.Tensor],
    images: np.ndarray,
    labels: np.ndarray,
    loss: str = "softmax_cross_entropy",
    batch_size: int = 1000,
    classes: Sequence[str] = data.DIGITS,
) -> Scores:
    """Scores images, uint8 [N, 28, 28, 1], `batch_size` at a time to bound the memory.

    `predict` takes such images to logits [N, classes]; `loss` is a name in
    `losses.LOSSES`; `classes` are the names of the classes.
    """
    logits = predict_all(predict, images, batch_size)
    mean_loss = losses.LOSSES[loss](tf.constant(logits), labels)
    return Scores(labels, tf.nn.softmax(logits).numpy(), float(mean_loss), classes)


def predict_all(
    predict: Callable[..., tf.Tensor], images: np.ndarray, batch_size: int = 1000
) -> np.ndarray:
    """Logits of all images, float32 [N, classes], computed `batch_size` at a time."""
    return np.concatenate(
        [
            predict(images[start : start + batch_size]).numpy()
            for start in range(0, max(len(images), 1), batch_size)
        ]
    )


def summarise(scores: Scores) -> dict[str, Any]:
    """Accuracy, errors, loss, calibration, confusions, per-class figures, for JSON.

    A figure of a class is None where it is 0 / 0: recall without an image of the class,
    precision without a prediction.
    """
    from sklearn import metrics  # takes a second to load; only this function needs it

    labels = list(range(len(scores.classes)))
    *shares, support = metrics.precision_recall_fscore_support(
        scores.labels, scores.predictions, labels=labels, zero_division=np.nan
    )
    names = ("precision", "recall", "f1")
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
            scores.labels, scores.predictions, labels=labels
        ).tolist(),
        "classes": [
            {
                "class": label,
                "name": scores.classes[label],
                **{n: _known(share[label]) for n, share in zip(names, shares)},
                "images": int(support[label]),
            }
            for label in labels
        ],
    }


def _known(share: float) -> float | None:
    return None if np.isnan(share) else float(share)


MAX_SHOWN = 30  # classes in a table of the console


def show(summary: Mapping[str, Any]) -> str:
    """The summary as text for the console; of many classes, only the worst."""
    rows = summary["classes"]
    tables = [f"the {MAX_SHOWN} of {len(rows):,} classes with the lowest recall:"]
    if len(rows) <= MAX_SHOWN:
        tables = [_confusions(summary)]
    else:
        rows = sorted(rows, key=lambda row: row["recall"] or 0)[:MAX_SHOWN]
    return "\n\n".join(
        [
            *tables,
            _each_class(rows),
            f"accuracy {summary['accuracy']:.2%}  ·  {summary['errors']} errors of"
            f" {summary['images']:,}  ·  loss {summary['loss']:.4f}  ·  binary"
            f" accuracy {summary['binary_accuracy']:.2%}",
        ]
    )


def _confusions(summary: Mapping[str, Any]) -> str:
    names = [row["name"] for row in summary["classes"]]
    table = [
        [name, *(count or "·" for count in row)]
        for name, row in zip(names, summary["confusion_matrix"], strict=True)
    ]
    return _table(table, ["true \\ predicted", *names])


def _each_class(rows: Sequence[Mapping[str, Any]]) -> str:
    table = [
        [row["name"], percent(row["precision"]), percent(row["recall"]), row["images"]]
        for row in rows
    ]
    digits = {row["name"] for row in rows} <= set(data.DIGITS)
    kind = "digit" if digits else "class"
    return _table(table, [kind, "precision", "recall", "images"])


def _table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    from tabulate import tabulate

    # A class may be named 1e5, which is not a number here.
    align = ["right"] * len(header)
    return tabulate(rows, header, colalign=align, disable_numparse=True)


def percent(share: float | None) -> str:
    """0.9959 → 99.59%; "–" if there is no figure."""
    return "–" if share is None else f"{share:.2%}"
