# SPDX-License-Identifier: Apache-2.0
"""Whether a run learns, judged by what guessing would achieve."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training import losses


class Guess(NamedTuple):
    """What a network that does not look at the images can achieve.

    Attributes:
      loss: of always giving each class its share of the labels, the best constant
        answer to both cross-entropies.
      accuracy: of always answering with the commonest class.
    """

    loss: float
    accuracy: float


def guess(labels: np.ndarray, config: Any) -> Guess:
    """The best guess for a training set.

    Args:
      labels: integers [N].
      config: its `loss` and `label_smoothing`.
    """
    shares = np.bincount(labels) / len(labels)  # [classes]
    smoothing = config.label_smoothing
    answer = (1 - smoothing) * shares + smoothing / len(shares)
    logits = np.log(np.maximum(answer, losses.CLIP), dtype=np.float32)[np.newaxis]
    loss = losses.LOSSES[config.loss]
    classes = range(len(shares))
    costs = [float(loss(logits, tf.constant([c]), smoothing)) for c in classes]
    return Guess(float(shares @ np.array(costs)), float(shares.max()))


def complaint(row: Mapping[str, float], images: int, guessing: Guess) -> str:
    """What is wrong with an epoch that did no better than guessing, "" if it did.

    Args:
      row: of metrics.csv.
      images: that the epoch had. So many guesses are right in a share that varies by
        chance: an accuracy within three standard deviations of it proves nothing.
      guessing: see `guess`.
    """
    loss, accuracy, share = row["train_loss"], row["train_accuracy"], guessing.accuracy
    luck = share + 3 * math.sqrt(share * (1 - share) / images)
    if loss >= guessing.loss:
        fault = f"loss, {loss:.4g}, is above that of guessing, {guessing.loss:.4g}"
    elif accuracy <= luck:
        fault = f"accuracy, {accuracy:.2%}, is that of guessing, {share:.2%}"
    else:
        return ""
    return (
        f"the network does not learn: in epoch {row['epoch']:g} its training {fault};"
        " try a lower --learning_rate, more --epochs or another recipe, in another"
        " --run_dir"
    )


class Judge:
    """Says once when a run has begun not to learn.

    Args:
      labels: integers [N], what is trained on or, of a set that stays on disk, some.
      config: see `guess`.
      epoch_images: that an epoch has.
    """

    def __init__(self, labels: np.ndarray, config: Any, epoch_images: int):
        self._guess = guess(labels, config)
        self._images, self._soon = epoch_images, len(labels)
        self._complained = False

    def judge(self, row: Mapping[str, float], last: bool) -> str:
        """What is to be said after an epoch, "" for nothing.

        Nothing before the training set was seen once, or the run is at its end: the
        first steps of a sound run are no better than guessing.

        Args:
          row: of metrics.csv.
          last: whether no epoch follows.
        """
        fault = complaint(row, self._images, self._guess)
        if not last and row["images"] < self._soon:
            return ""
        said, self._complained = self._complained, bool(fault)
        return "" if said else fault
