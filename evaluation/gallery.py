# SPDX-License-Identifier: Apache-2.0
"""The scores after an epoch, with a picture of misclassified digits for TensorBoard.

Drawn without matplotlib, which takes longer to load than a run to start.
"""

import numpy as np

from evaluation import scoring
from training import sets, summaries

MAX_DIGITS = 24
COLUMNS = 8
SCALE = 2  # screen pixels per pixel of a digit
CAPTION_HEIGHT = 16  # screen pixels


def score(
    predict: scoring.Predict,
    data_sets: sets.Sets,
    loss: str,
    log: summaries.Summaries,
    epoch: int,
) -> dict[str, float]:
    """Scores a network after an epoch, and logs its misclassified digits.

    Returns loss and accuracies on each split, by column of metrics.csv.
    """
    row = {}
    for split, (images, labels) in data_sets.scored.items():
        classes = data_sets.classes
        scores = scoring.score(predict, images, labels, loss, classes=classes)
        log.errors(epoch, split, draw(images, scores))
        row[f"{split}_loss"] = scores.loss
        row[f"{split}_accuracy"] = scores.accuracy
        row[f"{split}_binary_accuracy"] = scores.binary_accuracy
    return row


def draw(images: np.ndarray, scores: scoring.Scores) -> np.ndarray:
    """Draws the digits that were misclassified with the highest confidence.

    Takes images uint8 [N, 28, 28, 1]; returns uint8 [H, W, 1], always of the same size.
    """
    import cv2  # here, because a run does not need it to start

    wrong = np.flatnonzero(scores.predictions != scores.labels)
    confidence = scores.probabilities[wrong].max(1)
    worst = wrong[np.argsort(-confidence, kind="stable")][:MAX_DIGITS]
    side = SCALE * 28
    rows = MAX_DIGITS // COLUMNS
    tiles = np.full((MAX_DIGITS, side + CAPTION_HEIGHT, side), 255, np.uint8)
    for tile, index in zip(tiles, worst):
        ink = images[index, ..., 0].repeat(SCALE, 0).repeat(SCALE, 1)
        tile[:side] = 255 - ink
        true, predicted = scores.labels[index], scores.predictions[index]
        caption = f"{scores.classes[true]} as {scores.classes[predicted]}"
        place, font = (4, side + CAPTION_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(tile, caption, place, font, 0.38, 0, 1, cv2.LINE_AA)
    grid = tiles.reshape(rows, COLUMNS, side + CAPTION_HEIGHT, side)
    return grid.transpose(0, 2, 1, 3).reshape(rows * (side + CAPTION_HEIGHT), -1, 1)
