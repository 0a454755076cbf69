# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard shows of a run beside its curves.

`final/` in the run directory has what a score adds: flags and figures for the HParams
tab, precision and recall of each digit, points for the projector. It is made anew each
time, so that nothing is shown twice.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.pr_curve import summary as pr_curve
from tensorboard.plugins.projector import projector_config_pb2

from evaluation.scoring import CLASSES, Scores
from training import runs

FOLDER = "final"
THRESHOLDS = 201  # of a precision-recall curve
# In the projector. TensorBoard reads those of every run as it starts, and the browser
# moves them all in each frame.
MOST_POINTS = 2000

# Charts that the Custom Scalars tab opens on: title → tags, as regular expressions.
CHARTS = {
    "Accuracy against epoch: do validation and test follow training?": [
        "^accuracy/by_epoch$"
    ],
    "Loss against epoch: where it rises again, the network learns by heart": [
        "^loss/by_epoch$"
    ],
    "Learning rate against step: the schedule": ["^learning_rate/by_step$"],
}


def write(
    run_dir: Path,
    split: str,
    result: Mapping[str, Any],
    scores: Scores,
    images: np.ndarray,
    network: tf.Module,
) -> Path:
    """Writes final/ anew.

    Args:
      run_dir: of the run.
      split: what was scored, "test" or "validation".
      result: as stored in result.json.
      scores: of the split.
      images: uint8 [N, 28, 28, 1], of the split.
      network: as it was scored.

    Returns:
      The folder.

    Raises:
      RunError: it cannot be written.
    """
    folder = run_dir / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    try:
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(result["steps"]):
            hparams.hparams(flags(result["config"]), trial_id=run_dir.name)
            tf.summary.scalar(
                "final/training_seconds",
                result["training_seconds"],
                description="Time in training steps, evaluation and logging left out.",
            )
            _write_pr_curves(split, scores)
        writer.close()
        write_layout(run_dir)
        _write_projector(folder, scores, images, network)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise runs.RunError(
            f"cannot write {folder}: {reason}; make room, or choose another --run_dir"
        ) from None
    return folder


def flags(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """A run's flags as the HParams tab takes them; what is not set is left out."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in config.items()
        if value is not None
    }


def write_layout(run_dir: Path) -> None:
    """Says in final/ which plots the Custom Scalars tab shows.

    To be called early in a run, too. (Not in train/, which is being written to then:
    TensorBoard may leave a file of events for good when there is a newer one.)
    """
    charts = [
        layout_pb2.Chart(
            title=title, multiline=layout_pb2.MultilineChartContent(tag=tags)
        )
        for title, tags in CHARTS.items()
    ]
    category = layout_pb2.Category(title="What to look at first", chart=charts)
    summary = custom_scalar.pb(layout_pb2.Layout(category=[category]))
    writer = tf.summary.create_file_writer(str(run_dir / FOLDER))
    with writer.as_default(0):
        tf.summary.experimental.write_raw_pb(summary.SerializeToString())
    writer.close()


def _write_pr_curves(split: str, scores: Scores) -> None:
    for digit in range(CLASSES):
        summary = pr_curve.pb(
            f"is_it_a_{digit}",
            labels=scores.labels == digit,
            predictions=scores.probabilities[:, digit],
            num_thresholds=THRESHOLDS,
            description=f"Precision and recall of the {split} digits as the probability"
            f" from which on one is called a {digit} moves from 0 to 1. A good network"
            " stays in the upper right corner; compare digits and runs there.",
        )
        tf.summary.experimental.write_raw_pb(summary.SerializeToString())


def _write_projector(
    folder: Path, scores: Scores, images: np.ndarray, network: tf.Module
) -> None:
    """The layer before the logits for each digit, with its picture and its classes.

    Of more than `MOST_POINTS` digits all that are misread are shown, then the first.
    """
    wrong = scores.predictions != scores.labels
    chosen = np.sort(np.argsort(~wrong, kind="stable")[:MOST_POINTS])
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(images[chosen]), training=False, taps=taps)
    *_, (name, points), _ = taps.items()
    points = tf.reshape(points, [len(chosen), -1]).numpy()
    np.savetxt(folder / "points.tsv", points, "%.4g", "\t")
    rows = ["true\tread\tverdict\tindex"]
    for index in chosen:
        true, read = scores.labels[index], scores.predictions[index]
        verdict = f"{true} read as {read}" if wrong[index] else "right"
        rows.append(f"{true}\t{read}\t{verdict}\t{index}")
    (folder / "digits.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    cv2.imwrite(str(folder / "digits.png"), _sprite(images[chosen]))
    config = projector_config_pb2.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name=f"{name}, before the logits",
        tensor_path="points.tsv",
        metadata_path="digits.tsv",
    )
    embedding.sprite.image_path = "digits.png"
    embedding.sprite.single_image_dim.extend([28, 28])
    text = text_format.MessageToString(config)
    (folder / "projector_config.pbtxt").write_text(text, encoding="utf-8")


def _sprite(images: np.ndarray) -> np.ndarray:
    """Dark ink on white, row by row in a square, as the projector wants it."""
    side = int(np.ceil(np.sqrt(len(images))))
    tiles = np.full((side * side, 28, 28), 255, np.uint8)
    tiles[: len(images)] = 255 - images[..., 0]
    rows = tiles.reshape(side, side, 28, 28).transpose(0, 2, 1, 3)
    return rows.reshape(side * 28, side * 28)
