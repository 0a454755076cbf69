# SPDX-License-Identifier: Apache-2.0
"""Writes files of the form of Kaggle's "Digit Recognizer" from MNIST.

    python -m data.make_kaggle --kaggle_dir=kaggle
    python train.py --dataset=kaggle --data_dir=kaggle

train.csv         42,000 of MNIST's training digits
test.csv          MNIST's 10,000 test digits and its 18,000 other training digits
test_labels.csv   the answer to test.csv, a submission without an error

As in the competition, the two share no digit and together are all of MNIST: only what
was trained on this train.csv, and not on MNIST, may be scored on this test.csv.
`diff submission.csv test_labels.csv | grep -c '^<'` counts a submission's errors.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

import os

import numpy as np
from absl import flags

import data
from data import kaggle
from system import cli, errors

TEST_LABELS = "test_labels.csv"


def draw(
    train_size: int, test_size: int, train_rows: int, test_rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the digits of train.csv and of test.csv.

    Args:
      train_size: number of training digits there are.
      test_size: number of test digits there are.
      train_rows: how many training digits train.csv gets.
      test_rows: how many digits test.csv gets: test digits, and when there are no
        more of these, training digits that are not in train.csv.
      seed: 0 or more; the same arguments always draw the same.

    Returns:
      Indices into the training digits followed by the test digits: int64
      [train_rows] and int64 [test_rows], in random order, disjoint.

    Raises:
      UserError: there are not so many digits.
    """
    if train_rows > train_size or train_rows + test_rows > train_size + test_size:
        raise errors.UserError(
            f"{train_rows} training and {test_rows} test rows are asked for of "
            f"{train_size} training and {test_size} test digits; expected at most "
            f"{train_size} training rows and {train_size + test_size} in all; ask for "
            "less with --train_rows and --test_rows"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    training = rng.permutation(train_size)
    testing = train_size + rng.permutation(test_size)
    rest = np.concatenate([testing, training[train_rows:]])[:test_rows]
    return training[:train_rows], rng.permutation(rest)


def write(folder: str, dataset: data.Dataset, train_rows: int, test_rows: int) -> None:
    """Writes the three files, each whole or not at all.

    Args:
      folder: made if need be; must hold none of the files.
      dataset: with labels for its test digits too.
      train_rows: of train.csv.
      test_rows: of test.csv.

    Raises:
      UserError: as `draw`, a file is there already or cannot be written.
    """
    assert dataset.test_labels is not None
    training, testing = draw(
        len(dataset.train_labels), len(dataset.test_labels), train_rows, test_rows, 0
    )
    paths = [
        os.path.join(folder, name) for name in (kaggle.TRAIN, kaggle.TEST, TEST_LABELS)
    ]
    for path in paths:
        # It may be Kaggle's own, which is not to be had again so easily.
        if os.path.lexists(path):
            raise data.DataError(
                f"{path}: is there already; expected a folder without it; choose "
                "another --kaggle_dir, or move the file away"
            )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise data.DataError(
            f"{folder}: cannot be made a folder ({error.strerror}); choose another "
            "--kaggle_dir"
        ) from error
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    kaggle.write_digits(paths[0], images[training], labels[training])
    kaggle.write_digits(paths[1], images[testing])
    kaggle.write_submission(paths[2], labels[testing])


def main(_: list[str]) -> None:
    """Writes the files that the flags describe."""
    values = flags.FLAGS.flag_values_dict()
    dataset = data.load(values["dataset"], values["data_dir"])
    folder, train_rows, test_rows = (
        values[name] for name in ("kaggle_dir", "train_rows", "test_rows")
    )
    write(folder, dataset, train_rows, test_rows)
    print(f"{folder}: {train_rows:,} training and {test_rows:,} test digits")


if __name__ == "__main__":
    cli.define_path("kaggle_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_enum("dataset", "mnist", ["digits", "mnist"], "Where from.")
    cli.define_path("data_dir", None, "Where the files of the dataset lie.")
    flags.DEFINE_integer("train_rows", 42_000, "Of train.csv.", lower_bound=1)
    flags.DEFINE_integer("test_rows", 28_000, "Of test.csv.", lower_bound=1)
    cli.run(main)
