# SPDX-License-Identifier: Apache-2.0
"""Calibration: is a network correct as often as its confidence says?

Confidence is the probability of the class predicted. Guo, Pleiss, Sun and Weinberger,
"On Calibration of Modern Neural Networks", 2017.
"""

from typing import NamedTuple

import numpy as np

BINS = 15  # as Guo et al.
TEMPERATURES = 0.05, 20.0  # least and most that a fit may give


class Bins(NamedTuple):
    """Predictions in bins of equal width by confidence."""

    edges: np.ndarray  # float64 [B + 1], from 0 to 1
    counts: np.ndarray  # int64 [B], predictions
    correct: np.ndarray  # float64 [B], correct predictions
    confidence: np.ndarray  # float64 [B], sum of the confidences


def sort_into_bins(
    confidences: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> Bins:
    """Sorts confidences, float [N], in [0, 1], and whether they were correct, bool [N].

    Bin b of B holds those in (b / B, (b + 1) / B], the first one also 0.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(confidences, edges[1:-1], right=True)
    return Bins(
        edges,
        np.bincount(place, minlength=bins),
        np.bincount(place, correct, bins),
        np.bincount(place, confidences, bins),
    )


def expected_calibration_error(
    confidences: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> float:
    """Σ n_b / N · |accuracy of bin b − mean confidence of bin b|, in [0, 1].

    Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", 2015. N is at least 1.
    """
    binned = sort_into_bins(confidences, correct, bins)
    return float(np.abs(binned.correct - binned.confidence).sum() / binned.counts.sum())


def mean_nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1) -> float:
    """Mean of −log softmax(logits / temperature)[label], in nats.

    Logits are float [N, classes], labels integers [N]; N is at least 1.
    """
    from scipy import special  # takes a while to load; here and below only

    log_p = special.log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return 0 - float(log_p[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature with the least `mean_nll`; arguments are those of it.

    None if that lies beyond `TEMPERATURES`, and where all images are classified
    correctly: the lower the temperature, the better, then.
    """
    from scipy import optimize

    if (logits.argmax(1) == labels).all():
        return None

    # The NLL is convex in 1 / temperature, so it has one minimum on any scale.
    low, high = np.log(TEMPERATURES)
    found = optimize.minimize_scalar(
        lambda log: mean_nll(logits, labels, np.exp(log)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x)) if low + 1e-3 < found.x < high - 1e-3 else None
