# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmarks/: what is measured and how it is told, never how fast it is."""

import json
import math
from pathlib import Path

import pytest

from benchmarks import startup, step


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


def test_first_step_of_a_run(tmp_path):
    arguments = ["--flagfile=flags/digits.flags", f"--augmented_dir={tmp_path}"]
    seconds, peak = startup.first_step(arguments)
    assert 0.1 < seconds < math.inf
    # TensorFlow alone is more than that; 0 where the system does not tell.
    assert peak > 1e8 or not Path("/proc/self/status").exists()


def test_a_run_without_a_first_step_is_told_with_its_last_line():
    with pytest.raises(step.BenchmarkError, match="no step: train.py: .*nonesuch"):
        startup.first_step(["--nonesuch"])


def test_startup_table_of_stored_results():
    results = {
        "seconds": {startup.IMPORT: [2.0, 3.0, 7.0], startup.FIRST_STEP: [3, 6, 7]},
        "ratio": 1.5,
        "peak_bytes": 1_234_567_890,
        "evaluation_seconds": 0.567,
    }
    lines = startup.table(json.loads(json.dumps(results))).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells == [
        ["import tensorflow", "3.00 s", "2.00–7.00 s"],
        ["to the first step", "6.00 s", "3.00–7.00 s"],
        ["ratio of the two", "1.50", ""],
        ["most memory resident", "1.23 GB", ""],
        ["10,000 digits scored", "0.57 s", ""],
    ]
