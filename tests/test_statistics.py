# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/statistics.py against values computed by hand."""

import numpy as np
import pytest
from scipy import stats

from evaluation import statistics


def hits(text):
    return np.array([letter == "x" for letter in text])


def test_interval_of_a_share():
    # With z = 1.959964, 8 of 10: (0.8 + 0.19207 ± 0.31345) / 1.38415.
    low, high = statistics.share_interval(8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert statistics.share_interval(2, 10) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("count", [1, 7, 100, 10_000])
def test_an_interval_stays_within_0_and_1(count):
    for successes in {0, count // 3, count - 1, count}:
        low, high = statistics.share_interval(successes, count)
        assert 0 <= low < high <= 1


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ("xx..", "xx..", (0, 0, 1)),
        ("xxxxx.", ".....x", (5, 1, 14 / 64)),  # 2 · (1 + 6) of 2⁶ coins
        ("......xx", "xxxxxx..", (2, 6, 74 / 256)),  # 2 · (1 + 8 + 28) of 2⁸
        ("xxxxxxx", "x......", (6, 0, 2 / 64)),
        ("xx..x", "..xxx", (2, 2, 1)),
    ],
)
def test_mcnemar_by_hand(one, other, expected):
    assert statistics.mcnemar(hits(one), hits(other)) == pytest.approx(expected)
    b, c, p = statistics.mcnemar(hits(other), hits(one))
    assert (c, b, p) == pytest.approx(expected)


def test_holm_by_hand():
    # 3 · 0.01; 2 · 0.03; 1 · 0.04, but no less than the one before it
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.7, 0.6]) == [1, 1]
    assert statistics.holm([0.2]) == [0.2]
    assert statistics.holm([]) == []


def test_welch_by_hand():
    # Means 2 and 6, variances of the means 1/3 and 4/3: t = −4 / √(5/3) = −3.0984 with
    # (5/3)² / ((1/3)²/2 + (4/3)²/2) = 50/17 degrees of freedom.
    p = statistics.welch([1, 2, 3], [4, 6, 8])
    assert p == pytest.approx(2 * stats.t.cdf(-3.098387, 50 / 17), rel=1e-5)
    assert p == statistics.welch([4, 6, 8], [1, 2, 3])
    assert statistics.welch([1, 3], [3, 1]) == 1
    assert 0 < statistics.welch([2, 2], [3, 5]) < 1
    assert statistics.welch([2, 2], [2, 2]) == 1
    assert statistics.welch([2, 2], [3, 3]) == 0


def test_interval_of_a_mean():
    # t of 2 degrees of freedom at 97.5 % is 4.30265, of 1 degree 12.7062.
    low, high = statistics.mean_interval([97.0, 98.0, 99.0])
    assert (low, high) == pytest.approx((98 - 4.30265 / 3**0.5, 98 + 4.30265 / 3**0.5))
    low, high = statistics.mean_interval([1.0, 3.0])
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), rel=1e-5)
    assert statistics.mean_interval([5.0, 5.0]) == (5, 5)
