# SPDX-License-Identifier: Apache-2.0
"""Tests of temperature.json: fitted on held-out digits, used wherever the run reads."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

import evaluation
from evaluation import publish, result, score_text, temperature, trained
from tests.siblings import make_run
from training import runs


@pytest.fixture
def run_dir(tmp_path):
    """A run that held 400 digits out, and is too sure."""
    return make_run(tmp_path / "run-s1", validation_size=400, scale=3.0)


def read(run_dir):
    return json.loads((run_dir / trained.TEMPERATURE_FILE).read_text())


def write(run_dir, **changes):
    content = {"temperature": 2.0, "step": trained.load(run_dir).step, **changes}
    (run_dir / trained.TEMPERATURE_FILE).write_text(json.dumps(content))


def test_a_run_is_calibrated_on_the_digits_that_it_held_out(run_dir, digits, capsys):
    before = trained.load(run_dir)
    assert before.temperature is None and before.predict.network is before.network
    temperature.calibrate(run_dir, run_dir, None)
    found = read(run_dir)
    fitted = found["fitted_on"]
    assert (fitted["run"], fitted["images"]) == ("run-s1", 400)
    assert 1.5 < found["temperature"] < 6  # three times too sure
    assert fitted["nll_after"] < fitted["nll_before"]
    said = capsys.readouterr().out
    assert said.startswith(
        f"temperature {found['temperature']:.4f}, fitted on 400 held"
    )
    after = trained.load(run_dir)
    assert after.temperature == found["temperature"]
    plain, images = before.predict(digits.test_images), digits.test_images
    found_logits = after.predict(images)
    np.testing.assert_allclose(found_logits, plain / after.temperature, rtol=1e-4)
    # What every answer is stays as it was.
    np.testing.assert_array_equal(np.argmax(found_logits, 1), np.argmax(plain, 1))
    read_again = evaluation.load(run_dir).predict(images).probabilities
    np.testing.assert_allclose(read_again, tf.nn.softmax(found_logits), atol=1e-5)


def test_the_plain_score_stays_where_it_was(run_dir, digits, monkeypatch):
    monkeypatch.setattr(result, "_publish", lambda *_: None)
    run = trained.load(run_dir)
    result.evaluate(run, run.scored(digits))
    before = json.loads((run_dir / "result.json").read_text())
    predictions = (run_dir / "predictions.npz").read_bytes()
    write(run_dir)
    run = trained.load(run_dir).averaged(1)
    result.evaluate(run, run.scored(digits))
    after = json.loads((run_dir / "result.json").read_text())
    calibrated, shifted = after.pop("test_calibrated"), after.pop("test_shifts1")
    assert after == before
    assert (run_dir / "predictions.npz").read_bytes() == predictions
    test = after["test"]
    assert (calibrated["errors"], calibrated["temperature"]) == (test["errors"], 2.0)
    assert calibrated["nll"] != test["nll"]
    assert (shifted["shifts"], shifted["temperature"]) == (1, 2.0)
    assert shifted["errors"] != test["errors"] and shifted["images"] == test["images"]
    ways = score_text.ways("test", after | {"test_shifts1": shifted})
    names = [name for name, _ in ways]
    assert names == ["as trained", "mean over shifts by ±1, temperature 2.000"]


def test_a_run_that_held_nothing_out_takes_the_temperature_of_a_sibling(
    run_dir, tmp_path
):
    other = make_run(tmp_path / "run-s2", seed=2)
    with pytest.raises(runs.RunError, match="held no digits out") as caught:
        temperature.calibrate(other, other, None)
    line = str(caught.value)
    assert "\n" not in line and f"--calibrate={tmp_path}/held-out-run-s2" in line
    command = r"train.py --flagfile=\S+/flags.txt --validation_size=143 --run_dir="
    assert re.search(command, line)
    assert not (other / trained.TEMPERATURE_FILE).exists()
    temperature.calibrate(other, run_dir, None)
    assert read(other)["fitted_on"]["run"] == "run-s1"


@pytest.mark.parametrize(
    "config, what",
    [
        (
            {"learning_rate": 0.5},
            "--learning_rate=0.01 and 0.5: give --calibrate a run",
        ),
        ({"epochs": 3}, "--epochs=2 and 3"),
    ],
)
def test_another_recipe_is_refused(run_dir, tmp_path, config, what):
    other = make_run(tmp_path / "other", validation_size=400, **config)
    with pytest.raises(runs.RunError, match=re.escape(what)):
        temperature.calibrate(run_dir, other, None)
    assert not (run_dir / trained.TEMPERATURE_FILE).exists()


def test_another_teacher_is_another_recipe(tmp_path):
    def taught_by(teacher, name):
        taken = {"teachers_sha256": [64 * teacher]}
        return make_run(tmp_path / name, validation_size=400, scale=3.0, taken=taken)

    one, same, other = (taught_by(t, n) for t, n in ("ax", "ay", "bz"))
    alone = make_run(tmp_path / "alone", validation_size=400, scale=3.0)
    for sibling in (other, alone):
        with pytest.raises(runs.RunError, match="--teachers"):
            temperature.calibrate(one, sibling, None)
    assert not (one / trained.TEMPERATURE_FILE).exists()
    temperature.calibrate(one, same, None)


def test_an_unfinished_sibling_is_refused(run_dir, tmp_path):
    config = {"epochs": 3, "validation_size": 400}
    one, other = (make_run(tmp_path / f"{s}", seed=s, **config) for s in (1, 2))
    with pytest.raises(runs.RunError, match="is unfinished, and its probabilities"):
        temperature.calibrate(one, other, None)


@pytest.mark.parametrize(
    "damage",
    [
        {"temperature": 0.0},
        {"temperature": 1e9},
        {"temperature": "2"},
        {"temperature": True},
        {"temperature": None},
        {"step": 1.5},
        {"step": None},
    ],
)
def test_a_damaged_temperature_is_refused(run_dir, damage):
    write(run_dir, **damage)
    with pytest.raises(
        runs.RunError, match="temperature.json is damaged .*: delete it"
    ):
        trained.load(run_dir)
    temperature.calibrate(run_dir, run_dir, None)  # which writes it again
    assert trained.load(run_dir).temperature


@pytest.mark.parametrize("content", ["", "{}", "[]", "2", '"2"', "[" * 10_000])
def test_what_is_no_temperature_at_all_is_refused(run_dir, content):
    (run_dir / trained.TEMPERATURE_FILE).write_text(content)
    with pytest.raises(runs.RunError, match="temperature.json is damaged") as caught:
        trained.load(run_dir)
    assert "\n" not in str(caught.value)


def test_the_temperature_of_other_weights_is_not_used(run_dir, capsys):
    write(run_dir, step=3)
    assert trained.load(run_dir).temperature is None
    assert "is not used, it is of step 3 and the run at" in capsys.readouterr().err


def test_a_copy_to_give_away_keeps_the_temperature(run_dir, tmp_path):
    write(run_dir)
    publish.publish(run_dir, tmp_path / "copy")
    assert trained.load(tmp_path / "copy").temperature == 2.0
