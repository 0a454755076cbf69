# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard shows of a score in tabs of their own.

HParams has the flags beside the final figures, PR Curves precision and recall of each
digit, Projector the digits as the last layer but one sees them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.pr_curve import summary as pr_curve
from tensorboard.plugins.projector import projector_config_pb2

from evaluation.scoring import CLASSES, Scores
from training import runs

THRESHOLDS = 201  # of a precision-recall curve
# In the projector. TensorBoard reads those of every run as it starts, and the browser
# moves them all in each frame.
MOST_POINTS = 2000
MOST_VALUES = 1 << 20  # of all points, for a layer that is very wide

# Flags that mean something beside certain others only: the name of that, and those of
# its values beside which they do; none stands for all but 0, none and the like.
MEANT_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "batch_norm_decay": ("batch_norm", ("conv", "all")),
    "batch_norm_first": ("batch_norm", ("conv", "all")),
    "decay_epochs": ("schedule", ("step",)),
    "decay_factor": ("schedule", ("step", "plateau")),
    "dropout_kind": ("dropout", ()),
    "elastic_sigma": ("elastic_alpha", ()),
    "flip_labels": ("flip_codes", ()),
    "flip_shifted": ("flip_codes", ()),
    "plateau_floor": ("schedule", ("plateau",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "shift_diagonal": ("shift_directions", ()),
    "shift_pixels": ("shift_directions", ()),
    "split_seed": ("validation_size", ()),
}


def tabs(
    name: str, split: str, config: Mapping[str, Any], scores: Scores
) -> Iterator[Message]:
    """Yields the Summary protocol buffers of HParams and PR Curves.

    Args:
      name: of the run.
      split: what was scored, "test" or "validation".
      config: the run's flags.
      scores: of the split.
    """
    yield hparams.hparams_pb(hyperparameters(config), trial_id=name)
    for digit in range(CLASSES):
        yield pr_curve.pb(
            f"precision_recall/is_it_a_{digit}",
            labels=scores.labels == digit,
            predictions=scores.probabilities[:, digit],
            num_thresholds=THRESHOLDS,
            description=f"Precision and recall of the {split} digits as the probability"
            f" from which on one is called a {digit} moves from 0 to 1. A good network"
            " stays in the upper right corner; compare digits and runs there.",
        )


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """A run's flags as the HParams tab takes them.

    What is not set is left out, and what has no meaning beside the other flags.
    """
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in config.items()
        if value is not None and _has_meaning(name, config)
    }


def _has_meaning(name: str, config: Mapping[str, Any]) -> bool:
    if name not in MEANT_BY:
        return True
    other, values = MEANT_BY[name]
    given = config.get(other, False)
    if given is None:  # no option of this network, which is always so
        return True
    return given in values if values else bool(given)


def write_projector(
    folder: Path, scores: Scores, images: np.ndarray, network: tf.Module
) -> None:
    """The layer before the logits for each digit, with its picture and its classes.

    Where there are too many digits, all that are misread are shown, then the first. Of
    a network of one layer the images themselves are.

    Args:
      folder: of events, gets what the Projector tab reads.
      scores: of the images.
      images: uint8 [N, 28, 28, 1].
      network: as it was scored.

    Raises:
      RunError: it cannot be written.
    """
    wrong = scores.predictions != scores.labels
    chosen = np.argsort(~wrong, kind="stable")[:MOST_POINTS]
    taps: dict[str, Any] = {"images": images[chosen]}
    network(tf.constant(images[chosen]), training=False, taps=taps)
    *_, (name, layer), _ = taps.items()
    points = np.reshape(layer, [len(chosen), -1])
    order = np.argsort(chosen[: MOST_VALUES // points.shape[1]])
    points, chosen = points[order], chosen[order]
    lines = ["\t".join(f"{x:.4g}" for x in point) for point in points]
    rows = ["true\tread\tverdict\tindex"]
    for index in chosen:
        true, read = scores.labels[index], scores.predictions[index]
        verdict = f"{true} read as {read}" if wrong[index] else "right"
        rows.append(f"{true}\t{read}\t{verdict}\t{index}")
    _, png = cv2.imencode(".png", _sprite(images[chosen]))
    runs.write_atomically(folder / "points.tsv", "\n".join(lines) + "\n")
    runs.write_atomically(folder / "digits.tsv", "\n".join(rows) + "\n")
    runs.write_atomically(folder / "digits.png", png.tobytes())
    runs.write_atomically(folder / "projector_config.pbtxt", _config(name))


def _config(layer: str) -> str:
    """Where the projector finds all that belongs to the points of a layer."""
    config = projector_config_pb2.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name=f"{layer}, before the logits",
        tensor_path="points.tsv",
        metadata_path="digits.tsv",
    )
    embedding.sprite.image_path = "digits.png"
    embedding.sprite.single_image_dim.extend([28, 28])
    return text_format.MessageToString(config)


def _sprite(images: np.ndarray) -> np.ndarray:
    """Dark ink on white, row by row in a square, as the projector wants it."""
    side = int(np.ceil(np.sqrt(len(images))))
    tiles = np.full((side * side, 28, 28), 255, np.uint8)
    tiles[: len(images)] = 255 - images[..., 0]
    rows = tiles.reshape(side, side, 28, 28).transpose(0, 2, 1, 3)
    return rows.reshape(side * 28, side * 28)
