# SPDX-License-Identifier: Apache-2.0
"""Three of TensorBoard's tabs for a score: HParams, PR Curves and Projector.

HParams shows the flags next to the final figures, PR Curves the precision and recall of
each digit, Projector the digits as points: the outputs of the layer before the logits.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.pr_curve import summary as pr_curve
from tensorboard.plugins.projector import projector_config_pb2

from evaluation.activations import LastLayer
from evaluation.scoring import Scores
from training import runs

THRESHOLDS = 201  # of a precision-recall curve
MAX_CURVES = 30  # of more classes, only `precision_recall.worst` are drawn at all

# Flags that have an effect only with another one: its name, and the values of it that
# give them one; () stands for all but 0, none and the like.
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
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

    Of more than `MAX_CURVES` classes there are no PR Curves: nobody reads so many.
    """
    yield hparams.hparams_pb(hyperparameters(config), trial_id=name)
    if len(scores.classes) > MAX_CURVES:
        return
    for label, digit in enumerate(scores.classes):
        yield pr_curve.pb(
            f"precision_recall/is_it_a_{digit}",
            labels=scores.labels == label,
            predictions=scores.probabilities[:, label],
            num_thresholds=THRESHOLDS,
            description=f"Precision and recall of {digit} on the {split} images, while"
            f" the probability above which we call an image {digit} moves from 0 to 1."
            " Compare runs here. The axes end at 0, so look for differences between"
            " classes in the picture final/precision_recall, which shows the corner.",
        )


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """A run's flags for HParams, without those that are unset or have no effect."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in config.items()
        if value is not None and _has_effect(name, config)
    }


def _has_effect(name: str, config: Mapping[str, Any]) -> bool:
    if name not in NEEDS:
        return True
    other, values = NEEDS[name]
    given = config.get(other, False)
    if given is None:  # this network has no such option: it always has the effect
        return True
    return given in values if values else bool(given)


def write_projector(
    folder: Path, scores: Scores, images: np.ndarray, layer: LastLayer
) -> None:
    """Writes the points of the Projector tab, with their pictures and classes.

    The images are uint8 [N, 28, 28, 1]. Raises UserError if a file cannot be written.
    """
    points = ["\t".join(f"{x:.4g}" for x in point) for point in layer.points]
    rows = ["true\tpredicted\tverdict\tindex"]
    for index in layer.indices:
        true = scores.classes[scores.labels[index]]
        predicted = scores.classes[scores.predictions[index]]
        verdict = "correct" if true == predicted else f"{true} as {predicted}"
        rows.append(f"{true}\t{predicted}\t{verdict}\t{index}")
    _, png = cv2.imencode(".png", _sprite(images[layer.indices]))
    runs.write_atomically(folder / "points.tsv", "\n".join(points) + "\n")
    runs.write_atomically(folder / "digits.tsv", "\n".join(rows) + "\n")
    runs.write_atomically(folder / "digits.png", png.tobytes())
    runs.write_atomically(folder / "projector_config.pbtxt", _config(layer.name))


def _config(layer: str) -> str:
    """Names the files of the projector."""
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
    """One square picture of all digits, row by row, dark on white."""
    side = int(np.ceil(np.sqrt(len(images))))
    tiles = np.full((side * side, 28, 28), 255, np.uint8)
    tiles[: len(images)] = 255 - images[..., 0]
    rows = tiles.reshape(side, side, 28, 28).transpose(0, 2, 1, 3)
    return rows.reshape(side * 28, side * 28)
