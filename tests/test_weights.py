# SPDX-License-Identifier: Apache-2.0
"""Tests of training/weights.py: a run that starts from the weights of another."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import models
import train
from config import Config
from evaluation import recipes, trained
from system import errors
from tests.test_older_runs import GOLDEN
from training import checkpoints, runs, weights
from training.runs import RunError
from training.session import Session
from training.sets import Sets
from training.state import State

BATCH_NORM = {"batch_norm": "conv", "batch_norm_first": False}
FACTS = {"data": {}, "environment": {}}


def lenet(seed, **options):
    """A LeNet whose averages have moved."""
    network = models.build("lenet", seed=seed, **BATCH_NORM, **options)
    for variable in network.variables:
        if not variable.trainable:
            variable.assign(variable + seed)
    return network


def start_from(network):
    layers = {
        layer: {name: variable.numpy() for name, variable in variables.items()}
        for layer, variables in weights.by_layer(network).items()
    }
    return weights.Start("runs/x", layers, weights.sha256(layers))


def values(network, *layers):
    found = weights.by_layer(network)
    return [v.numpy().tobytes() for layer in layers for v in found[layer].values()]


def test_layers_that_fit_are_taken():
    """Those of another number of classes, or another width, are not."""
    source = lenet(1)
    start = start_from(source)
    for options, new in (
        ({}, ""),
        ({"classes": 3}, "logits"),
        ({"width": 2, "classes": 3}, "conv1, conv2, dense1, logits, norm1, norm2"),
    ):
        network, untouched = lenet(2, **options), lenet(2, **options)
        assert start.describe(network).partition("; drawn new: ")[2] == new
        start.assign(network)
        drawn = list(filter(None, new.split(", ")))
        taken = [layer for layer in start.layers if layer not in drawn]
        assert "dense2" in taken
        assert values(network, *taken) == values(source, *taken)
        assert values(network, *drawn) == values(untouched, *drawn)
    said = start.describe(lenet(0))
    assert said == (
        "init_from: conv1, conv2, dense1, dense2, logits, norm1, norm2 of runs/x"
    )


def test_a_layer_is_taken_whole_or_not_at_all():
    """Here with a bias, there without."""
    start = start_from(models.build("lenet", batch_norm="conv"))
    network = lenet(0)
    assert not {"conv1", "conv2"} & {*start.fitting(network)}
    assert {"norm1", "dense1", "logits"} <= {*start.fitting(network)}


def test_a_network_of_which_nothing_fits_is_refused():
    start = start_from(models.build("mlp", hidden_units=[5]))
    with pytest.raises(errors.UserError, match="none of its layers has the name and t"):
        start.describe(models.build("double_conv", classes=3))


def test_the_hash_is_of_names_shapes_and_values():
    one = {"a": {"w": np.zeros([2, 3], np.float32)}}
    other = {"a": {"w": np.zeros([3, 2], np.float32)}}
    named = {"b": {"w": np.zeros([2, 3], np.float32)}}
    assert len({weights.sha256(layers) for layers in (one, other, named)}) == 3
    assert weights.sha256(one) == weights.sha256({"a": {"w": np.zeros([2, 3], "<f4")}})
    assert len(weights.sha256(one)) == 64


def test_all_networks_of_a_run_start_from_them():
    config = Config(
        **{"network": "mlp", "weight_average": 0.9, "keep_best": True, "seed": 2},
        **{"hidden_units": [5], "lookahead": 5},
    )
    source = models.build("mlp", hidden_units=[5])
    state = State(config.resolved(), start=start_from(source))
    for network in (state.network, state.average, state.best):
        assert values(network, "dense1", "logits") == values(source, "dense1", "logits")
    slots = state.optimizer.slots
    for slow, weight in zip(slots["slow"], state.trained, strict=True):
        np.testing.assert_array_equal(slow, weight)
    assert not any(v.numpy().any() for name in ("m", "v") for v in slots[name])


# --- The golden run, and others that start from it ---


@pytest.fixture
def source(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "source")


@pytest.fixture
def config(source):
    """Settings of a run that starts from it."""
    entries = {**runs.read_run(source)["config"], "seed": 3, "epochs": 1}
    return Config.recorded({**entries, "init_from": str(source)})


@pytest.fixture
def sets(digits):
    images, labels = digits.train_images[:128], digits.train_labels[:128]
    return Sets(images, labels, {"test": (images, labels)})


def begin(run_dir, config, sets):
    """Trains as train.py's main does, except for data and score."""
    runs.check_settings(run_dir, config)
    start = weights.start(run_dir, config)
    facts = {**FACTS, **({"init_sha256": start.sha256} if start else {})}
    record = runs.open_run(run_dir, config, "", facts)
    train.train(config, sets, Session(run_dir, record=record, start=start))


def test_a_run_starts_from_another_and_no_longer_needs_it(
    config, source, sets, tmp_path, capsys
):
    run_dir = tmp_path / "run"
    begin(run_dir, config, sets)
    record = runs.read_run(run_dir)
    assert record["init_sha256"] == weights.read_start(source, Config).sha256
    assert str(source) not in (run_dir / "run.json").read_text()
    first = trained.load(run_dir).predict.network.variables
    # The other one trains on, and then is gone: this one is resumed all the same.
    folder = source / checkpoints.FOLDER
    shutil.rmtree(checkpoints.path(folder, 24))
    rows = (source / "metrics.csv").read_text().splitlines()
    (source / "metrics.csv").write_text("\n".join(rows[:2]) + "\n")
    begin(run_dir, config, sets)
    said = capsys.readouterr()
    assert f"run started from other weights than {source} has now; its" in said.err
    shutil.rmtree(source)
    begin(run_dir, config, sets)
    assert "other weights" not in capsys.readouterr().err
    second = trained.load(run_dir).predict.network.variables
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    # A new run does need it, and another start is another run.
    with pytest.raises(RunError, match="source holds no run"):
        weights.start(tmp_path / "new", config)
    drawn = dataclasses.replace(config, init_from=None)
    with pytest.raises(RunError, match="from weights of another run: choose another"):
        weights.start(run_dir, drawn)
    begin(tmp_path / "drawn", drawn, sets)
    with pytest.raises(RunError, match="from weights of its own, not of another run"):
        weights.start(tmp_path / "drawn", config)
    assert weights.start(tmp_path / "drawn", drawn) is None


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    config, source, tmp_path
):
    run_dir = tmp_path / "run"
    start = weights.start(run_dir, config)
    runs.open_run(run_dir, config, "", {**FACTS, "init_sha256": start.sha256})
    assert weights.start(run_dir, config).sha256 == start.sha256
    run = runs.read_run(run_dir)
    (run_dir / "run.json").write_text(json.dumps({**run, "init_sha256": "0" * 64}))
    with pytest.raises(RunError, match="has now: delete it, or choose"):
        weights.start(run_dir, config)
    # Its checkpoints are not those of a run with the same settings.
    assert runs.identity(run) != run["config"]


@pytest.mark.parametrize("damage", ["", 1, None, "Z" * 64])
def test_a_damaged_hash_is_found(source, damage):
    run = {**runs.read_run(source), "init_sha256": damage}
    (source / "run.json").write_text(json.dumps(run))
    with pytest.raises(RunError, match="'init_sha256' is wrong"):
        runs.read_run(source)


def test_the_start_is_part_of_a_recipe(source):
    other = shutil.copytree(source, source.with_name("other"))
    run = {**runs.read_run(source), "init_sha256": "ab" * 32}
    (other / "run.json").write_text(json.dumps(run))
    plain, started = recipes.read(source), recipes.read(other)
    assert {**plain.recipe, "init_from": "abababab"} == started.recipe
    groups = recipes.group([plain, started])
    assert len(groups) == 2
    assert "--init_from (not set | abababab)" in recipes.differences(groups)
