# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/corruptions.py."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from evaluation import corruptions
from evaluation.corruptions import CORRUPTIONS, corrupt

rng = np.random.default_rng(0)


def stroke(count=1):
    """An upright stroke of full ink, 4 pixels wide and 16 high, in the middle."""
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 6:22, 12:16] = 255
    return images


def only(name, images=stroke(), seed=0):
    return corrupt(images, name, seed)[..., 0].astype(int)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_keeps_shape_and_type_and_only_clean_changes_nothing(name):
    images = rng.integers(0, 256, (3, 28, 28, 1), np.uint8)
    changed = corrupt(images, name, 0)
    assert changed.dtype == np.uint8 and changed.shape == images.shape
    assert (changed == images).all() == (name == "clean")
    np.testing.assert_array_equal(changed, corrupt(images, name, 0))


def test_ink_and_paper():
    assert set(only("ink × 0.4").flat) == {0, 102}
    assert set(only("ink × 0.25").flat) == {0, 64}
    assert set(only("paper + 0.3").flat) == {76, 255}  # round(76.5) is even


def test_blur_keeps_the_ink_and_widens_it():
    one, more = only("blur 1.0")[0], only("blur 1.5")[0]
    assert one.sum() == pytest.approx(255 * 64, rel=0.01)
    across = np.arange(28) - 13.5
    widths = [np.sqrt((x.sum(0) * across**2).sum() / x.sum()) for x in (one, more)]
    box = (4**2 - 1) / 12  # variance of four pixels
    assert widths == pytest.approx([np.sqrt(box + 1), np.sqrt(box + 2.25)], rel=0.02)


def test_noise_has_its_deviation_and_differs_by_seed_and_image():
    grey = np.full((2, 28, 28, 1), 128, np.uint8)
    noisy = only("noise 0.25", grey) - 128
    # Cut off at two deviations: the variance is that of a censored normal.
    assert noisy.std() / 255 == pytest.approx(0.25 * 0.957, rel=0.05)
    assert (noisy[0] != noisy[1]).any()
    assert (only("noise 0.25", grey, 1) - 128 != noisy).any()


def test_rotation_is_clockwise_if_positive():
    upper = {name: only(name)[0][:10] for name in ("rotation 20°", "rotation −30°")}
    places = {n: (x.sum(0) * np.arange(28)).sum() / x.sum() for n, x in upper.items()}
    assert places["rotation 20°"] > 14.5 and places["rotation −30°"] < 12


def test_shift_is_by_four_pixels_in_one_of_four_directions():
    shifted = only("shift 4", stroke(40))
    moves = {
        (int(rows[0]) - 6, int(columns[0]) - 12)
        for rows, columns in (
            (np.flatnonzero(x.any(1)), np.flatnonzero(x.any(0))) for x in shifted
        )
    }
    assert moves == {(-4, 0), (4, 0), (0, -4), (0, 4)}
    assert (shifted.sum((1, 2)) == 255 * 64).all()


def test_erosion_takes_a_pixel_off():
    thin = only("eroded 2")[0]
    assert (thin.any(0).sum(), thin.any(1).sum()) == (3, 15)


@pytest.fixture
def run(tmp_path):
    """A "run" whose network tells images by their mean ink."""

    def predict(images):
        dark = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3])
        return tf.stack([20 - dark, dark - 20], 1)

    return SimpleNamespace(predict=predict, directory=tmp_path, step=7, shifts=0)


@pytest.mark.parametrize("splits", [["test"], ["test", "validation"]])
def test_the_table_counts_errors_on_the_held_out_digits_if_there_are_some(
    run, splits, capsys
):
    images = np.concatenate([stroke(3), np.zeros_like(stroke(2))])
    scored = {split: (images, np.array([1, 1, 0, 0, 1])) for split in splits}
    corruptions.evaluate(run, scored)
    found = json.loads((run.directory / corruptions.CORRUPTIONS_FILE).read_text())
    assert found == corruptions.read(run.directory)
    assert found["split"] == splits[-1] and found["step"] == 7
    assert found["seed"] == corruptions.SEEDS[splits[-1]]
    # Two labels are wrong; faint strokes have less ink than the network asks for.
    assert found["errors"]["clean"] == 2 and found["errors"]["ink × 0.4"] == 3
    table = {name: (n, share) for name, n, share in corruptions.rows(found)}
    assert table["clean"] == (2, 0.6)
    others = [n for name, n in found["errors"].items() if name != "clean"]
    mean = 1 - np.mean(others) / 5
    assert table["mean, without clean"][1] == pytest.approx(mean)
    said = capsys.readouterr().out
    assert f"5 {splits[-1]} digits" in said and "60.00%" in said


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"errors": 3}', "x"])
def test_a_damaged_table_is_none(tmp_path, content):
    (tmp_path / corruptions.CORRUPTIONS_FILE).write_text(content)
    assert corruptions.read(tmp_path) is None
    assert corruptions.read(tmp_path / "elsewhere") is None
