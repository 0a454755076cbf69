# SPDX-License-Identifier: Apache-2.0
"""--find_rate draws the loss against the rate, and suggests one."""

import dataclasses

import numpy as np
import pytest

from config import Config
from evaluation import find_rate
from system import errors


def test_losses_are_smoothed_over_their_neighbours(monkeypatch):
    monkeypatch.setattr(find_rate, "STEPS_EACH_SIDE", 1)
    found = find_rate.smoothed(np.array([1.0, 3.0, 5.0, 1.0]))
    np.testing.assert_allclose(found, [2, 3, 3, 3])
    assert find_rate.smoothed(np.array([])).shape == (0,)


def test_the_suggestion_is_a_tenth_of_the_best_rate():
    tried = np.array([0.001, 0.01, 0.1, 1.0])
    suggestion = find_rate.suggest(tried, np.array([2.0, 1.0, 0.5, 3.0]))
    assert suggestion == pytest.approx(0.01)
    said = find_rate.describe(tried, suggestion)
    assert said.startswith("suggestion: --learning_rate=0.01, a tenth of 0.1, where th")
    assert said.endswith("; the loss diverged at 1")
    for flat in (np.array([2.0, 1.95, 2.0, 3.0]), np.array([])):
        assert find_rate.suggest(tried, flat) is None
    assert "hardly fallen" in find_rate.describe(tried[:0], None)


def test_rates_grow_by_one_factor():
    rates = find_rate.rates(Config())
    np.testing.assert_allclose(rates[[0, -1]], [1e-6, 10])
    np.testing.assert_allclose(rates[1:] / rates[:-1], rates[1] / rates[0])
    assert find_rate.rates(Config(weight_decay=0.5))[-1] == pytest.approx(1)


def test_a_range_test_writes_two_files(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find_rate, "STEPS", 80)
    monkeypatch.setattr(find_rate, "DIVERGED", 1.25)
    call(
        *("--find_rate=rates.png", "--dataset=digits", "--network=mlp", "--seed=1"),
        *("--optimizer=momentum", "--shift_directions=", "--flip_codes="),
    )
    assert {p.name for p in tmp_path.iterdir()} == {"rates.png", "rates.csv"}
    said = capsys.readouterr().out.splitlines()
    assert said[-3].startswith("suggestion: --learning_rate=0.0")
    assert said[-2:] == ["rates.png", "rates.csv"]
    assert (tmp_path / "rates.png").read_bytes()[:4] == b"\x89PNG"
    header, *rows = (tmp_path / "rates.csv").read_text().splitlines()
    assert header == "learning_rate,loss,smoothed_loss"
    found = np.array([list(map(float, row.split(","))) for row in rows])
    assert 30 < len(found) < 80  # it has diverged
    assert np.isfinite(found).all() and found[0, 0] == 1e-6
    assert found[:, 2].min() < 0.7 * found[0, 2]


@pytest.mark.parametrize(
    "path, says", [("rates.pdf", ".png or .svg file"), ("no/rates.svg", "cannot write")]
)
def test_outputs_are_checked_first(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError, match=says):
        find_rate.run(Config(), path, None)
    assert not list(tmp_path.iterdir())


def test_trials_are_of_a_single_process(tmp_path):
    several = dataclasses.replace(Config(), distribute="multi_worker")
    with pytest.raises(errors.UsageError, match="add --distribute=none"):
        find_rate.run(several, str(tmp_path / "rates.png"), None)
