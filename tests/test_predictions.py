# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/predictions.py: stored, or refused if damaged."""

import numpy as np
import pytest

from evaluation import predictions
from evaluation.scoring import Scores
from training import runs

LABELS = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)


def certain(read):
    """Scores with these predictions, for the labels LABELS."""
    return Scores(LABELS, np.eye(10, dtype=np.float32)[read], 0.5)


def test_predictions_are_kept(tmp_path):
    probabilities = np.random.default_rng(0).random((7, 10), np.float32)
    predictions.write(tmp_path, Scores(LABELS, probabilities, 0.5))
    labels, read = predictions.read(tmp_path)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(read, probabilities)


def refusal(run_dir):
    with pytest.raises(runs.RunError) as caught:
        predictions.read(run_dir)
    message = str(caught.value)
    assert str(run_dir / "predictions.npz") in message
    assert f"python eval.py --run_dir={run_dir}" in message
    return message


def test_missing_predictions_are_refused(tmp_path):
    assert "is missing" in refusal(tmp_path)


@pytest.mark.parametrize("position", [0, 40, 300, 500, -30])
def test_damaged_predictions_are_refused(tmp_path, position):
    predictions.write(tmp_path, certain(LABELS))
    path = tmp_path / "predictions.npz"
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    try:
        labels, read = predictions.read(tmp_path)
    except runs.RunError as error:
        assert "damaged" in str(error) or "holds no predictions" in str(error)
    else:  # a byte that means nothing
        np.testing.assert_array_equal(labels, LABELS)
        np.testing.assert_array_equal(read.argmax(1), LABELS)


def test_truncated_predictions_are_refused(tmp_path):
    predictions.write(tmp_path, certain(LABELS))
    path = tmp_path / "predictions.npz"
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "damaged" in refusal(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": LABELS},
        {"labels": LABELS, "probabilities": np.zeros((7, 9), np.float32)},
        {"labels": LABELS, "probabilities": np.zeros((6, 10), np.float32)},
        {"labels": LABELS, "probabilities": np.zeros((7, 10), np.float64)},
        {"labels": LABELS, "probabilities": np.array([{}])},
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "predictions.npz", **arrays)
    refusal(tmp_path)
