# SPDX-License-Identifier: Apache-2.0
"""The digits that are misread after each epoch, as a picture for TensorBoard.

Drawn without matplotlib, which takes longer to load than a run to its first step.
"""

import numpy as np

from evaluation.scoring import Scores

MOST = 24
COLUMNS = 8
SCALE = 2  # screen pixels to one of the digit's
CAPTION = 16  # screen pixels below it


def draw(images: np.ndarray, scores: Scores) -> np.ndarray:
    """The digits that were misread with the greatest confidence, with captions.

    Args:
      images: uint8 [N, 28, 28, 1].
      scores: of these.

    Returns:
      uint8 [H, W, 1], always of the same size.
    """
    import cv2  # here, because a run's first step has no use for it

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
