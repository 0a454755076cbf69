# SPDX-License-Identifier: Apache-2.0
"""How far a share may lie off because only so many were counted."""

CONFIDENCE = 0.95


def share_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, in [0, 1].

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    1927.

    Args:
      successes: of `count`.
      count: at least 1.
    """
    from scipy import (  # takes a second to load, which train.py spares at its start
        stats,
    )

    interval = stats.binomtest(successes, count).proportion_ci(CONFIDENCE, "wilson")
    return float(interval.low), float(interval.high)
