# SPDX-License-Identifier: Apache-2.0
"""What validation decides: the rate, the best weights, the end."""

from dataclasses import replace

import pytest

from evaluation import gallery, scoring
from tests.loop import STEPS, trained, values
from training import checkpoints, history


@pytest.fixture
def accuracies(monkeypatch):
    """accuracies(a, b, …) sets the validation accuracies after the next epochs."""

    score = gallery.score

    def script(*values):
        left = list(values)

        def scripted(*arguments):
            return {**score(*arguments), "validation_accuracy": left.pop(0)}

        monkeypatch.setattr(gallery, "score", scripted)

    return script


CHOOSING = {
    **{"schedule": "plateau", "plateau_patience": 1, "decay_factor": 0.5},
    **{"keep_best": True, "epochs": 6, "learning_rate": 1e-3},
}


def rates(run_dir):
    return [row["learning_rate"] for row in history.read(run_dir)]


def test_a_plateau_lowers_the_rate_of_the_next_epoch(
    config, sets, accuracies, tmp_path
):
    accuracies(0.5, 0.5, 0.6, 0.5, 0.5, 0.5)
    floor = {"plateau_floor": 3e-4}
    trained(replace(config, **CHOOSING, **floor), sets, tmp_path)
    expected = [1e-3, 1e-3, 5e-4, 5e-4, 3e-4, 3e-4]
    assert rates(tmp_path) == pytest.approx(expected, rel=1e-5)


def test_the_best_weights_are_scored(config, sets, accuracies, tmp_path):
    accuracies(0.5, 0.7, 0.6, 0.7, 0.6, 0.6)
    choosing = replace(config, **CHOOSING)
    predict = trained(choosing, sets, tmp_path)
    best = scoring.score(predict, *sets.scored["test"])
    rows = history.read(tmp_path)
    assert best.loss == pytest.approx(rows[1]["test_loss"])
    assert abs(best.loss - rows[-1]["test_loss"]) > 1e-3
    again = trained(choosing, sets, tmp_path)
    finished = scoring.score(again, *sets.scored["test"])
    assert finished.loss == best.loss


def test_a_run_that_stopped_early_stays_stopped(
    config, sets, accuracies, tmp_path, capsys
):
    accuracies(0.5, 0.6, 0.6, 0.6, 0.9, 0.9)
    stopping = replace(config, early_stopping=2, epochs=6)
    trained(stopping, sets, tmp_path, checkpoint_epochs=5)
    assert len(history.read(tmp_path)) == 4
    assert checkpoints.steps(tmp_path / "checkpoints") == [0, 4 * STEPS]
    trained(stopping, sets, tmp_path)
    assert "is trained to its last step, 16" in capsys.readouterr().out
    assert len(history.read(tmp_path)) == 4


def test_decisions_by_validation_survive_an_interruption(
    config, sets, accuracies, tmp_path, monkeypatch
):
    script = (0.5, 0.7, 0.6, 0.6, 0.65, 0.6)
    choosing = replace(config, **CHOOSING, early_stopping=4)
    for run in ("whole", "cut"):
        (tmp_path / run).mkdir()
    accuracies(*script)
    trained(choosing, sets, tmp_path / "whole")
    accuracies(*script)
    write = history.write

    def interrupt(run_dir, rows):
        write(run_dir, rows)
        if len(rows) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(history, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(choosing, sets, tmp_path / "cut")
    accuracies(*script[3:])
    trained(choosing, sets, tmp_path / "cut")
    assert values(choosing, tmp_path / "cut") == values(choosing, tmp_path / "whole")
    assert rates(tmp_path / "cut") == rates(tmp_path / "whole")
