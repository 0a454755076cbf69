# SPDX-License-Identifier: Apache-2.0
"""Teachers: trained networks whose probabilities a run learns from.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. Each
teacher's logits for all images of the training set are computed once, and stored next
to the enlarged sets. With --teach_online, the teachers look at each batch as the
network is fed it, as Beyer et al., "Knowledge distillation: A good teacher is patient
and consistent", 2022, advise; that costs a forward pass of each in every step.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from models import kernels
from system import errors, files, untrusted
from training import checkpoints, runs, sets, weights

BATCH = 1000  # images that a teacher is shown at a time
FORMAT = 1  # of the files of logits

# (images uint8 [b, 28, 28, 1] as fed, indices int64 [b] of these in the training set) →
# probabilities, float32 [b, classes]
Teach = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Teacher(NamedTuple):
    """A trained run to learn from."""

    directory: Path
    network: tf.Module
    sha256: str  # of its weights and settings


def load(run_dir: Path, config: Any, classes: Sequence[str]) -> list[Teacher]:
    """Loads the teachers of a run; none without --teachers.

    Args:
      run_dir: run directory; it may hold the run.
      config: settings of the run, a `config.Config`.
      classes: names of its classes.

    Raises:
      RunError: a teacher cannot be read or knows other classes, or the run in the
        directory has learned from other teachers.
    """
    teachers = [_load(Path(name), type(config), classes) for name in config.teachers]
    if (run_dir / runs.RUN).exists():
        recorded = runs.read_run(run_dir).get("teachers_sha256", [])
        if recorded != hashes(teachers):
            before = (
                "teachers other than --teachers names" if recorded else "no teachers"
            )
            raise runs.RunError(
                f"{run_dir} holds a run that learned from {before}: choose another"
                " --run_dir for this one, or resume that one by"
                f" {runs.resume_command(run_dir)}"
            )
    return teachers


def hashes(teachers: Sequence[Teacher]) -> list[str]:
    """SHA-256 of each teacher, for run.json."""
    return [teacher.sha256 for teacher in teachers]


def _load(directory: Path, kind: Any, classes: Sequence[str]) -> Teacher:
    trained = weights.load(directory, kind)
    if (known := runs.classes_of(trained.record)) != tuple(classes):
        raise runs.RunError(
            f"--teachers: {directory} knows the classes {', '.join(known[:10])}, not"
            f" those of this run, {', '.join(classes[:10])}: name runs of one dataset"
        )
    learned = weights.sha256(weights.by_layer(trained.network))
    settings = checkpoints.fingerprint(runs.identity(trained.record))
    sha256 = hashlib.sha256(f"{learned} {settings}".encode()).hexdigest()
    return Teacher(directory, trained.network, sha256)


def build(
    config: Any, teachers: Sequence[Teacher], data_sets: sets.Sets
) -> Teach | None:
    """Returns what gives the teachers' probabilities for a batch; None without any.

    The probabilities are the mean over the teachers of softmax(logits / temperature).

    Raises:
      UsageError: the set stays on disk, where no logits can be stored for it.
      UserError: stored logits are damaged or cannot be written.
    """
    if not teachers:
        return None
    if config.teach_online:
        return online(config, teachers)
    if data_sets.stored is not None:
        raise errors.UsageError(
            "--teachers stores a row of logits for each image in memory, but"
            " --memory_mb leaves the images on disk: add --teach_online, or leave"
            " --memory_mb out"
        )
    folder = Path(config.augmented_dir)
    images = data_sets.train_images
    images_sha256 = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    total = np.zeros([len(images), len(data_sets.classes)], np.float32)
    for teacher in teachers:
        stored = _Stored(folder, images_sha256, teacher, len(data_sets.classes))
        logits = stored.read(len(images))
        if logits is None:
            files.check_writable(folder, "augmented_dir", is_folder=True)
            logits = predict(config, teacher, images)
            stored.write(logits)
        total += tf.nn.softmax(logits / np.float32(config.temperature)).numpy()
    targets = tf.constant(total / np.float32(len(teachers)))
    return lambda images, indices: tf.gather(targets, indices)


def imitate(config: Any, teachers: Sequence[Teacher], classes: int) -> Teach | None:
    """Returns what takes as long as `build` would in a step, without stored logits."""
    if not teachers:
        return None
    if config.teach_online:
        return online(config, teachers)
    return lambda images, indices: tf.fill([tf.size(indices), classes], 1 / classes)


def online(config: Any, teachers: Sequence[Teacher]) -> Teach:
    """Returns what shows the images of a batch to all teachers, in the graph."""

    def teach(images, indices):
        each = [_logits(config, teacher, images) for teacher in teachers]
        return tf.reduce_mean(tf.nn.softmax(tf.stack(each) / config.temperature), 0)

    return teach


def _logits(config: Any, teacher: Teacher, images: tf.Tensor) -> tf.Tensor:
    ours = config.kernels == "native"
    with kernels.predicting(many=True) if ours else contextlib.nullcontext():
        return teacher.network(images, training=False)[0]


def predict(config: Any, teacher: Teacher, images: np.ndarray) -> np.ndarray:
    """Logits of images uint8 [N, 28, 28, 1], float32 [N, classes].

    As many parts of a batch as the run has replicas are computed side by side.
    """
    parts = config.replicas

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([parts * BATCH, 28, 28, 1], tf.uint8)],
    )
    def logits(batch):
        pieces = tf.split(batch, parts)
        return tf.concat([_logits(config, teacher, piece) for piece in pieces], 0)

    size, found = parts * BATCH, []
    with tqdm(desc="teach", total=len(images), unit="img", disable=None) as bar:
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padded = np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
            found.append(logits(padded).numpy()[: len(batch)])
            bar.update(len(batch))
    return np.concatenate(found)


class _Stored:
    """The logits of a teacher for one set of images: numbers, and a manifest of them.

    The manifest has the hashes of the images, the teacher and the numbers; it is
    written last, so that numbers without one count as missing.
    """

    def __init__(
        self, folder: Path, images_sha256: str, teacher: Teacher, classes: int
    ):
        name = f"logits-{images_sha256[:8]}-{teacher.sha256[:8]}"
        self._numbers = folder / f"{name}.f32"  # little-endian float32 [N, classes]
        self._manifest = folder / f"{name}.json"
        self._classes = classes
        self._about = {
            "format": FORMAT,
            "images_sha256": images_sha256,
            "teacher_sha256": teacher.sha256,
        }

    def read(self, count: int) -> np.ndarray | None:
        """Reads the logits of `count` images; None if they are not stored yet."""
        if not self._manifest.exists():
            return None
        try:
            size = 4 * count * self._classes
            content = untrusted.read(self._numbers, size)
            about = {**self._about, "sha256": hashlib.sha256(content).hexdigest()}
            if untrusted.read_json(self._manifest) != about or len(content) != size:
                raise ValueError("altered")
        except (OSError, ValueError) as error:
            raise errors.UserError(
                f"{self._numbers} is damaged ({errors.reason(error)}): delete it and"
                f" {self._manifest.name}, to have the logits computed again"
            ) from None
        return np.frombuffer(content, "<f4").reshape(count, self._classes)

    def write(self, logits: np.ndarray) -> None:
        """Writes the logits, then their manifest; UserError if that fails."""
        content = logits.astype("<f4").tobytes()
        about = {**self._about, "sha256": hashlib.sha256(content).hexdigest()}
        remedy = "choose another --augmented_dir"
        try:
            self._numbers.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(
                f"cannot write {self._numbers.parent}: {error.strerror}; {remedy}"
            ) from None
        files.write(self._numbers, content, remedy=remedy)
        files.write(self._manifest, json.dumps(about, indent=1) + "\n", remedy=remedy)
