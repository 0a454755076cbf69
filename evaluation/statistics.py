# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests that tell a better network from a lucky one.

Loading this module loads scipy.stats, which takes a second or two.
"""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def share_interval(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, in [0, 1]: of the successes in a count of 1 or more.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    1927.
    """
    interval = stats.binomtest(successes, count).proportion_ci(CONFIDENCE, "wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of two or more values, by Student's t."""
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    half *= stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


class McNemar(NamedTuple):
    """Result of McNemar's test."""

    only_one: int  # digits that only the first network classifies correctly
    only_other: int  # digits that only the second one does
    p: float  # probability of a split at least as uneven if both were equally good


def mcnemar(one: np.ndarray, other: np.ndarray) -> McNemar:
    """McNemar's exact two-sided test: each disagreement is the toss of a coin.

    Each network has bool [N], the digits that it classifies correctly. McNemar, "Note
    on the sampling error of the difference between correlated proportions or
    percentages", 1947.
    """
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    p = float(stats.binomtest(min(b, c), b + c, 0.5).pvalue) if b + c else 1.0
    return McNemar(b, c, p)


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided p of Welch's t test that two samples have the same mean.

    Welch, "The generalization of 'Student's' problem when several different population
    variances are involved", 1947. Each sample needs two values or more. If neither
    varies, p is 1 for equal means and 0 otherwise.
    """
    samples = [(mean(s), stdev(s), len(s)) for s in (one, other)]
    if samples[0][1] == samples[1][1] == 0:
        return float(samples[0][0] == samples[1][0])
    test = stats.ttest_ind_from_stats(*samples[0], *samples[1], equal_var=False)
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for the number of tests.

    The smallest of m is multiplied by m, the next by m − 1, …; none may fall below the
    one before it or exceed 1. Holm, "A simple sequentially rejective multiple test
    procedure", 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
