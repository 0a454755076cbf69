# SPDX-License-Identifier: Apache-2.0
"""A set of 300 classes, from its enlarged set to its files; ten are everywhere else."""

import csv
import json
import threading

import numpy as np
import pytest
import tensorflow as tf

import data
import models
import train
from augment import enlarged, plan
from config import Config
from evaluation import predictions, recipes, result, trained
from photos import reading, segment
from training import runs, sets
from training.session import Session

NAMES = tuple(f"class {n:03d}" for n in range(300))
FLIPPED = ("class 002", "class 299")
SETTINGS = {
    "network": "mlp",
    "hidden_units": [64],
    "shift_directions": ["up"],
    "flip_labels": list(FLIPPED),
    "learning_rate": 3e-3,
    "epochs": 8,
    "checkpoint_epochs": 8,
    "replicas": 1,
    "threads": 2,
}


@pytest.fixture(scope="module")
def many():
    """Two noisy images of each of 300 patterns, one to train on and one for testing."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (300, 7, 7, 1)).repeat(4, 1).repeat(4, 2) * 200
    images = [patterns + rng.integers(0, 56, patterns.shape) for _ in range(2)]
    training, test = (image.astype(np.uint8) for image in images)
    labels = np.arange(300, dtype=np.int16)
    hashes = {"file": "ab"}
    return data.Dataset("many", training, labels, test, labels, hashes, "", NAMES)


@pytest.fixture(scope="module")
def run_dir(many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = Config(**SETTINGS, augmented_dir=str(folder / "augmented")).resolved()
    run = Session(folder / "run")
    data_sets = sets.load(many, config)
    facts = {
        "data": dict(many.hashes),
        "classes": list(many.classes),
        "environment": {"commit": "abc"},
    }
    run.record = runs.open_run(run.run_dir, config, "--network=mlp\n", facts)
    predict = train.train(config, data_sets, run)
    result.evaluate(trained.after_training(run, config, predict), data_sets.scored)
    return run.run_dir


def test_wide_labels_are_stored_and_read_back(many, tmp_path):
    settings = plan.settings_from(Config(**SETTINGS), NAMES)
    assert settings.flip_labels == (2, 299)
    built = enlarged.enlarge(many, settings, tmp_path)
    assert built.labels.dtype == np.int16
    wanted = [*range(300), *range(300), 2, 299]
    np.testing.assert_array_equal(built.labels, wanted)
    again = enlarged.enlarge(many, settings, tmp_path)  # from disk
    np.testing.assert_array_equal(again.labels, wanted)
    np.testing.assert_array_equal(again.images, built.images)
    stored = enlarged.store(many, settings, tmp_path, np.arange(300))
    images, labels = np.empty((9, 28, 28, 1), np.uint8), np.empty(9, np.int16)
    stored.read([(296, 6), (599, 3)], images, labels)
    np.testing.assert_array_equal(labels, [296, 297, 298, 299, 0, 1, 299, 2, 299])
    stored.verify(threading.Event())


@pytest.mark.parametrize("name", sorted(models.NETWORKS))
def test_every_network_has_as_many_outputs(name):
    network = models.build(name, classes=26)
    logits, _ = network(tf.zeros([2, 28, 28, 1], tf.uint8), training=False)
    assert logits.shape == (2, 26)


def test_the_run_is_scored_by_the_names(many, run_dir):
    run = trained.load(run_dir)
    assert run.classes == NAMES
    stored = json.loads((run_dir / "result.json").read_text())["test"]
    assert stored["classes"][299]["name"] == "class 299"
    assert stored["accuracy"] > 0.5  # guessing has 1 in 300
    labels, probabilities = predictions.read(run_dir)
    assert (labels.dtype, probabilities.shape) == (np.int16, (300, 300))
    assert recipes.read(run_dir).errors == stored["errors"]
    assert "</html>" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_the_names_are_in_what_kaggle_gets(many, run_dir, tmp_path):
    run, path = trained.load(run_dir), tmp_path / "submission.csv"
    result.submit(run, many, str(path))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 300
    right = sum(row["Label"] == name for row, name in zip(rows, NAMES))
    assert right == 300 - recipes.read(run_dir).errors


def test_photos_are_read_by_the_names(tmp_path):
    box, pair = (1, 2, 3, 4), (0.9, 0.1)
    names = ("=cmd", "A")
    found = segment.Digit(1, 1, box, np.zeros((28, 28), np.uint8), np.array(pair))
    one = reading._reading(found, box, names)
    assert (one.digit, one.runner_up) == names
    path = tmp_path / "readings.csv"
    reading.write(path, [reading.Page(tmp_path / "page.png", [one])])
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert row["digit"] == "'=cmd"  # no formula


def test_classes_that_are_none_are_damage(run_dir, tmp_path):
    record = json.loads((run_dir / "run.json").read_text())
    for wrong in (["0"], ["a", "a"], "ten", None, [1, 2]):
        text = json.dumps({**record, "classes": wrong})
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(runs.RunError, match="is damaged"):
            runs.read_run(tmp_path)
