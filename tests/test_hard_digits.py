# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/hard_digits.py, with runs that are written, not trained."""

import numpy as np
import pytest

from data import mnist
from evaluation import comparison, hard_digits, recipes
from tests.test_comparison import make_run, row  # noqa: F401  (a fixture)

MNIST = (np.arange(10_000) % 10).astype(np.uint8)


def run(labels, wrong, data=(), split="test"):
    """A run that takes each of the wrong digits for the next one."""
    predicted = labels.astype(np.int64)
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 10
    rest = labels, predicted, tuple("0123456789"), 99.0
    return recipes.Run("run", None, "", dict(data), split, *rest)


def test_most_is_more_than_half():
    labels = np.arange(10, dtype=np.uint8)
    three = [run(labels, wrong) for wrong in ([1, 2, 5], [2, 5, 8], [5, 7, 2])]
    assert hard_digits.most_misclassify(three).tolist() == [2, 5]
    two = [run(labels, wrong) for wrong in ([1, 2], [2, 3])]
    assert hard_digits.most_misclassify(two).tolist() == [2]
    four = [run(labels, wrong) for wrong in ([9, 2], [9, 2], [9], [])]
    assert hard_digits.most_misclassify(four).tolist() == [9]  # 2 of 4 are not most


def test_the_doubted_labels_are_those_of_mnists_test_digits():
    assert len(set(hard_digits.DOUBTED)) == 15
    assert [*hard_digits.DOUBTED] == sorted(hard_digits.DOUBTED)
    known = run(MNIST, [], mnist.FILES)
    assert hard_digits.doubted_in(known).tolist() == [*hard_digits.DOUBTED]
    for other in (
        run(MNIST, [], mnist.FILES, "validation"),
        run(MNIST, [], mnist.FILES | {mnist.TEST_LABELS: "ab"}),
        run(MNIST, []),
    ):
        assert hard_digits.doubted_in(other).shape == (0,)


def test_the_doubted_are_marked_and_counted_beside():
    both = [run(MNIST, w, mnist.FILES) for w in ([947, 948, 1621], [947, 948, 3])]
    text, hard, source, table = hard_digits.parts(both, ["a", "b"])
    assert text == (
        "2 digits are misclassified by both networks, 1 of them with a doubted label:"
    )
    assert hard.rows == [
        ["947", "7", "2 of 2", "8 (2×)", "doubted"],
        ["948", "8", "2 of 2", "9 (2×)", ""],
    ]
    assert "Northcutt" in source and "never in its place" in source
    assert table.header[1::2] == ["errors of 10,000", "errors of 9,985"]
    # 1 of 9,985 is 0.010 %.
    assert table.rows[0] == ["a", "3", "99.970", "1", "99.990"]
    assert table.rows[1] == ["b", "3", "99.970", "2", "99.980"]


def test_without_common_errors_there_is_a_sentence():
    labels = np.arange(10, dtype=np.uint8)
    assert hard_digits.parts([run(labels, [1]), run(labels, [2])], ["a", "b"]) == [
        "No digit is misclassified by both networks."
    ]


def test_a_long_table_is_cut(monkeypatch):
    monkeypatch.setattr(hard_digits, "MAX_ROWS", 3)
    labels = np.arange(10, dtype=np.uint8)
    text, table = hard_digits.parts([run(labels, range(5))] * 3, ["a", "b", "c"])
    assert text.startswith("5 digits are misclassified by more than half of the 3")
    assert text.endswith(". The first 3:") and len(table.rows) == 3
    assert table.header == ["no.", "label", "wrong", "they say"]


@pytest.mark.usefixtures("make_run")
def test_a_comparison_has_the_table(make_run):  # noqa: F811
    text = str(comparison.compare([make_run("a", [3, 4]), make_run("b", [4], seed=1)]))
    assert "1 digit is misclassified by both networks:" in text
    assert row(text, "4", "4") == ["4", "4", "2", "of", "2", "5", "(2×)"]
    assert "doubt" not in text
