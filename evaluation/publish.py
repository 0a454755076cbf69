# SPDX-License-Identifier: Apache-2.0
"""Copies of a finished run what scores and reads: a quarter of it, to give away.

    python -m evaluation.publish --run_dir=runs/robust-s0 --to=pretrained/robust

The copy is a run directory like any other, with settings, curves and score, but it
cannot be trained on: of the checkpoint, it has the weights that are scored.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import json
import shutil
from pathlib import Path

import tensorflow as tf
from absl import flags

from config import Config
from evaluation import corruptions, result
from evaluation.trained import TEMPERATURE_FILE
from system import cli
from training import checkpoints, history, runs, weights

FLAGS = flags.FLAGS

KEPT = (runs.FLAGS, history.METRICS, result.RESULT)
KEPT_IF_THERE = (corruptions.CORRUPTIONS_FILE, TEMPERATURE_FILE)


def publish(run_dir: Path, folder: Path) -> None:
    """Copies a run that has been scored.

    Args:
      run_dir: the run.
      folder: for the copy; it must not exist.

    Raises:
      UserError: there is no such run, it has no score, or the folder exists or cannot
        be written. There is no folder, then, unless it was there before.
    """
    if folder.exists():
        raise runs.RunError(f"{folder} exists: delete it, or choose another --to")
    trained = weights.load(run_dir, Config)
    if not (run_dir / result.RESULT).exists():
        command = runs.score_command(run_dir, None)
        raise runs.RunError(f"{run_dir} has no score yet: run {command} first")
    network = {checkpoints.scored(trained.config): trained.network}
    try:
        folder.mkdir(parents=True)
        for name in (*KEPT, *KEPT_IF_THERE):
            if name in KEPT or (run_dir / name).exists():
                shutil.copyfile(run_dir / name, folder / name)
        record = {**trained.record, runs.PUBLISHED: True}
        (folder / runs.RUN).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        checkpoints.save(
            tf.train.Checkpoint(**network),
            folder / checkpoints.FOLDER,
            trained.step,
            runs.identity(trained.record),
        )
    except (OSError, checkpoints.CheckpointError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise runs.not_writable(folder, error) from None
        raise


def main(_: list[str]) -> None:
    """Copies the run that the flags name."""
    folder = Path(FLAGS.to)
    publish(Path(FLAGS.run_dir), folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    cli.define_path("run_dir", None, "Run directory to copy.", required=True)
    cli.define_path("to", None, "New folder for the copy.", required=True)
    cli.run(main)
