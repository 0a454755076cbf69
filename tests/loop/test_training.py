# SPDX-License-Identifier: Apache-2.0
"""A run: what it computes, keeps, scores and reports."""

from dataclasses import replace

import numpy as np
import pytest

import models
from evaluation import scoring
from tests.loop import points, restored, trained, values
from training import checkpoints, history, rules


def only(sets, split):
    return sets._replace(scored={split: sets.scored[split]})


def test_the_loss_falls(finished):
    rows = history.read(finished)
    losses = [row["train_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.75 * losses[0]
    assert rows[-1]["train_accuracy"] > rows[0]["train_accuracy"] + 0.1


def test_a_row_per_epoch_and_the_last_two_checkpoints(finished):
    rows = history.read(finished)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert [row["images"] for row in rows] == [128, 256, 384]
    seconds = [row["seconds"] for row in rows]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert {"validation_loss", "validation_accuracy"} <= set(rows[0])
    assert checkpoints.steps(finished / "checkpoints") == [8, 12]
    for split in ("train", "validation", "test"):
        assert list((finished / split).iterdir())


def test_the_history_has_its_columns(finished):
    row, *_ = history.read(finished)
    assert list(row) == history.columns(["validation", "test"])


def test_every_option_of_a_network_or_a_rule_is_a_flag(config):
    assert {*models.OPTIONS, *rules.OPTIONS} <= set(vars(config))


def test_the_weight_average_is_scored(config, sets, finished):
    state, _ = restored(config, finished)
    last = history.read(finished)[-1]
    scored, raw = (
        scoring.score(scoring.Predict(n), *sets.scored["test"])
        for n in (state.average, state.network)
    )
    assert scored.loss == pytest.approx(last["test_loss"])
    assert abs(raw.loss - scored.loss) > 1e-3
    pairs = zip(state.average.variables, state.network.variables, strict=True)
    assert all(np.any(slow.numpy() != fast.numpy()) for slow, fast in pairs)


def test_the_loss_is_that_of_the_settings(config, sets, tmp_path):
    binary = replace(config, loss="binary_cross_entropy", epochs=1)
    predict = trained(binary, sets, tmp_path)
    (row,) = history.read(tmp_path)
    # An untrained network's: −(log 0.1 + 9 log 0.9) / 10; of softmax it is 2.3.
    assert row["train_loss"] < 0.6
    scores = scoring.score(
        predict,
        *(*sets.scored["test"], "binary_cross_entropy"),
    )
    assert row["test_loss"] == pytest.approx(scores.loss)
    assert row["test_binary_accuracy"] == pytest.approx(scores.binary_accuracy)


def test_a_test_set_without_labels_is_not_scored(config, sets, tmp_path):
    trained(replace(config, epochs=1), only(sets, "validation"), tmp_path)
    (row,) = history.read(tmp_path)
    assert "validation_accuracy" in row
    assert not [name for name in row if name.startswith("test")]
    assert not (tmp_path / "test").exists()


def test_epoch_images_set_the_number_of_steps(config, sets, tmp_path):
    short = replace(config, weight_average=0.0, epoch_images=65, epochs=1)
    trained(short, only(sets, "test"), tmp_path)
    (row,) = history.read(tmp_path)
    assert (row["step"], row["images"]) == (3, 96)  # 65 images are 3 batches of 32
    assert "validation_loss" not in row
    assert not (tmp_path / "validation").exists()


def test_profiling_changes_no_result(config, sets, finished, tmp_path):
    trained(config, sets, tmp_path, profile_steps=["1", "3"])
    assert values(config, tmp_path) == values(config, finished)
    assert list(tmp_path.glob("train/plugins/profile/*/*.xplane.pb"))


def test_tensorboard_gets_the_errors_of_each_epoch(finished):
    shown = points(finished)
    for split in ("validation", "test"):
        assert [step for step, _ in shown[split, "errors"]] == [0, 1, 2]
