# SPDX-License-Identifier: Apache-2.0
"""Tests of the training loop on a hundred digits: results, resuming, refusals."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import data
import models
import train
from config import Config
from evaluation import gallery, scoring
from models import layers
from training import (
    batches,
    checkpoints,
    history,
    interruption,
    optimizers,
    runs,
    windows,
)
from training.session import Session
from training.sets import Sets
from training.sets import load as load_sets
from training.state import State, Totals, TrainingError

STEPS = 4  # per epoch, with SMALL
SMALL = {
    "dataset": "digits",
    "shift_directions": [],
    "flip_codes": [],
    "batch_norm": "conv",
    "dropout": 0.2,
    "weight_average": 0.9,
    "rotation": 10.0,
    "schedule": "cosine",
    "batch_size": 32,
    "replicas": 2,
    "epochs": 3,
    "seed": 1,
}


@pytest.fixture(scope="module")
def config():
    """The defaults with SMALL's values."""
    return Config(**SMALL)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def sets(digits):
    """128 images to train on, 50 held out, 60 to test on."""
    images, labels = digits.train_images, digits.train_labels
    scored = {
        "validation": (images[200:250], labels[200:250]),
        "test": (digits.test_images[:60], digits.test_labels[:60]),
    }
    return Sets(images[:128], labels[:128], scored)


def only(sets, split):
    return sets._replace(scored={split: sets.scored[split]})


@pytest.fixture(scope="module")
def finished(config, sets, tmp_path_factory):
    """Directory of an undisturbed run."""
    run_dir = tmp_path_factory.mktemp("finished")
    trained(config, sets, run_dir)
    return run_dir


@pytest.fixture(scope="module")
def interrupted(config, sets, tmp_path_factory):
    """Directory of the same run, interrupted at the start of its third epoch."""
    run_dir = tmp_path_factory.mktemp("interrupted")
    write = history.write

    def interrupt(run_dir, rows):
        write(run_dir, rows)
        if len(rows) == 3:  # after the third epoch, before its checkpoint
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(config, sets, run_dir)
    assert checkpoints.steps(run_dir / "checkpoints") == [STEPS, 2 * STEPS]
    return run_dir


def trained(config, sets, run_dir, signal=lambda: 0, **changes):
    return train.train(
        replace(config, **changes), sets, Session(run_dir, signal=signal)
    )


def copy_of(run_dir, target):
    """A copy of a run, to be trained further."""
    return shutil.copytree(run_dir, target, dirs_exist_ok=True)


def restored(config, run_dir):
    """The state of the last checkpoint, and its step."""
    state = State(config)
    folder = run_dir / "checkpoints"
    return state, checkpoints.restore(state.checkpoint, folder, config.deciding())


def values(config, run_dir):
    """Every variable of the last checkpoint, as bytes."""
    state, _ = restored(config, run_dir)
    modules = (state.network, state.average, state.optimizer, state.watch, state.best)
    return [v.numpy().tobytes() for m in modules if m for v in m.variables]


def rows_without_seconds(run_dir):
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in history.read(run_dir)
    ]


def points(run_dir):
    """What TensorBoard shows of training: {(split, tag): [(step, value), …]}."""
    shown = {}
    for split in ("train", "validation", "test"):
        events = EventAccumulator(str(run_dir / split), size_guidance={"tensors": 0})
        for tag in events.Reload().Tags()["tensors"]:
            if tag != "images_per_second/by_step":
                shown[split, tag] = [
                    (point.step, point.tensor_proto.SerializeToString())
                    for point in events.Tensors(tag)
                ]
    return shown


def same(config, run_dir, other):
    """Whether two runs have the same variables, metrics and curves, bit for bit."""
    return (
        values(config, run_dir) == values(config, other)
        and rows_without_seconds(run_dir) == rows_without_seconds(other)
        and points(run_dir) == points(other)
    )


def after(calls, signal):
    """Asks to stop, as a signal would, after this many calls of the graph."""
    answers = iter([0] * calls)
    return lambda: next(answers, signal)


def test_the_loss_falls(finished):
    rows = history.read(finished)
    losses = [row["train_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.75 * losses[0]
    assert rows[-1]["train_accuracy"] > rows[0]["train_accuracy"] + 0.1


def test_a_row_per_epoch_and_the_last_two_checkpoints(finished):
    rows = history.read(finished)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert [row["images"] for row in rows] == [128, 256, 384]
    seconds = [row["seconds"] for row in rows]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert {"validation_loss", "validation_accuracy"} <= set(rows[0])
    assert checkpoints.steps(finished / "checkpoints") == [8, 12]
    for split in ("train", "validation", "test"):
        assert list((finished / split).iterdir())


def test_a_resumed_run_equals_an_undisturbed_one(
    config, sets, interrupted, finished, tmp_path, capsys
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    trained(config, sets, run_dir)
    assert "from step 8" in capsys.readouterr().out
    assert same(config, run_dir, finished)


def test_no_curve_has_duplicate_points(finished):
    for shown in points(finished).values():
        steps = [step for step, _ in shown]
        assert steps == sorted(set(steps))


def test_a_run_resumed_within_an_epoch_equals_an_undisturbed_one(
    config, sets, tmp_path
):
    for run_dir in (whole := tmp_path / "whole", cut := tmp_path / "cut"):
        run_dir.mkdir()
    trained(config, sets, whole, log_steps=2)
    for calls, code, step in ((3, 15, 6), (0, 2, 6), (2, 2, 10)):
        with pytest.raises(interruption.Stopped) as caught:
            trained(config, sets, cut, log_steps=2, signal=after(calls, code))
        assert f"at step {step}, which is saved" in str(caught.value)
        assert f"train.py --flagfile={cut / 'flags.txt'}" in str(caught.value)
        assert caught.value.exit_code == 128 + code
        assert checkpoints.steps(cut / "checkpoints")[-1] == step
    trained(config, sets, cut, log_steps=2)
    assert same(config, cut, whole)


def test_a_damaged_checkpoint_costs_only_time(
    config, sets, interrupted, finished, tmp_path, capsys
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    (checkpoints.path(run_dir / "checkpoints", 8) / "state.index").unlink()
    trained(config, sets, run_dir)
    said = capsys.readouterr()
    assert "step-00000008 is damaged (state.index is not" in said.err
    assert "from step 4" in said.out
    assert same(config, run_dir, finished)


@pytest.mark.parametrize("left", ["checkpoint", "metrics.csv", "train", "result.json"])
def test_a_run_without_a_checkpoint_never_starts_over(
    config, sets, interrupted, tmp_path, left
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    for step in checkpoints.steps(run_dir / "checkpoints"):
        place = checkpoints.path(run_dir / "checkpoints", step)
        if left == "checkpoint":
            (place / "manifest.json").write_bytes(b"")
        else:
            shutil.rmtree(place)
    if left != "metrics.csv":
        (run_dir / "metrics.csv").unlink()
    if left != "train":
        for split in ("train", "validation", "test"):
            shutil.rmtree(run_dir / split)
    if left == "result.json":
        (run_dir / left).write_text("{}")
    before = {p: p.is_file() and p.read_bytes() for p in run_dir.rglob("*")}
    with pytest.raises(checkpoints.CheckpointError, match="another --run_dir"):
        trained(config, sets, run_dir)
    assert {p: p.is_file() and p.read_bytes() for p in run_dir.rglob("*")} == before


def test_lost_history_is_refused(config, sets, interrupted, finished, tmp_path):
    """We do not train the whole run again, since its weights are there."""
    for number, of in enumerate((interrupted, finished)):
        run_dir = copy_of(of, tmp_path / f"{number}")
        shutil.rmtree(checkpoints.path(run_dir / "checkpoints", (2 + number) * STEPS))
        (run_dir / "metrics.csv").unlink()
        with pytest.raises(runs.RunError, match="metrics.csv has lost its history"):
            trained(config, sets, run_dir)
        assert not (run_dir / "metrics.csv").exists()


def test_lost_events_are_reported_and_the_run_resumes(
    config, sets, interrupted, finished, tmp_path, capsys
):
    run_dir = copy_of(interrupted, tmp_path / "run")
    shutil.rmtree(run_dir / "test")
    trained(config, sets, run_dir)
    line = capsys.readouterr().err.splitlines()[0]
    assert f"{run_dir / 'test'} has lost TensorBoard's events from before" in line
    assert values(config, run_dir) == values(config, finished)
    trained(config, sets, run_dir)
    assert "has lost" not in capsys.readouterr().err  # said once


def test_the_history_has_its_columns(finished):
    row, *_ = history.read(finished)
    assert list(row) == history.columns(["validation", "test"])


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    config, sets, finished, tmp_path
):
    (tmp_path / "checkpoints" / ".unfinished-00000000").mkdir(parents=True)
    trained(config, sets, tmp_path)
    assert same(config, tmp_path, finished)


def test_a_checkpoint_without_the_loops_variables_is_refused(config, sets, tmp_path):
    state = State(config)
    folder = tmp_path / "checkpoints"
    checkpoints.save(state.checkpoint, folder, 4, config.deciding(), {"mood": 1})
    with pytest.raises(checkpoints.CheckpointError, match="not of this version"):
        trained(config, sets, tmp_path)


def test_log_and_checkpoint_intervals_change_nothing(config, sets, finished, tmp_path):
    trained(config, sets, tmp_path, log_steps=3, checkpoint_epochs=2)
    assert values(config, tmp_path) == values(config, finished)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2 * STEPS, 3 * STEPS]
    for one, other in zip(
        rows_without_seconds(tmp_path), rows_without_seconds(finished), strict=True
    ):
        assert one == pytest.approx(other)  # sums of losses are rounded otherwise


def test_a_finished_run_is_left_alone(config, sets, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    predict = trained(config, sets, finished)
    assert "is trained to its last step, 12" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before
    scores = scoring.score(predict, *sets.scored["test"])
    last = history.read(finished)[-1]
    assert scores.accuracy == pytest.approx(last["test_accuracy"])
    assert scores.loss == pytest.approx(last["test_loss"])


def test_online_augmentation_runs_in_each_step(config, sets, finished, tmp_path):
    still = replace(config, rotation=0.0)
    trained(still, sets, tmp_path)
    assert values(still, tmp_path) != values(config, finished)


def test_online_augmentation_and_dropout_share_no_random_numbers(config):
    seeds = []

    def transform(images, seed, settings):
        assert settings.rotation == 10
        seeds.append(tuple(seed.numpy()))
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches.online, "transform", transform)
        augment = batches.make_augment(config)
        for step in (0, 5):
            augment(tf.zeros([1, 28, 28, 1], tf.uint8), tf.constant([3, step]))
    of_dropout = {
        tuple(layers.mask_seed(tf.constant([3, step]), number).numpy())
        for step in (0, 5)
        for number in range(layers.MASKS)
    }
    assert len({*seeds, *of_dropout}) == len(seeds) + len(of_dropout)


def test_every_option_of_a_network_or_a_rule_is_a_flag(config):
    assert {*models.OPTIONS, *optimizers.OPTIONS} <= set(vars(config))


def test_the_weight_average_is_scored(config, sets, finished):
    state, _ = restored(config, finished)
    last = history.read(finished)[-1]
    scored, raw = (
        scoring.score(scoring.Predict(n), *sets.scored["test"])
        for n in (state.average, state.network)
    )
    assert scored.loss == pytest.approx(last["test_loss"])
    assert abs(raw.loss - scored.loss) > 1e-3
    pairs = zip(state.average.variables, state.network.variables, strict=True)
    assert all(np.any(slow.numpy() != fast.numpy()) for slow, fast in pairs)


def test_a_loss_that_is_not_finite_stops_the_run(config, sets, interrupted, tmp_path):
    run_dir = copy_of(interrupted, tmp_path)
    absurd = replace(config, learning_rate=1e30, activation="relu")
    state, _ = restored(config, run_dir)
    progress = checkpoints.progress(run_dir / "checkpoints", 8)
    folder = run_dir / "checkpoints"
    checkpoints.save(state.checkpoint, folder, 8, absurd.deciding(), progress)
    with pytest.raises(TrainingError, match="NaN or infinite") as caught:
        trained(absurd, sets, run_dir)
    message = str(caught.value)
    assert "at step 9 of" in message  # step 8 took the weights too far
    assert str(checkpoints.path(run_dir / "checkpoints", 8)) in message
    assert "lower --learning_rate" in message
    assert len(message.splitlines()) == 1
    state, step = restored(absurd, run_dir)
    assert step == 8
    for variable in (*state.network.variables, *state.average.variables):
        assert np.isfinite(variable.numpy()).all()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_no_checkpoint_holds_weights_that_are_not_finite(config, sets, tmp_path):
    # The one step of the epoch has a finite loss, and leaves infinite weights.
    absurd = replace(config, learning_rate=1e39, epochs=2, epoch_images=1)
    absurd = replace(absurd, batch_norm="none", dropout=0.0, schedule="constant")
    with pytest.raises(TrainingError, match="NaN or infinite"):
        trained(absurd, sets, tmp_path)
    state, step = restored(absurd, tmp_path)
    assert step == 0
    for variable in state.network.variables:
        assert np.isfinite(variable.numpy()).all()


def test_check_finite_names_loss_gradient_or_weight(config, tmp_path):
    state = State(config)

    def check(loss, norm):
        norms = tf.constant([1.0, norm])
        totals = Totals(tf.constant(6), tf.constant(loss), 0, norms, 0.1)
        state.check_finite(totals, tmp_path)

    check(1.0, 1.0)
    for loss in (math.nan, math.inf):
        with pytest.raises(TrainingError, match="the loss .* step 5 .*none yet"):
            check(loss, 1.0)
    with pytest.raises(TrainingError, match="a gradient .* step 5"):
        check(1.0, math.inf)
    w = state.network.conv1.w
    w.assign(w * math.inf)
    with pytest.raises(TrainingError, match="a weight .* step 5"):
        check(1.0, 1.0)


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_take_the_same_step_as_the_whole_batch(config, sets, replicas):
    def weights(replicas):
        exact = {"dropout": 0.0, "batch_norm": "none", "rotation": 0.0, "shear": 0.0}
        chosen = replace(config, **exact, replicas=replicas, optimizer="momentum")
        state = State(chosen)
        data = tf.constant(sets.train_images), tf.constant(sets.train_labels)
        totals = train.make_train_steps(state, *data, chosen, 4)(0, 4, training=True)
        values = [v.numpy() for v in state.network.variables]
        return values, totals.loss, totals.correct, totals.gradient_norms

    ours, exact = weights(replicas), weights(1)
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_replicas_of_batch_norm_average_their_statistics(config, sets):
    """The moving averages lie between those of two replicas."""
    chosen = replace(config, dropout=0.0, rotation=0.0, weight_average=0.0)
    data = tf.constant(sets.train_images), tf.constant(sets.train_labels)

    def mean(replicas):
        state = State(replace(chosen, replicas=replicas))
        steps = train.make_train_steps(
            state, *data, replace(chosen, replicas=replicas), 1
        )
        steps(0, 1, training=True)
        return state.network.norm1.mean.numpy()

    np.testing.assert_allclose(mean(2), mean(1), rtol=1e-4, atol=1e-6)


def test_training_defaults_to_false(config, sets):
    plain = replace(config, dropout=0.0, weight_average=0.0)
    state = State(plain)
    steps = train.make_train_steps(
        state, tf.constant(sets.train_images), tf.constant(sets.train_labels), plain, 3
    )

    def averages():
        fixed = [v for v in state.network.variables if not v.trainable]
        assert len(fixed) == 4
        return [v.numpy().copy() for v in fixed]

    before = averages()
    totals = steps(0, 1)
    assert int(totals.step) == 1
    np.testing.assert_equal(averages(), before)
    steps(1, 1, training=True)
    assert all(np.any(a != b) for a, b in zip(averages(), before, strict=True))


@pytest.fixture
def accuracies(monkeypatch):
    """accuracies(a, b, …) sets the validation accuracies after the next epochs."""

    score = gallery.score

    def script(*values):
        left = list(values)

        def scripted(*arguments):
            return {**score(*arguments), "validation_accuracy": left.pop(0)}

        monkeypatch.setattr(gallery, "score", scripted)

    return script


CHOOSING = {
    **{"schedule": "plateau", "plateau_patience": 1, "decay_factor": 0.5},
    **{"keep_best": True, "epochs": 6},
}


def rates(run_dir):
    return [row["learning_rate"] for row in history.read(run_dir)]


def test_a_plateau_lowers_the_rate_of_the_next_epoch(
    config, sets, accuracies, tmp_path
):
    accuracies(0.5, 0.5, 0.6, 0.5, 0.5, 0.5)
    floor = {"plateau_floor": 3e-4}
    trained(replace(config, **CHOOSING, **floor), sets, tmp_path)
    expected = [1e-3, 1e-3, 5e-4, 5e-4, 3e-4, 3e-4]
    assert rates(tmp_path) == pytest.approx(expected, rel=1e-5)


def test_the_best_weights_are_scored(config, sets, accuracies, tmp_path):
    accuracies(0.5, 0.7, 0.6, 0.7, 0.6, 0.6)
    choosing = replace(config, **CHOOSING)
    predict = trained(choosing, sets, tmp_path)
    best = scoring.score(predict, *sets.scored["test"])
    rows = history.read(tmp_path)
    assert best.loss == pytest.approx(rows[1]["test_loss"])
    assert abs(best.loss - rows[-1]["test_loss"]) > 1e-3
    again = trained(choosing, sets, tmp_path)
    finished = scoring.score(again, *sets.scored["test"])
    assert finished.loss == best.loss


def test_a_run_that_stopped_early_stays_stopped(
    config, sets, accuracies, tmp_path, capsys
):
    accuracies(0.5, 0.6, 0.6, 0.6, 0.9, 0.9)
    stopping = replace(config, early_stopping=2, epochs=6)
    trained(stopping, sets, tmp_path, checkpoint_epochs=5)
    assert len(history.read(tmp_path)) == 4
    assert checkpoints.steps(tmp_path / "checkpoints") == [0, 4 * STEPS]
    trained(stopping, sets, tmp_path)
    assert "is trained to its last step, 16" in capsys.readouterr().out
    assert len(history.read(tmp_path)) == 4


def test_decisions_by_validation_survive_an_interruption(
    config, sets, accuracies, tmp_path, monkeypatch
):
    script = (0.5, 0.7, 0.6, 0.6, 0.65, 0.6)
    choosing = replace(config, **CHOOSING, early_stopping=4)
    for run in ("whole", "cut"):
        (tmp_path / run).mkdir()
    accuracies(*script)
    trained(choosing, sets, tmp_path / "whole")
    accuracies(*script)
    write = history.write

    def interrupt(run_dir, rows):
        write(run_dir, rows)
        if len(rows) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(history, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(choosing, sets, tmp_path / "cut")
    accuracies(*script[3:])
    trained(choosing, sets, tmp_path / "cut")
    assert values(choosing, tmp_path / "cut") == values(choosing, tmp_path / "whole")
    assert rates(tmp_path / "cut") == rates(tmp_path / "whole")


def test_the_loss_is_that_of_the_settings(config, sets, tmp_path):
    binary = replace(config, loss="binary_cross_entropy", epochs=1)
    predict = trained(binary, sets, tmp_path)
    (row,) = history.read(tmp_path)
    # An untrained network's: −(log 0.1 + 9 log 0.9) / 10; of softmax it is 2.3.
    assert row["train_loss"] < 0.6
    scores = scoring.score(
        predict,
        *(*sets.scored["test"], "binary_cross_entropy"),
    )
    assert row["test_loss"] == pytest.approx(scores.loss)
    assert row["test_binary_accuracy"] == pytest.approx(scores.binary_accuracy)


def test_a_test_set_without_labels_is_not_scored(config, sets, tmp_path):
    trained(replace(config, epochs=1), only(sets, "validation"), tmp_path)
    (row,) = history.read(tmp_path)
    assert "validation_accuracy" in row
    assert not [name for name in row if name.startswith("test")]
    assert not (tmp_path / "test").exists()


def test_epoch_images_set_the_number_of_steps(config, sets, tmp_path):
    plain = replace(config, batch_norm="none", dropout=0.0, weight_average=0.0)
    short = replace(plain, epoch_images=65, epochs=1)
    trained(short, only(sets, "test"), tmp_path)
    (row,) = history.read(tmp_path)
    assert (row["step"], row["images"]) == (3, 96)  # 65 images are 3 batches of 32
    assert "validation_loss" not in row
    assert not (tmp_path / "validation").exists()


@pytest.fixture
def distinct():
    """Forty different images; each has its number in its middle pixel."""
    images = np.zeros((40, 28, 28, 1), np.uint8)
    images[:, 14, 14, 0] = np.arange(1, 41)
    images[:, 10, 14, 0] = 255
    labels = np.tile(np.arange(10, dtype=np.uint8), 4)
    return data.Dataset("distinct", images, labels, images, labels, {"a": "b"}, "")


def numbers(images):
    """The number that each image contains."""
    return np.where(images == 255, 0, images).max((1, 2, 3)) - 1


def test_no_copy_of_a_held_out_image_is_trained_on(config, distinct, tmp_path):
    enlarging = {"shift_directions": ["up", "left"], "flip_codes": ["1"]}
    options = replace(config, **enlarging, validation_size=7)
    sets = load_sets(distinct, replace(options, augmented_dir=str(tmp_path)))
    held_out = set(numbers(sets.scored["validation"][0]))
    assert len(held_out) == len(sets.scored["validation"][1]) == 7
    trained = numbers(sets.train_images)
    assert set(trained) == set(range(40)) - held_out
    assert len(trained) == 33 * 4  # original, up, left, flipped
    np.testing.assert_array_equal(sets.train_labels, trained % 10)
    np.testing.assert_array_equal(
        sets.scored["validation"][1], numbers(sets.scored["validation"][0]) % 10
    )
    everything = load_sets(
        distinct, replace(replace(config, **enlarging), augmented_dir=str(tmp_path))
    )
    assert len(everything.train_labels) == 40 * 4
    assert set(everything.scored) == {"test"}


def test_all_seeds_of_a_recipe_hold_out_the_same_images(config, distinct, tmp_path):
    def held_out(**changes):
        options = replace(config, validation_size=7, **changes)
        images, _ = load_sets(
            distinct, replace(options, augmented_dir=str(tmp_path))
        ).scored["validation"]
        return set(numbers(images))

    assert held_out(seed=1) == held_out(seed=2)
    assert held_out(split_seed=1) != held_out(split_seed=2)


# --- sets larger than memory ---

WINDOWED = {
    **{"deform": ["elastic", "affine"], "multiply": 8, "memory_mb": 7},
    **{"network": "mlp", "activation": None, "batch_norm": None, "dropout": None},
    **{"weight_average": 0.0, "batch_size": 64, "epochs": 2, "epoch_images": 6400},
    **{"sampler": "epochs"},
}
WINDOW = 66  # steps: 7,000,000 / ((2 · 785 + 64) · 64)


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory):
    return str(tmp_path_factory.mktemp("augmented"))


@pytest.fixture(scope="module")
def windowed(config, digits, enlarged):
    """A configuration whose training set does not fit into memory, and its sets."""
    windowed = replace(config, **WINDOWED, validation_size=37)
    sets = load_sets(digits, replace(windowed, augmented_dir=enlarged))
    assert sets.train_count == 1400 * 8 and not sets.train_images.size
    return windowed, sets


@pytest.mark.parametrize("sampler", ["epochs", "random"])
def test_a_run_resumed_within_a_window_equals_an_undisturbed_one(
    windowed, tmp_path, sampler
):
    config, sets = windowed
    config = replace(config, sampler=sampler)
    for run_dir in (whole := tmp_path / "whole", cut := tmp_path / "cut"):
        run_dir.mkdir()
    trained(config, sets, whole, log_steps=30)
    for calls, step in ((2, 60), (1, WINDOW), (3, 130)):  # 66, 96, 100, 130
        with pytest.raises(interruption.Stopped, match=f"step {step}, which is saved"):
            trained(config, sets, cut, log_steps=30, signal=after(calls, 15))
    trained(config, sets, cut, log_steps=30)
    assert [row["step"] for row in history.read(whole)] == [100, 200]
    assert same(config, cut, whole)


def test_held_out_images_are_in_no_window(config, distinct, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "fits", lambda *_: False)  # of 160 images
    enlarging = {"shift_directions": ["up", "left"], "flip_codes": ["1"]}
    options = replace(config, **enlarging, validation_size=7, memory_mb=7)
    sets = load_sets(distinct, replace(options, augmented_dir=str(tmp_path)))
    held_out = set(numbers(sets.scored["validation"][0]))
    count = sets.train_count
    images, labels = np.empty((count, 28, 28, 1), np.uint8), np.empty(count, np.uint8)
    sets.stored.read([(0, count)], images, labels)
    trained = numbers(images)
    assert len(trained) == 33 * 4 and len(held_out) == 7
    assert set(trained) == set(range(40)) - held_out
    np.testing.assert_array_equal(labels, trained % 10)


def test_a_set_that_fits_is_kept_in_memory(config, digits, windowed, enlarged):
    fitting = replace(config, **{**WINDOWED, "memory_mb": 10})
    sets = load_sets(digits, replace(fitting, augmented_dir=enlarged))
    assert sets.stored is None and len(sets.train_images) == 1437 * 8


def test_weights_trained_on_an_altered_shard_are_not_kept(
    windowed, digits, enlarged, tmp_path
):
    config, _ = windowed
    damaged = tmp_path / "augmented"
    shutil.copytree(enlarged, damaged)
    last = max(damaged.glob("*/part-07-*-images-*"))
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    sets = load_sets(digits, replace(config, augmented_dir=str(damaged)))
    (run_dir := tmp_path / "run").mkdir()
    with pytest.raises(data.DataError, match="not have the SHA-256 .* built again"):
        trained(config, sets, run_dir)
    assert checkpoints.steps(run_dir / "checkpoints") == [0]


def test_profiling_changes_no_result(config, sets, finished, tmp_path):
    trained(config, sets, tmp_path, profile_steps=["1", "3"])
    assert values(config, tmp_path) == values(config, finished)
    assert list(tmp_path.glob("train/plugins/profile/*/*.xplane.pb"))


def test_tensorboard_gets_the_errors_of_each_epoch(finished):
    shown = points(finished)
    for split in ("validation", "test"):
        assert [step for step, _ in shown[split, "errors"]] == [0, 1, 2]
