# SPDX-License-Identifier: Apache-2.0
"""Tests of training/epochs.py: a run with more epochs than it was begun with."""

import json
import re
import shutil

import pytest

import train
from config import Config
from evaluation import recipes, result
from tests.loop import points, rows_without_seconds
from tests.test_older_runs import GOLDEN
from training import checkpoints, epochs, history, locks, runs
from training.runs import RunError
from training.session import Session
from training.sets import Sets
from training.state import State

FACTS = {"data": {}, "environment": {}}
CHOICES = [
    {"sampler": "epochs", "schedule": "step", "decay_epochs": 1},
    {"schedule": "plateau", "plateau_patience": 1, "keep_best": True},
]


@pytest.fixture(scope="module")
def sets(digits):
    """96 images to train on, 3 steps per epoch, and 50 held out."""
    images, labels = digits.train_images, digits.train_labels
    held_out = images[200:250], labels[200:250]
    return Sets(images[:96], labels[:96], {"validation": held_out, "test": held_out})


def settings(count, **changes):
    own = {"network": "mlp", "hidden_units": [9], "dataset": "digits", "epochs": count}
    own |= {"batch_size": 32, "replicas": 1, "weight_average": 0.9}
    return Config(**own, validation_size=50, **changes).resolved()


def trained(config, sets, run_dir):
    """Trains as train.py's main does, except for data and score."""
    with locks.lock(run_dir):
        if run := runs.check_settings(run_dir, config):
            epochs.check(run_dir, run, config)
        text = f"--epochs={config.epochs}\n"
        record = runs.open_run(run_dir, config, text, FACTS)
        train.train(config, sets, Session(run_dir, record=record))


def variables(run_dir, config):
    """Last step, and every variable of its checkpoint as bytes."""
    identity = runs.identity(runs.read_run(run_dir))
    state = State(config, identity)
    step = checkpoints.restore(state.checkpoint, run_dir / "checkpoints", identity)
    return step, [v.numpy().tobytes() for v in state.variables]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_a_run_with_more_epochs_equals_one_begun_with_them(choices, sets, tmp_path):
    small, large = settings(1, **choices), settings(3, **choices)
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    trained(large, sets, whole)
    for config in (small, large):
        trained(config, sets, grown)
    assert variables(grown, large) == variables(whole, large)
    assert rows_without_seconds(grown) == rows_without_seconds(whole)
    shown, expected = points(grown), points(whole)
    assert shown.keys() == expected.keys()
    # The flags are shown as the run was begun.
    assert [k for k in shown if shown[k] != expected[k]] == [("train", "flags")]
    # And both records have the new number.
    run = runs.read_run(grown)
    assert run["config"] == runs.read_run(whole)["config"]
    assert run["begun_epochs"] == 1 and (grown / "flags.txt").read_text() == (
        "--epochs=3\n"
    )
    trained(large, sets, grown)  # finished: nothing changes


# --- On a run of 2 epochs of 12 steps, finished and scored ---


@pytest.fixture
def run_dir(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "a run")


def change(run_dir, **changes):
    """The run's settings with changes, in its run.json, too."""
    run = runs.read_run(run_dir)
    run["config"] |= changes
    (run_dir / "run.json").write_text(json.dumps(run))
    return Config.recorded(run["config"])


def check(run_dir, config):
    runs.check_settings(run_dir, config)
    epochs.check(run_dir, runs.read_run(run_dir), config)


def asking(config, count):
    return Config.recorded({**config.deciding(), "epochs": count})


def test_fewer_epochs_than_are_done_are_refused(run_dir, capsys):
    config = change(run_dir, epochs=7)
    check(run_dir, config)
    assert not capsys.readouterr().out
    check(run_dir, asking(config, 2))
    assert capsys.readouterr().out == f"epochs: 2; {run_dir} had 7\n"
    with pytest.raises(RunError, match="trained for 2 epochs, which is more than --ep"):
        check(run_dir, asking(config, 1))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_other_rates_are_refused_with_a_way_out(run_dir, schedule):
    config = change(run_dir, schedule=schedule)
    with pytest.raises(RunError) as refusal:
        check(run_dir, asking(config, 5))
    command = re.search("train.py .*", str(refusal.value))[0]
    assert command == (
        f"train.py '--flagfile={run_dir}/flags.txt' '--init_from={run_dir}' --epochs=5"
        f" '--run_dir={run_dir}-more'"
    )
    for step in checkpoints.steps(run_dir / "checkpoints"):
        shutil.rmtree(checkpoints.path(run_dir / "checkpoints", step))
    (run_dir / "metrics.csv").unlink()
    check(run_dir, asking(config, 5))  # no step so far


def test_a_run_that_stopped_early_has_its_epochs(run_dir):
    config = change(run_dir, early_stopping=1, epochs=5)
    text = (run_dir / "metrics.csv").read_text()
    header, *rows = text.splitlines()
    rows = [f"{row},0.5" for row in rows]
    (run_dir / "metrics.csv").write_text(
        "\n".join([f"{header},validation_accuracy", *rows, ""])
    )
    assert history.stopped_early(history.read(run_dir), 1)
    assert not history.stopped_early(history.read(run_dir), 2)
    with pytest.raises(RunError, match="stopped early, after 2 of 5 epochs, and would"):
        check(run_dir, asking(config, 9))


def test_a_score_is_of_the_epochs_that_it_had(run_dir):
    config = Config.recorded(runs.read_run(run_dir)["config"])
    (run_dir / "sweep.json").write_text("[]")
    recipes.read(run_dir)
    assert result.finished(run_dir, config)
    longer = asking(config, 4)
    assert not result.finished(run_dir, longer)
    data = runs.read_run(run_dir)["data"]
    runs.open_run(run_dir, longer, "", {**FACTS, "data": data})
    assert not (run_dir / "sweep.json").exists()
    with pytest.raises(RunError, match="scored before its training was finished"):
        recipes.read(run_dir)


def test_a_run_killed_while_its_epochs_are_recorded(run_dir, monkeypatch):
    """The same command, or flags.txt, then asks for them again."""
    run = runs.read_run(run_dir)
    config = asking(Config.recorded(run["config"]), 4)
    facts = {**FACTS, "data": run["data"]}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "_write_run", killed)
        runs.open_run(run_dir, config, "--epochs=4\n", facts)
    assert (run_dir / "flags.txt").read_text() == "--epochs=4\n"
    assert runs.read_run(run_dir) == run
    check(run_dir, config)
    assert runs.open_run(run_dir, config, "", facts)["config"]["epochs"] == 4
    # Its checkpoints are still its own.
    assert runs.identity(runs.read_run(run_dir)) == run["config"]


@pytest.mark.parametrize("damage", [0, True, "1", None])
def test_a_damaged_number_of_epochs_is_found(run_dir, damage):
    run = {**runs.read_run(run_dir), "begun_epochs": damage}
    (run_dir / "run.json").write_text(json.dumps(run))
    with pytest.raises(RunError, match="'begun_epochs' is wrong"):
        runs.read_run(run_dir)
