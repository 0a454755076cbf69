# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard shows of a run.

Three writers, `train`, `validation` and `test`, so that their curves share a plot, and
a fourth, `final`, for the score at the end, so that it has a folder of its own for the
HParams tab. Tags are chosen so that TensorBoard, which sorts them, opens on the
accuracy. Those that end in `by_step` count steps on the horizontal axis, `by_images`
images seen so far; all others count epochs. Each has a description, behind the (i)
beside its plot, of what to look for.

No point is ever shown twice. TensorBoard can be told to forget what follows a step, but
knows one kind of step only; so a run that is gone on with first cuts its events off
where its checkpoint was saved. TensorFlow's writer says nothing of a full disk or a
vanished folder; so what it wrote is looked at.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.util.tensor_util import make_tensor_proto

from system import errors, files, untrusted
from training import runs

# TensorBoard reads the files of a folder in the order of their names, in which
# TensorFlow puts the time, zero-padded: before any time is what was kept.
TRAINING = ".training.v2"  # at the end of the name of a file
SCORE = ".score.v2"
FINAL = "final"  # the folder of the score
KEPT = f"events.out.tfevents.0000000000.kept{TRAINING}"

HEADER, FOOTER = 12, 4  # bytes of a record around its data

BUCKETS = 30  # of a histogram, as TensorBoard has them

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
    "training_seconds": "Time in training steps, evaluation and logging left out.",
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

# Plots that the Custom Scalars tab opens on: title → tag.
CHARTS = {
    "Accuracy against epoch: do validation and test follow training?": (
        "accuracy/by_epoch"
    ),
    "Loss against epoch: where it rises again, the network learns by heart": (
        "loss/by_epoch"
    ),
    "Learning rate against step: the schedule": "learning_rate/by_step",
}


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Tiles uint8 [N, 28, 28, 1] into one picture [1, rows · 28, columns · 28, 1]."""
    rows = len(images) // columns
    tiles = images[: rows * columns].reshape(rows, columns, 28, 28)
    return tiles.transpose(0, 2, 1, 3).reshape(1, rows * 28, columns * 28, 1)


def rewind(run_dir: Path, split: str, length: int) -> None:
    """Cuts the events of training off behind `length` bytes; whole ones only stay.

    They are all in one file afterwards. Killed at any moment and called again, it
    ends the same.

    Raises:
      RunError: the folder cannot be written.
    """
    folder = run_dir / split
    parts = sorted(folder.glob(f"*{TRAINING}"))
    try:
        kept = _first(parts, length)
        if kept:
            with files.replacing(folder / KEPT) as file:
                file.write(kept)
        for part in parts:
            if part.name != KEPT or not kept:
                part.unlink()
        if parts:
            files.remove_leftovers(folder)
            files.flush(folder)
    except OSError as error:
        raise _not_written(folder, errors.reason(error)) from None


def lost(run_dir: Path, lengths: Mapping[str, int]) -> list[str]:
    """The splits of which fewer bytes of events are there than there were.

    Args:
      run_dir: of the run.
      lengths: of each split's events, as `Summaries.flush` returned them.

    Raises:
      RunError: the events cannot be read.
      TypeError, ValueError: these are no lengths.
    """
    found = []
    for split, length in lengths.items():
        folder = run_dir / split
        if length < 0:
            raise ValueError("a length below 0")
        try:
            kept = _first(sorted(folder.glob(f"*{TRAINING}")), length)
        except OSError as error:
            raise _not_written(folder, errors.reason(error)) from None
        if len(kept) < length:
            found.append(split)
    return found


def _first(parts: Iterable[Path], length: int) -> bytes:
    """The first bytes of events, `length` at most, as far as they are whole."""
    kept = b""
    for part in parts:
        with untrusted.open_file(part) as file:
            # Of a length that is none, no more than there is.
            size = os.fstat(file.fileno()).st_size
            kept += file.read(min(length - len(kept), size))
    return kept[: _end_of_records(kept)]


def _end_of_records(content: bytes) -> int:
    """Where the last whole record ends: length, its checksum, data, their checksum."""
    end = 0
    while end + HEADER <= len(content):
        length, checksum = content[end : end + 8], content[end + 8 : end + HEADER]
        if masked_crc32c(length) != int.from_bytes(checksum, "little"):
            break
        following = end + HEADER + int.from_bytes(length, "little") + FOOTER
        if following > len(content):
            break
        end = following
    return end


def _not_written(folder: Path, reason: str) -> runs.RunError:
    return runs.RunError(
        f"cannot write TensorBoard's events to {folder}: {reason}; make room, or choose"
        " another --run_dir"
    )


class _Writer:
    """TensorFlow's writer, and a look at what it wrote.

    Args:
      folder: of a split; made if it is not there.
      suffix: of the file; there must be no other of this suffix but `KEPT`.
    """

    def __init__(self, folder: Path, suffix: str):
        self._folder = folder
        self._end = 0  # of the whole records
        self._used = True  # by the writer itself, which states its version
        try:
            folder.mkdir(exist_ok=True)  # TensorFlow would make a vanished run's, too
            self._writer = tf.summary.create_file_writer(
                str(folder), filename_suffix=suffix
            )
            self._writer.flush()
        except (OSError, tf.errors.OpError) as error:
            raise _not_written(folder, errors.reason(error)) from None
        names = {path.name for path in folder.glob(f"*{suffix}")} - {KEPT}
        if not names:
            raise _not_written(folder, "the file is not there")
        self._path = folder / max(names)
        self.flush()

    @contextlib.contextmanager
    def at(self, step: int) -> Iterator[None]:
        """What is summarised inside goes here; raises RunError as `flush` does."""
        self._used = True
        try:
            with self._writer.as_default(step):
                yield
        except tf.errors.OpError as error:  # it does not always keep silent
            raise _not_written(self._folder, errors.reason(error)) from None

    def flush(self) -> None:
        """Puts on disk what was written so far.

        Raises:
          RunError: it is not there, or not whole.
        """
        if not self._used:
            return
        try:
            self._writer.flush()
            files.flush(self._path)
            with open(self._path, "rb") as file:
                file.seek(self._end)
                added = file.read()
        except (OSError, tf.errors.OpError) as error:
            raise _not_written(self._folder, errors.reason(error)) from None
        if not added or _end_of_records(added) < len(added):
            raise _not_written(self._folder, "the disk is full, or has a fault")
        self._end += len(added)
        self._used = False

    def close(self) -> None:
        """To be called after `flush`: what was not written by then is given up."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()


class Summaries:
    """Writes TensorBoard events under a run directory; a context manager.

    Args:
      run_dir: gets a folder per split.
      splits: "train" and those of "validation" and "test" that are scored.
      lengths: of each split's events, as `flush` returned them, where the run goes
        on; all others are removed.

    Raises:
      RunError: here and in `flush`: the events cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        splits: Sequence[str],
        lengths: Mapping[str, int] | None = None,
    ):
        self._run_dir = run_dir
        for split in splits:
            rewind(run_dir, split, (lengths or {}).get(split, 0))
        self.writers = {split: _Writer(run_dir / split, TRAINING) for split in splits}
        self.train = self.writers["train"]

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers.values():
            writer.close()

    def start(
        self, config: Mapping[str, Any], graph: tf.Graph, images: np.ndarray
    ) -> None:
        """First plots, flags as a table, the network's graph, some training images."""
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
                description="All that decides the result; flags.txt in the run's"
                " directory has it as a flagfile.",
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
        with self.train.at(step):
            _write(
                scalar_pb(f"{name}/by_step", value, STEP_SCALARS[name])
                for name, value in values.items()
            )

    def epoch(self, row: Mapping[str, float]) -> None:
        """Loss and accuracy of each split, against the epoch and the images seen.

        Args:
          row: of metrics.csv, with `epoch`, `images` and `<split>_<metric>`.
        """
        for split, writer in self.writers.items():
            for axis in ("epoch", "images"):
                with writer.at(int(row[axis])):
                    for metric, about in EPOCH_SCALARS.items():
                        if (name := f"{split}_{metric}") not in row:
                            continue  # no binary accuracy of training batches
                        tf.summary.scalar(
                            f"{metric}/by_{axis}",
                            row[name],
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
        found = []
        for variable in network.variables:
            kind = "weights" if variable.trainable else "batch_norm_averages"
            found.append((_histogram, kind, _tag(variable), variable.numpy()))
        for name, activation in taps.items():
            found.append((_histogram, "activations", name, activation.numpy()))
        weights = network.trainable_variables
        for variable, norm in zip(weights, gradient_norms, strict=True):
            name, weight_norm = _tag(variable), np.linalg.norm(variable.numpy())
            found.append((scalar_pb, "gradient_norms", name, norm))
            found.append((scalar_pb, "weight_norms", name, weight_norm))
        with self.train.at(epoch):
            _write(
                make(f"{kind}/{name}", value, description=NETWORK_SUMMARIES[kind])
                for make, kind, name, value in found
            )

    def errors(self, epoch: int, split: str, picture: np.ndarray) -> None:
        """The digits of a split that are misread after an epoch, uint8 [H, W, 1]."""
        with self.writers[split].at(epoch):
            tf.summary.image(
                "errors",
                picture[np.newaxis],
                description="Misread digits, the surest first; below each what it is"
                " and what it was read as. Move the slider: those that stay to the last"
                " epoch are hard, or wrongly labelled.",
            )

    def flush(self) -> dict[str, int]:
        """Puts on disk what was written so far; returns how many bytes of each split.

        Those of the starts before this one are counted in.
        """
        lengths = {}
        for split, writer in self.writers.items():
            writer.flush()
            parts = (self._run_dir / split).glob(f"*{TRAINING}")
            lengths[split] = sum(part.stat().st_size for part in parts)
        return lengths


def write_score(
    run_dir: Path,
    step: int,
    text: str,
    summary: Mapping[str, Any],
    pictures: Mapping[str, np.ndarray],
    others: Iterable[Message] = (),
) -> None:
    """The score at a run's last step: figures as scalars, tables as text, pictures.

    An earlier score is removed.

    Args:
      run_dir: of the run.
      step: the last.
      text: the tables.
      summary: with the figures named in `FINAL_SCALARS`.
      pictures: uint8 [H, W, 3], by the names in `PICTURES`.
      others: Summary protocol buffers, as plugins of TensorBoard want them.

    Raises:
      RunError: it cannot be written.
    """
    for earlier in (run_dir / FINAL).glob(f"*{SCORE}"):
        earlier.unlink(missing_ok=True)
    writer = _Writer(run_dir / FINAL, SCORE)
    with writer.at(step):
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
        for other in others:
            tf.summary.experimental.write_raw_pb(other.SerializeToString())
    writer.flush()
    writer.close()


def _write(summaries: Iterable[Message]) -> None:
    """Several in one go: each operation of TensorFlow's takes most of a millisecond."""
    together = Summary()
    for summary in summaries:
        together.MergeFrom(summary)
    tf.summary.experimental.write_raw_pb(together.SerializeToString())


def _histogram(tag: str, values: np.ndarray, description: str) -> Message:
    """What TensorBoard's own `histogram_pb` makes of values, in a sixth of the time."""
    data = values.ravel().astype(np.float64)
    low, high = (data.min(), data.max()) if data.size else (0.0, 0.0)
    if low == high or not np.isfinite(high - low):
        return histogram_pb(tag, data, BUCKETS, description)
    places = ((data - low) / ((high - low) / BUCKETS)).astype(np.int64)
    counts = np.bincount(np.minimum(places, BUCKETS - 1), minlength=BUCKETS)
    edges = np.linspace(low, high, BUCKETS + 1)
    summary = histogram_pb(tag, [], BUCKETS, description)
    rows = np.stack([edges[:-1], edges[1:], counts], 1)
    summary.value[0].tensor.CopyFrom(make_tensor_proto(rows))
    return summary


def _layout() -> layout_pb2.Layout:
    """What the Custom Scalars tab shows."""
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
