# SPDX-License-Identifier: Apache-2.0
"""Tests of training/learning.py: a run that is no better than guessing says so."""

import math

import numpy as np
import pytest

from config import Config
from training import learning

CROSS_ENTROPY = Config(loss="softmax_cross_entropy")


def row(loss, accuracy, epoch=0, images=100):
    return {
        **{"train_loss": loss, "train_accuracy": accuracy},
        **{"epoch": epoch, "images": images},
    }


@pytest.mark.parametrize("classes", [2, 3, 10, 47])
def test_guess_among_equal_classes(classes):
    labels = np.tile(np.arange(classes, dtype=np.uint8), 7)
    guess = learning.guess(labels, CROSS_ENTROPY)
    assert guess == pytest.approx((math.log(classes), 1 / classes), rel=1e-6)


def test_guess_uses_the_shares_of_classes():
    labels = np.array([0, 0, 0, 1], np.uint8)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert learning.guess(labels, CROSS_ENTROPY) == pytest.approx((entropy, 0.75))
    binary = Config(loss="binary_cross_entropy")
    assert learning.guess(labels, binary) == pytest.approx((entropy, 0.75))
    # Outliers count as wrong.
    assert learning.guess(labels, Config(outliers=0.2)).accuracy == pytest.approx(0.6)
    smooth = Config(label_smoothing=1 - 1e-6)
    assert learning.guess(labels, smooth).loss == pytest.approx(math.log(2), rel=1e-4)


@pytest.mark.parametrize(
    "loss, accuracy, said",
    [
        (76_367_543.0, 0.45, "loss, 7.637e+07, is no better than guessing, 2.3"),
        (2.30, 0.101, "accuracy, 10.10%, is no better than guessing, 10.00%"),
        (2.30, 0.2, ""),
        (0.01, 0.999, ""),
    ],
)
def test_complaint_about_an_epoch(loss, accuracy, said):
    guess = learning.Guess(math.log(10), 0.1)
    complaint = learning.complaint(row(loss, accuracy), 10_000, guess)
    assert said in complaint and bool(said) == bool(complaint)


def test_a_few_lucky_guesses_prove_nothing():
    guess = learning.Guess(math.log(10), 0.1)
    assert learning.complaint(row(2.0, 0.3), 9, guess)
    assert not learning.complaint(row(2.0, 0.3), 100, guess)


def test_the_complaint_comes_once_and_not_too_early():
    labels = np.tile(np.arange(10, dtype=np.uint8), 10)
    judge = learning.Judge(labels, CROSS_ENTROPY, 50)
    assert not judge.judge(row(9.0, 0.1, 0, 50), last=False)  # half of the set
    assert judge.judge(row(9.0, 0.1, 1, 100), last=False)
    assert not judge.judge(row(9.0, 0.1, 2, 150), last=False)
    assert not judge.judge(row(1.0, 0.9, 3, 200), last=False)
    assert judge.judge(row(9.0, 0.1, 4, 250), last=False)
    assert not judge.judge(row(9.0, 0.1, 5, 300), last=True)
    soon = learning.Judge(labels, CROSS_ENTROPY, 50)
    assert soon.judge(row(9.0, 0.1, 0, 50), last=True)


@pytest.mark.parametrize("dtype, classes", [(np.uint8, 26), (np.int16, 1000)])
def test_the_most_common_of_many_classes_is_the_guess(dtype, classes):
    labels = np.concatenate([np.arange(classes), np.full(classes, 3)]).astype(dtype)
    guess = learning.guess(labels, CROSS_ENTROPY)
    assert guess.accuracy == pytest.approx((classes + 1) / (2 * classes))
    judge = learning.Judge(labels, CROSS_ENTROPY, len(labels))
    said = judge.judge(row(0.9 * guess.loss, 0.5, images=len(labels)), last=False)
    assert "accuracy, 50.00%, is no better than guessing" in said
    assert "--find_rate=rates.png" in said
