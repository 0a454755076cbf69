# SPDX-License-Identifier: Apache-2.0
"""Calibration: is a network right as often as it claims to be?

Its confidence is the probability of the class that it reads. Guo, Pleiss, Sun and
Weinberger, "On Calibration of Modern Neural Networks", 2017.
"""

from typing import NamedTuple

import numpy as np

BINS = 15  # as Guo et al.


class Bins(NamedTuple):
    """Answers sorted by confidence into bins of equal width.

    Attributes:
      edges: float64 [B + 1], from 0 to 1.
      counts: int64 [B], answers.
      hits: float64 [B], right answers.
      confidence: float64 [B], sum over the answers.
    """

    edges: np.ndarray
    counts: np.ndarray
    hits: np.ndarray
    confidence: np.ndarray


def sort_into_bins(confidences: np.ndarray, hits: np.ndarray, bins: int = BINS) -> Bins:
    """Bin b takes the confidences in (b / B, (b + 1) / B], the first one also 0.

    Args:
      confidences: float [N], in [0, 1].
      hits: bool [N], whether the answer is right.
      bins: their number B.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(confidences, edges[1:-1], right=True)
    return Bins(
        edges,
        np.bincount(place, minlength=bins),
        np.bincount(place, hits, bins),
        np.bincount(place, confidences, bins),
    )


def expected_calibration_error(
    confidences: np.ndarray, hits: np.ndarray, bins: int = BINS
) -> float:
    """Σ n_b / N · |accuracy of bin b − mean confidence of bin b|, in [0, 1].

    Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", 2015. Args as of `sort_into_bins`, with at least one answer.
    """
    found = sort_into_bins(confidences, hits, bins)
    return float(np.abs(found.hits - found.confidence).sum() / found.counts.sum())
