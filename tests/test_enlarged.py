# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/enlarged.py, also with damaged sets."""

import concurrent.futures
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from augment import enlarged as module
from augment import shards
from augment.enlarged import enlarge, make
from augment.flip import flip
from augment.plan import Settings
from augment.shift import shift
from data import idx
from system import errors
from tests.test_plan import DEFORMED

# --- building and reading ---


@pytest.mark.parametrize("keep_originals", [True, False])
def test_every_image_is_the_transform_of_its_source(dataset, tmp_path, keep_originals):
    settings = Settings(
        shift_directions=("down",),
        flip_labels=(2, 4),
        flip_shifted=True,
        keep_originals=keep_originals,
    )
    enlarged = enlarge(dataset, settings, tmp_path)
    every = np.arange(40)
    flipped = np.flatnonzero(np.isin(dataset.train_labels, (2, 4)))
    expected = [
        (every, lambda images: images),
        (every, lambda images: shift(images, 1, 0)),
        (flipped, lambda images: flip(images, 1)),
        (flipped, lambda images: flip(shift(images, 1, 0), 1)),
    ][0 if keep_originals else 1 :]
    source = np.concatenate([indices for indices, _ in expected])
    images = [apply(dataset.train_images[indices]) for indices, apply in expected]
    np.testing.assert_array_equal(enlarged.source, source)
    np.testing.assert_array_equal(enlarged.images, np.concatenate(images))
    np.testing.assert_array_equal(enlarged.labels, dataset.train_labels[source])
    assert enlarged.source.dtype == np.int32
    assert enlarged.images.dtype == enlarged.labels.dtype == np.uint8


def test_shards_are_plain_idx_files(dataset, tmp_path):
    enlarged = enlarge(dataset, Settings(), tmp_path)
    stem = enlarged.directory / "part-01-of-06"
    images = idx.read_images(f"{stem}-images-idx3-ubyte")
    labels = idx.read_labels(f"{stem}-labels-idx1-ubyte")
    np.testing.assert_array_equal(images, shift(dataset.train_images, -1, 0))
    np.testing.assert_array_equal(labels, dataset.train_labels)


def test_a_newly_built_set_is_not_read_back(dataset, tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("read")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "read", read)
        built = enlarge(dataset, Settings(), tmp_path)
    stored = enlarge(dataset, Settings(), tmp_path)
    np.testing.assert_array_equal(built.images, stored.images)
    np.testing.assert_array_equal(built.labels, stored.labels)
    np.testing.assert_array_equal(built.source, stored.source)


def test_the_second_call_reads_the_set(dataset, tmp_path):
    first = enlarge(dataset, Settings(), tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    second = enlarge(dataset, Settings(), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.labels, first.labels)
    np.testing.assert_array_equal(second.source, first.source)


def test_a_second_build_has_the_same_bytes(dataset, tmp_path):
    one = enlarge(dataset, Settings(), tmp_path / "one").directory
    two = enlarge(dataset, Settings(), tmp_path / "two").directory
    assert one.name == two.name
    for path in one.iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (two / path.name).read_bytes()
    manifests = [json.loads((d / "manifest.json").read_bytes()) for d in (one, two)]
    assert manifests[0] == manifests[1]


def test_each_setting_and_source_has_its_own_folder(dataset, tmp_path):
    other = dataclasses.replace(dataset, hashes={"file": "cd" * 32})
    folders = {
        enlarge(dataset, Settings(), tmp_path).directory,
        enlarge(other, Settings(), tmp_path).directory,
        enlarge(dataset, Settings(shift_diagonal=True), tmp_path).directory,
        enlarge(dataset, Settings(flip_labels=(0, 8)), tmp_path).directory,
    }
    assert len(folders) == 4


def test_a_set_of_plain_originals_is_not_stored(dataset, tmp_path):
    root = tmp_path / "augmented"
    enlarged = enlarge(dataset, Settings((), flip_codes=()), root)
    assert enlarged.directory is None
    assert not root.exists()
    assert enlarged.images is dataset.train_images
    np.testing.assert_array_equal(enlarged.source, np.arange(40))


def test_several_builders_at_once_build_one_set(dataset, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sets = list(
            pool.map(lambda _: enlarge(dataset, Settings(), tmp_path), range(4))
        )
    for enlarged in sets:
        np.testing.assert_array_equal(enlarged.images, sets[0].images)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock",
        sets[0].directory.name,
    }


@pytest.mark.parametrize("settings", [Settings(), Settings((), flip_codes=())])
@pytest.mark.parametrize("moved_together", [7, 10_000])
def test_keep_selects_the_images_of_some_originals_in_order(
    dataset, tmp_path, monkeypatch, settings, moved_together
):
    monkeypatch.setattr(module, "_MOVED_AT_A_TIME", moved_together)
    originals = dataset.train_images.copy()
    whole = enlarge(dataset, settings, tmp_path)
    again = enlarge(dataset, settings, tmp_path)
    some = module._keep(again, np.array([3, 5, 6, 30, 39]))
    rows = [i for i, s in enumerate(whole.source) if s in (3, 5, 6, 30, 39)]
    for name in ("images", "labels", "source"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[rows])
    # What was read for it alone is reused; what belongs to the data set is not.
    assert np.shares_memory(some.images, again.images) == bool(whole.directory)
    np.testing.assert_array_equal(dataset.train_images, originals)


def test_leftovers_of_a_killed_build_are_removed(dataset, tmp_path):
    directory = enlarge(dataset, Settings(), tmp_path).directory
    leftover = directory.with_name(f".{directory.name}.unfinished")
    shutil.move(directory, leftover)
    (leftover / "manifest.json").unlink()
    (leftover / "junk").touch()
    others = tmp_path / ".another-set.unfinished"
    others.mkdir()
    enlarge(dataset, Settings(), tmp_path)
    assert not leftover.exists()
    assert not (directory / "junk").exists()
    assert others.exists()


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_set_is_not_built_through_a_link(dataset, tmp_path, unfinished):
    """Otherwise a link in a mailed folder would make us write elsewhere."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    directory = enlarge(dataset, Settings(), tmp_path).directory
    name = f".{directory.name}.unfinished" if unfinished else ".lock"
    root.mkdir()
    (root / name).symlink_to(outside if unfinished else outside / "mine")
    with pytest.raises(errors.UserError, match=f"{name} is a link: delete it"):
        enlarge(dataset, Settings(), root)
    assert [p.read_text() for p in outside.iterdir()] == ["mine"]


def test_an_unwritable_folder_gives_one_line(dataset, tmp_path):
    root = tmp_path / "file"
    root.touch()
    with pytest.raises(errors.UserError, match="--augmented_dir"):
        enlarge(dataset, Settings(), root)


@pytest.mark.parametrize("keep", [True, False])
def test_a_deformed_set_has_k_images_per_original(dataset, tmp_path, keep):
    settings = dataclasses.replace(DEFORMED, keep_originals=keep)
    enlarged = enlarge(dataset, settings, tmp_path)
    images = enlarged.images.reshape(6, 40, 28, 28, 1)
    np.testing.assert_array_equal(enlarged.labels, np.tile(dataset.train_labels, 6))
    np.testing.assert_array_equal(enlarged.source, np.tile(np.arange(40), 6))
    assert (images[0] == dataset.train_images).all() == keep
    assert len(np.unique(images.reshape(240, -1), axis=0)) == 240
    other = dataclasses.replace(DEFORMED, deform_seed=1)
    assert make(dataset, other, tmp_path) != enlarged.directory


# --- damage ---

IMAGES = "part-02-of-06-images-idx3-ubyte"
LABELS = "part-02-of-06-labels-idx1-ubyte"


def flip_first_byte(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@pytest.mark.parametrize(
    "damage", [flip_first_byte, flip_last_byte, truncate, lengthen, empty, Path.unlink]
)
def test_damaged_shard(dataset, tmp_path, name, damage):
    directory = enlarge(dataset, Settings(), tmp_path).directory
    damage(directory / name)
    with pytest.raises(idx.DataError, match=f"{name}.*delete the folder"):
        enlarge(dataset, Settings(), tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"sha256": 1}', "\xff", "[" * 100_000],
    ids=range(8),
)
def test_garbage_manifest(dataset, tmp_path, text):
    directory = enlarge(dataset, Settings(), tmp_path).directory
    (directory / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(idx.DataError, match="manifest.json.*delete the folder"):
        enlarge(dataset, Settings(), tmp_path)


def test_missing_manifest(dataset, tmp_path):
    directory = enlarge(dataset, Settings(), tmp_path).directory
    (directory / "manifest.json").unlink()
    with pytest.raises(idx.DataError, match="manifest.json cannot be read"):
        enlarge(dataset, Settings(), tmp_path)


@pytest.mark.parametrize(
    "key, value",
    [
        ("format", 0),
        ("source", {"file": "cd" * 32}),
        ("settings", {}),
        ("shards", []),
        ("sha256", {}),
    ],
)
def test_altered_manifest(dataset, tmp_path, key, value):
    directory = enlarge(dataset, Settings(), tmp_path).directory
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(idx.DataError, match="delete the folder"):
        enlarge(dataset, Settings(), tmp_path)
