# SPDX-License-Identifier: Apache-2.0
"""Tests of training/history.py: an impossible metrics.csv is refused."""

import pytest

from system import errors
from training import history
from training.runs import RunError

ROWS = [
    {
        **{"epoch": epoch, "step": 5 * (epoch + 1), "seconds": 1.25 * epoch},
        **{"train_loss": 1 / 2**epoch, "test_accuracy": 0.5},
    }
    for epoch in range(4)
]


def test_metrics_round_trip(tmp_path):
    assert history.read(tmp_path) == []
    rows = [
        {"epoch": 0, "step": 1_234_567_891, "seconds": 1.25, "test_loss": 0.1234},
        {"epoch": 1, "step": 2_469_135_782, "seconds": 2.5, "test_loss": 1e-9},
    ]
    history.write(tmp_path, rows[:1])
    history.write(tmp_path, rows)
    assert history.read(tmp_path) == rows
    first = (tmp_path / "metrics.csv").read_text().split("\n")[0]
    assert first == "epoch,step,seconds,test_loss"


@pytest.mark.parametrize(
    ("number", "change", "why"),
    [
        (2, {"train_loss": "nan"}, "train_loss nan in line 4"),
        (3, {"test_accuracy": "inf"}, "test_accuracy inf in line 5"),
        (3, {"test_accuracy": 1.5}, "test_accuracy 1.5 in line 5"),
        (0, {"epoch": -1}, "epoch -1 in line 2"),
        (1, {"epoch": 1e300}, "not epoch 1 in line 3"),
        (2, {"epoch": 1, "step": 10}, "not epoch 2 in line 4"),
        (1, {"step": 11}, "not epoch 1 in line 3"),
        (1, {"seconds": "x"}, "could not convert"),
    ],
)
def test_an_impossible_row_is_refused(tmp_path, number, change, why):
    history.write(tmp_path, ROWS)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    row = ROWS[number] | change
    lines[number + 1] = ",".join(map(str, row.values()))
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=why) as caught:
        history.epochs(tmp_path, 20)
    assert "metrics.csv is damaged" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("step", [0, 0.5])
def test_epochs_have_whole_steps(tmp_path, step):
    history.write(tmp_path, [ROWS[0] | {"step": step}])
    with pytest.raises(RunError, match="step 0"):
        history.read(tmp_path)


def test_epochs_after_the_checkpoint_are_dropped(tmp_path):
    history.write(tmp_path, ROWS)
    for step, count in ((20, 4), (19, 3), (10, 2), (4, 0), (0, 0)):
        assert history.epochs(tmp_path, step, ["test_accuracy"]) == ROWS[:count]
        assert history.epochs(tmp_path, step, (), 5) == ROWS[:count]


@pytest.mark.parametrize("left", [0, 1, 3])
def test_lost_epochs_are_named(tmp_path, left):
    if left:
        history.write(tmp_path, ROWS[:left])
    with pytest.raises(RunError, match=f"lost .* step 23 .* 4 epochs, .* has {left};"):
        history.epochs(tmp_path, 23, epoch_steps=5)
    if left:  # then its first row says how long an epoch is
        with pytest.raises(RunError, match="lost its history"):
            history.epochs(tmp_path, 23)


def test_another_runs_history_is_refused(tmp_path):
    history.write(tmp_path, ROWS)
    with pytest.raises(RunError, match="an epoch has 4 steps"):
        history.epochs(tmp_path, 20, epoch_steps=4)
    with pytest.raises(RunError, match="it has no validation_loss"):
        history.epochs(tmp_path, 20, history.columns(["test", "validation"])[-3:])


def test_a_figure_that_is_not_finite_is_not_written(tmp_path):
    history.write(tmp_path, ROWS[:1])
    before = (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(RunError, match="train_loss is nan after epoch 1") as caught:
        history.write(tmp_path, [ROWS[0], ROWS[1] | {"train_loss": float("nan")}])
    assert caught.value.exit_code == errors.DIVERGED
    assert (tmp_path / "metrics.csv").read_bytes() == before
