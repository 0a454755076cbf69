# SPDX-License-Identifier: Apache-2.0
"""--dry_run says what a run would be, and leaves nothing behind."""

import dataclasses

import pytest

import models
from config import Config
from training import dry_run, sets

SMALL = Config(dataset="digits", shift_directions=["up"], flip_codes=["0"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"validation_size": 100, "flip_shifted": True, "keep_originals": False},
        {"deform": ["affine"], "multiply": 3, "flip_codes": [], "shift_directions": []},
    ],
    ids=str,
)
def test_images_are_counted_without_the_enlarged_set(changes, digits, tmp_path):
    config = dataclasses.replace(SMALL, augmented_dir=str(tmp_path), **changes)
    count = dry_run.count_images(digits, config)
    assert not list(tmp_path.iterdir())
    assert count == sets.load(digits, config).train_count > 1000


def test_the_table_of_layers():
    network = models.build("mlp", hidden_units=[5], classes=3)
    assert dry_run.layers_table(network, ["dense1"]).splitlines() == [
        "layer            consists of      output    parameters",
        "---------------  -------------  --------  ------------",
        "dense1 (frozen)  Dense                 5         3,925",
        "logits           Dense                 3            18",
        "all                                              3,943",
    ]


def test_a_dry_run_leaves_nothing(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "MEASURED_SECONDS", 0.01)
    call(
        *("--dry_run", "--dataset=digits", "--network=mlp", "--hidden_units=5"),
        *("--epochs=3", "--validation_size=437", "--schedule=cosine", "--replicas=1"),
        *("--shift_directions=up,down", "--flip_codes="),
    )
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().out
    assert "runs/mlp-s0: a new run\n" in said
    settings = said[said.index("settings:") : said.index("machine:")].split()
    assert settings[1:] == [
        *("--network=mlp", "--dataset=digits", "--epochs=3", "--schedule=cosine"),
        *("--validation_size=437", "--replicas=1", "--hidden_units=5"),
        *("--shift_directions=up,down", "--flip_codes="),
    ]
    assert "\ndense1   Dense" in said and " 3,985\n" in said
    assert "images:   3,000 to train on, of digits; 10 classes\n" in said
    assert "steps:    72: 3 epochs of 24 steps of 128 images\n" in said
    assert "\ntime:     about " in said and " for 72 steps of " in said
    assert said.endswith("nothing was trained, and nothing written\n")
