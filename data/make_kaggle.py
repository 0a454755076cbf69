# SPDX-License-Identifier: Apache-2.0
"""Makes files like those of Kaggle's "Digit Recognizer" from MNIST.

    python -m data.make_kaggle --kaggle_dir=kaggle
    python train.py --dataset=kaggle --data_dir=kaggle

train.csv         42,000 of MNIST's training digits
test.csv          MNIST's 10,000 test digits and its other 18,000 training digits
test_labels.csv   labels of test.csv: a perfect submission

As in the competition, the two files share no digit, and together they are all of MNIST.
So only a network trained on this train.csv, not on MNIST, may be scored on test.csv.
`diff submission.csv test_labels.csv | grep -c '^<'` counts the errors of a submission.
"""

if __name__ == "__main__":  # first: the other imports take a while
    from system import console

    console.start()

import os

import numpy as np
from absl import flags

import data
from data import kaggle
from system import cli, errors

FLAGS = flags.FLAGS

TEST_LABELS = "test_labels.csv"


def draw(
    train_size: int, test_size: int, train_rows: int, test_rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the digits of train.csv and test.csv at random.

    Those of test.csv are test digits and, when these are used up, training digits that
    are not in train.csv. The same arguments always draw the same digits.

    Returns indices into the training digits followed by the test digits: int64
    [train_rows] and int64 [test_rows], in random order, disjoint. Raises UserError if
    there are too few digits.
    """
    if train_rows > train_size or train_rows + test_rows > train_size + test_size:
        raise errors.UserError(
            f"--train_rows={train_rows} --test_rows={test_rows}: there are {train_size}"
            f" training and {test_size} test digits; expected at most {train_size}"
            f" training rows and {train_size + test_size} rows in all"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    training = rng.permutation(train_size)
    testing = train_size + rng.permutation(test_size)
    rest = np.concatenate([testing, training[train_rows:]])[:test_rows]
    return training[:train_rows], rng.permutation(rest)


def write(folder: str, dataset: data.Dataset, train_rows: int, test_rows: int) -> None:
    """Writes the three files to a folder without any of them.

    Raises UserError if there are too few digits, a file exists, or cannot be written.
    """
    assert dataset.test_labels is not None
    training, testing = draw(
        len(dataset.train_labels), len(dataset.test_labels), train_rows, test_rows, 0
    )
    paths = [
        os.path.join(folder, name) for name in (kaggle.TRAIN, kaggle.TEST, TEST_LABELS)
    ]
    for path in paths:
        # It may be Kaggle's own file, which takes an account to download again.
        if os.path.lexists(path):
            raise data.DataError(
                f"{path}: exists already; expected a folder without it; choose another"
                " --kaggle_dir, or move the file away"
            )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise data.DataError(
            f"{folder}: cannot be created ({error.strerror}); choose another"
            " --kaggle_dir"
        ) from error
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    kaggle.write_digits(paths[0], images[training], labels[training])
    kaggle.write_digits(paths[1], images[testing])
    kaggle.write_submission(paths[2], labels[testing])


def main(_: list[str]) -> None:
    """Makes the files that the flags describe."""
    dataset = data.load(FLAGS.dataset, FLAGS.data_dir)
    write(FLAGS.kaggle_dir, dataset, FLAGS.train_rows, FLAGS.test_rows)
    rows = f"{FLAGS.train_rows:,} training and {FLAGS.test_rows:,} test digits"
    print(f"{FLAGS.kaggle_dir}: {rows}")


if __name__ == "__main__":
    cli.define_path("kaggle_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_enum(
        "dataset", "mnist", ["digits", "mnist"], "Dataset to take the digits from."
    )
    cli.define_path("data_dir", None, "Folder with the dataset's files.")
    flags.DEFINE_integer("train_rows", 42_000, "Digits in train.csv.", lower_bound=1)
    flags.DEFINE_integer("test_rows", 28_000, "Digits in test.csv.", lower_bound=1)
    cli.run(main)
