# SPDX-License-Identifier: Apache-2.0
"""How far a share may lie off because only so many were counted.

Loads neither scipy.stats nor matplotlib, which take a second each: train.py comes by.
"""

import math
import statistics

CONFIDENCE = 0.95


def share_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, in [0, 1].

    (p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n). Wilson, "Probable Inference,
    the Law of Succession, and Statistical Inference", 1927.

    Args:
      successes: of `count`.
      count: at least 1.
    """
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, scale = successes / count, 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / scale
    return max(centre - half, 0.0), min(centre + half, 1.0)
