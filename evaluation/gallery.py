# SPDX-License-Identifier: Apache-2.0
"""The digits that are misread after each epoch, as a picture for TensorBoard.

Drawn without matplotlib, which takes longer to load than a run to its first step.
"""

import cv2
import numpy as np
import tensorflow as tf

from evaluation.scoring import Scores

MOST = 40
COLUMNS = 8
SCALE = 2  # screen pixels to one of the digit's
CAPTION = 16  # screen pixels below it


def write(
    writer: tf.summary.SummaryWriter, epoch: int, images: np.ndarray, scores: Scores
) -> None:
    """The gallery of errors after an epoch, some milliseconds of work.

    Args:
      writer: of the split that was scored.
      epoch: counted from 0.
      images: uint8 [N, 28, 28, 1], of the split.
      scores: of the split.
    """
    with writer.as_default(epoch):
        tf.summary.image(
            "errors",
            draw(images, scores)[np.newaxis],
            description="Misread digits, the surest first; below each what it is and"
            " what it was read as. Move the slider: those that stay to the last epoch"
            " are hard, or wrongly labelled.",
        )


def draw(images: np.ndarray, scores: Scores) -> np.ndarray:
    """The digits that were misread with the greatest confidence, with captions.

    Args:
      images: uint8 [N, 28, 28, 1].
      scores: of these.

    Returns:
      uint8 [H, W, 1], always of the same size.
    """
    wrong = np.flatnonzero(scores.predictions != scores.labels)
    confidence = scores.probabilities[wrong].max(1)
    worst = wrong[np.argsort(-confidence, kind="stable")][:MOST]
    side = SCALE * 28
    rows = MOST // COLUMNS
    tiles = np.full((MOST, side + CAPTION, side), 255, np.uint8)
    for tile, index in zip(tiles, worst):
        ink = images[index, ..., 0].repeat(SCALE, 0).repeat(SCALE, 1)
        tile[:side] = 255 - ink
        caption = f"{scores.labels[index]} as {scores.predictions[index]}"
        place, font = (4, side + CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(tile, caption, place, font, 0.38, 0, 1, cv2.LINE_AA)
    grid = tiles.reshape(rows, COLUMNS, side + CAPTION, side)
    return grid.transpose(0, 2, 1, 3).reshape(rows * (side + CAPTION), -1, 1)
