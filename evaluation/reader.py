# SPDX-License-Identifier: Apache-2.0
"""A trained network for someone's own program: images in, classes out.

import evaluation

reader = evaluation.load("runs/lenet-s0")
reader.predict("three.png").classes  # array([3])
"""

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import pretrained
from data import inputs
from evaluation import trained
from models import kernels

BATCH_SIZE = 1000


class Prediction(NamedTuple):
    """What a network makes of N images, C classes."""

    classes: np.ndarray  # int64 [N], the most probable class
    probabilities: np.ndarray  # float32 [N, C]
    names: list[str]  # of the N classes


class Reader:
    """The network of a finished run, or the mean of several.

    Attributes:
      run: a `TrainedRun`, with directory, settings, record and step; or an `Ensemble`.
      names: name of each class.
    """

    def __init__(self, run: Any):
        self.run, self.names = run, run.classes
        network = run.predict.network

        # Apart from `scoring.Predict`: without its care for no images, and with the
        # softmax, a single image takes half the time.
        @tf.function(
            autograph=False,
            input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.uint8, "images")],
        )
        def probabilities(images):
            logits, _ = network(images, training=False)
            return tf.nn.softmax(logits)

        # Traced now, so that the first image does not take longer than the others.
        with kernels.predicting():
            self._probabilities = probabilities.get_concrete_function()

    def predict(self, images: Any) -> Prediction:
        """Classifies images: paths of pictures, or an array, bytes or floats 0 to 1.

        `inputs.images` says what is taken; one image alone counts as N = 1.

        Raises:
          UserError: it is something else, or a picture cannot be read.
        """
        pixels = inputs.images(images)
        parts = [np.zeros([0, len(self.names)], np.float32)]  # all that none have
        for start in range(0, len(pixels), BATCH_SIZE):  # to bound the memory
            batch = tf.constant(pixels[start : start + BATCH_SIZE])
            parts.append(self._probabilities(batch).numpy())
        probabilities = np.concatenate(parts)
        classes = probabilities.argmax(1)
        return Prediction(classes, probabilities, [self.names[c] for c in classes])


def load(
    run_dir: str | os.PathLike[str] = pretrained.ROBUST,
    *others: str | os.PathLike[str],
    shifts: int = 0,
) -> Reader:
    """Loads the network of a run directory, at its last good checkpoint.

    Args:
      run_dir: run directory; without one, it is the network that comes with the
        project.
      others: further runs; the probabilities are the mean of all.
      shifts: average over shifts by up to so many pixels, too, as eval.py --shifts.

    Raises:
      UserError: there is no such run, or it is damaged; or see `ensemble.load`.
    """
    folders = [Path(name).expanduser() for name in (run_dir, *others)]
    if not others:
        return Reader(trained.load(*folders).averaged(shifts))
    from evaluation import ensemble  # loads scipy

    return Reader(ensemble.load(folders).averaged(shifts))
