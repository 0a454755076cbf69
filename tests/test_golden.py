# SPDX-License-Identifier: Apache-2.0
"""The project computes what it computed before, unless a change was declared."""

import json
import math

import pytest

from augment import plan
from models import layers
from tests import golden
from training import batches, rules


@pytest.mark.parametrize("name", golden.GOLDEN)
def test_results_equal_the_golden_ones(name):
    lines = golden.changes(name, golden.GOLDEN[name].make())
    assert not lines, (
        f"{len(lines)} results in tests/golden/{name}.json have changed. If they were"
        " meant to, declare it: run `python -m tests.golden`, commit what it writes and"
        " say why.\n  " + "\n  ".join(lines)
    )


@pytest.mark.native
def test_native_operations_train_like_tensorflows():
    assert not golden.changes("curves", golden.curves("native"))


# --- and those that are not would be found ---


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A separate folder of golden results, with one kind and its tolerances."""
    some = golden.Golden(dict, lambda what, place: 0.01 * place, 1e-3)
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    monkeypatch.setattr(golden, "GOLDEN", {"some": some})
    written = {"hash": "ab", "count": 3, "curve": [1, 2.0, -4.0]}
    (tmp_path / "some.json").write_text(json.dumps(written))
    return tmp_path


def changes(**results):
    written = json.loads((golden.FOLDER / "some.json").read_text())
    return golden.changes("some", {**written, **results})


@pytest.mark.usefixtures("folder")
def test_rounding_is_not_a_change():
    assert not changes()
    assert not changes(curve=[1.0009, 2.02, -4.08])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "results, line",
    [
        ({"hash": "ac"}, "hash: is ac, was ab"),
        ({"count": 4}, "count: is 4, was 3"),
        ({"more": 4}, "more: is new"),
        ({"curve": [1, 2.0]}, "curve: 2 values, were 3"),
        (
            {"curve": [1.002, 2, -4.81]},
            "curve: 2 of 3 values differ, the first at [0]; most at [2]: -4.81, was"
            " -4.0, 10 times what a rounding may do",
        ),
    ],
)
def test_a_change_is_reported(results, line):
    assert changes(**results) == [line]


@pytest.mark.usefixtures("folder")
def test_nan_is_a_change():
    assert len(changes(curve=[1, math.nan, -4])) == 1


@pytest.mark.usefixtures("folder")
def test_a_missing_result_is_a_change():
    lines = golden.changes("some", {"hash": "ab", "count": 3})
    assert lines == ["curve: is gone"]


def test_declaring_writes_only_what_differs(folder, monkeypatch):
    results = {"hash": "ab", "count": 3, "curve": [1.0005, 2, -4]}
    monkeypatch.setitem(golden.GOLDEN, "some", golden.Golden(lambda: results))
    before = (folder / "some.json").read_text()
    close = golden.GOLDEN["some"]._replace(absolute=1e-3)
    monkeypatch.setitem(golden.GOLDEN, "some", close)
    assert golden.declare() == []
    assert (folder / "some.json").read_text() == before
    results["count"] = 4
    assert golden.declare() == ["some.json: count: is 4, was 3"]
    assert json.loads((folder / "some.json").read_text()) == results
    assert golden.declare() == []


def altered(name):
    return golden.changes(name, golden.GOLDEN[name].make())


def test_a_sampler_that_runs_ahead_is_noticed(monkeypatch):
    def ahead(seed, step, batch_size, set_size):
        return batches.shuffled_epochs(seed, step + 1, batch_size, set_size)

    monkeypatch.setitem(batches.SAMPLERS, "epochs", ahead)
    assert any("sampler epochs" in line for line in altered("draws"))


def test_masks_with_other_seeds_are_noticed(monkeypatch):
    draws = layers._dropout_draws
    monkeypatch.setattr(
        layers,
        "_dropout_draws",
        lambda x, rate, training, seed: draws(x, rate, training, seed + [0, 1]),
    )
    assert any("mask" in line for line in altered("draws"))


def test_a_larger_epsilon_of_adam_is_noticed(monkeypatch):
    def larger(*variables, epsilon=1e-7, **settings):
        rules.adam_in_place(*variables, epsilon=epsilon, **settings)

    rule = rules.RULES["adam"]._replace(in_place=larger)
    monkeypatch.setitem(rules.RULES, "adam", rule)
    assert any("adam: bias" in line for line in altered("trajectories"))


def test_shards_of_another_transform_are_noticed(monkeypatch):
    shift = plan.shift
    monkeypatch.setattr(plan, "shift", lambda images, dy, dx: shift(images, dx, dy))
    assert len(altered("shards")) > 20
