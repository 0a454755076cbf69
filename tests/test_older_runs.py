# SPDX-License-Identifier: Apache-2.0
"""Everything that later versions can do with a run of version 0.5.1.

tests/golden/run-0.5.1 was trained by commit 026601c: --network=mlp --hidden_units=4
--activation=selu --dataset=digits --shift_directions= --flip_codes= --epochs=2
--learning_rate=0.01 --threads=1.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from config import Config
from evaluation import (
    comparison,
    export,
    predictions,
    recipes,
    report,
    result,
    scoring,
    trained,
)
from photos import reading
from system import cli
from system.settings import setting
from training import checkpoints, history, runs, sets
from training.environment import current_environment
from training.session import Session

GOLDEN = Path(__file__).parent / "golden" / "run-0.5.1"
ERRORS = 161  # of 360


@pytest.fixture
def copy(tmp_path):
    """copy(name, changes to run.json) → a copy of the run in another folder."""

    def make(name="older", **changes):
        folder = tmp_path / name
        shutil.copytree(GOLDEN, folder)
        run = json.loads((folder / "run.json").read_text())
        run["config"] |= changes.pop("config", {})
        run = {k: v for k, v in {**run, **changes}.items() if v is not None}
        (folder / "run.json").write_text(json.dumps(run))
        return folder

    return make


def stored(run_dir):
    return json.loads((run_dir / result.RESULT).read_text())


def test_an_older_run_gets_the_same_score(copy, digits):
    run_dir = copy()
    (run_dir / result.RESULT).unlink()
    run = trained.load(run_dir)
    runs.check_data(run_dir, run.record, digits.hashes)
    result.evaluate(run, run.scored(digits))
    now, then = stored(run_dir), stored(GOLDEN)
    assert now["test"]["errors"] == then["test"]["errors"] == ERRORS
    assert now["test"]["loss"] == pytest.approx(then["test"]["loss"], rel=1e-5)
    same = ("config", "steps", "epochs", "finished", "environment", "parameters")
    assert [now[name] for name in same] == [then[name] for name in same]
    (labels, now), (known, then) = map(predictions.read, (run_dir, GOLDEN))
    np.testing.assert_array_equal(labels, known)
    # Some pixels of its test digits, on its processor, were one grey level off ours.
    np.testing.assert_allclose(now, then, atol=1e-3)


def test_only_older_digits_cannot_be_compared(copy, digits):
    other = {**digits.hashes, "test_images": "0" * 64}
    run_dir = copy(format=1, data=other)
    runs.check_data(run_dir, runs.read_run(run_dir), digits.hashes)
    run_dir = copy("newer", format=2, data=other)
    with pytest.raises(runs.RunError, match="other data files"):
        runs.check_data(run_dir, runs.read_run(run_dir), digits.hashes)


@pytest.mark.parametrize("version", ["0.4.9", "0.6.0", None])
def test_runs_of_any_version_are_accepted(copy, digits, version):
    run_dir = copy(version=version)
    run = trained.load(run_dir)
    scores = scoring.score(run.predict, digits.test_images, digits.test_labels)
    assert (scores.predictions != digits.test_labels).sum() == ERRORS
    assert recipes.read(run_dir).errors == ERRORS


def test_an_older_run_can_read_photos_and_be_exported(copy, digits, tmp_path):
    run = trained.load(copy())
    assert run.step == 24
    images, labels = digits.test_images, digits.test_labels
    ink = np.full((100, 100), 255, np.uint8)
    ink[20:80, 40:48] = 0  # a one
    Image.fromarray(ink).save(photo := tmp_path / "page.png")
    page = reading.read(run.predict, photo, reject=0)
    assert len(page.readings) == 1
    table, refused = export.export(
        *(run.predict.network, tmp_path / "exported", ["float"], images, labels),
        calibration=digits.train_images,
        facts={},
    )
    assert not refused
    assert table.count(str(ERRORS)) == 2  # the run's network and the file


def test_an_older_run_is_compared_with_a_newer_one(copy):
    older = copy("mlp-s0")
    newer = copy("new-s1", format=runs.FORMAT, version="9.0", config={"seed": 1})
    other = copy("other-s0", config={"learning_rate": 0.02})
    text = str(comparison.compare([older, newer]))
    assert "differ in" not in text  # one recipe
    text = str(comparison.compare([older, other]))
    assert "differ in: --learning_rate (0.01 | 0.02)" in text


@dataclasses.dataclass(frozen=True)
class Later(Config):
    """The settings of a version that has one more."""

    colour: int = setting(3, "Colour of the ink.", least=0)


def test_a_new_setting_does_not_invalidate_older_runs(copy, monkeypatch):
    for module in (trained, recipes, report):
        monkeypatch.setattr(module, "Config", Later)
    older = copy("mlp-s0")
    newer = copy("mlp-s1", format=runs.FORMAT, config={"seed": 1, "colour": 3})
    assert "differ in" not in str(comparison.compare([older, newer]))
    coloured = copy("blue-s0", format=runs.FORMAT, config={"colour": 5})
    text = str(comparison.compare([older, coloured]))
    assert "mlp | blue differ in: --colour (3 | 5)" in text
    # Checkpoints know their run, too.
    assert trained.load(older).step == 24
    with pytest.raises(checkpoints.CheckpointError, match="run with other settings"):
        trained.load(coloured)
    config = Later.recorded(runs.read_run(older)["config"])
    facts = {k: stored(GOLDEN)[k] for k in ("data", "environment")}
    runs.open_run(older, config, "", facts)
    with pytest.raises(runs.RunError, match="--colour=3, not 5"):
        runs.open_run(older, dataclasses.replace(config, colour=5), "", facts)


def test_a_new_setting_changes_no_name():
    (older, name), (newer, same) = (
        (kind(network="mlp", seed=2).resolved(), result._trial(kind(network="mlp")))
        for kind in (Config, Later)
    )
    assert name == same
    own = {"network": "mlp", "optimizer": "adam", "seed": 2}
    assert newer.chosen() == older.chosen() == own
    assert dataclasses.replace(newer, colour=4).chosen() == {**own, "colour": 4}


def test_a_setting_of_a_later_version_is_refused(copy):
    newer = copy(config={"colour": 3})
    for read in (trained.load, recipes.read):
        with pytest.raises(runs.RunError, match="no setting 'colour' in this version"):
            read(newer)


def test_an_older_run_is_resumed_where_it_was_left(copy, digits, capsys):
    run_dir = copy()
    shutil.rmtree(checkpoints.path(run_dir / checkpoints.FOLDER, 24))
    config = Config.recorded(runs.read_run(run_dir)["config"])
    facts = {"data": dict(digits.hashes), "environment": current_environment()}
    record = runs.open_run(run_dir, config, "", facts)
    said = capsys.readouterr().err
    assert f"version 0.5.1, now {cli.VERSION}" in said or cli.VERSION == "0.5.1"
    session = Session(run_dir, record=record)
    train.train(config, sets.load(digits, config), session)
    assert "from step 12" in capsys.readouterr().out
    now, then = history.read(run_dir), history.read(GOLDEN)
    assert now[0] == then[0]
    assert now[1]["test_loss"] == pytest.approx(then[1]["test_loss"], rel=1e-3)
    assert checkpoints.steps(run_dir / checkpoints.FOLDER) == [12, 24]


def test_a_run_of_a_later_format_gives_one_line(copy):
    run_dir = copy(format=runs.FORMAT + 1, version="7.2", data=[], config={"seed": "x"})
    for read in (runs.read_run, trained.load, recipes.read):
        with pytest.raises(runs.RunError) as caught:
            read(run_dir)
        assert re.fullmatch(
            rf".*run.json is of format {runs.FORMAT + 1}, and this version,"
            rf" {cli.VERSION}, reads formats up to {runs.FORMAT}: use version 7.2,.*",
            str(caught.value),
        )


@pytest.mark.parametrize("number", ["1", -1, 1.0, True, [1]])
def test_a_format_that_is_not_a_number_is_damage(copy, number):
    with pytest.raises(runs.RunError, match="its format is not a number"):
        runs.read_run(copy(format=number))
