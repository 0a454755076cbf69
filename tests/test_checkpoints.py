# SPDX-License-Identifier: Apache-2.0
"""Tests of training/checkpoints.py: exact, whole or absent, damage never ignored."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from training import checkpoints
from training.checkpoints import CheckpointError


def make_state(seed=0, names=("w", "b"), shape=(5,), **others):
    """A checkpoint of a network with random variables."""
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
    """A folder with checkpoints of steps 1 (seed 1) and 2 (seed 2)."""
    folder = tmp_path / "checkpoints"
    checkpoints.save(make_state(1), folder, 1)
    checkpoints.save(make_state(2), folder, 2)
    return folder


def files_of(folder, step):
    """{name: content} of a checkpoint."""
    place = checkpoints.path(folder, step)
    return {p.name: p.read_bytes() for p in sorted(place.iterdir())}


def write(place, content):
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, data in content.items():
        (place / name).write_bytes(data)


def refused(state, folder, **options):
    """Fails to restore; returns the one-line error, which names the last checkpoint."""
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(state, folder, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    last = checkpoints.path(folder, checkpoints.steps(folder)[-1])
    assert str(last) in message
    return message


def passed_over(folder, capsys):
    """Restores step 1; returns the one line on standard error about step 2."""
    state = make_state()
    assert checkpoints.restore(state, folder) == 1
    assert content(state) == content(make_state(1))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(checkpoints.path(folder, 2)) in line
    assert f"using {checkpoints.path(folder, 1)} instead" in line
    return line


def test_the_last_checkpoint_is_restored_bit_for_bit(folder):
    odd = np.array([-0.0, np.inf, 1e-45, np.pi, -1e38], np.float32)
    saved = make_state(3)
    saved.network.w.assign(odd)
    checkpoints.save(saved, folder, 30)
    restored = make_state(0)
    assert checkpoints.restore(restored, folder) == 30
    assert content(restored) == content(saved)
    assert restored.network.w.numpy().tobytes() == odd.tobytes()


def test_without_a_checkpoint_nothing_changes(tmp_path):
    state = make_state()
    before = content(state)
    assert checkpoints.restore(state, tmp_path / "nowhere") is None
    assert checkpoints.restore(state, tmp_path) is None
    assert content(state) == before


def test_the_last_two_are_kept(folder):
    for step in (9, 100_000_000):  # the latter is longer than the padding
        checkpoints.save(make_state(), folder, step)
    assert checkpoints.steps(folder) == [9, 100_000_000]
    assert names_in(folder) == ["step-00000009", "step-100000000"]
    assert checkpoints.restore(make_state(), folder) == 100_000_000


def test_folders_with_other_names_are_ignored(folder):
    checkpoints.path(folder, 3).with_suffix(".bak").mkdir()
    assert checkpoints.steps(folder) == [1, 2]


def test_a_step_can_be_saved_twice(folder):
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


NAMES = ["manifest.json", "state.data-00000-of-00001", "state.index"]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_named_and_the_older_checkpoint_used(folder, name, capsys):
    file = checkpoints.path(folder, 2) / name
    good = file.read_bytes()
    for place in range(0, len(good), 1 + len(good) // 20):
        file.write_bytes(good[:place])
        assert name in passed_over(folder, capsys)
    file.write_bytes(good + b"\0")
    passed_over(folder, capsys)
    file.write_bytes(b"no such thing" * 9)
    passed_over(folder, capsys)
    file.unlink()
    assert "damaged" in passed_over(folder, capsys)
    file.mkdir()
    passed_over(folder, capsys)
    file.rmdir()
    file.write_bytes(good)
    assert checkpoints.restore(make_state(), folder) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES)
def test_any_flipped_bit_is_detected(folder, name, capsys):
    file = checkpoints.path(folder, 2) / name
    good = file.read_bytes()
    for place in range(0, len(good), 1 + len(good) // 60):
        file.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        passed_over(folder, capsys)


def test_without_a_whole_checkpoint_restoring_fails(folder):
    for step in (1, 2):
        (checkpoints.path(folder, step) / "state.index").unlink()
    message = refused(make_state(), folder)
    assert "nor can 1 before it" in message and "another --run_dir" in message


def test_other_settings_are_refused(tmp_path):
    checkpoints.save(make_state(1), tmp_path, 1, {"rate": 0.1, "codes": []})
    same = {"codes": [], "rate": 0.1}
    assert checkpoints.restore(make_state(), tmp_path, same) == 1
    for other in ({"rate": 0.2, "codes": []}, {}, None):
        assert "run with other settings" in refused(
            make_state(), tmp_path, recorded=other
        )


def test_files_of_another_run_are_detected(folder, tmp_path, capsys):
    other = tmp_path / "other"
    checkpoints.save(make_state(9), other, 2, {"seed": 9})
    good, foreign = files_of(folder, 2), files_of(other, 2)
    for name in good:
        write(checkpoints.path(folder, 2), {**good, name: foreign[name]})
        if foreign[name] != good[name]:  # equal shapes have equal indices
            passed_over(folder, capsys)
    write(checkpoints.path(folder, 2), foreign)
    assert "run with other settings" in passed_over(folder, capsys)
    write(checkpoints.path(folder, 2), files_of(folder, 1))
    assert "is of step 1" in passed_over(folder, capsys)


def test_progress_is_restored_to_the_last_bit(tmp_path):
    progress = {"loss": 0.1 + 0.2, "events": {"train": 2**53 + 1}}
    checkpoints.save(make_state(), tmp_path, 1, progress=progress)
    assert checkpoints.progress(tmp_path, 1) == progress
    (checkpoints.path(tmp_path, 1) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="manifest.json: No such file"):
        checkpoints.progress(tmp_path, 1)


def test_the_last_whole_checkpoint_is_never_removed(folder):
    for step in (3, 4, 5):
        checkpoints.save(make_state(step), folder, step)
        if step < 5:
            (checkpoints.path(folder, step) / "state.index").write_bytes(b"")
    assert checkpoints.steps(folder) == [2, 5]
    (checkpoints.path(folder, 5) / "state.index").unlink()
    assert checkpoints.restore(make_state(), folder) == 2


def test_saving_an_earlier_step_removes_later_ones(folder):
    (checkpoints.path(folder, 2) / "state.index").unlink()
    checkpoints.save(make_state(5), folder, 1)
    assert checkpoints.steps(folder) == [1]


def test_a_file_that_reads_back_differently_fails_the_save(folder, monkeypatch):
    flush = checkpoints.files.flush

    def bad_disk(path, **options):
        if path.name == "state.index":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        flush(path, **options)

    monkeypatch.setattr(checkpoints.files, "flush", bad_disk)
    with pytest.raises(CheckpointError, match="state.index does not match the SHA-256"):
        checkpoints.save(make_state(), folder, 3)
    assert names_in(folder) == ["step-00000001", "step-00000002"]


def test_tidy_restores_what_a_killed_save_had_renamed(folder):
    place = checkpoints.path(folder, 2)
    place.rename(folder / ".replaced-00000002")
    checkpoints.tidy(folder)
    assert checkpoints.restore(make_state(), folder) == 2
    shutil.copytree(place, folder / ".replaced-00000002")
    shutil.copytree(place, folder / ".removed-00000000")
    checkpoints.tidy(folder)
    assert names_in(folder) == ["step-00000001", "step-00000002"]


def test_an_empty_folder_is_skipped(folder, capsys):
    checkpoints.path(folder, 1).rename(checkpoints.path(folder, 3))
    for file in checkpoints.path(folder, 3).iterdir():
        file.unlink()
    assert checkpoints.restore(make_state(), folder) == 2
    assert "step-00000003 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [{"names": "w"}, {"names": "wbx"}, {"names": "wx"}, {"shape": (6,)}],
    ids=["fewer", "more", "another name", "another shape"],
)
def test_another_network_is_refused(folder, other):
    assert "another network" in refused(make_state(**other), folder)


@pytest.mark.parametrize("other", [{"names": "wbx"}, {"shape": (6,)}])
def test_another_network_is_refused_even_for_a_partial_restore(folder, other):
    refused(make_state(**other), folder, partial=True)


def test_a_partial_restore_is_of_the_network_alone(tmp_path):
    saved = make_state(1, optimizer=make_state(2).network)
    checkpoints.save(saved, tmp_path, 5)
    restored = make_state()
    assert checkpoints.restore(restored, tmp_path, partial=True) == 5
    assert content(restored) == content(saved)
    refused(make_state(), tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(CheckpointError, match="another --run_dir"):
        checkpoints.save(make_state(), tmp_path / "checkpoints", 1)
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_deleted_run_directory(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoints.save(make_state(), tmp_path / "gone" / "checkpoints", 1)
    assert not (tmp_path / "gone").exists()


def test_a_failed_save_leaves_the_old_checkpoints(folder, monkeypatch):
    def full(file, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.files, "flush", full)
    with pytest.raises(CheckpointError, match="No space left on device; make room"):
        checkpoints.save(make_state(), folder, 3)
    assert names_in(folder) == ["step-00000001", "step-00000002"]
    restored = make_state()
    assert checkpoints.restore(restored, folder) == 2
    assert content(restored) == content(make_state(2))


def test_tensorflow_errors_are_reported_without_their_operations(folder):
    class State:
        def write(self, prefix):
            tf.io.write_file(prefix, tf.constant("x"))
            tf.io.read_file(f"{prefix}-of-another-name")

    with pytest.raises(CheckpointError) as caught:
        checkpoints.save(State(), folder, 3)
    message = str(caught.value)
    assert "-of-another-name; No such file or directory; make room" in message
    assert "{{" not in message and "[Op:" not in message
    assert names_in(folder) == ["step-00000001", "step-00000002"]
