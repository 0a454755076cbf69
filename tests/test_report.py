# SPDX-License-Identifier: Apache-2.0
"""Tests of what report.html is computed from: errors, confusions, words for values."""

import numpy as np
import pytest
import tensorflow as tf

from evaluation import activations, page, provenance, report
from evaluation.scoring import Scores
from models.lenet import LeNet

CONFIG = {
    "dataset": "mnist",
    "network": "lenet",
    "epochs": 3,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "loss": "softmax_cross_entropy",
    "weight_average": 0.0,
    "keep_best": False,
    "early_stopping": 0,
    "schedule": "constant",
    "shift_directions": ["up", "down"],
    "hidden_units": None,
    "seed": 4,
}


def test_errors_by_the_gap_to_the_true_class():
    probabilities = np.array(
        [[0.6, 0.4, 0], [0.1, 0.9, 0], [0.5, 0.0, 0.5], [0.2, 0.1, 0.7]], np.float32
    )
    scores = Scores(np.array([1, 1, 1, 0], np.uint8), probabilities, 0.0)
    errors = report.find_errors(scores)
    # Gaps: number 0 0.2, number 2 0.5 (a tie is read as the first), number 3 0.5.
    assert [(e.index, e.true, e.predicted) for e in errors] == [
        *((2, 1, 0), (3, 0, 2), (0, 1, 0))
    ]
    assert errors[1].true_probability == pytest.approx(0.2)
    assert errors[1].predicted_probability == pytest.approx(0.7)


def test_confusions_list_all_pairs_of_equal_count_or_none():
    matrix = np.diag([90, 80, 70, 60])
    matrix[3, 0], matrix[1, 2] = 5, 3
    assert report.confusions(matrix) == [(3, 0, 5), (1, 2, 3)]
    matrix[0, 1] = matrix[0, 2] = 1
    assert report.confusions(matrix) == [(3, 0, 5), (1, 2, 3)]
    assert len(report.confusions(matrix, limit=4)) == 4
    assert report.confusions(np.ones((4, 4), int), 2) == [(0, 1, 1), (0, 2, 1)]
    assert report.confusions(np.eye(4, dtype=int)) == []


def test_first_layer_is_the_first_tap():
    labels = np.array([7, 7, 2, 1, 0, 4, 9], np.uint8)
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    network = LeNet()
    scores = Scores(labels, np.eye(10, dtype=np.float32)[labels], 0.5)
    (kernel, digits, maps), _ = activations.compute(network, images, scores)
    np.testing.assert_array_equal(digits, images[[0, 2, 3, 4, 5]])
    assert kernel.shape == (3, 3, 1, 12) and maps.shape == (5, 13, 13, 12)
    taps = {}
    network(tf.constant(images[2:3]), training=False, taps=taps)
    np.testing.assert_allclose(maps[1:2], taps["conv1"], rtol=1e-4, atol=1e-5)


def told(split, scored_epoch=2, finished=True, begun_epochs=0, **config):
    result = {"epochs": 3, "scored_epoch": scored_epoch, "finished": finished}
    result |= {"steps": 1407, "config": {**CONFIG, **config}}
    if begun_epochs:
        result["begun_epochs"] = begun_epochs
    return provenance.describe_weights(split, result)


def test_the_report_says_which_weights_are_scored():
    last = told("test")
    assert "the network after the last step, at the end of epoch 2" in last
    assert last.endswith(" Training made no choice by the test images.")
    within = told("test", scored_epoch=3, finished=False)
    assert "the network after step 1,407, within epoch 3 (" in within
    best = told("validation", scored_epoch=1, keep_best=True, weight_average=0.99)
    assert "average" in best and "(decay 0.99) after epoch 1, the one with" in best
    assert "optimistic" in best
    assert "optimistic" not in told("validation")


def test_the_report_says_what_ended_training():
    early = told("test", epochs=9, early_stopping=2)
    assert "Training stopped early, after 3 of 9 epochs." in early
    # Interrupted: so may be one that would stop early.
    for patience in (0, 2):
        so_far = told("test", epochs=9, early_stopping=patience, finished=False)
        assert "Training is unfinished: 3 of 9 epochs so far." in so_far
        assert "stopped" not in so_far


def test_the_report_says_what_the_test_images_had_to_do_with_it():
    chosen = told("test", scored_epoch=1, keep_best=True)
    assert chosen.endswith("choices by held-out images, and none by the test images.")
    unfinished = told("test", finished=False, epochs=9)
    assert "whoever stops where it looks best chooses by the test" in unfinished
    assert "no choice" not in unfinished
    longer = told("test", begun_epochs=2)
    assert "first planned for 2 epochs" in longer and "no choice" in longer


def test_settings_that_differ_make_the_command():
    config = {"network": "mlp", "hidden_units": [32], "rotation": 10.0, "seed": 4}
    config |= {"flip_codes": [], "shift_diagonal": True, "keep_originals": False}
    config |= {"replicas": 2, "batch_norm": None}
    result = {"config": config, "chosen": {"replicas": 2}}
    different, same = provenance.settings(result)
    machine = {entry.name: entry.by_machine for entry in different}
    assert machine == dict.fromkeys(config.keys() - {"batch_norm"}, False) | {
        "replicas": True
    }
    # What the network does not have is left out; what it has is as it has it.
    others = {entry.name: entry.value for entry in same}
    assert "batch_norm" not in others and others["activation"]
    assert sorted(provenance.flags(result)) == [
        *("--flip_codes=", "--hidden_units=32", "--network=mlp", "--nokeep_originals"),
        *("--rotation=10.0", "--seed=4", "--shift_diagonal"),
    ]


@pytest.mark.parametrize(
    "function, value, text",
    [
        (page.percent, 0.9959, "99.59 %"),
        (page.probability, 0.986, "98.6 %"),
        (page.probability, 0.99996, ">99.9 %"),
        (page.probability, 0.00004, "<0.1 %"),
        (page.probability, 1.0, "100.0 %"),
        (page.duration, 4.4, "4 s"),
        (page.duration, 572.4, "9 min 32 s"),
        (page.duration, 7322, "2 h 2 min"),
        (page.setting, ["up", "down"], "up,down"),
        (page.setting, [300, 100], "300,100"),
        (page.setting, [], "none"),
        (page.setting, 1e-7, "1e-07"),
        (page.setting, 0.123456789, "0.123456789"),
        (page.setting, True, "true"),
        (page.setting, False, "false"),
        (page.setting, None, "–"),
    ],
)
def test_words_for_values(function, value, text):
    assert function(value).replace("\N{NO-BREAK SPACE}", " ") == text
