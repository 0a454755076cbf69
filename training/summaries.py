# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard shows of a run.

There are four writers: `train`, `validation` and `test`, so that their curves share a
plot, and `final` for the score at the end, in a folder of its own for the HParams tab.
TensorBoard sorts tags, and with ours it opens on the accuracy. Tags that end in
`by_step` are plotted against steps, those in `by_images` against images seen, all
others against epochs. The description behind a plot's (i) says what to look for.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.util.tensor_util import make_tensor_proto

from training import events

FINAL = "final"  # folder of the score
HISTOGRAM_BUCKETS = 30  # TensorBoard's default

# Tag → description.
STEP_SCALARS = {
    "accuracy": "Training accuracy since the last point, with dropout and augmentation"
    " on.",
    "loss": "Mean training loss since the last point. Should fall, then flatten.",
    "learning_rate": "Learning rate in force, from the schedule.",
    "images_per_second": "Training speed, without evaluation and logging.",
    "gradient_norm": "Norm of all gradients together. A jump is an early warning.",
}
EPOCH_SCALARS = {
    "accuracy": "Validation and test accuracy should follow training accuracy; if they"
    " fall behind and stay there, the network overfits.",
    "binary_accuracy": "Share of correct answers to ten yes-or-no questions: is it a 0,"
    " …, is it a 9? A flattering figure; compare it only with itself.",
    "loss": "Mean loss. Should fall with the errors; if it rises again on validation or"
    " test images, the network memorises its training images.",
}
AXES = {"epoch": "epochs, from 0", "images": "images seen"}
FINAL_SCALARS = {
    "accuracy": "Accuracy after the last step: the result of the run.",
    "binary_accuracy": "As binary_accuracy/by_epoch, after the last step.",
    "errors": "Errors after the last step; ten more or fewer in 10,000 are chance.",
    "loss": "Mean loss after the last step. High with few errors: confidently wrong.",
    "training_seconds": "Time in training steps, without evaluation and logging.",
}
# One plot for each layer.
NETWORK_SUMMARIES = {
    "weights": "Should spread slowly from their initial values. A layer that does not"
    " move does not learn; one that keeps growing needs weight decay.",
    "batch_norm_averages": "Moving averages that are used for evaluation. Should settle"
    " as the learning rate falls.",
    "activations": "Outputs for a few training images. All at one value: a dead layer."
    " Ever wider: activations explode. SELU's stay near mean 0 and variance 1.",
    "gradient_norms": "From the last step of the epoch. Should fall slowly; no layer's"
    " should be a thousandth of another's.",
    "weight_norms": "Grow at first, then level off; weight decay pulls them down.",
}
PICTURES = {
    "learning_curves": "Loss, accuracy and learning rate by epoch.",
    "confusion_matrix": "True digits in rows. Look for the darkest cells.",
    "precision_recall": "Precision against recall of the worst ten classes, at every"
    " threshold; the axes show the corner near 100 % alone. Compare classes there.",
    "calibration": "Points below the diagonal: overconfident.",
    "confidence": "Errors should be on the left, where the network is unsure.",
    "filters": "Strokes and edges are learned features; noise is not.",
    "feature_maps": "Maps that are alike or empty are of no use.",
    "worst_errors": "Errors furthest from their label: hard, or mislabelled?",
}

# Plots of the Custom Scalars tab: title → tag. A title has room for 48 characters.
CHARTS = {
    "Accuracy by epoch: does test follow training?": "accuracy/by_epoch",
    "Loss by epoch: does it rise again? (overfitting)": "loss/by_epoch",
    "Learning rate by step: the schedule": "learning_rate/by_step",
}


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Tiles uint8 [N, 28, 28, 1] into one picture [1, rows · 28, columns · 28, 1].

    The last row is filled up with blank tiles.
    """
    rows = -(-len(images) // columns)
    blank = np.zeros([rows * columns - len(images), 28, 28, 1], np.uint8)
    tiles = np.concatenate([images, blank]).reshape(rows, columns, 28, 28)
    return tiles.transpose(0, 2, 1, 3).reshape(1, rows * 28, columns * 28, 1)


class Summaries:
    """Writes TensorBoard events under a run directory; a context manager.

    Args:
      run_dir: run directory; gets a folder for each split.
      splits: "train", and "validation" and "test" if they are scored.
      lengths: result of `flush` at the checkpoint that the run resumes from; later
        events are removed.

    This and all methods raise RunError if the events cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        splits: Sequence[str],
        lengths: Mapping[str, int] | None = None,
    ):
        self._run_dir = run_dir
        for split in splits:
            events.rewind(run_dir, split, (lengths or {}).get(split, 0))
        self.writers = {
            split: events.Writer(run_dir / split, events.TRAINING_SUFFIX)
            for split in splits
        }
        self.train = self.writers["train"]

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers.values():
            writer.close()

    def start(self, config: Mapping[str, Any]) -> None:
        """Writes the chart layout and the flags."""
        rows = [f"| `--{name}` | `{value}` |" for name, value in config.items()]
        with self.train.at(0):
            tf.summary.write(
                metadata.CONFIG_SUMMARY_TAG,
                _layout().SerializeToString(),
                metadata=metadata.create_summary_metadata(),
            )
            tf.summary.text(
                "flags",
                "\n".join(["| flag | value |", "|---|---|", *rows]),
                description="All flags that affect the result, as the run was begun;"
                " with --epochs of today they are in the run directory's flags.txt.",
            )

    def graph(self, graph: tf.compat.v1.GraphDef) -> None:
        """Writes the graph of a training step."""
        with self.train.at(0):
            tf.summary.graph(graph)

    def fed(self, epoch: int, images: np.ndarray) -> None:
        """Writes what the network was fed in an epoch's first step.

        The images are uint8 [N, 28, 28, 1].
        """
        with self.train.at(epoch):
            tf.summary.image(
                "batch_as_fed",
                grid(images, 10),
                description="The first images of the epoch's first batch, as the"
                " network was fed them: drawn and transformed. If you cannot read one,"
                " do not expect the network to.",
            )

    def steps(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars by their names in `STEP_SCALARS`."""
        with self.train.at(step):
            _write(
                scalar_pb(f"{name}/by_step", value, STEP_SCALARS[name])
                for name, value in values.items()
            )

    def epoch(self, row: Mapping[str, float]) -> None:
        """Writes a row of metrics.csv: loss and accuracy against epochs and images."""
        for split, writer in self.writers.items():
            for axis in ("epoch", "images"):
                with writer.at(int(row[axis])):
                    for metric, about in EPOCH_SCALARS.items():
                        if (name := f"{split}_{metric}") not in row:
                            continue  # training batches have no binary accuracy
                        tf.summary.scalar(
                            f"{metric}/by_{axis}",
                            row[name],
                            description=f"{about} Against {AXES[axis]}.",
                        )

    def network(
        self,
        epoch: int,
        network: tf.Module,
        gradient_norms: Iterable[tuple[tf.Variable, float]],
        taps: Mapping[str, tf.Tensor],
    ) -> None:
        """Writes weights, batch-norm averages, activations and norms, by layer.

        Gradient norms come with their weights; frozen ones have none.
        """
        made = []
        for variable in network.variables:
            kind = "weights" if variable.trainable else "batch_norm_averages"
            made.append(_histogram(kind, _tag(variable), variable.numpy()))
        for name, activation in taps.items():
            made.append(_histogram("activations", name, activation.numpy()))
        for variable, norm in gradient_norms:
            name, weight_norm = _tag(variable), float(np.linalg.norm(variable.numpy()))
            made.append(_scalar("gradient_norms", name, norm))
            made.append(_scalar("weight_norms", name, weight_norm))
        with self.train.at(epoch):
            _write(made)

    def errors(self, epoch: int, split: str, picture: np.ndarray) -> None:
        """Writes a picture of a split's errors after an epoch, uint8 [H, W, 1]."""
        with self.writers[split].at(epoch):
            tf.summary.image(
                "errors",
                picture[np.newaxis],
                description="Errors, the most confident first, each with its label and"
                " the prediction. Move the slider: errors that stay to the last epoch"
                " are hard, or mislabelled.",
            )

    def flush(self) -> dict[str, int]:
        """Writes everything to disk; returns the length of each split's events."""
        for writer in self.writers.values():
            writer.flush()
        return {
            split: events.total_bytes(self._run_dir, split) for split in self.writers
        }


def write_score(
    run_dir: Path,
    step: int,
    text: str,
    summary: Mapping[str, Any],
    pictures: Mapping[str, np.ndarray],
    others: Iterable[Message] = (),
) -> None:
    """Writes the score at a run's last step, and removes any earlier score.

    Args:
      run_dir: run directory.
      step: the last step.
      text: tables.
      summary: figures by name, among them those of `FINAL_SCALARS`.
      pictures: uint8 [H, W, 3], by the names in `PICTURES`.
      others: Summary protocol buffers for plugins of TensorBoard.

    Raises RunError if the score cannot be written.
    """
    for earlier in (run_dir / FINAL).glob(f"*{events.SCORE_SUFFIX}"):
        earlier.unlink(missing_ok=True)
    writer = events.Writer(run_dir / FINAL, events.SCORE_SUFFIX)
    with writer.at(step):
        for name, about in FINAL_SCALARS.items():
            tf.summary.scalar(f"final/{name}", summary[name], description=about)
        for name, picture in pictures.items():
            about = PICTURES[name]
            tf.summary.image(f"final/{name}", picture[np.newaxis], description=about)
        tf.summary.text(
            "final/tables",
            "\n".join(f"    {s}" for s in text.split("\n")),
            description="Confusions, and precision and recall by digit. Which digit has"
            " the lowest recall?",
        )
        for other in others:
            tf.summary.experimental.write_raw_pb(other.SerializeToString())
    writer.flush()
    writer.close()


def _write(summaries: Iterable[Message]) -> None:
    """Writes all summaries in one operation, since each takes most of a millisecond."""
    together = Summary()
    for summary in summaries:
        together.MergeFrom(summary)
    tf.summary.experimental.write_raw_pb(together.SerializeToString())


def _scalar(kind: str, name: str, value: float) -> Message:
    return scalar_pb(f"{kind}/{name}", value, description=NETWORK_SUMMARIES[kind])


def _histogram(kind: str, name: str, values: np.ndarray) -> Message:
    """Does what TensorBoard's `histogram_pb` does, in a sixth of the time."""
    tag, description = f"{kind}/{name}", NETWORK_SUMMARIES[kind]
    data = values.ravel().astype(np.float64)
    low, high = (data.min(), data.max()) if data.size else (0.0, 0.0)
    if low == high or not np.isfinite(high - low):
        return histogram_pb(tag, data, HISTOGRAM_BUCKETS, description)
    places = ((data - low) / ((high - low) / HISTOGRAM_BUCKETS)).astype(np.int64)
    counts = np.bincount(
        np.minimum(places, HISTOGRAM_BUCKETS - 1), minlength=HISTOGRAM_BUCKETS
    )
    edges = np.linspace(low, high, HISTOGRAM_BUCKETS + 1)
    summary = histogram_pb(tag, [], HISTOGRAM_BUCKETS, description)
    rows = np.stack([edges[:-1], edges[1:], counts], 1)
    summary.value[0].tensor.CopyFrom(make_tensor_proto(rows))
    return summary


def _layout() -> layout_pb2.Layout:
    """Layout of the Custom Scalars tab."""
    charts = [
        layout_pb2.Chart(
            title=title, multiline=layout_pb2.MultilineChartContent(tag=[f"^{tag}$"])
        )
        for title, tag in CHARTS.items()
    ]
    category = layout_pb2.Category(title="What to look at first", chart=charts)
    return layout_pb2.Layout(category=[category])


def _tag(variable: tf.Variable) -> str:
    """lenet/conv1/w:0 → conv1/w"""
    return variable.name.partition("/")[2].partition(":")[0]
