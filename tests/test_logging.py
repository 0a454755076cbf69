# SPDX-License-Identifier: Apache-2.0
"""Tests of what the logging benchmark measures and reports, but not of speed."""

import pytest

from benchmarks import logging, ours
from tests.helpers import cells


def test_the_loss_is_the_median_of_the_rounds():
    seconds = {"stepping": [1.0, 0.9, 1.96], "logging": [0.0, 0.1, 0.04]}
    text = logging.markdown({"steps": 1_000, "batch_size": 64, "seconds": seconds})
    assert text.startswith("## Logging\n\nAn epoch of 1,000 steps of 64 images.")
    header, row = cells(text)
    assert row == ["1.00 s", "40 ms", "2.0%", "0.0%", "10.0%"]
    assert "loss of speed" in header


@pytest.mark.usefixtures("forked_peers")
def test_both_parts_of_an_epoch_are_timed():
    found = logging.measure(rounds=2, steps=4)
    assert found["steps"] == 4
    for name in ("stepping", "logging"):
        assert len(found["seconds"][name]) == 2
        assert all(0 < seconds < 60 for seconds in found["seconds"][name])


def test_the_benchmark_logs_as_often_as_train_py():
    assert ours.train_config().log_steps == logging.LOG_STEPS
