# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/scoring.py: scores computed by hand, and the predicting graph."""

import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from evaluation import score_text, scoring
from evaluation.scoring import Scores
from models.lenet import LeNet
from training import losses

LABELS = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)


def reader(logits):
    """A predict function that takes each image's row of logits from its first pixel."""
    logits = tf.constant(logits, tf.float32)
    return lambda images: tf.gather(logits, images[:, 0, 0, 0].astype(int))


def numbered(count):
    """Images whose first pixel is their number."""
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def certain(predictions):
    """Scores with these predictions, for the labels LABELS."""
    return Scores(LABELS, np.eye(10, dtype=np.float32)[predictions], 0.5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_batch_size_does_not_change_scores(batch_size):
    logits = np.random.default_rng(0).normal(size=(7, 10)) * 5
    scores = scoring.score(reader(logits), numbered(7), LABELS, batch_size=batch_size)
    expected = losses.softmax_cross_entropy(tf.constant(logits, tf.float32), LABELS)
    assert scores.loss == pytest.approx(float(expected), rel=1e-6)
    assert scores.predictions.tolist() == logits.argmax(1).tolist()
    softmax = tf.nn.softmax(logits).numpy()
    np.testing.assert_allclose(scores.probabilities, softmax, rtol=1e-5)
    assert scores.probabilities.dtype == np.float32


def test_correct_and_wrong_predictions_are_counted():
    all_right = scoring.score(reader(np.eye(10)[LABELS]), numbered(7), LABELS)
    assert (all_right.errors, all_right.accuracy) == (0, 1.0)
    # The two wrong ones are the first and, in a batch of its own, the last.
    read = np.eye(10)[[0, 1, 4, 1, 5, 9, 0]]
    scores = scoring.score(reader(read), numbered(7), LABELS, batch_size=3)
    assert scores.errors == 2
    assert scores.accuracy == pytest.approx(5 / 7)


def test_extreme_logits_stay_finite():
    logits = np.zeros((2, 10))
    logits[0, 3], logits[1, 0] = 3e38, -3e38
    scores = scoring.score(reader(logits), numbered(2), np.array([3, 1], np.uint8))
    assert np.isfinite(scores.probabilities).all()
    assert scores.loss == pytest.approx(np.log(9) / 2)
    wrong = scoring.score(reader(logits[:1]), numbered(1), np.array([0], np.uint8))
    assert wrong.loss == pytest.approx(3e38, rel=1e-6)


def test_batches_are_computed_side_by_side_and_stay_in_order(monkeypatch):
    monkeypatch.setattr("system.device.cores", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # raises unless two batches wait at once

    def predict(images):
        both.wait()
        return tf.constant(images[:, 0, 0], tf.float32)

    logits = scoring.predict_all(predict, numbered(8), batch_size=2)
    np.testing.assert_array_equal(logits[:, 0], np.arange(8))


def test_summary_by_hand():
    #  true 3 1 4 1 5 9 2
    scores = certain([3, 1, 9, 7, 5, 9, 1])
    summary = scoring.summarise(scores)
    matrix = np.zeros((10, 10), int)
    for true, read in [(3, 3), (1, 1), (4, 9), (1, 7), (5, 5), (9, 9), (2, 1)]:
        matrix[true, read] += 1
    assert summary["confusion_matrix"] == matrix.tolist()
    assert (summary["errors"], summary["images"], summary["loss"]) == (3, 7, 0.5)
    assert summary["binary_accuracy"] == pytest.approx(64 / 70)
    assert summary["accuracy"] == pytest.approx(4 / 7)
    assert summary["calibration_error"] == pytest.approx(3 / 7)  # always sure
    one, nine, four = (summary["classes"][digit] for digit in (1, 9, 4))
    assert (one["precision"], one["recall"], one["images"]) == (0.5, 0.5, 2)
    assert (nine["precision"], nine["recall"], nine["images"]) == (0.5, 1, 1)
    assert nine["f1"] == pytest.approx(2 / 3)
    # 4 was never read; 8 is not even among the labels.
    assert (four["precision"], four["recall"], four["f1"]) == (None, 0, 0)
    eight = {"class": 8, "name": "8", "images": 0}
    eight |= dict.fromkeys(["precision", "recall", "f1"])
    assert summary["classes"][8] == eight
    eight_of_table = score_text.show(summary).split("\n\n")[1].splitlines()[-2].split()
    assert eight_of_table == ["8", "–", "–", "0"]
    assert json.loads(json.dumps(summary)) == summary
    assert set(scoring.figures(scores)) == {
        name for name, value in summary.items() if not isinstance(value, list)
    }


def test_nll_by_hand():
    probabilities = np.full((2, 10), 0.05, np.float32)
    probabilities[0, 3], probabilities[1, 1] = 0.55, 0.0
    scores = Scores(np.array([3, 1], np.uint8), probabilities, 0.5)
    # No float32 is smaller than 2⁻¹²⁶ and log 0 is no number.
    expected = -(np.log(0.55) - 126 * np.log(2)) / 2
    assert scores.nll == pytest.approx(expected, rel=1e-6)
    assert certain(LABELS).nll == 0
    assert scoring.summarise(scores)["nll"] == scores.nll


def test_one_percent_may_be_left_unread():
    """Of 250 images two; of equally confident ones, the last."""
    labels = np.zeros(250, np.uint8)
    confidences = np.full(250, 0.9, np.float32)
    confidences[[7, 100, 249]] = 0.4, 0.6, 0.6
    probabilities = np.full((250, 10), 0.01, np.float32)
    predicted = np.isin(np.arange(250), [7, 8, 249]).astype(int)  # three 1s
    probabilities[range(250), predicted] = confidences
    scores = Scores(labels, probabilities, 0.5)
    assert sorted(set(range(250)) - set(scores.surest.tolist())) == [7, 249]
    summary = scoring.figures(scores)
    assert (summary["errors"], summary["errors_99"]) == (3, 1)
    assert summary["accuracy_99"] == pytest.approx(1 - 1 / 248)
    assert "1% left unread: 99.60%, 1 errors" in score_text.show_line(summary)
    few = scoring.figures(certain([3, 1, 9, 7, 5, 9, 1]))
    assert few["errors_99"] == few["errors"] == 3  # 1 % of seven is none


def test_calibration_error_by_hand():
    probabilities = np.full((4, 10), 0.02, np.float32)
    probabilities[range(4), [3, 1, 4, 1]] = 0.82
    scores = Scores(np.array([3, 1, 4, 5], np.uint8), probabilities, 0.5)
    error = scoring.summarise(scores)["calibration_error"]
    assert error == pytest.approx(0.82 - 3 / 4)  # all in one bin


def test_show_has_the_counts():
    labels = np.repeat(np.array([3, 8], np.uint8), 500)
    read = np.repeat([3, 8, 5], [500, 463, 37])
    scores = Scores(labels, np.eye(10, dtype=np.float32)[read], 0.25)
    text = score_text.show(scoring.summarise(scores))
    rows = [line.split() for line in text.splitlines()]
    eight = [row for row in rows if row[:1] == ["8"] and len(row) == 11]
    assert eight == [["8", "·", "·", "·", "·", "·", "37", "·", "·", "463", "·"]]
    assert "92.60%" in text  # recall of 8
    assert "accuracy 96.30%  ·  37 errors of 1,000  ·  loss 0.2500" in text


def test_predict_has_the_two_placeholders(images):
    network = LeNet(batch_norm="conv", dropout=0.5)
    assert network.norm1 is not None
    network.norm1.mean.assign(tf.fill([12], 0.3))
    before = [v.numpy() for v in network.variables]
    predict = scoring.Predict(network)
    default = predict(images).numpy()
    evaluated, _ = network(tf.constant(images), training=False)
    np.testing.assert_allclose(default, evaluated.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(default, predict(images, training=False).numpy())
    fed = predict(images, training=True).numpy()
    assert np.abs(fed - default).max() > 0.01
    assert predict(images[:2]).shape == (2, 10)
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    inputs = [op.name for op in predict.graph.get_operations() if not op.inputs]
    assert {"images", "training"} <= set(inputs)


def test_the_loss_is_the_one_asked_for():
    logits = np.random.default_rng(0).normal(size=(7, 10))
    scores = scoring.score(
        reader(logits), numbered(7), LABELS, "binary_cross_entropy", batch_size=2
    )
    expected = losses.binary_cross_entropy(tf.constant(logits, tf.float32), LABELS)
    assert scores.loss == pytest.approx(float(expected), rel=1e-6)


def test_binary_accuracy_by_hand():
    probabilities = np.zeros((3, 10), np.float32)
    probabilities[0, 3] = 0.9  # right: 10 answers of 10
    probabilities[1, [0, 1]] = 0.6, 0.4  # wrong: a yes too many, a yes too few
    probabilities[2, [4, 5]] = 0.5, 0.5  # 0.5 is no yes: one answer missed
    scores = Scores(np.array([3, 1, 4], np.uint8), probabilities, 0.0)
    assert scores.binary_accuracy == pytest.approx((10 + 8 + 9) / 30)
    assert scores.accuracy == pytest.approx(2 / 3)
