# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/ensemble.py: several runs as one network."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import evaluation
from evaluation import corruptions, ensemble, predictions, scoring, trained
from system import errors
from tests.browser import CHROMIUM, look_at
from tests.helpers import command
from tests.siblings import make_run
from training import runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs of one recipe."""
    folder = tmp_path_factory.mktemp("members")
    return [make_run(folder / f"mlp-s{seed}", seed=seed) for seed in (1, 2)]


def softmax(run, images):
    return tf.nn.softmax(run.predict(images)).numpy()


def test_probabilities_are_the_mean_of_the_members(folders, digits):
    images = digits.test_images
    found = ensemble.load(folders)
    each = [softmax(trained.load(folder), images) for folder in folders]
    np.testing.assert_allclose(softmax(found, images), np.mean(each, 0), atol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 0.05
    reader = evaluation.load(*folders)
    again = reader.predict(images).probabilities
    np.testing.assert_allclose(again, np.mean(each, 0), atol=1e-5)
    shifted = evaluation.load(*folders, shifts=1).predict(images[:5]).probabilities
    by_hand = softmax(found.averaged(1), images[:5])
    np.testing.assert_allclose(shifted, by_hand, atol=1e-5)
    assert np.abs(shifted - again[:5]).max() > 0.01


def test_a_member_keeps_its_temperature(folders, tmp_path, digits):
    images = digits.test_images[:20]
    one = shutil.copytree(folders[0], tmp_path / "one")
    plain = trained.load(one)
    content = json.dumps({"temperature": 2.0, "step": plain.step})
    (one / trained.TEMPERATURE_FILE).write_text(content)
    tempered = tf.nn.softmax(plain.predict(images) / 2).numpy()
    other = softmax(trained.load(folders[1]), images)
    found = softmax(ensemble.load([one, folders[1]]), images)
    np.testing.assert_allclose(found, (tempered + other) / 2, atol=1e-5)


def test_the_score_is_printed_and_stored(folders, tmp_path):
    folder = tmp_path / "mean"
    submission = tmp_path / "submission.csv"
    done = command(
        *("eval.py", "--ensemble", *folders, "--shifts=1"),
        *(f"--ensemble_dir={folder}", f"--submission={submission}"),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    stored = json.loads((folder / "result.json").read_text())
    assert [member["name"] for member in stored["members"]] == ["mlp-s1", "mlp-s2"]
    assert stored["test"]["images"] == stored["test_shifts1"]["images"] == 360
    labels, probabilities = predictions.read(folder)
    wrong = int((probabilities.argmax(1) != labels).sum())
    assert stored["test"]["errors"] == wrong != stored["test_shifts1"]["errors"]
    rows = [line.split() for line in done.stdout.splitlines()]
    for name, count in (
        *((member["name"], member["errors"]) for member in stored["members"]),
        *(("mean of the 2", wrong),),
        *(("mean over shifts by ±1", stored["test_shifts1"]["errors"]),),
    ):
        words = [*name.split(), f"{count}"]
        assert words in [row[: len(words)] for row in rows], name
    answers = np.loadtxt(submission, np.int64, delimiter=",", skiprows=1)[:, 1]
    wrong_over_shifts = int((answers != labels).sum())
    assert wrong_over_shifts == stored["test_shifts1"]["errors"]
    page = (folder / "report.html").read_text("utf-8")
    assert f"{wrong} errors of 360" in page and "mean over shifts by ±1" in page
    assert "mlp-s2" in page and 'id="corruptions"' not in page
    assert str(folder) not in page and str(folder) not in json.dumps(stored)
    if CHROMIUM:
        for found in look_at(tmp_path, [folder / "report.html"], (360, 1280)):
            assert not found["problems"]
    # Again, as of a run; what it is of is not replaced by another ensemble.
    assert ensemble.load(folders, folder).directory == folder
    with pytest.raises(runs.RunError, match="an ensemble of other members: choose"):
        ensemble.load(folders[::-1], folder)


def test_corruptions_are_stored_unless_averaged_over_shifts(
    folders, tmp_path, digits, monkeypatch, capsys
):
    kept = {name: corruptions.CORRUPTIONS[name] for name in ("clean", "eroded 2")}
    monkeypatch.setattr(corruptions, "CORRUPTIONS", kept)
    found = ensemble.load(folders, tmp_path / "mean")
    scored = found.scored(digits)
    corruptions.evaluate(found.averaged(1), scored)
    assert "mean over shifts by ±1; not stored" in capsys.readouterr().out
    assert not [*(tmp_path / "mean").iterdir()]
    corruptions.evaluate(found, scored)
    wrong = scoring.score(found.predict, *scored["test"]).errors
    assert corruptions.read(tmp_path / "mean")["errors"]["clean"] == wrong


def test_an_export_has_all_members(folders, tmp_path, digits):
    out = tmp_path / "exported"
    done = command(
        *("eval.py", "--ensemble", *folders, "--shifts=1", f"--export_dir={out}"),
        "--export_formats=saved_model,float",
        report=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    stored = json.loads((out / "export.json").read_text())
    assert [row["read_otherwise"] for row in stored["formats"]] == [0, 0, 0]
    assert [member["name"] for member in stored["members"]] == ["mlp-s1", "mlp-s2"]
    assert stored["shifts"] == 1
    images = digits.test_images[:9]
    loaded = tf.saved_model.load(str(out / "saved_model"))
    found = ensemble.load(folders).averaged(1)
    np.testing.assert_allclose(
        loaded(images)["probabilities"], softmax(found, images), atol=1e-5
    )


def test_photos_are_read_by_an_ensemble(folders, tmp_path):
    page = np.full((100, 200), 255, np.uint8)
    page[20:80, 40:48] = page[20:80, 140:148] = 0
    Image.fromarray(page).save(tmp_path / "page.png")
    photos = (f"--images={tmp_path}/page.png", "--reject=0", "--shifts=1")
    readings = tmp_path / "readings.json"
    done = command("eval.py", "--ensemble", *folders, *photos, f"--readings={readings}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len(json.loads(readings.read_text())[0]["digits"]) == 2


# --- refusals ---


def refused(kind, *arguments):
    with pytest.raises(kind) as caught:
        ensemble.load(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_members_must_be_several_and_different(folders, tmp_path):
    one, other = folders
    assert "two runs or more" in refused(errors.UsageError, [one])
    again = one / ".." / one.name
    assert "the same directory" in refused(runs.RunError, [one, other, again])
    copy = shutil.copytree(one, tmp_path / "copy")
    assert "have the same weights" in refused(runs.RunError, [one, other, copy])


def test_members_must_have_the_same_classes(folders, tmp_path):
    names = [*"abcdefghij"]
    letters = make_run(tmp_path / "letters", seed=3, classes=names)
    assert "have different classes" in refused(runs.RunError, [folders[0], letters])


def test_members_are_scored_on_the_same_data(folders, tmp_path):
    other = make_run(tmp_path / "other", seed=3, dataset="mnist")
    members = ensemble.load([folders[0], other]).members
    with pytest.raises(runs.RunError, match="--dataset=digits and .*--dataset=mnist"):
        trained.load_data(members, None)


def test_held_out_digits_are_those_that_all_held_out(tmp_path, digits):
    folders = [
        make_run(tmp_path / f"{seed}", seed=seed, validation_size=size)
        for seed, size in ((1, 100), (2, 100), (3, 0))
    ]
    assert set(ensemble.load(folders[:2]).scored(digits)) == {"validation", "test"}
    assert set(ensemble.load(folders).scored(digits)) == {"test"}


def test_a_folder_with_anything_else_is_refused(folders, tmp_path):
    for folder in (folders[0], tmp_path):
        (tmp_path / "mine").write_text("mine")
        assert "which is not of an ensemble" in refused(runs.RunError, folders, folder)
    assert "no folder" in refused(runs.RunError, folders, tmp_path / "mine")
    (tmp_path / "mine").unlink()
    (tmp_path / "result.json").write_text("{}")
    assert "no folder with the score" in refused(runs.RunError, folders, tmp_path)
