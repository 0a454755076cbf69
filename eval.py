# SPDX-License-Identifier: Apache-2.0
"""Scores a finished run on its test set.

python eval.py --run_dir=runs/lenet-s0
"""

import device  # isort: skip  (first: it loads TensorFlow)

from pathlib import Path

import tensorflow as tf
from absl import flags

import cli
import data
import models
from training import checkpoints, runs, scoring

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of an evaluation; the run directory knows all else."""
    flags.DEFINE_string("run_dir", None, "Directory of the run.", required=True)
    flags.DEFINE_string("data_dir", None, "Where the data lie; default: see BUILD.md.")


def load_network(run_dir: Path) -> tf.Module:
    """The network of a run as it is scored: its weight average, if it keeps one.

    Raises:
      RunError: the directory holds no run, or none that has a checkpoint.
      CheckpointError: the checkpoint is damaged or of another network.
    """
    config = runs.read_run(run_dir)["config"]
    network = models.build(config)
    scored = "average" if config["weight_average"] else "network"
    state = tf.train.Checkpoint(**{scored: network})
    folder = run_dir / "checkpoints"
    if checkpoints.restore(state, folder, partial=True) is None:
        raise runs.RunError(f"{run_dir} has no checkpoint yet: train it first")
    return network


def main(_: list[str]) -> None:
    """Scores the run that --run_dir names."""
    device.set_threads(0)
    run_dir = Path(FLAGS.run_dir)
    network = load_network(run_dir)
    config = runs.read_run(run_dir)["config"]
    dataset = data.load(config["dataset"], FLAGS.data_dir)
    predict = scoring.Predict(network)
    scoring.report(run_dir, predict, dataset.test_images, dataset.test_labels)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
