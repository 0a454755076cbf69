# SPDX-License-Identifier: Apache-2.0
"""Tells whether a run learns anything, by comparing it with guessing."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training import losses


class Guess(NamedTuple):
    """Best results of a network that ignores its images.

    Attributes:
      loss: loss of answering with each class's share of the labels, the best constant
        answer for both cross-entropies.
      accuracy: accuracy of always answering with the most common class.
    """

    loss: float
    accuracy: float


def guess(labels: np.ndarray, config: Any) -> Guess:
    """Returns the best guess for a training set with these labels, integers [N]."""
    shares = np.bincount(labels) / len(labels)  # [classes]
    # Outliers count as wrong, whatever the answer.
    accuracy = float(shares.max()) * (1 - config.outliers)
    if config.teachers:  # their part of the loss has other limits: go by the accuracy
        return Guess(math.inf, accuracy)
    smoothing = config.label_smoothing
    answer = (1 - smoothing) * shares + smoothing / len(shares)
    logits = np.log(np.maximum(answer, losses.CLIP), dtype=np.float32)[np.newaxis]
    loss = losses.LOSSES[config.loss]
    classes = range(len(shares))
    costs = [float(loss(logits, tf.constant([c]), smoothing)) for c in classes]
    return Guess(float(shares @ np.array(costs)), accuracy)


def complaint(row: Mapping[str, float], images: int, guessing: Guess) -> str:
    """Message about an epoch that was no better than guessing; "" if it was better.

    An accuracy within three standard deviations of guessing may be luck. `row` is the
    epoch's row of metrics.csv, and `images` its number of images.
    """
    loss, accuracy, share = row["train_loss"], row["train_accuracy"], guessing.accuracy
    luck = share + 3 * math.sqrt(share * (1 - share) / images)
    if loss >= guessing.loss:
        fault = f"loss, {loss:.4g}, is no better than guessing, {guessing.loss:.4g}"
    elif accuracy <= luck:
        fault = f"accuracy, {accuracy:.2%}, is no better than guessing, {share:.2%}"
    else:
        return ""
    return (
        f"the network does not learn: in epoch {row['epoch']:g} its training {fault};"
        " try another --learning_rate (--find_rate=rates.png suggests one), more"
        " --epochs or another recipe, in another --run_dir"
    )


class Judge:
    """Complains, once, about a run that has stopped learning or never started.

    `labels` are those of the training set, or some of them if it is on disk.
    """

    def __init__(self, labels: np.ndarray, config: Any, epoch_images: int):
        self._guess = guess(labels, config)
        self._epoch_images, self._set_size = epoch_images, len(labels)
        self._complained = False

    def judge(self, row: Mapping[str, float], last: bool) -> str:
        """Returns what to say after an epoch; "" for nothing.

        Waits until the training set was seen once or this is the last epoch, since a
        sound run starts no better than guessing.
        """
        fault = complaint(row, self._epoch_images, self._guess)
        if not last and row["images"] < self._set_size:
            return ""
        complained, self._complained = self._complained, bool(fault)
        return "" if complained else fault
