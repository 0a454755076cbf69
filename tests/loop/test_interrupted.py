# SPDX-License-Identifier: Apache-2.0
"""A run that was interrupted goes on bit for bit, or is refused."""

import shutil

import pytest

from evaluation import scoring
from tests.loop import (
    STEPS,
    after,
    copy_of,
    points,
    rows_without_seconds,
    same,
    trained,
    values,
)
from training import checkpoints, history, interruption, runs
from training.state import State


def test_a_resumed_run_equals_an_undisturbed_one(
    config, sets, interrupted, finished, tmp_path, capsys
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    trained(config, sets, run_dir)
    assert "from step 8" in capsys.readouterr().out
    assert same(config, run_dir, finished)


def test_no_curve_has_duplicate_points(finished):
    for shown in points(finished).values():
        steps = [step for step, _ in shown]
        assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    "which, cuts",
    [
        ("config", [(3, 15, 6), (0, 2, 6), (2, 2, 10)]),
        ("lenet", [(3, 15, 6)]),
        ("short", [(3, 15, 6)]),
    ],
)
def test_a_run_resumed_within_an_epoch_equals_an_undisturbed_one(
    sets, tmp_path, request, which, cuts
):
    config = request.getfixturevalue(which)
    for run_dir in (whole := tmp_path / "whole", cut := tmp_path / "cut"):
        run_dir.mkdir()
    trained(config, sets, whole, log_steps=2)
    for calls, code, step in cuts:
        with pytest.raises(interruption.Stopped) as caught:
            trained(config, sets, cut, log_steps=2, signal=after(calls, code))
        assert f"at step {step}, which is saved" in str(caught.value)
        assert f"train.py --flagfile={cut / 'flags.txt'}" in str(caught.value)
        assert caught.value.exit_code == 128 + code
        assert checkpoints.steps(cut / "checkpoints")[-1] == step
    trained(config, sets, cut, log_steps=2)
    assert same(config, cut, whole)


def test_a_damaged_checkpoint_costs_only_time(
    config, sets, interrupted, finished, tmp_path, capsys
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    (checkpoints.path(run_dir / "checkpoints", 8) / "state.index").unlink()
    trained(config, sets, run_dir)
    said = capsys.readouterr()
    assert "step-00000008 is damaged (state.index is not" in said.err
    assert "from step 4" in said.out
    assert same(config, run_dir, finished)


@pytest.mark.parametrize("left", ["checkpoint", "metrics.csv", "train", "result.json"])
def test_a_run_without_a_checkpoint_never_starts_over(
    config, sets, interrupted, tmp_path, left
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    for step in checkpoints.steps(run_dir / "checkpoints"):
        place = checkpoints.path(run_dir / "checkpoints", step)
        if left == "checkpoint":
            (place / "manifest.json").write_bytes(b"")
        else:
            shutil.rmtree(place)
    if left != "metrics.csv":
        (run_dir / "metrics.csv").unlink()
    if left != "train":
        for split in ("train", "validation", "test"):
            shutil.rmtree(run_dir / split)
    if left == "result.json":
        (run_dir / left).write_text("{}")
    before = {p: p.is_file() and p.read_bytes() for p in run_dir.rglob("*")}
    with pytest.raises(checkpoints.CheckpointError, match="another --run_dir"):
        trained(config, sets, run_dir)
    assert {p: p.is_file() and p.read_bytes() for p in run_dir.rglob("*")} == before


def test_lost_history_is_refused(config, sets, interrupted, finished, tmp_path):
    """We do not train the whole run again, since its weights are there."""
    for number, of in enumerate((interrupted, finished)):
        run_dir = copy_of(of, tmp_path / f"{number}")
        shutil.rmtree(checkpoints.path(run_dir / "checkpoints", (2 + number) * STEPS))
        (run_dir / "metrics.csv").unlink()
        with pytest.raises(runs.RunError, match="metrics.csv has lost its history"):
            trained(config, sets, run_dir)
        assert not (run_dir / "metrics.csv").exists()


def test_lost_events_are_reported_and_the_run_resumes(
    config, sets, interrupted, finished, tmp_path, capsys
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    shutil.rmtree(run_dir / "test")
    trained(config, sets, run_dir)
    line = capsys.readouterr().err.splitlines()[0]
    assert f"{run_dir / 'test'} has lost TensorBoard's events from before" in line
    assert values(config, run_dir) == values(config, finished)
    trained(config, sets, run_dir)
    assert "has lost" not in capsys.readouterr().err  # said once


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    config, sets, finished, tmp_path
):
    (tmp_path / "checkpoints" / ".unfinished-00000000").mkdir(parents=True)
    trained(config, sets, tmp_path)
    assert same(config, tmp_path, finished)


def test_a_checkpoint_without_the_loops_variables_is_refused(config, sets, tmp_path):
    state = State(config)
    folder = tmp_path / "checkpoints"
    checkpoints.save(state.checkpoint, folder, 4, config.deciding(), {"mood": 1})
    with pytest.raises(checkpoints.CheckpointError, match="not of this version"):
        trained(config, sets, tmp_path)


def test_log_and_checkpoint_intervals_change_nothing(config, sets, finished, tmp_path):
    trained(config, sets, tmp_path, log_steps=3, checkpoint_epochs=2)
    assert values(config, tmp_path) == values(config, finished)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2 * STEPS, 3 * STEPS]
    for one, other in zip(
        rows_without_seconds(tmp_path), rows_without_seconds(finished), strict=True
    ):
        assert one == pytest.approx(other)  # sums of losses are rounded otherwise


def test_a_finished_run_is_left_alone(config, sets, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    predict = trained(config, sets, finished)
    assert "is trained to its last step, 12" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before
    scores = scoring.score(predict, *sets.scored["test"])
    last = history.read(finished)[-1]
    assert scores.accuracy == pytest.approx(last["test_accuracy"])
    assert scores.loss == pytest.approx(last["test_loss"])
