# SPDX-License-Identifier: Apache-2.0
"""First and last layer of a network for some of the digits scored, in one pass."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from evaluation.scoring import Scores

FEATURE_DIGITS = 5
# In the projector. TensorBoard reads the points of every run when it starts, and the
# browser moves all of them in each frame.
MAX_POINTS = 2000
MAX_VALUES = 1 << 20  # of all points together; only a very wide layer has more


class FirstLayer(NamedTuple):
    """What the first layer does, for the report."""

    kernel: np.ndarray  # float32 weights
    # uint8 [n, 28, 28, 1], the first image of each of the first classes.
    digits: np.ndarray
    maps: np.ndarray  # float32 [n, …], outputs of the layer's block


class LastLayer(NamedTuple):
    """The layer before the logits, for the projector."""

    name: str  # name of the layer; "images" if the logits are the only layer
    indices: np.ndarray  # int64 [n], the digits shown, in order
    points: np.ndarray  # [n, width], their outputs


def first_maps(network: tf.Module, image: np.ndarray) -> np.ndarray:
    """Outputs of the first layer for one image, uint8 [28, 28]: float32 [h, w, C]."""
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(image.reshape(1, 28, 28, 1)), training=False, taps=taps)
    return np.asarray(next(iter(taps.values())))[0]


def compute(
    network: tf.Module, images: np.ndarray, scores: Scores
) -> tuple[FirstLayer, LastLayer]:
    """Runs the network on the digits that the report and the projector show.

    The images are uint8 [N, 28, 28, 1]. The network fills `taps` in the order of its
    layers.
    """
    _, first_of_class = np.unique(scores.labels, return_index=True)
    few = np.sort(first_of_class)[:FEATURE_DIGITS]
    # All misclassified digits, then the first of the others.
    correct = scores.predictions == scores.labels
    many = np.argsort(correct, kind="stable")[:MAX_POINTS]
    shown = np.union1d(few, many)
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(images[shown]), training=False, taps=taps)
    (name, maps), *_ = taps.items()
    kernel = getattr(network, name).w.numpy()
    maps = np.asarray(maps)[np.searchsorted(shown, few)]
    *_, (name, layer), _ = {"images": images[shown], **taps}.items()
    points = np.reshape(layer, [len(shown), -1])
    many = np.sort(many[: MAX_VALUES // points.shape[1]])
    points = points[np.searchsorted(shown, many)]
    return FirstLayer(kernel, images[few], maps), LastLayer(name, many, points)
