# SPDX-License-Identifier: Apache-2.0
"""Tests of training/teachers.py: a run that learns from other runs."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf

import train
from config import Config
from evaluation import provenance, recipes
from system import errors
from tests import networks
from tests.test_older_runs import GOLDEN
from training import losses, runs, teachers, weights
from training.runs import RunError
from training.session import Session
from training.sets import Sets


def test_a_hand_computed_loss():
    """T² · −Σ q log softmax(z / T), half and half with that of the label."""
    logits, labels = tf.constant([[0.0, 2 * math.log(3.0)]]), tf.constant([1])
    taught = tf.constant([[0.5, 0.5]])
    # softmax(z / 2) = [1/4, 3/4]; softmax(z) = [1/10, 9/10]
    learned = -4 * (math.log(1 / 4) + math.log(3 / 4)) / 2
    found = losses.distillation(logits, labels, taught, 2.0)
    np.testing.assert_allclose(found, learned, rtol=1e-6)
    config = Config(teacher_weight=0.5, temperature=2.0)
    given = -math.log(9 / 10)
    both = losses.build(config)(logits, labels, taught)
    np.testing.assert_allclose(both, (learned + given) / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.build(config)(logits, labels), given, rtol=1e-6)


def test_teachers_are_not_asked_about_images_of_no_class():
    logits, taught = tf.constant([[0.0, 0.0, 3.0]]), tf.constant([[1.0, 0.0, 0.0]])
    even = tf.fill([1, 3], 1 / 3)
    none, one = tf.constant([-1]), tf.constant([2])
    np.testing.assert_allclose(
        losses.distillation(logits, none, taught, 1.0),
        losses.distillation(logits, one, even, 1.0),
        rtol=1e-6,
    )


class Fixed(tf.Module):
    """A network with the same logits for all images, plus their first pixel."""

    def __init__(self, *logits):
        super().__init__()
        self._logits = tf.constant([logits])

    def __call__(self, images, *, training):
        assert training is False
        return self._logits + tf.cast(images[:, 0, 0], tf.float32), []


def teacher(*logits):
    return teachers.Teacher("runs/x", Fixed(*logits), "".join(map(str, logits)) * 8)


def test_probabilities_are_the_mean_over_teachers():
    taught = [teacher(0.0, 0.0), teacher(0.0, 2 * math.log(3.0))]
    images = tf.zeros([3, 28, 28, 1], tf.uint8)
    found = teachers.online(Config(temperature=2.0), taught)(images, tf.range(3))
    np.testing.assert_allclose(found, [[3 / 8, 5 / 8]] * 3, rtol=1e-6)


@pytest.fixture
def config(tmp_path):
    return Config(augmented_dir=str(tmp_path), replicas=2, temperature=2.0)


def fed(count=2500):
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 7
    return Sets(images, np.zeros(count, np.uint8), {}, classes=("a", "b"))


def test_logits_are_computed_once(config, tmp_path, monkeypatch):
    """They equal those of the network, image by image, and are read the second time."""
    taught = [teacher(0.0, 1.0), teacher(5.0, 1.0)]
    teach = teachers.build(config, taught, fed())
    indices = tf.constant([2400, 3, 3])
    images = tf.gather(fed().train_images, indices)
    expected = teachers.online(config, taught)(images, indices)
    np.testing.assert_allclose(teach(None, indices), expected, rtol=1e-6)
    monkeypatch.setattr(teachers, "predict", None)
    again = teachers.build(config, taught, fed())
    np.testing.assert_array_equal(again(None, indices), teach(None, indices))
    assert len([*tmp_path.glob("logits-*.f32")]) == 2
    with pytest.raises(TypeError):  # other images
        teachers.build(config, taught, fed(2499))


@pytest.mark.native
def test_a_run_with_native_operations_asks_its_teachers_with_them(config):
    network = networks.build("conv6", kernels="native")
    taught = [teachers.Teacher("runs/x", network, "x")]
    images = tf.constant(networks.digits(3))

    def kinds(kernels):
        other = dataclasses.replace(config, kernels=kernels)
        teach = tf.function(lambda x: teachers.online(other, taught)(x, None))
        graph = teach.get_concrete_function(images).graph
        return teach(images), {op.type for op in graph.get_operations()}

    ours, theirs = kinds("native"), kinds("tensorflow")
    assert "Conv3x3" in ours[1] and "Conv3x3" not in theirs[1]
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "manifest", "json"])
def test_damaged_logits_are_refused(config, tmp_path, damage):
    teachers.build(config, [teacher(0.0, 1.0)], fed())
    (numbers,), (manifest,) = tmp_path.glob("*.f32"), tmp_path.glob("*.json")
    content = bytearray(numbers.read_bytes())
    if damage == "gone":
        numbers.unlink()
    elif damage == "manifest":
        about = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**about, "teacher_sha256": "0" * 64}))
    elif damage == "json":
        manifest.write_text("{")
    else:
        content[0] ^= 1
        numbers.write_bytes(content if damage == "bit" else content[:-4])
    with pytest.raises(errors.UserError, match=r"logits-.*f32 is damaged.*: delete it"):
        teachers.build(config, [teacher(0.0, 1.0)], fed())


def test_numbers_without_a_manifest_are_computed_again(config, tmp_path):
    teachers.build(config, [teacher(0.0, 1.0)], fed())
    (numbers,), (manifest,) = tmp_path.glob("*.f32"), tmp_path.glob("*.json")
    manifest.unlink()
    numbers.write_bytes(b"half")
    teachers.build(config, [teacher(0.0, 1.0)], fed())
    assert numbers.stat().st_size == 4 * 2 * 2500 and manifest.exists()


def test_a_set_on_disk_needs_online_teachers(config):
    sets = fed()._replace(stored=object())
    with pytest.raises(errors.UsageError, match="add --teach_online"):
        teachers.build(config, [teacher(0.0, 1.0)], sets)


# --- The golden run as a teacher ---


@pytest.fixture
def teaching(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "teacher")


@pytest.fixture
def learner(teaching, tmp_path):
    """Settings of a run that learns from it."""
    return Config(
        **{"network": "mlp", "hidden_units": [20], "epochs": 2, "replicas": 1},
        **{"teachers": [str(teaching)], "augmented_dir": str(tmp_path)},
    ).resolved()


@pytest.fixture
def sets(digits):
    images, labels = digits.train_images[:256], digits.train_labels[:256]
    return Sets(images, labels, {"test": (images, labels)})


def begin(run_dir, config, sets):
    """Trains as train.py's main does, except for data and score."""
    runs.check_settings(run_dir, config)
    taught = teachers.load(run_dir, config, sets.classes)
    facts = {"data": {}, "environment": {}, "teachers_sha256": teachers.hashes(taught)}
    record = runs.open_run(run_dir, config, "", facts)
    teach = teachers.build(config, taught, sets)
    session = Session(run_dir, record=record, teach=teach)
    predict = train.train(config, sets, session)
    return [v.numpy() for v in predict.network.variables]


@pytest.mark.parametrize("online", [False, True])
def test_a_run_comes_close_to_its_teacher(learner, teaching, sets, tmp_path, online):
    """Without the labels, and closer than a run that has only these."""
    replace = {"teach_online": online, "teacher_weight": 1.0, "epochs": 20}
    config = Config(**{**vars(learner), **replace})
    begin(tmp_path / "taught", config, sets)
    begin(tmp_path / "alone", Config(**{**vars(config), "teachers": ()}), sets)
    images = sets.train_images
    known = weights.load(teaching, Config).network(images, training=False)[0]
    q = tf.nn.softmax(known)

    def distance(run):
        logits = weights.load(tmp_path / run, Config).network(images, training=False)[0]
        return float(tf.nn.softmax_cross_entropy_with_logits(q, logits).numpy().mean())

    assert distance("taught") < distance("alone")


def test_a_run_is_resumed_to_the_same_bits(learner, sets, tmp_path):
    whole = begin(tmp_path / "whole", learner, sets)
    begin(tmp_path / "half", Config(**{**vars(learner), "epochs": 1}), sets)
    run = tmp_path / "half" / "run.json"
    record = json.loads(run.read_text())
    assert record["teachers_sha256"] and "teachers" not in record["config"]
    resumed = begin(tmp_path / "half", learner, sets)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_teachers_are_refused(learner, teaching, sets, tmp_path):
    begin(tmp_path / "run", learner, sets)
    with pytest.raises(RunError, match="learned from teachers other than --teac"):
        begin(tmp_path / "run", Config(**{**vars(learner), "teachers": ()}), sets)
    begin(tmp_path / "alone", Config(**{**vars(learner), "teachers": ()}), sets)
    with pytest.raises(RunError, match="learned from no teachers: choose another"):
        begin(tmp_path / "alone", learner, sets)
    with pytest.raises(RunError, match="learned from teachers other than --teac"):
        both = [str(teaching), str(teaching)]
        begin(tmp_path / "run", Config(**{**vars(learner), "teachers": both}), sets)


def test_a_teacher_of_other_classes_is_refused(learner, tmp_path):
    with pytest.raises(RunError, match="knows the classes 0, 1, .* not those"):
        teachers.load(tmp_path / "run", learner, ("a", "b"))


def test_teachers_are_part_of_a_recipe_and_of_its_report():
    record = {"teachers_sha256": ["ab" * 32, "cd" * 32]}
    assert recipes._others(record)["teachers"] == "abababab,cdcdcdcd"
    config = Config().resolved().deciding()
    result = {"epochs": 20, "finished": True, "scored_epoch": 19, "config": config}
    said = provenance.describe_weights("test", {**result, **record})
    assert "It learned from other runs as its teachers (abababab…, cdcdcdcd…)." in said
    assert "What the other runs were chosen by is not known here." in said
    assert runs.identity({"config": {}, **record}) == {
        "teachers": [*record.values()][0]
    }


def test_a_run_that_is_refused_is_not_made(teaching, tmp_path, call):
    """Of a set that stays on disk, no logits can be stored."""
    arguments = ["--dataset=digits", "--epochs=1", f"--augmented_dir={tmp_path / 'a'}"]
    arguments += [f"--teachers={teaching}", "--memory_mb=20", f"--run_dir={tmp_path}/r"]
    with pytest.raises(errors.UsageError, match="add --teach_online"):
        call(*arguments, "--shift_pixels=4", "--shift_diagonal")
    assert not (tmp_path / "r" / "run.json").exists()


def test_all_classes_are_equally_likely_in_a_dry_run(config):
    teach = teachers.imitate(config, [teacher(0.0, 1.0)], 2)
    np.testing.assert_array_equal(teach(None, tf.range(3)), [[0.5, 0.5]] * 3)
    assert teachers.imitate(config, [], 2) is None


def test_a_weight_beyond_one_is_refused():
    with pytest.raises(errors.UserError, match=r"teacher_weight.*\[0, 1\]"):
        Config(teacher_weight=1.5).checked()
