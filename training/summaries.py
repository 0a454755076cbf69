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
EPOCH_SCALARS = {
    "accuracy": "Share of digits read rightly. Validation and test should follow"
    " training; where they fall behind and stay there, the network overfits.",
    "binary_accuracy": "Share of right answers to ten questions, is it a 0, …, is it a"
    " 9. It flatters: compare it with nothing but itself.",
    "loss": "Mean loss. Falls like the errors; where that of validation or test rises"
    " again, the network learns its training images by heart.",
}
AXES = {"epoch": "epochs, from 0", "images": "images seen"}
FINAL_SCALARS = {
    "accuracy": "Share of digits read rightly at the last step: a run's result.",
    "binary_accuracy": "As binary_accuracy/by_epoch, at the last step.",
    "errors": "How many digits are misread at the last step; 10 more or less of 10,000"
    " are chance.",
    "loss": "Mean loss at the last step; high beside few errors: wrong and sure of it.",
}
# Of each layer.
NETWORK_SUMMARIES = {
    "weights": "Should spread slowly from their initial values; a layer that stands"
    " still does not learn, one that grows without end needs weight decay.",
    "batch_norm_averages": "Moving averages with which the network is scored; should"
    " settle as the rate falls.",
    "activations": "Outputs for a few training images. All at one value: a dead layer;"
    " ever wider: it explodes. SELU's stay near mean 0 and variance 1.",
    "gradient_norms": "Of the epoch's last step. Should fall slowly, and no layer's be"
    " a thousandth of another's.",
    "weight_norms": "Grow at first, then level off; weight decay draws them down.",
}
PICTURES = {
    "learning_curves": "Loss, accuracy and rate by epoch.",
    "confusion_matrix": "True digits in rows; look for the darkest cells.",
    "calibration": "Points below the diagonal: surer than it should be.",
    "confidence": "Errors should lie to the left, where the network is not sure.",
    "filters": "Strokes and edges are learned features, noise is none.",
    "feature_maps": "Maps that are the same or empty are of no use.",
    "worst_errors": "Those furthest from their label: hard, or wrongly labelled?",
}


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
                "flags",
                "\n".join(["| flag | value |", "|---|---|", *rows]),
                description="All that decides the result; see runs/…/flags.txt.",
            )
            tf.summary.graph(graph)
            tf.summary.image(
                "augmented_inputs",
                grid(images, 10),
                description="Training images as the network is fed them. Can you still"
                " read each of them? If not, neither need the network.",
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
                    for metric, about in EPOCH_SCALARS.items():
                        if (name := f"{split}_{metric}") not in row:
                            continue  # no binary accuracy of training batches
                        tf.summary.scalar(
                            f"{metric}/by_{axis}",
                            row[name],
                            step=int(row[axis]),
                            description=f"{about} Against {AXES[axis]}.",
                        )

    def network(
        self,
        epoch: int,
        network: tf.Module,
        gradient_norms: Sequence[float],
        taps: Mapping[str, tf.Tensor],
    ) -> None:
        """Weights, batch-norm averages, activations and gradient norms, by layer."""
        histograms, scalars = {}, {}
        for variable in network.variables:
            kind = "weights" if variable.trainable else "batch_norm_averages"
            histograms[kind, _tag(variable)] = variable
        for name, activation in taps.items():
            histograms["activations", name] = activation
        weights = network.trainable_variables
        for variable, norm in zip(weights, gradient_norms, strict=True):
            scalars["gradient_norms", _tag(variable)] = norm
            scalars["weight_norms", _tag(variable)] = tf.norm(variable)
        with self.train.as_default(epoch):
            for (kind, name), values in histograms.items():
                about = NETWORK_SUMMARIES[kind]
                tf.summary.histogram(f"{kind}/{name}", values, description=about)
            for (kind, name), value in scalars.items():
                about = NETWORK_SUMMARIES[kind]
                tf.summary.scalar(f"{kind}/{name}", value, description=about)

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
        for name, about in FINAL_SCALARS.items():
            tf.summary.scalar(f"final/{name}", summary[name], description=about)
        for name, picture in pictures.items():
            about = PICTURES[name]
            tf.summary.image(f"final/{name}", picture[np.newaxis], description=about)
        tf.summary.text(
            "final/tables",
            "\n".join(f"    {s}" for s in text.split("\n")),
            description="Confusions, precision and recall of each digit; look for the"
            " digit with the lowest recall.",
        )
    writer.close()


def _tag(variable: tf.Variable) -> str:
    """lenet/conv1/w:0 → conv1/w"""
    return variable.name.partition("/")[2].partition(":")[0]
