# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard shows of a run.

Three writers, `train`, `validation` and `test`, so that their curves share a plot.
Tags are chosen so that TensorBoard, which sorts them, opens on the accuracy. Those
that end in `by_step` count steps on the horizontal axis, `by_images` images seen so
far; all others count epochs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

STEP_SCALARS = {
    "accuracy": "Training accuracy since the last point, dropout and shifts included.",
    "loss": "Mean training loss since the last point; should fall and then flatten.",
    "learning_rate": "The rate in force, from the schedule.",
    "images_per_second": "Training speed, evaluation and logging left out.",
    "gradient_norm": "Norm of all gradients together; a jump announces trouble.",
}
EPOCH_SCALARS = ("accuracy", "binary_accuracy", "loss")
FINAL_SCALARS = ("accuracy", "binary_accuracy", "errors", "loss")


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Tiles uint8 [N, 28, 28, 1] into one picture [1, rows · 28, columns · 28, 1]."""
    rows = len(images) // columns
    tiles = images[: rows * columns].reshape(rows, columns, 28, 28)
    return tiles.transpose(0, 2, 1, 3).reshape(1, rows * 28, columns * 28, 1)


class Summaries:
    """Writes TensorBoard events under a run directory; a context manager.

    Args:
      run_dir: gets a folder per split.
      splits: "train" and those of "validation" and "test" that are scored.
    """

    def __init__(self, run_dir: Path, splits: Sequence[str]):
        self.writers = {
            split: tf.summary.create_file_writer(str(run_dir / split))
            for split in splits
        }
        self.train = self.writers["train"]

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers.values():
            writer.close()

    def start(
        self, config: Mapping[str, Any], graph: tf.Graph, images: np.ndarray
    ) -> None:
        """The flags as a table, the network's graph, a grid of training images."""
        rows = [f"| `--{name}` | `{value}` |" for name, value in config.items()]
        with self.train.as_default(0):
            tf.summary.text(
                "flags", "\n".join(["| flag | value |", "|---|---|", *rows])
            )
            tf.summary.graph(graph)
            tf.summary.image(
                "augmented_inputs",
                grid(images, 10),
                description="Training images as the network is fed them.",
            )

    def steps(self, step: int, values: Mapping[str, float]) -> None:
        """The scalars named in `STEP_SCALARS`, at a step."""
        with self.train.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(
                    f"{name}/by_step", value, description=STEP_SCALARS[name]
                )

    def epoch(self, row: Mapping[str, float]) -> None:
        """Loss and accuracy of each split, against the epoch and the images seen.

        Args:
          row: of metrics.csv, with `epoch`, `images` and `<split>_<metric>`.
        """
        for split, writer in self.writers.items():
            with writer.as_default():
                for axis in ("epoch", "images"):
                    for metric in EPOCH_SCALARS:
                        if (name := f"{split}_{metric}") not in row:
                            continue  # no binary accuracy of training batches
                        tf.summary.scalar(
                            f"{metric}/by_{axis}",
                            row[name],
                            step=int(row[axis]),
                            description=f"{metric.capitalize()} against {axis}.",
                        )

    def network(
        self,
        epoch: int,
        network: tf.Module,
        gradient_norms: Sequence[float],
        taps: Mapping[str, tf.Tensor],
    ) -> None:
        """Weights, batch-norm averages, activations and gradient norms, by layer."""
        weights = network.trainable_variables
        with self.train.as_default(epoch):
            for variable in network.variables:
                kind = "weights" if variable.trainable else "batch_norm_averages"
                tf.summary.histogram(f"{kind}/{_tag(variable)}", variable)
            for variable, norm in zip(weights, gradient_norms, strict=True):
                tf.summary.scalar(f"gradient_norms/{_tag(variable)}", norm)
                tf.summary.scalar(f"weight_norms/{_tag(variable)}", tf.norm(variable))
            for name, activation in taps.items():
                tf.summary.histogram(f"activations/{name}", activation)

    def flush(self) -> None:
        """Puts on disk what was written so far."""
        for writer in self.writers.values():
            writer.flush()


def write_score(
    run_dir: Path,
    split: str,
    step: int,
    text: str,
    summary: Mapping[str, Any],
    pictures: Mapping[str, np.ndarray],
) -> None:
    """The score at a run's last step: figures as scalars, tables as text, pictures.

    Args:
      run_dir: of the run.
      split: what was scored, which is the folder that the events go to.
      step: the last.
      text: the tables.
      summary: with the figures named in `FINAL_SCALARS`.
      pictures: uint8 [H, W, 3], by tag.
    """
    writer = tf.summary.create_file_writer(str(run_dir / split))
    with writer.as_default(step):
        for name in FINAL_SCALARS:
            tf.summary.scalar(f"final/{name}", summary[name])
        for name, picture in pictures.items():
            tf.summary.image(f"final/{name}", picture[np.newaxis])
        tf.summary.text("final/tables", "\n".join(f"    {s}" for s in text.split("\n")))
    writer.close()


def _tag(variable: tf.Variable) -> str:
    """lenet/conv1/w:0 → conv1/w"""
    return variable.name.partition("/")[2].partition(":")[0]
