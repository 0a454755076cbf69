# SPDX-License-Identifier: Apache-2.0
"""What a run is trained on: held-out images, and sets larger than memory."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import data
from tests.loop import after, same, trained
from training import checkpoints, history, interruption, windows
from training.sets import load as load_sets


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


WINDOWED = {
    **{"shift_directions": ["up", "down", "left", "right"], "shift_pixels": 2},
    **{"rotation": 0.0, "memory_mb": 7},
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
    assert sets.train_count == 1400 * 9 and not sets.train_images.size
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
    fitting = replace(config, **{**WINDOWED, "memory_mb": 11})
    sets = load_sets(digits, replace(fitting, augmented_dir=enlarged))
    assert sets.stored is None and len(sets.train_images) == 1437 * 9


def test_weights_trained_on_an_altered_shard_are_not_kept(
    windowed, digits, enlarged, tmp_path
):
    config, _ = windowed
    damaged = tmp_path / "augmented"
    shutil.copytree(enlarged, damaged)
    last = max(damaged.glob("*/part-*-images-*"))
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    sets = load_sets(digits, replace(config, augmented_dir=str(damaged)))
    (run_dir := tmp_path / "run").mkdir()
    with pytest.raises(data.DataError, match="not have the SHA-256 .* built again"):
        trained(config, sets, run_dir)
    assert checkpoints.steps(run_dir / "checkpoints") == [0]
