# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: bit for bit, whole or not there, and never restored in silence."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from training import checkpoints
from training.checkpoints import CheckpointError


def make_state(seed=0, names=("w", "b"), shape=(5,), **others):
    """A network of random variables, in a checkpoint of its own."""
    rng = np.random.default_rng(seed)
    network = tf.Module()
    for name in names:
        setattr(network, name, tf.Variable(rng.normal(size=shape).astype(np.float32)))
    return tf.train.Checkpoint(network=network, **others)


def content(state):
    return [v.numpy().tobytes() for v in state.network.variables]


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints of steps 1 (seed 1) and 2 (seed 2)."""
    folder = tmp_path / "checkpoints"
    checkpoints.save(make_state(1), folder, 1)
    checkpoints.save(make_state(2), folder, 2)
    return folder


def refused(state, folder, **options):
    """The one line of the error, which names the folder of the last checkpoint."""
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(state, folder, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    last = checkpoints.path(folder, checkpoints.steps(folder)[-1])
    assert str(last) in message
    return message


def test_restores_the_last_bit_for_bit(folder):
    odd = np.array([-0.0, np.inf, 1e-45, np.pi, -1e38], np.float32)
    saved = make_state(3)
    saved.network.w.assign(odd)
    checkpoints.save(saved, folder, 30)
    restored = make_state(0)
    assert checkpoints.restore(restored, folder) == 30
    assert content(restored) == content(saved)
    assert restored.network.w.numpy().tobytes() == odd.tobytes()


def test_no_checkpoint_is_none_and_changes_nothing(tmp_path):
    state = make_state()
    before = content(state)
    assert checkpoints.restore(state, tmp_path / "nowhere") is None
    assert checkpoints.restore(state, tmp_path) is None
    assert content(state) == before


def test_keeps_the_last_two(folder):
    for step in (9, 100_000_000):  # the latter has more digits than the names
        checkpoints.save(make_state(), folder, step)
    assert checkpoints.steps(folder) == [9, 100_000_000]
    assert names_in(folder) == ["step-00000009", "step-100000000"]
    assert checkpoints.restore(make_state(), folder) == 100_000_000


def test_folders_of_other_names_are_no_checkpoints(folder):
    checkpoints.path(folder, 3).with_suffix(".bak").mkdir()
    assert checkpoints.steps(folder) == [1, 2]


def test_a_step_may_be_saved_twice(folder):
    again = make_state(7)
    checkpoints.save(again, folder, 2)
    restored = make_state()
    assert checkpoints.restore(restored, folder) == 2
    assert content(restored) == content(again)


def test_a_killed_save_leaves_nothing_behind(folder):
    killed = folder / ".unfinished-00000003"
    shutil.copytree(checkpoints.path(folder, 2), killed)
    assert checkpoints.restore(make_state(), folder) == 2
    checkpoints.save(make_state(), folder, 4)
    assert names_in(folder) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_damaged_files_are_refused(folder, suffix):
    file = checkpoints.path(folder, 2) / f"state.{suffix}"
    good = file.read_bytes()
    for place in range(0, len(good), 23):
        file.write_bytes(good[:place])
        refused(make_state(), folder)
    file.write_bytes(b"no such thing" * 9)
    refused(make_state(), folder)
    file.unlink()
    refused(make_state(), folder)
    file.write_bytes(good)
    assert checkpoints.restore(make_state(), folder) == 2


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_flipped_byte_is_refused_or_harmless(folder, suffix):
    file = checkpoints.path(folder, 2) / f"state.{suffix}"
    good, refusals = bytearray(file.read_bytes()), 0
    for place in range(0, len(good), 7):
        file.write_bytes(good[:place] + bytes([good[place] ^ 64]) + good[place + 1 :])
        state = make_state()
        try:
            checkpoints.restore(state, folder)
        except CheckpointError:
            refusals += 1
        else:  # padding, or a name that nobody reads
            assert content(state) == content(make_state(2))
    assert refusals > len(good) / 7 / 2


def test_an_empty_folder_is_refused(folder):
    checkpoints.path(folder, 3).mkdir()
    assert "delete that folder" in refused(make_state(), folder)
    checkpoints.path(folder, 3).rmdir()
    assert checkpoints.restore(make_state(), folder) == 2


@pytest.mark.parametrize(
    "other",
    [{"names": "w"}, {"names": "wbx"}, {"names": "wx"}, {"shape": (6,)}],
    ids=["fewer", "more", "another name", "another shape"],
)
def test_another_network_is_refused(folder, other):
    assert "another network" in refused(make_state(**other), folder)


@pytest.mark.parametrize("other", [{"names": "wbx"}, {"shape": (6,)}])
def test_another_network_is_refused_in_part_too(folder, other):
    refused(make_state(**other), folder, partial=True)


def test_partial_restores_the_network_alone(tmp_path):
    saved = make_state(1, optimizer=make_state(2).network)
    checkpoints.save(saved, tmp_path, 5)
    restored = make_state()
    assert checkpoints.restore(restored, tmp_path, partial=True) == 5
    assert content(restored) == content(saved)
    refused(make_state(), tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(CheckpointError, match="another --run_dir"):
        checkpoints.save(make_state(), tmp_path / "checkpoints", 1)
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_vanished_run_directory(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoints.save(make_state(), tmp_path / "gone" / "checkpoints", 1)
    assert not (tmp_path / "gone").exists()


def test_a_failed_save_leaves_the_old_ones(folder, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.files, "flush", full)
    with pytest.raises(CheckpointError, match="No space left on device; make room"):
        checkpoints.save(make_state(), folder, 3)
    assert names_in(folder) == ["step-00000001", "step-00000002"]
    restored = make_state()
    assert checkpoints.restore(restored, folder) == 2
    assert content(restored) == content(make_state(2))
