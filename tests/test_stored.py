# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/stored.py and of `enlarged.store`."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import data
from augment import enlarged
from augment.plan import Settings
from system import errors

DEFORMED = Settings((), flip_codes=(), deform=("elastic", "affine"), multiply=3)
MOVED = Settings(flip_labels=(1, 8))  # parts of several sizes
NOTHING = Settings((), flip_codes=())


@pytest.fixture
def stored(dataset, tmp_path):
    return enlarged.store(dataset, DEFORMED, tmp_path, np.arange(40))


def read(stored, *pieces):
    count = sum(n for _, n in pieces)
    images, labels = np.empty((count, 28, 28, 1), np.uint8), np.empty(count, np.uint8)
    stored.read(pieces, images, labels)
    return images, labels


@pytest.mark.parametrize("settings", [DEFORMED, MOVED])
@pytest.mark.parametrize("sources", [range(40), range(3, 40), [0, 7, 8, 9, 31]])
def test_images_read_equal_those_in_memory(dataset, tmp_path, settings, sources):
    stored = enlarged.store(dataset, settings, tmp_path, np.array(sources))
    memory = enlarged.enlarge(dataset, settings, tmp_path, np.array(sources))
    assert len(stored) == len(memory.labels)
    rng = np.random.default_rng(0)
    for pieces in (1, 1, 1, 2, 9):
        ends = np.sort(rng.integers(len(stored) + 1, size=(pieces, 2))).tolist()
        images, labels = read(stored, *[(a, b - a) for a, b in ends])
        wanted = np.concatenate([np.arange(a, b) for a, b in ends])
        np.testing.assert_array_equal(images, memory.images[wanted])
        np.testing.assert_array_equal(labels, memory.labels[wanted])
    stored.verify(threading.Event())


def test_plain_originals_cannot_stay_on_disk(dataset, tmp_path):
    with pytest.raises(errors.UserError, match="leave --memory_mb out"):
        enlarged.store(dataset, NOTHING, tmp_path, np.arange(40))
    assert not list(tmp_path.iterdir())


def is_one_line(error, path):
    """Whether an error names a file and what to do, in one line."""
    message = str(error.value)
    assert str(path) in message and "will be built again" in message
    return len(message.splitlines()) == 1


@pytest.fixture
def shard(tmp_path, stored):
    """A file of the set."""
    return next(tmp_path.glob("noise-*/part-01-of-03-images-*"))


@pytest.mark.parametrize(
    "harm, word",
    [
        (lambda path: os.truncate(path, 5000), "bytes long"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), "bytes long"),
        (Path.unlink, "No such file"),
    ],
)
def test_a_shard_with_another_length_is_noticed_at_once(
    dataset, tmp_path, shard, harm, word
):
    harm(shard)
    with pytest.raises(data.DataError, match=word) as caught:
        enlarged.store(dataset, DEFORMED, tmp_path, np.arange(40))
    assert is_one_line(caught, shard)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_an_altered_shard_is_noticed_on_verification(dataset, tmp_path, shard, kind):
    path = shard.with_name(shard.name.replace("images-idx3", f"{kind}-idx1"))
    path = path if kind == "labels" else shard
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    stored = enlarged.store(dataset, DEFORMED, tmp_path, np.arange(40))
    with pytest.raises(data.DataError, match="the SHA-256") as caught:
        stored.verify(threading.Event())
    assert is_one_line(caught, path)
    stop = threading.Event()
    stop.set()
    stored.verify(stop)  # leaves it unread


def test_a_shard_that_is_truncated_later_is_noticed(stored, shard):
    os.truncate(shard, 5000)
    read(stored, (40, 6))
    with pytest.raises(data.DataError, match="is shorter") as caught:
        read(stored, (40, 7))
    assert is_one_line(caught, shard)
    shard.unlink()
    with pytest.raises(data.DataError, match="cannot be read") as caught:
        read(stored, (0, 120))
    assert is_one_line(caught, shard)


def test_a_label_above_9_is_not_trained_on(stored, shard):
    labels = shard.with_name(shard.name.replace("images-idx3", "labels-idx1"))
    labels.write_bytes(bytes(8) + bytes([*range(10)] * 3 + [10] * 10))
    read(stored, (40, 30))
    with pytest.raises(data.DataError, match="a label of no class") as caught:
        read(stored, (60, 20))
    assert is_one_line(caught, labels)
