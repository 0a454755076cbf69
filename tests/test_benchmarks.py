# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmarks/: what is measured and how it is told, never how fast it is."""

import math

import pytest

from benchmarks import step


def test_measure_gives_each_peer_one_speed_per_round(capfd):
    speeds = step.measure(rounds=1, steps=2, threads=1)
    assert list(speeds) == ["ours", "keras"]
    for values in speeds.values():
        assert len(values) == 1
        assert 0 < values[0] < math.inf
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines] == ["ours", "keras"]


def test_table():
    speeds = {"ours": [5000.0, 6000.0, 9000.0], "keras": [2000.4, 1000.0, 4000.0]}
    rows = [line.split() for line in step.table(speeds).splitlines()]
    assert rows[2:] == [
        ["ours", "6,000", "5,000", "9,000", "1.00"],
        ["keras", "2,000", "1,000", "4,000", "3.00"],
    ]


def test_conditions_name_versions_and_threads():
    text = step.conditions(threads=3)
    for fact in ("3 threads", "load average before", "tensorflow 2.", "keras 3."):
        assert fact in text


def test_failing_peer_is_named_with_its_last_line():
    with pytest.raises(step.BenchmarkError, match="peer nonesuch failed: .*ours"):
        step.run_peer("nonesuch", steps=1, threads=1)
