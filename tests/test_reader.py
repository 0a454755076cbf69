# SPDX-License-Identifier: Apache-2.0
"""Tests of `evaluation.load`, on the run of test_older_runs."""

import numpy as np
import pytest

import evaluation
from data import inputs
from evaluation import trained
from system import errors
from tests.helpers import ROOT, command
from tests.test_older_runs import GOLDEN


@pytest.fixture(scope="module")
def reader():
    return evaluation.load(str(GOLDEN))


def test_classes_and_probabilities_are_those_of_the_run(reader, digits):
    images = digits.test_images
    logits = trained.load(GOLDEN).predict(images)
    found = reader.predict(images / 255)
    np.testing.assert_array_equal(found.classes, np.argmax(logits, 1))
    assert (found.classes.dtype, found.probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)
    assert found.names == [reader.names[number] for number in found.classes]
    accuracy = (found.classes == digits.test_labels).mean()
    assert accuracy == reader.run.record.get("accuracy", accuracy) > 0.3


def test_any_number_of_images(reader, monkeypatch):
    monkeypatch.setattr("evaluation.reader.BATCH_SIZE", 4)
    images = np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)
    all_at_once = reader.predict(images)
    one_by_one = [reader.predict(image).probabilities[0] for image in images]
    np.testing.assert_allclose(all_at_once.probabilities, one_by_one, rtol=1e-5)
    none = reader.predict(images[:0])
    assert none.classes.shape == (0,) and none.probabilities.shape == (0, 10)


def test_what_is_no_image_or_no_run_is_refused(reader, tmp_path):
    with pytest.raises(inputs.InputError):
        reader.predict(np.zeros((3, 784)))
    with pytest.raises(errors.UserError, match="holds no run"):
        evaluation.load(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        evaluation.lode  # noqa: B018


LOOP = (
    *("tensorboard", "training.log", "training.replicas", "training.session"),
    *("training.sets", "training.state", "training.summaries", "training.teachers"),
    "training.workers",
)


def test_a_reader_does_not_load_the_training_loop():
    code = f"""
import sys
import evaluation
evaluation.load({str(GOLDEN)!r})
print([name for name in {LOOP} if name in sys.modules])
"""
    done = command("-c", code, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
