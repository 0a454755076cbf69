# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmarks/records.py: what is drawn is what results/ and others say."""

import json
import re

import pytest

from benchmarks import records
from system import errors
from tests.helpers import ROOT


def write(folder, seed, wrong, seconds, threads=0):
    content = {
        "test": {"errors": wrong, "images": 10_000},
        "parameters": 1234,
        "training_seconds": seconds,
        "config": {"threads": threads},
    }
    (folder / f"small-s{seed}.json").write_text(json.dumps(content))


def test_a_recipe_is_the_mean_of_its_seeds(tmp_path):
    for seed, wrong in enumerate((30, 40, 50)):
        write(tmp_path, seed, wrong, 10 * seed)
    (one,) = records.ours(tmp_path, ["small"])
    assert one == records.Record("small", 0.4, 0.1, 3, 1234, 10)


def test_the_score_is_that_of_the_flagfile():
    assert records.scored("best") == "test_shifts1"
    assert records.scored("compact") == records.scored("no_such") == "test"


def test_only_runs_on_all_cores_have_a_time(tmp_path):
    for seed, threads in enumerate((0, 1, 1)):
        write(tmp_path, seed, 40, 10 + seed, threads)
    (one,) = records.ours(tmp_path, ["small"])
    assert one.seconds == 10
    (tmp_path / "small-s0.json").unlink()
    (one,) = records.ours(tmp_path, ["small"])
    assert one.seconds == 0 and one.seeds == 2


def test_a_recipe_without_results_is_named(tmp_path):
    with pytest.raises(errors.UserError, match="no results of small: train it first"):
        records.ours(tmp_path, ["small"])


def test_records_of_others_are_those_of_the_page():
    """Errors in the plot are 100 − the accuracies of docs/results.md."""
    page = (ROOT / "docs/results.md").read_text("utf-8")
    known = {record.parameters: record.error for record in records.PUBLISHED}
    found = {
        int(count.replace(",", "")): 100 - float(accuracy)
        for count, accuracy in re.findall(
            r"^\|[^|]*\| ([\d,]+) \|[^|]*\| (99\.\d+)", page, re.MULTILINE
        )
    }
    assert known == pytest.approx({c: found.get(c) for c in known}, abs=1e-6)


def test_both_panels_have_all_that_is_known():
    own = [records.Record("a", 0.4, 0.1, 3, 1000, 10)]
    others = [
        records.Record("b", 0.3, parameters=10),
        records.Record("c", 0.5, seconds=20),
        records.Record("d", 0.6, parameters=30, best_epoch=True),
    ]
    by_size, by_time = records.plot(own, others).axes
    assert [text.get_text() for text in by_size.texts] == ["a", "b", "d"]
    assert [text.get_text() for text in by_time.texts] == ["a", "c"]
