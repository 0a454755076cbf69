# SPDX-License-Identifier: Apache-2.0
"""Growth: what is measured and how it is told; how fast it was is never asserted."""

import json

import pytest

from benchmarks import growth

MB = 10**6


def record(study, value, seconds, **more):
    """A record with a round for each of `seconds`; 100 steps of 128 images."""
    rounds = len(seconds)
    found = {"study": study, "value": value, "batch_size": 128, "width": 1}
    found |= {"set_size": 60_000, "steps": 100, "seconds": seconds}
    found["images_per_second"] = [12_800 / s for s in seconds]
    found["set_bytes"] = [47 * MB] * rounds
    found["resident_bytes_before"] = [500 * MB] * rounds
    found["resident_bytes"] = [600 * MB] * rounds
    found["peak_bytes"] = [700 * MB] * rounds
    return {**found, **more}


RECORDS = [
    record("batch_size", 128, [2.0, 1.0, 4.0]),
    record("batch_size", 256, [4.0, 4.0, 4.0]),
    record("width", 1, [2.0]),
    record("set_size", 60_000, [1.0]),
    record(
        *("set_size", 360_000, [1.0]),
        set_bytes=[247 * MB],
        resident_bytes=[850 * MB],
        peak_bytes=[900 * MB],
    ),
    {"study": "set_size", "value": 1_500_000, "failed": ["killed by SIGKILL"] * 3},
    record("steps", 1, [2.0]),
    record("steps", 4, [8.2], steps=400),
]


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]


def test_table_gives_medians_and_growth():
    assert rows(growth.table(RECORDS)) == [
        ["batch size", "images/s", "ms a step", "images/s, of the first"],
        ["128", "6,400", "20.00", "1.00"],
        ["256", "3,200", "40.00", "0.50"],
        ["width", "images/s", "ms a step", "images/s, of the first"],
        ["1", "6,400", "20.00", "1.00"],
        [
            *("images in the set", "images/s", "set, MB", "resident before, MB"),
            *("resident, MB", "peak, MB", "resident per byte of set, beyond the first"),
        ],
        ["60,000", "12,800", "47", "500", "600", "700", ""],
        # 250 MB more for a set that has 200 MB more.
        ["360,000", "12,800", "247", "500", "850", "900", "1.25"],
        ["steps", "seconds", "steps, of the first", "seconds, of the first"],
        ["100", "2.00", "1.00", "1.00"],
        ["400", "8.20", "4.00", "4.10"],
    ]


def test_table_names_what_could_not_be_measured_once():
    lines = growth.table(RECORDS).splitlines()
    assert lines.count("set_size 1,500,000: killed by SIGKILL") == 1


def test_plot_leaves_nothing_but_the_picture(tmp_path):
    growth.plot(RECORDS, tmp_path / "growth.svg")
    assert [file.name for file in tmp_path.iterdir()] == ["growth.svg"]
    assert "<svg" in (tmp_path / "growth.svg").read_text()


def test_memory_is_at_most_its_peak():
    assert 10 * MB < growth.resident_bytes() <= 1.01 * growth.peak_bytes()


def test_measure_runs_what_studies_share_once_a_round(monkeypatch):
    told = []

    def run(module, peer, options):
        told.append(options)
        return {"seconds": float(len(told))}, 0.0

    monkeypatch.setattr(growth.process, "measure", run)
    studies = {"batch_size": [128, 256], "width": [1], "set_size": [9], "steps": [1, 2]}
    records = growth.measure(rounds=2, images=1280, threads=1, studies=studies)
    first = {"batch_size": 128, "width": 1, "set_size": 60_000, "steps": 10}
    assert told == 2 * [
        {**first, "threads": 1},
        {**first, "batch_size": 256, "steps": 5, "threads": 1},
        {**first, "set_size": 9, "threads": 1},
        {**first, "steps": 20, "threads": 1},
    ]
    assert [(r["study"], r["value"], r["seconds"]) for r in records] == [
        ("batch_size", 128, [1.0, 5.0]),
        ("batch_size", 256, [2.0, 6.0]),
        ("width", 1, [1.0, 5.0]),
        ("set_size", 9, [3.0, 7.0]),
        ("steps", 1, [1.0, 5.0]),
        ("steps", 2, [4.0, 8.0]),
    ]


def test_a_few_steps_in_a_process_of_their_own():
    studies = {"batch_size": [16]}
    records = growth.measure(rounds=1, images=32, studies=studies)
    assert json.loads(json.dumps(records)) == records
    (measured,) = records
    assert measured["steps"] == 2
    (seconds,), (speed,) = measured["seconds"], measured["images_per_second"]
    assert speed == pytest.approx(32 / seconds)
    assert measured["set_bytes"] == [growth.SET_SIZE * (28 * 28 + 1)]
    (before,), (after,) = measured["resident_bytes_before"], measured["resident_bytes"]
    assert before + measured["set_bytes"][0] < after <= measured["peak_bytes"][0] * 1.01


def test_failing_measurement_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(growth, "OPTIONS", ["nonesuch"])
    monkeypatch.setattr(growth, "_options", lambda *_: {"nonesuch": 1})
    (record,) = growth.measure(rounds=1, studies={"width": [1]})
    (reason,) = record["failed"]
    assert "expected a JSON object with any of batch_size" in reason
    assert "\n" not in reason
