# SPDX-License-Identifier: Apache-2.0
"""Tests of train.py and eval.py as a user calls them."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

import models
from evaluation import outputs, scoring
from evaluation.trained import load
from system import errors
from system.errors import UserError
from tests.helpers import command
from training import checkpoints, manifest, runs
from training.checkpoints import CheckpointError
from training.runs import RunError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Directory and finished process of a run of one epoch of 640 digits."""
    folder = tmp_path_factory.mktemp("trained")
    done = command(
        "train.py",
        "--flagfile=flags/digits.flags",
        "--epochs=1",
        "--epoch_images=640",
        "--shift_pixels=1",
        "--weight_average=0.5",
        f"--augmented_dir={folder / 'augmented'}",
        f"--run_dir={folder}/{{network}}-s{{seed}}",
    )
    assert done.returncode == 0, done.stderr
    return folder / "lenet-s0", done


def contents(run_dir):
    paths = (p for p in run_dir.rglob("*") if p.is_file() and p.name != ".lock")
    return {path: path.read_bytes() for path in paths}


def result(run_dir):
    return json.loads((run_dir / "result.json").read_text())


def stored_values(prefix, *names):
    """Variables as stored in a checkpoint."""
    reader = tf.train.load_checkpoint(str(prefix))
    return [reader.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE") for name in names]


def test_train_scores_the_trained_network(trained):
    run_dir, done = trained
    assert "errors of 360" in done.stdout
    assert {p.name for p in run_dir.iterdir()} == {
        *(".lock", "checkpoints", "flags.txt", "metrics.csv", "predictions.npz"),
        *("final", "fed.json", "report.html", "result.json", "run.json", "test"),
        "train",
    }
    stored = result(run_dir)
    assert (stored["epochs"], stored["steps"], stored["test"]["images"]) == (1, 10, 360)
    assert stored["test"]["accuracy"] > 0.3  # 0.1 is chance
    assert stored["test_accuracy_by_epoch"] == [
        pytest.approx(stored["test"]["accuracy"])
    ]
    assert stored["config"]["epoch_images"] == 640
    assert set(stored["data"]) >= {"train_images", "test_labels"}
    assert stored["environment"]["onednn"]


def test_eval_gives_the_same_score(trained):
    run_dir, _ = trained
    before = result(run_dir)
    (run_dir / "result.json").unlink()
    done = command("eval.py", f"--run_dir={run_dir}", report=False)
    assert (done.returncode, done.stderr) == (0, "")
    after = result(run_dir)
    assert after["test"].pop("loss") == pytest.approx(before["test"].pop("loss"))
    assert after == before
    assert f"{before['test']['errors']} errors of 360" in done.stdout


def test_eval_exports_the_network_and_prints_its_errors(trained, tmp_path):
    run_dir, _ = trained
    # Without int8: for a network that has hardly started to learn, it may have a few
    # more errors.
    export = ("--export_formats=saved_model,float", f"--export_dir={tmp_path / 'e'}")
    done = command("eval.py", f"--run_dir={run_dir}", *export, report=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "e")
    assert "float.tflite" in done.stdout and "differ" in done.stdout
    stored = json.loads((tmp_path / "e" / "export.json").read_text())
    assert stored["checked_on"] == "test"
    assert stored["run"]["config"]["epoch_images"] == 640
    errors = result(run_dir)["test"]["errors"]
    assert [row["errors"] for row in stored["formats"]] == [errors] * 3
    again = command("eval.py", f"--run_dir={run_dir}", *export)
    assert again.returncode == 1
    assert "exists already: choose another --export_dir" in again.stderr


def test_an_output_that_fails_leaves_the_others_intact():
    def write(name):
        if name != "c.csv":
            raise RunError(f"cannot write {name}")
        done.append(name)

    done, written = [], outputs.Outputs()
    names = ("a.csv", "b.csv", "c.csv")
    assert [written.attempt(write, name) for name in names] == [False, False, True]
    assert done == ["c.csv"]
    with pytest.raises(UserError, match="^cannot write a.csv; cannot write b.csv$"):
        written.report()
    outputs.Outputs().report()


def test_restarting_a_finished_run_prints_one_sentence(trained):
    run_dir, _ = trained
    before = contents(run_dir)
    done = command("train.py", f"--flagfile={run_dir / 'flags.txt'}")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(  # one sentence
        rf"{run_dir} is trained to its last step, 10, and scored: \d+ errors of 360; to"
        rf" score it again: .*python eval.py --run_dir={run_dir}\n",
        done.stdout,
    )
    assert contents(run_dir) == before


def test_nothing_in_a_run_directory_contains_its_path(trained):
    run_dir, first = trained
    assert str(run_dir) in first.stdout
    for path, content in contents(run_dir).items():
        assert str(run_dir).encode() not in content, path
        assert b"run_dir=/" not in content, path


def test_corruptions_are_scored_stored_and_in_the_report(trained, tmp_path):
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    done = command("eval.py", f"--run_dir={run_dir}", "--corruptions", report=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((run_dir / "corruptions.json").read_text())
    errors = json.loads((run_dir / "result.json").read_text())["test"]["errors"]
    assert found["errors"]["clean"] == errors and found["images"] == 360
    assert f"clean {errors:,}" in " ".join(done.stdout.split())
    assert 'id="corruptions"' in (run_dir / "report.html").read_text("utf-8")


def test_the_score_over_shifts_is_stored_next_to_the_plain_one(trained, tmp_path):
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    before = result(run_dir)
    done = command("eval.py", f"--run_dir={run_dir}", "--shifts=1", report=False)
    assert (done.returncode, done.stderr) == (0, "")
    after = result(run_dir)
    shifted = after.pop("test_shifts1")
    assert after["test"]["errors"] == before["test"]["errors"]
    assert set(after) == set(before)
    line = f"mean over shifts by ±1: accuracy {shifted['accuracy']:.2%}"
    assert line in done.stdout and shifted["errors"] > 0
    refused = command("eval.py", f"--run_dir={run_dir}", f"--calibrate={run_dir}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "held no digits out" in refused.stderr and refused.stderr.count("\n") == 1


def test_another_seed_in_the_same_directory_is_refused(trained):
    run_dir, _ = trained
    flagfile, other = f"--flagfile={run_dir / 'flags.txt'}", f"--run_dir={run_dir}"
    done = command("train.py", flagfile, other, "--seed=5")
    assert done.returncode == 1
    assert done.stderr.startswith("train.py: ") and done.stderr.count("\n") == 1
    assert "--seed=0, not 5" in done.stderr


def test_the_loaded_network_is_the_average(trained):
    run_dir, _ = trained
    run = load(run_dir)
    assert run.step == 10
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    labels = np.array([0, 1], np.uint8)
    probabilities = scoring.score(run.predict, images, labels).probabilities
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    prefix = checkpoints.path(run_dir / "checkpoints", 10) / manifest.STATE
    stored = stored_values(prefix, "average/dense2/w", "network/dense2/w")
    np.testing.assert_array_equal(run.predict.network.dense2.w.numpy(), stored[0])
    assert np.any(stored[0] != stored[1])


def test_the_checkpoint_before_a_damaged_one_is_scored(trained, tmp_path, capsys):
    """In a run of one epoch, that is the state before the first step."""
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    assert checkpoints.steps(run_dir / "checkpoints") == [0, 10]
    (checkpoints.path(run_dir / "checkpoints", 10) / "state.index").unlink()
    with pytest.raises(RunError, match="has not finished an epoch yet"):
        load(run_dir)
    assert "step-00000010 is damaged (state.index" in capsys.readouterr().err
    submission = tmp_path / "submission.csv"
    for wanted in (f"--submission={submission}", "--images=photo.png"):
        done = command("eval.py", f"--run_dir={run_dir}", wanted)
        assert done.returncode == 1
        assert "has not finished an epoch yet" in done.stderr.splitlines()[-1]
        assert not submission.exists()
    assert checkpoints.steps(run_dir / "checkpoints") == [0, 10]  # it only reads


@pytest.mark.parametrize(
    "damage, what",
    [
        ({"batch_norm_decay": "x"}, "'batch_norm_decay' is of the wrong type"),
        ({"dropout": 1}, "'dropout': expected a number in"),
        ({"hidden_units": [3]}, "--network=lenet has no --hidden_units"),
    ],
)
def test_a_setting_that_no_network_can_have_is_damage(trained, tmp_path, damage, what):
    run = runs.read_run(trained[0])
    run["config"]["batch_norm"] = "all"
    state = tf.train.Checkpoint(average=models.build(**run["config"]))
    run["config"] |= damage
    runs.write_atomically(tmp_path / "run.json", json.dumps(run))
    shutil.copy(trained[0] / "metrics.csv", tmp_path)
    checkpoints.save(state, tmp_path / "checkpoints", 10, run["config"])
    with pytest.raises(RunError, match=f"run.json is damaged, .*{what}"):
        load(tmp_path)


def test_determinism_is_a_separate_flag(tmp_path):
    """With it, TensorFlow stops at any operation that is not deterministic."""
    done = command(
        *("train.py", "--flagfile=flags/digits.flags", "--deterministic", "--epochs=1"),
        *("--epoch_images=128", "--shift_directions=", "--rotation=5", "--replicas=1"),
        f"--run_dir={tmp_path / 'run'}",
        report=False,
    )
    assert done.returncode == 0, done.stderr
    assert runs.read_run(tmp_path / "run")["config"]["deterministic"] is True


def test_a_run_without_a_checkpoint_is_refused(trained, tmp_path):
    run = (trained[0] / "run.json").read_text()
    runs.write_atomically(tmp_path / "run.json", run)
    with pytest.raises(RunError, match="has no checkpoint yet: train it first"):
        load(tmp_path)
    checkpoints.path(tmp_path / "checkpoints", 3).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="step-00000003"):
        load(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        load(tmp_path)


@pytest.fixture(scope="module")
def competition(tmp_path_factory):
    """A folder with files like Kaggle's: 300 training digits and 100 test digits."""
    folder = tmp_path_factory.mktemp("competition")
    made = command(
        *("-m", "data.make_kaggle", f"--kaggle_dir={folder}", "--dataset=digits"),
        *("--train_rows=300", "--test_rows=100"),
    )
    assert made.returncode == 0, made.stderr
    return folder


def test_kaggle_from_its_files_to_the_submission(competition, tmp_path):
    run_dir, submission = tmp_path / "run", tmp_path / "submission.csv"
    trained = command(
        *("train.py", "--dataset=kaggle", f"--data_dir={competition}"),
        *("--shift_directions=", "--flip_codes=", "--network=mlp", "--hidden_units=30"),
        *("--validation_size=60", "--epochs=8", "--batch_size=30", "--sampler=epochs"),
        *("--keep_best", "--rotation=5", f"--run_dir={run_dir}"),
        report=False,
    )
    assert trained.returncode == 0, trained.stderr
    assert "errors of 60" in trained.stdout
    assert set(result(run_dir)) >= {"validation", "validation_accuracy_by_epoch"}
    assert "test" not in result(run_dir)
    done = command(
        *("eval.py", f"--run_dir={run_dir}", f"--data_dir={competition}"),
        f"--submission={submission}",
        report=False,
    )
    assert done.returncode == 0, done.stderr
    assert "errors of 60" in done.stdout  # the very ones held out in training
    assert done.stdout.splitlines()[-3:] == trained.stdout.splitlines()[-3:]
    answers = submission.read_text().splitlines()
    key = (competition / "test_labels.csv").read_text().splitlines()
    assert len(answers) == len(key) == 101
    assert answers[0] == key[0] == "ImageId,Label"
    right = sum(map(str.__eq__, answers[1:], key[1:]))
    assert right > 50  # 10 would be chance


def test_an_export_without_labels_to_check_it_is_refused_first(competition, tmp_path):
    run_dir, submission = tmp_path / "run", tmp_path / "submission.csv"
    trained = command(
        *("train.py", "--dataset=kaggle", f"--data_dir={competition}"),
        *("--shift_directions=", "--flip_codes=", "--network=mlp", "--hidden_units=9"),
        *("--epochs=1", f"--run_dir={run_dir}"),
    )
    assert trained.returncode == 0, trained.stderr
    evaluate = ("eval.py", f"--run_dir={run_dir}", f"--data_dir={competition}")
    evaluate += (f"--submission={submission}",)
    done = command(*evaluate, f"--export_dir={tmp_path / 'exported'}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "has nothing to be scored on" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    done = command(*evaluate)
    assert (done.returncode, done.stdout) == (0, f"{submission}\n"), done.stderr


@pytest.mark.parametrize("flag", [*outputs.FILES, *outputs.FOLDERS])
def test_an_unwritable_output_is_refused_first(tmp_path, flag):
    (tmp_path / "file").touch()
    none = dict.fromkeys((*outputs.FILES, *outputs.FOLDERS))
    outputs.check({**none, flag: str(tmp_path / "new")})
    with pytest.raises(
        errors.UserError, match=f"^cannot write .*below: .*another --{flag}$"
    ):
        outputs.check({**none, flag: str(tmp_path / "file" / "below")})
    assert {p.name for p in tmp_path.iterdir()} == {"file"}
