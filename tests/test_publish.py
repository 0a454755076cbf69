# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/publish.py: a small copy of a run that scores as the run does."""

import shutil

import numpy as np
import pytest

from evaluation import publish, trained
from system import errors
from tests.test_older_runs import GOLDEN
from training import checkpoints, runs


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*"))


def test_a_copy_scores_as_the_run_does(tmp_path, digits):
    folder = tmp_path / "new" / "copy"
    publish.publish(GOLDEN, folder)
    run, copy = trained.load(GOLDEN), trained.load(folder)
    np.testing.assert_array_equal(
        run.predict(digits.test_images), copy.predict(digits.test_images)
    )
    assert copy.record == {**run.record, "published": True} and copy.step == run.step
    assert size(folder) < 0.6 * size(GOLDEN)
    assert {file.name for file in folder.iterdir()} == {
        *("run.json", "flags.txt", "metrics.csv", "result.json", "checkpoints")
    }


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(errors.UserError, match="exists: delete it, or choose another"):
        publish.publish(GOLDEN, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_run_without_a_score_is_refused(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(GOLDEN, run)
    (run / "result.json").unlink()
    with pytest.raises(errors.UserError, match="has no score yet: run .*eval.py"):
        publish.publish(run, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    def fail(*arguments):
        raise checkpoints.CheckpointError("the disk is full")

    monkeypatch.setattr(checkpoints, "save", fail)
    with pytest.raises(errors.UserError, match="the disk is full"):
        publish.publish(GOLDEN, tmp_path / "copy")
    assert not list(tmp_path.iterdir())


def test_a_copy_is_not_trained_on(tmp_path):
    publish.publish(GOLDEN, tmp_path / "copy")
    config = trained.load(tmp_path / "copy").config
    with pytest.raises(errors.UserError, match="a copy for scoring and reading, with"):
        runs.check_settings(tmp_path / "copy", config)
