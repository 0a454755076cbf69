# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/result.py: one call stores all results of a finished run."""

import dataclasses
import json

import numpy as np
import pytest

from config import Config
from evaluation import (
    predictions,
    provenance,
    result,
    score_text,
    scoring,
    tensorboard,
    trained,
)
from models.mlp import MLP
from system import cli
from training import checkpoints, history, runs
from training.session import Session

LABELS = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
CONFIG = Config(
    seed=4,
    network="mlp",
    dataset="digits",
    loss="binary_cross_entropy",
    epochs=2,
    validation_size=5,
    batch_size=50,
).resolved()


def evaluate(run_dir, network, scored, config=CONFIG):
    run = Session(run_dir, record=runs.read_run(run_dir))
    predict = scoring.Predict(network)
    result.evaluate(trained.after_training(run, config, predict), scored)


VALIDATED = {"validation_loss": 1.0, "validation_accuracy": 0.5}


def epoch(number, **figures):
    """A row of metrics.csv, of ten steps."""
    row = {"epoch": number, "step": 10 * (number + 1), "images": 50, "seconds": 1.0}
    row |= {"learning_rate": 1e-3, "train_loss": 1.0, "train_accuracy": 0.5}
    return row | figures


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_score_and_the_history_are_stored(tmp_path, capsys, images, split):
    runs.open_run(
        tmp_path,
        CONFIG,
        "--seed=4\n",
        {"data": {"a": "b"}, "environment": {"commit": "abc"}},
    )
    accuracy = f"{split}_accuracy"
    rows = [  # the last one begun, and not come to its checkpoint
        epoch(n, seconds=1.5 + 2 * n, **{f"{split}_loss": 1.0, accuracy: 0.5 + n / 4})
        for n in range(3)
    ]
    history.write(tmp_path, rows)
    checkpoints.path(tmp_path / "checkpoints", 20).mkdir(parents=True)
    network = MLP()
    evaluate(tmp_path, network, {split: (images, LABELS)})
    scores = scoring.score(
        scoring.Predict(network), images, LABELS, "binary_cross_entropy"
    )
    summary = scoring.summarise(scores)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored == {
        split: summary,
        "parameters": 50_890,
        "epochs": 2,
        "steps": 20,
        "finished": True,
        "scored_epoch": 1,
        "training_seconds": 3.5,
        f"{split}_accuracy_by_epoch": [0.5, 0.75],
        "format": runs.FORMAT,
        "version": cli.VERSION,
        "config": CONFIG.deciding(),
        **{"data": {"a": "b"}, "environment": {"commit": "abc"}},
    }
    assert score_text.show(summary) in capsys.readouterr().out
    labels, probabilities = predictions.read(tmp_path)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(probabilities, scores.probabilities)
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {p.suffix for p in (tmp_path / "final").iterdir()} >= {".v2", ".pbtxt"}


@pytest.mark.parametrize(
    "changes, step, finished, scored_epoch",
    [
        ({}, 30, True, 2),
        ({"epochs": 4}, 30, False, 2),
        ({"epochs": 4}, 34, False, 3),  # Ctrl-C within an epoch saves, too
        ({"epochs": 4, "early_stopping": 2}, 30, False, 2),
        ({"epochs": 4, "early_stopping": 1}, 30, True, 2),
        ({"keep_best": True}, 30, True, 1),
        ({"epochs": 4, "keep_best": True}, 34, False, 1),
    ],
)
def test_the_result_says_what_ended_and_what_was_scored(
    tmp_path, images, monkeypatch, changes, step, finished, scored_epoch
):
    monkeypatch.setattr(result, "_publish", lambda *_: None)  # tested above
    config = dataclasses.replace(CONFIG, **{"epochs": 3, **changes})
    runs.open_run(tmp_path, config, "", {"data": {}, "environment": {"commit": "abc"}})
    others = {"test_loss": 1.0, "test_accuracy": 0.5, "validation_loss": 1.0}
    accuracies = enumerate((0.5, 0.6, 0.6))
    rows = [epoch(n, validation_accuracy=a, **others) for n, a in accuracies]
    history.write(tmp_path, rows)
    checkpoints.path(tmp_path / "checkpoints", step).mkdir(parents=True)
    evaluate(tmp_path, MLP(), {"test": (images, LABELS)}, config)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert (stored["finished"], stored["scored_epoch"]) == (finished, scored_epoch)
    assert stored["steps"] == step
    sentences = provenance.describe_weights("test", stored)
    assert (f"after step {step}, within epoch" in sentences) == (scored_epoch == 3)


def test_an_interrupted_score_leaves_no_result_without_predictions(
    tmp_path, images, monkeypatch
):
    runs.open_run(tmp_path, CONFIG, "", {"data": {}, "environment": {}})
    history.write(tmp_path, [epoch(0, test_loss=1.0, test_accuracy=0.5)])
    checkpoints.path(tmp_path / "checkpoints", 10).mkdir(parents=True)

    monkeypatch.setattr(predictions, "write", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, MLP(), {"test": (images, LABELS)})
    assert not (tmp_path / "result.json").exists()


def test_ctrl_c_after_the_score_costs_nothing_but_the_report(
    tmp_path, capsys, images, monkeypatch
):
    """The score is out and stored, and the same command comes back for the report."""
    runs.open_run(tmp_path, CONFIG, "", {"data": {}, "environment": {}})
    history.write(tmp_path, [epoch(n, **VALIDATED) for n in range(2)])
    checkpoints.path(tmp_path / "checkpoints", 20).mkdir(parents=True)
    monkeypatch.setattr(checkpoints, "progress", lambda *_: {"events": {}})
    scored = {"validation": (images, LABELS)}
    with monkeypatch.context() as patched:
        # The last file but one: the report is there, but not all of the rest.
        patched.setattr(tensorboard, "write_projector", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            evaluate(tmp_path, MLP(), scored)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert score_text.show(stored["validation"]) in capsys.readouterr().out
    assert not result.finished(tmp_path, CONFIG)
    evaluate(tmp_path, MLP(), scored)
    assert "scored" in result.finished(tmp_path, CONFIG)


def test_a_run_that_is_to_be_averaged_over_shifts_is_not_finished_without(
    tmp_path, images, monkeypatch
):
    runs.open_run(tmp_path, CONFIG, "", {"data": {}, "environment": {}})
    history.write(tmp_path, [epoch(n, **VALIDATED) for n in range(2)])
    checkpoints.path(tmp_path / "checkpoints", 20).mkdir(parents=True)
    monkeypatch.setattr(checkpoints, "progress", lambda *_: {"events": {}})
    shifted = dataclasses.replace(CONFIG, shifts=1)
    for config in (CONFIG, shifted):
        assert not result.finished(tmp_path, config)
        evaluate(tmp_path, MLP(), {"validation": (images, LABELS)}, config)
        assert "scored" in result.finished(tmp_path, config)


def test_a_score_is_computed_whatever_run_json_says(tmp_path, images):
    record = {"validation": {"errors": 0}, "validation_more": 5, "parameters": 1}
    runs.open_run(tmp_path, CONFIG, "", {"data": {}, "environment": {}} | record)
    history.write(tmp_path, [epoch(0, **VALIDATED)])
    checkpoints.path(tmp_path / "checkpoints", 10).mkdir(parents=True)
    evaluate(tmp_path, MLP(), {"validation": (images, LABELS)})
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["validation"]["images"] == 7 and stored["parameters"] > 1
    assert "validation_more" not in stored and stored["data"] == {}


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_run_without_history_is_refused(tmp_path, images):
    runs.open_run(tmp_path, CONFIG, "--seed=4\n", {"data": {}, "environment": {}})
    with pytest.raises(runs.RunError, match="has not finished an epoch yet"):
        evaluate(tmp_path, MLP(), {"test": (images, LABELS)})
    assert not (tmp_path / "result.json").exists()
