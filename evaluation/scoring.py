# SPDX-License-Identifier: Apache-2.0
"""Scores of a network on labelled images."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

import data
from data import inputs
from evaluation import calibration
from models import kernels, layers
from system import device
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
    def nll(self) -> float:
        """Mean negative log-likelihood of the labels, in nats; 87 at most per image."""
        given = self.probabilities[np.arange(len(self.labels)), self.labels]
        # No float32 is smaller, and log 0 would be no number for JSON.
        least = np.finfo(np.float32).tiny
        return 0 - float(np.log(np.maximum(given, least), dtype=np.float64).mean())

    @property
    def surest(self) -> np.ndarray:
        """Indices of the images without the 1 % least confident: int64, in order.

        Of equally confident ones, the first are kept. Confidence is the probability of
        the class predicted.
        """
        order = np.argsort(-self.probabilities.max(1), kind="stable")
        return np.sort(order[: len(order) - len(order) // 100])

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
    """A network as a graph.

    predict(images uint8 [N, 28, 28, 1], training bool [] = False) → logits float32
    [N, classes]; N may differ from call to call. Other images are converted, or refused
    with an InputError: see `inputs.images`. By default, a network that was trained with
    our operations predicts with them: see `kernels.predicting`.

    Attributes:
      network: the network.
    """

    def __init__(self, network: tf.Module):
        images_spec = tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="images")

        @tf.function(autograph=False, input_signature=[images_spec])
        def predict(images):
            return predict_logits(network, images, training=False)

        @tf.function(
            autograph=False,
            input_signature=[images_spec, tf.TensorSpec([], tf.bool, name="training")],
        )
        def fed(images, training):
            # The seed is for dropout, in case `training` is True.
            return predict_logits(
                network, images, training=training, seed=tf.zeros([2], tf.int32)
            )

        self.network = network
        with kernels.predicting():
            self._predict = predict.get_concrete_function()
        self._fed = fed

    @property
    def graph(self) -> tf.Graph:
        """The network with the write-up's two placeholders, for TensorBoard."""
        return self._fed.get_concrete_function().graph

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        images = tf.convert_to_tensor(inputs.images(images))
        if training:
            return self._fed(images, tf.constant(True))
        return self._predict(images)


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
    """Logits of all images, float32 [N, classes], computed `batch_size` at a time.

    A batch per core is computed side by side: during training, an operation has one
    thread. The logits do not depend on it.
    """

    def logits(start: int) -> np.ndarray:
        return predict(images[start : start + batch_size]).numpy()

    starts = range(0, max(len(images), 1), batch_size)
    pool = futures.ThreadPoolExecutor(device.cores())
    try:
        return np.concatenate([*pool.map(logits, starts)])
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the other batches


def figures(scores: Scores) -> dict[str, Any]:
    """Accuracy, errors, loss, NLL and calibration, for JSON.

    `accuracy_99` and `errors_99` are those of the images that are left when the 1 %
    least confident are: N − ⌊N / 100⌋.
    """
    correct = scores.predictions == scores.labels
    surest = correct[scores.surest]
    return {
        "accuracy": scores.accuracy,
        "binary_accuracy": scores.binary_accuracy,
        "errors": scores.errors,
        "images": len(scores.labels),
        "loss": scores.loss,
        "nll": scores.nll,
        "calibration_error": calibration.expected_calibration_error(
            scores.probabilities.max(1), correct
        ),
        "accuracy_99": float(surest.mean()),
        "errors_99": int((~surest).sum()),
    }


def summarise(scores: Scores) -> dict[str, Any]:
    """The `figures`, confusions and figures of each class, for JSON.

    A figure of a class is None where it is 0 / 0: recall without an image of the class,
    precision without a prediction.
    """
    classes = len(scores.classes)
    # By TensorFlow and not scikit-learn, which takes most of a second to load.
    counts = tf.math.confusion_matrix(scores.labels, scores.predictions, classes)
    matrix = counts.numpy().astype(np.int64)
    correct, labelled, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return {
        **figures(scores),
        "confusion_matrix": matrix.tolist(),
        "classes": [
            {
                "class": label,
                "name": name,
                "precision": _share(correct[label], predicted[label]),
                "recall": _share(correct[label], labelled[label]),
                "f1": _share(2 * correct[label], labelled[label] + predicted[label]),
                "images": int(labelled[label]),
            }
            for label, name in enumerate(scores.classes)
        ],
    }


def _share(part: np.int64, of: np.int64) -> float | None:
    return float(part / of) if of else None
