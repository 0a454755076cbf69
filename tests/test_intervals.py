# SPDX-License-Identifier: Apache-2.0
"""The interval of a share, by hand."""

import pytest

from evaluation import intervals


def test_interval_of_a_share():
    # With z = 1.959964, 8 of 10: (0.8 + 0.19207 ± 0.31345) / 1.38415.
    low, high = intervals.share_interval(8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert intervals.share_interval(2, 10) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("count", [1, 7, 100, 10_000])
def test_never_beyond_the_ends(count):
    for successes in {0, count // 3, count - 1, count}:
        low, high = intervals.share_interval(successes, count)
        assert 0 <= low < high <= 1
