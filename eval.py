# SPDX-License-Identifier: Apache-2.0
"""Scores a finished run, or compares several.

python eval.py --run_dir=runs/lenet-s0
python eval.py --run_dir=runs/kaggle-s0 --data_dir=kaggle --submission=submission.csv
python eval.py --run_dir=runs/lenet-s0 --export_dir=exported
python eval.py --compare runs/lenet-s0 runs/lenet_plain-s0
"""

import device  # isort: skip  (first: it loads TensorFlow)

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags

import cli
import data
import models
from data import kaggle
from evaluation import result, scoring
from training import checkpoints, runs

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of an evaluation; the run directory knows all else."""
    flags.DEFINE_string("run_dir", None, "Directory of the run that is scored.")
    flags.DEFINE_string("data_dir", None, "Where the data lie; default: see BUILD.md.")
    flags.DEFINE_bool(
        "compare", False, "Compare the runs whose directories are the arguments."
    )
    flags.DEFINE_string(
        "submission",
        None,
        "CSV file that gets what each test digit is read as, in the form of Kaggle's"
        " competition: ImageId,Label.",
    )
    flags.DEFINE_string(
        "export_dir",
        None,
        "Directory that is made, and gets the network in files that other programs"
        " load.",
    )
    flags.DEFINE_list(
        "export_formats",
        None,
        "Some of saved_model, float, int8 (both TensorFlow Lite) and onnx, separated by"
        " commas; default: all whose converters are installed.",
    )
    flags.register_multi_flags_validator(
        ["export_dir", "export_formats"],
        lambda values: values["export_dir"] or not values["export_formats"],
        "--export_formats says what --export_dir gets: set that too",
    )


def load_network(run_dir: Path) -> tf.Module:
    """The network of a run as it is scored: its weight average, its best weights.

    Raises:
      RunError: the directory holds no run, or none that has a checkpoint.
      CheckpointError: the checkpoint is damaged or of another network.
    """
    config = result.read_config(run_dir)
    try:
        network = models.build(config)
    except (LookupError, TypeError, ValueError) as error:
        raise runs.RunError(
            f"{run_dir / 'run.json'} is damaged, no network can be built as it says"
            f" ({error}): train again"
        ) from None
    scored = "average" if config["weight_average"] else "network"
    state = tf.train.Checkpoint(**{scored: network})
    folder = run_dir / (checkpoints.BEST if config["keep_best"] else checkpoints.FOLDER)
    if checkpoints.restore(state, folder, partial=True) is None:
        raise runs.RunError(f"{run_dir} has no checkpoint yet: train it first")
    return network


def _check_usage(
    compare: bool, run_dir: str | None, output: str | None, arguments: Sequence[str]
) -> None:
    """Raises cli.UsageError unless it is one run to be scored, or some to be compared.

    Args:
      compare: the flag, as is `run_dir`.
      output: what else is to be made of one run.
      arguments: that are no flags.
    """
    if compare and (run_dir or output):
        raise cli.UsageError(
            "--run_dir, --submission and --export_dir are of one run to be scored,"
            " --compare RUN RUN is of some to be compared: give one of the two"
        )
    if arguments and not compare:
        raise cli.UsageError(
            f"unexpected argument {arguments[0]!r}: name a run to be scored by"
            " --run_dir=RUN, runs to be compared by --compare RUN RUN"
        )
    if not (compare or run_dir):
        raise cli.UsageError(
            "nothing to do: give --run_dir=RUN to score a run, or --compare RUN RUN"
        )


def _export(
    run_dir: Path,
    network: tf.Module,
    dataset: data.Dataset,
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Writes the network to --export_dir, checked on the digits that are scored."""
    from evaluation import export

    run = runs.read_run(run_dir)
    config = run["config"]
    split = result.scored_split(scored)
    trained_on, _ = data.split(
        len(dataset.train_labels), config["validation_size"], config["split_seed"]
    )
    table = export.export(
        network,
        Path(FLAGS.export_dir),
        export.choose(FLAGS.export_formats),
        *scored[split],
        calibration=dataset.train_images[trained_on],
        facts={"run": run, "checked_on": split, "environment": runs.environment()},
    )
    print(f"\n{table}\n{FLAGS.export_dir}")


def main(argv: list[str]) -> None:
    """Scores the run that --run_dir names, or compares those that are arguments."""
    _, *arguments = argv
    output = FLAGS.submission or FLAGS.export_dir
    _check_usage(FLAGS.compare, FLAGS.run_dir, output, arguments)
    if FLAGS.compare:
        from evaluation import comparison  # loads scipy.stats, which takes a second

        print(comparison.compare([Path(argument) for argument in arguments]))
        return
    device.set_threads(0)
    if FLAGS.export_dir:
        from evaluation import export

        export.check(Path(FLAGS.export_dir), export.choose(FLAGS.export_formats))
    run_dir = Path(FLAGS.run_dir)
    predict = scoring.Predict(load_network(run_dir))
    config = result.read_config(run_dir)
    dataset = data.load(config["dataset"], FLAGS.data_dir)
    runs.check_data(run_dir, dataset.hashes)
    if FLAGS.submission:
        logits = scoring.predict_all(predict, dataset.test_images)
        kaggle.write_submission(FLAGS.submission, logits.argmax(1))
        print(FLAGS.submission)
    scored = data.scored(dataset, config["validation_size"], config["split_seed"])
    if scored:
        result.evaluate(run_dir, predict, scored)
        if FLAGS.export_dir:
            _export(run_dir, predict.network, dataset, scored)
    elif not FLAGS.submission:
        raise runs.RunError(
            f"{run_dir} has nothing to be scored on: its test set has no labels, and no"
            " images were held out; give --submission, or train with --validation_size"
        )


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True)
