# SPDX-License-Identifier: Apache-2.0
"""Tests of data/dataset.py: what is no dataset is refused when it is made."""

import dataclasses

import numpy as np
import pytest

from data.dataset import DataError, empty, label_type

WIDE = np.zeros((40, 32, 32, 1), np.uint8)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_images": np.zeros((40, 28, 28, 1))}, "training images .* float64"),
        ({"train_images": WIDE}, r"\[40, 32, 32, 1\]; expected \[N, 28, 28, 1\]"),
        ({"test_images": WIDE[..., 0]}, r"test images are \[40, 32, 32\]"),
        ({"train_labels": np.zeros(40, np.int64)}, "int64; expected uint8"),
        ({"train_labels": np.zeros(39, np.uint8)}, r"\[39\]; expected \[40\]"),
        ({"test_labels": np.full(40, 10, np.uint8)}, "label 10 of test image 0"),
        ({"classes": ("0",)}, "1 classes; expected 2 to 1,000"),
        ({"classes": tuple(map(str, range(1001)))}, "1001 classes"),
        ({"classes": tuple("0123456788")}, "2 classes are named '8'"),
        ({"classes": ("", *"123456789")}, "'' cannot be the name"),
        ({"classes": ("\x1b[2J", *"123456789")}, "cannot be shown"),
        ({"classes": tuple(map(str, range(300)))}, "expected int16 for 300 classes"),
    ],
)
def test_what_is_no_dataset_is_refused(dataset, change, message):
    with pytest.raises(DataError, match=message) as caught:
        dataclasses.replace(dataset, **change)
    assert str(caught.value).startswith("dataset 'noise': ")
    assert len(str(caught.value).splitlines()) == 1


def test_there_must_be_images_to_learn_from(dataset):
    none = {"train_images": WIDE[:0, :28, :28], "train_labels": np.zeros(0, np.uint8)}
    with pytest.raises(DataError, match="there are no training images"):
        dataclasses.replace(dataset, **none)


def test_classes_without_an_image_are_named(dataset):
    assert dataset.missing == []
    few = np.tile(np.array([0, 1, 2, 4, 5, 6, 8, 9], np.uint8), 5)
    assert dataclasses.replace(dataset, train_labels=few).missing == ["3", "7"]


def test_a_thousand_classes_have_wider_labels():
    assert label_type(256) == np.uint8
    assert label_type(257) == label_type(1000) == np.int16
    assert empty((5,), np.int16).nbytes == 10
