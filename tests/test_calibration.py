# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/calibration.py against values computed by hand."""

import numpy as np
import pytest

from evaluation import calibration


def test_error_by_hand():
    # (0.9, 1]: 3 of 4 right at 0.95, off by 0.2; (0.5, 0.6]: 1 of 2 at 0.6, by 0.1.
    confidences = np.array([0.95, 0.95, 0.6, 0.95, 0.6, 0.95])
    hits = np.array([True, True, False, False, True, True])
    error = calibration.expected_calibration_error(confidences, hits, bins=10)
    assert error == pytest.approx((4 * 0.2 + 2 * 0.1) / 6)
    # One bin for all: 4 of 6 right at a mean of 5/6.
    one = calibration.expected_calibration_error(confidences, hits, bins=1)
    assert one == pytest.approx(abs(4 / 6 - (4 * 0.95 + 2 * 0.6) / 6))


def test_edges_belong_to_the_bin_below():
    confidences = np.array([0, 0.25, 0.26, 0.5, 0.75, 1], np.float32)
    found = calibration.sort_into_bins(confidences, np.ones(6, bool), bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.counts.tolist() == found.correct.tolist() == [2, 2, 1, 1]
    assert found.confidence == pytest.approx([0.25, 0.76, 0.75, 1])


def test_error_of_perfect_and_of_worst_confidence():
    sure = np.ones(5)
    right, wrong = np.ones(5, bool), np.zeros(5, bool)
    assert calibration.expected_calibration_error(sure, right) == 0
    assert calibration.expected_calibration_error(sure, wrong) == 1


def test_honest_confidence_has_a_small_error():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.1, 1, 100_000)
    hits = rng.uniform(size=100_000) < confidences
    assert calibration.expected_calibration_error(confidences, hits) < 0.01
    assert calibration.expected_calibration_error(confidences**2, hits) > 0.1


def test_nll_by_hand():
    logits = np.log([[0.5, 0.5], [0.8, 0.2]])
    labels = np.array([0, 1])
    nll = calibration.mean_nll(logits, labels)
    assert nll == pytest.approx(-(np.log(0.5) + np.log(0.2)) / 2)
    # Of [0.64, 0.04] / 0.68.
    squared = calibration.mean_nll(logits, labels, 0.5)
    assert squared == pytest.approx(-(np.log(0.5) + np.log(0.04 / 0.68)) / 2)


def test_the_fitted_temperature_makes_confidence_true():
    """Always as sure, and right in three of four: softmax([t, 0]) = [3/4, 1/4]."""
    logits = np.tile([5.0, 0.0], (8, 1)).astype(np.float32)
    labels = np.array([0, 0, 0, 1] * 2)
    fitted = calibration.fit_temperature(logits, labels)
    assert fitted == pytest.approx(5 / np.log(3), rel=1e-4)
    best = calibration.mean_nll(logits, labels, fitted)
    for other in (0.9, 1.1):
        assert calibration.mean_nll(logits, labels, other * fitted) > best


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.array([0, 1, 1, 1])])
def test_no_temperature_is_best_without_errors_or_beyond_chance(labels):
    logits = np.tile([5.0, 0.0], (4, 1)).astype(np.float32)
    assert calibration.fit_temperature(logits, labels) is None
