# SPDX-License-Identifier: Apache-2.0
"""Scores a finished run, reads photos by it, or compares several.

python eval.py --run_dir=runs/lenet-s0
python eval.py --run_dir=runs/kaggle-s0 --data_dir=kaggle --submission=submission.csv
python eval.py --run_dir=runs/lenet-s0 --images=photos/*.jpg --annotated_dir=read
python eval.py --run_dir=runs/lenet-s0 --export_dir=exported
python eval.py --compare runs/lenet-s0 runs/lenet_plain-s0
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

from system import device  # isort: skip  (first: it loads TensorFlow)

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags

import data
import models
from data import kaggle
from evaluation import result, scoring
from system import cli, console, errors, files
from training import checkpoints, runs
from training.environment import current_environment

FLAGS = flags.FLAGS

# For --help.
FLAG_GROUPS: cli.Groups = {
    "What is scored": ("run_dir", "data_dir", "compare"),
    "Reading photos": ("images", "ink", "readings", "annotated_dir"),
    "Taking it along": ("export_dir", "export_formats", "submission"),
}


def define_flags() -> None:
    """The flags of an evaluation; the run directory knows all else."""
    cli.define_path("run_dir", None, "Directory of the run that is scored.")
    cli.define_path("data_dir", None, "Where the data lie; default: see BUILD.md.")
    flags.DEFINE_bool(
        "compare", False, "Compare the runs whose directories are the arguments."
    )
    cli.define_path(
        "submission",
        None,
        "CSV file that gets what each test digit is read as, in the form of Kaggle's"
        " competition: ImageId,Label.",
    )
    cli.define_path(
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
    _define_photo_flags()


def _define_photo_flags() -> None:
    """The flags of reading photos instead of scoring."""
    cli.define_paths(
        "images",
        "Photos whose digits are read: files, folders, patterns such as '*.jpg'; PNG,"
        " JPEG, WebP, BMP or TIFF. Arguments that are no flags are photos too.",
    )
    flags.DEFINE_enum(
        "ink",
        "auto",
        ["auto", "dark", "light"],
        "Whether the digits of --images are darker or lighter than their paper.",
    )
    cli.define_path(
        "readings",
        None,
        "File that gets what is read on --images: .csv or .json.",
    )
    cli.define_path(
        "annotated_dir",
        None,
        "Folder that gets each of --images with what is read drawn on it, as PNG.",
    )
    flags.register_validator(
        "readings",
        lambda name: name is None or name.lower().endswith((".csv", ".json")),
        "expected a file name that ends in .csv or .json",
    )


def load_network(run_dir: Path) -> tuple[tf.Module, int]:
    """The network of a run as it is scored: its weight average, its best weights.

    Returns:
      The network, and the step of the checkpoint that it comes from.

    Raises:
      RunError: the directory holds no run, none that has a checkpoint, or a link.
      CheckpointError: the checkpoint is damaged or of another network.
    """
    runs.check_contents(run_dir)
    config = result.read_config(run_dir)
    try:
        network = models.build(config)
    except (LookupError, TypeError, ValueError) as error:
        raise _no_network(run_dir, error) from None
    scored = "average" if config["weight_average"] else "network"
    scored = "best" if config["keep_best"] else scored
    state = tf.train.Checkpoint(**{scored: network})
    folder = run_dir / checkpoints.FOLDER
    step = checkpoints.restore(state, folder, config, partial=True)
    if step is None:
        raise runs.RunError(f"{run_dir} has no checkpoint yet: train it first")
    return network, step


def _load_trained(run_dir: Path) -> tuple[scoring.Predict, int]:
    """`load_network`, refused if it has no epoch behind it; as a graph.

    A run saves its network before the first step, so that a checkpoint alone does not
    say that there was any training.
    """
    network, step = load_network(run_dir)
    result.epochs(run_dir, step)
    try:
        return scoring.Predict(network), step
    except (TypeError, ValueError) as error:  # a rate that is none shows here only
        raise _no_network(run_dir, error) from None


def _no_network(run_dir: Path, error: Exception) -> runs.RunError:
    return runs.RunError(
        f"{run_dir / 'run.json'} is damaged, no network can be built as it says"
        f" ({errors.reason(error)}): train again"
    )


def _check_usage(values: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Raises errors.UsageError unless it is clear what is to be done.

    Args:
      values: of the flags, by name.
      arguments: that are no flags.
    """
    compare, images = values["compare"], values["images"]
    run_dir, output = values["run_dir"], values["submission"] or values["export_dir"]
    if images and (compare or output):
        raise errors.UsageError(
            "--images is of photos to be read, --submission and --export_dir are of a"
            " run to be scored, --compare of some to be compared: give one of the three"
        )
    if values["data_dir"] and (images or compare):
        raise errors.UsageError(
            "--data_dir is of a run to be scored: leave it out with --images and"
            " --compare"
        )
    _check_photo_usage(values)
    if compare and (run_dir or output):
        raise errors.UsageError(
            "--run_dir, --submission and --export_dir are of one run to be scored,"
            " --compare RUN RUN is of some to be compared: give one of the two"
        )
    if arguments and not (compare or images):
        raise errors.UsageError(
            f"unexpected argument {arguments[0]!r}: name a run to be scored by"
            " --run_dir=RUN, runs to be compared by --compare RUN RUN, photos to be"
            " read by --images=PHOTO"
        )
    if not (compare or run_dir):
        raise errors.UsageError(
            "nothing to do: give --run_dir=RUN to score a run, or --compare RUN RUN"
        )


def _check_photo_usage(values: Mapping[str, Any]) -> None:
    """The same of the flags of reading photos, whatever else is given."""
    images = values["images"]
    if not images and (values["readings"] or values["annotated_dir"]):
        raise errors.UsageError(
            "--readings and --annotated_dir get what is read on photos: name these by"
            " --images"
        )
    if values["ink"] != "auto" and not images:
        raise errors.UsageError("--ink is of photos: name these by --images")
    if images and not values["run_dir"]:
        raise errors.UsageError(
            "--images wants a network to be read by: give --run_dir"
        )


@contextlib.contextmanager
def _output(failures: list[str]) -> Iterator[None]:
    """Notes the failure of one output, so that it does not cost the others."""
    try:
        yield
    except errors.UserError as error:
        failures.append(str(error))


def _report(failures: Sequence[str]) -> None:
    if failures:
        raise errors.UserError("; ".join(failures))


def _read_photos(run_dir: Path, names: Sequence[str]) -> None:
    """Reads the digits of photos and shows them as the flags say."""
    from photos import annotate, decode, reading  # loads matplotlib

    paths = decode.expand(names)
    annotated: list[Path] = []
    if FLAGS.annotated_dir:
        annotated = annotate.name_files(paths, Path(FLAGS.annotated_dir))
    predict, _ = _load_trained(run_dir)
    pages = reading.read(predict, paths, FLAGS.ink)
    print(reading.show(pages))
    failures: list[str] = []
    for name, page in zip(annotated, pages):
        with _output(failures):
            annotate.write(name, page)
            print(name)
    if FLAGS.readings:
        with _output(failures):
            reading.write(Path(FLAGS.readings), pages)
            print(FLAGS.readings)
    _report(failures)


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
    table, refused = export.export(
        network,
        Path(FLAGS.export_dir),
        export.choose(FLAGS.export_formats),
        *scored[split],
        calibration=dataset.train_images[trained_on],
        facts={"run": run, "checked_on": split, "environment": current_environment()},
    )
    print(f"\n{table}\n{FLAGS.export_dir}")
    if refused:
        raise export.ExportError("; ".join(refused))


def _score(run_dir: Path) -> None:
    """Scores a run, and writes its submission and its export if the flags say so."""
    predict, step = _load_trained(run_dir)
    if not FLAGS.submission:  # with it, there may be nothing to score
        files.check_writable(run_dir / result.RESULT, "run_dir")
    config = result.read_config(run_dir)
    dataset = data.load(config["dataset"], FLAGS.data_dir)
    runs.check_data(run_dir, dataset.hashes)
    scored = data.scored(dataset, config["validation_size"], config["split_seed"])
    if not scored and (FLAGS.export_dir or not FLAGS.submission):
        raise runs.RunError(
            f"{run_dir} has nothing to be scored on: its test set has no labels, and no"
            " images were held out; give --submission alone, or train with"
            " --validation_size"
        )
    failures: list[str] = []
    if FLAGS.submission:
        with _output(failures):
            logits = scoring.predict_all(predict, dataset.test_images)
            kaggle.write_submission(FLAGS.submission, logits.argmax(1))
            print(FLAGS.submission)
    if scored:
        with _output(failures):
            result.evaluate(run_dir, predict, scored, step)
    if FLAGS.export_dir:
        with _output(failures):
            _export(run_dir, predict.network, dataset, scored)
    _report(failures)


def _check_outputs(values: Mapping[str, Any]) -> None:
    """Raises errors.UserError for an output that cannot be written, before the work."""
    for name in ("submission", "readings"):
        if values[name]:
            files.check_writable(values[name], name)
    for name in ("export_dir", "annotated_dir"):
        if values[name]:
            files.check_writable(values[name], name, is_folder=True)


def main(argv: list[str]) -> None:
    """Scores the run that --run_dir names, reads by it, or compares some."""
    _, *arguments = argv
    _check_usage(FLAGS.flag_values_dict(), arguments)
    if FLAGS.compare:
        from evaluation import comparison  # loads scipy.stats, which takes a second

        print(comparison.compare([Path(argument) for argument in arguments]))
        return
    device.set_threads(0)
    if FLAGS.export_dir:
        from evaluation import export

        export.check(Path(FLAGS.export_dir), export.choose(FLAGS.export_formats))
    _check_outputs(FLAGS.flag_values_dict())
    run_dir = Path(FLAGS.run_dir)
    if FLAGS.images:
        _read_photos(run_dir, [*FLAGS.images, *arguments])
    else:
        _score(run_dir)


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True, groups=FLAG_GROUPS)
