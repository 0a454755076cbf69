# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/shards.py and augment/folder.py: interrupted builds and damage."""

import json
from pathlib import Path

import numpy as np
import pytest

from augment import folder, shards, workers
from augment.enlarged import make
from augment.plan import plan
from data import idx
from tests.test_plan import DEFORMED


@pytest.fixture
def expected(dataset, tmp_path):
    """The files of the deformed set, as threads build it."""
    return contents(make(dataset, DEFORMED, tmp_path / "expected"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unfinished(root):
    (folder,) = root.glob(".*.unfinished")
    return folder


def test_equal_shards_can_be_memory_mapped(dataset, tmp_path):
    folder = make(dataset, DEFORMED, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert [shard["count"] for shard in manifest["shards"]] == [40] * 6
    assert manifest["settings"]["deformation"]["elastic_alpha"] == 34
    for shard, part in zip(
        manifest["shards"], plan(dataset.train_labels, DEFORMED), strict=True
    ):
        images = shards.mapped(folder / shard["images"], [40, 28, 28])
        assert not images.flags.writeable
        transformed = part.apply(dataset.train_images)[..., 0]
        np.testing.assert_array_equal(images, transformed)
        labels = shards.mapped(folder / shard["labels"], [40])
        np.testing.assert_array_equal(labels, dataset.train_labels)


# --- a build that is cut short ---


def cut_short(monkeypatch, dataset, root, after):
    """Builds until some shards are done; returns the unfinished folder."""
    note, noted = folder._note, []

    def interrupt(folder, number, sums):
        note(folder, number, sums)
        noted.append(number)
        if len(noted) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_note", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(dataset, DEFORMED, root)
    return unfinished(root), noted


def again(monkeypatch, dataset, root):
    """Continues a build; returns the files, and the numbers of shards written."""
    write, written = shards.write, []

    def noting(folder, number):
        written.append(number)
        return write(folder, number)

    monkeypatch.setattr(shards, "write", noting)
    return contents(make(dataset, DEFORMED, root)), written


def test_complete_shards_are_not_built_again(
    dataset, tmp_path, monkeypatch, expected, capsys
):
    root = tmp_path / "root"
    _, noted = cut_short(monkeypatch, dataset, root, after=3)
    files, written = again(monkeypatch, dataset, root)
    assert files == expected
    assert sorted(written + noted) == list(range(6))
    assert "3 of 6 shards are built already" in capsys.readouterr().err
    assert {path.name for path in root.iterdir()} >= {".lock"}
    assert not list(root.glob(".*.unfinished"))


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        damage,
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
    ],
)
@pytest.mark.parametrize("kind", [0, 1])
def test_a_damaged_shard_is_built_again(
    dataset, tmp_path, monkeypatch, expected, harm, kind
):
    folder, noted = cut_short(monkeypatch, dataset, tmp_path / "root", after=3)
    harm(folder / shards.name(noted[0], 6)[kind])
    files, written = again(monkeypatch, dataset, tmp_path / "root")
    assert files == expected
    assert sorted(written + noted[1:]) == list(range(6))


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"\xff\n{",
        b'[]\n1\nnull\n{}\n{"shard": 7, "sha256": {}}\n{"shard": [], "sha256": {}}',
        b'{"shard": 0, "sha256": []}\n{"shard": 0.5, "sha256": {}}',
        b'{"shard": 0, "sha256": {"manifest.json": 1}}',
        b"[" * 10_000,
    ],
    ids=range(6),
)
def test_a_garbage_journal_is_ignored(
    dataset, tmp_path, monkeypatch, expected, journal
):
    folder, _ = cut_short(monkeypatch, dataset, tmp_path / "root", after=1)
    (folder / "finished.jsonl").write_bytes(journal)
    (folder / "junk").mkdir()
    files, written = again(monkeypatch, dataset, tmp_path / "root")
    assert files == expected and len(written) == 6


def test_a_torn_line_of_the_journal_is_ignored(
    dataset, tmp_path, monkeypatch, expected
):
    folder, noted = cut_short(monkeypatch, dataset, tmp_path / "root", after=2)
    journal = folder / "finished.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    files, written = again(monkeypatch, dataset, tmp_path / "root")
    assert files == expected
    assert sorted([*written, noted[0]]) == list(range(6))


def outdate(path):
    job = json.loads(path.read_text())
    job["versions"]["scipy"] = "0.1"
    path.write_text(json.dumps(job))


@pytest.mark.parametrize(
    "harm", [outdate, Path.unlink, lambda path: path.write_text("[]")]
)
def test_shards_of_other_versions_are_built_again(
    dataset, tmp_path, monkeypatch, expected, harm, capsys
):
    folder, _ = cut_short(monkeypatch, dataset, tmp_path / "root", after=3)
    harm(folder / "job.json")
    files, written = again(monkeypatch, dataset, tmp_path / "root")
    assert files == expected and len(written) == 6
    assert "resuming" not in capsys.readouterr().err


def test_a_shard_written_elsewhere_is_noticed_as_missing(dataset, tmp_path):
    place = folder.Folder(dataset, DEFORMED, tmp_path)
    with pytest.raises(idx.DataError, match="part-00-of-06-images.*No such file"):
        place.build(workers.threads, lambda path, number: {"file": "00"})
    assert not place.path.exists()


def test_damage_is_noticed_without_reading_all_into_memory(dataset, tmp_path):
    folder = make(dataset, DEFORMED, tmp_path)
    damage(folder / shards.name(4, 6)[0])
    with pytest.raises(idx.DataError, match="part-04-of-06-images.*delete the folder"):
        make(dataset, DEFORMED, tmp_path)
