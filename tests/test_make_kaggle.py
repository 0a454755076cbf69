# SPDX-License-Identifier: Apache-2.0
"""Tests of data/make_kaggle.py: which digits go to which file."""

import os

import numpy as np
import pytest

from data import kaggle, make_kaggle
from system import errors
from tests.helpers import command


def error_of(function, *arguments):
    with pytest.raises(errors.UserError) as caught:
        function(*arguments)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_digits_are_drawn_as_in_the_competition():
    training, testing = make_kaggle.draw(600, 100, 420, 280, seed=0)
    assert len(training) == 420 and len(testing) == 280
    assert sorted([*training, *testing]) == list(range(700))
    assert training.max() < 600  # so all test digits are in test.csv
    assert np.any(np.diff(training) < 0) and np.any(np.diff(testing[:50]) < 0)
    assert np.any(testing[:100] < 600) and np.any(testing[-100:] >= 600)
    again, _ = make_kaggle.draw(600, 100, 420, 280, seed=0)
    other, _ = make_kaggle.draw(600, 100, 420, 280, seed=1)
    assert np.array_equal(training, again) and not np.array_equal(training, other)


def test_test_digits_are_drawn_first():
    assert make_kaggle.draw(600, 100, 420, 60, seed=0)[1].min() >= 600


@pytest.mark.parametrize("rows", [(601, 1), (600, 101), (420, 281)])
def test_no_digit_is_drawn_twice(rows):
    message = error_of(make_kaggle.draw, 600, 100, *rows, 0)
    assert "expected at most 600 training rows and 700 rows in all" in message


def test_labels_belong_to_images(tmp_path, digits):
    make_kaggle.write(str(tmp_path / "new"), digits, 300, 500)
    dataset = kaggle.load(str(tmp_path / "new"))
    labels = {
        image.tobytes(): label
        for image, label in [
            *zip(digits.train_images, digits.train_labels),
            *zip(digits.test_images, digits.test_labels),
        ]
    }
    train = [labels[image.tobytes()] for image in dataset.train_images]
    assert train == dataset.train_labels.tolist() and len(train) == 300
    test = np.array([labels[image.tobytes()] for image in dataset.test_images])
    assert len(test) == 500
    kaggle.write_submission(tmp_path / "submission.csv", test)
    answer = (tmp_path / "new" / "test_labels.csv").read_bytes()
    assert (tmp_path / "submission.csv").read_bytes() == answer


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "test_labels.csv"])
def test_the_program_never_overwrites(tmp_path, digits, name):
    (tmp_path / name).write_text("Kaggle's own")
    message = error_of(make_kaggle.write, str(tmp_path), digits, 3, 2)
    assert message.startswith(f"{tmp_path / name}: exists already")
    assert os.listdir(tmp_path) == [name]


def test_the_program_needs_a_folder(tmp_path, digits):
    path = tmp_path / "file"
    path.touch()
    message = error_of(make_kaggle.write, str(path / "new"), digits, 3, 2)
    assert "cannot be created" in message


def test_the_program_runs_as_a_command(tmp_path):
    make = ["-m", "data.make_kaggle", "--dataset=digits", f"--kaggle_dir={tmp_path}"]
    done, again = (
        command(*make, "--train_rows=20", "--test_rows=10") for _ in range(2)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}: 20 training and 10 test digits\n"
    assert len(kaggle.load(str(tmp_path)).test_images) == 10
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("make_kaggle.py: ")
    assert again.stderr.count("\n") == 1
