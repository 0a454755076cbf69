# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/shards.py, folder.py and workers.py: whoever builds, same bytes."""

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from augment import build, folder, preview, shards, workers
from augment.enlarged import enlarge, make
from augment.plan import Settings, plan, settings_from
from data import idx
from system import cli, errors

ROOT = Path(__file__).parent.parent
DEFORMED = Settings((), flip_codes=(), deform=("elastic", "affine"), multiply=6)


@pytest.fixture
def expected(dataset, tmp_path):
    """The files of the deformed set, as threads build it."""
    return contents(make(dataset, DEFORMED, tmp_path / "expected"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unfinished(root):
    (folder,) = root.glob(".*.unfinished")
    return folder


# --- deformed sets ---


@pytest.mark.parametrize("keep", [True, False])
def test_a_deformed_set_is_k_times_the_source(dataset, tmp_path, keep):
    settings = Settings((), 1, False, (), keep_originals=keep, **deformation())
    enlarged = enlarge(dataset, settings, tmp_path)
    images = enlarged.images.reshape(6, 40, 28, 28, 1)
    np.testing.assert_array_equal(enlarged.labels, np.tile(dataset.train_labels, 6))
    np.testing.assert_array_equal(enlarged.source, np.tile(np.arange(40), 6))
    assert (images[0] == dataset.train_images).all() == keep
    assert len(np.unique(images.reshape(240, -1), axis=0)) == 240
    other = Settings((), 1, False, (), **deformation(deform_seed=1))
    assert make(dataset, other, tmp_path) != enlarged.directory


def deformation(**changed):
    return {"deform": ("elastic", "affine"), "multiply": 6, **changed}


def test_shards_of_one_size_can_be_mapped(dataset, tmp_path):
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


def test_settings_of_deformations():
    plain = {**vars(Settings()), "deform": None, "multiply": None, "deform_seed": None}
    assert settings_from(plain) == Settings()
    given = {**plain, "deform": ["affine", "elastic"], "multiply": 6}
    assert settings_from(given) == DEFORMED
    assert settings_from(json.loads(json.dumps(vars(DEFORMED)))) == DEFORMED


@pytest.mark.parametrize(
    "changed, word",
    [
        ({"deform": ()}, "multiply"),
        ({"multiply": None}, "multiply"),
        ({"multiply": 10**9}, "multiply"),
        ({"deform": ("elastics",)}, "elastics"),
        ({"deform_seed": -1}, "deform_seed"),
        ({"deform": None, "multiply": None, "deform_seed": 1}, "deform_seed"),
        ({"shift_pixels": 2}, "shift_pixels"),
        ({"flip_labels": (0, 8)}, "flip_labels"),
    ],
)
def test_impossible_deformations(changed, word):
    with pytest.raises(errors.UserError, match=word):
        settings_from({**vars(Settings()), **deformation(), **changed})


def test_preview_shows_some_copies(dataset):
    settings = Settings((), flip_codes=(), **deformation(multiply=500))
    labels = [label for label, _ in preview.preview_rows(dataset, settings)]
    assert labels[:2] == ["original", "elastic+affine #1"]
    assert len(labels) == 1 + preview.COPY_ROWS
    rows = build.table(plan(dataset.train_labels, settings))
    assert [size for _, size in rows] == [40, 499 * 40, 500 * 40]


# --- a build that is cut short ---


def cut_short(monkeypatch, dataset, root, after):
    """Builds until some shards are done; returns what stays of it."""
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
    """Builds what was begun; returns the files, and the numbers of shards written."""
    write, written = shards.write, []

    def noting(folder, number):
        written.append(number)
        return write(folder, number)

    monkeypatch.setattr(shards, "write", noting)
    return contents(make(dataset, DEFORMED, root)), written


def test_whole_shards_are_not_built_again(
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
def test_a_garbage_journal_is_none(dataset, tmp_path, monkeypatch, expected, journal):
    folder, _ = cut_short(monkeypatch, dataset, tmp_path / "root", after=1)
    (folder / "finished.jsonl").write_bytes(journal)
    (folder / "junk").mkdir()
    files, written = again(monkeypatch, dataset, tmp_path / "root")
    assert files == expected and len(written) == 6


def test_a_torn_line_of_the_journal(dataset, tmp_path, monkeypatch, expected):
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


def test_damage_is_found_without_reading_all_into_memory(dataset, tmp_path):
    folder = make(dataset, DEFORMED, tmp_path)
    damage(folder / shards.name(4, 6)[0])
    with pytest.raises(idx.DataError, match="part-04-of-06-images.*delete the folder"):
        make(dataset, DEFORMED, tmp_path)


# --- processes ---


def test_processes_write_the_same_bytes(dataset, tmp_path, expected):
    engine = functools.partial(workers.processes, 2)
    assert contents(make(dataset, DEFORMED, tmp_path, engine)) == expected


def test_a_killed_worker_is_replaced(dataset, tmp_path, monkeypatch, expected, capsys):
    note, killed = folder._note, []

    def kill(folder, number, sums):
        note(folder, number, sums)
        if not killed:
            killed.extend(multiprocessing.active_children())
            os.kill(killed[0].pid, signal.SIGKILL)

    monkeypatch.setattr(folder, "_note", kill)
    engine = functools.partial(workers.processes, 1)
    assert contents(make(dataset, DEFORMED, tmp_path, engine)) == expected
    assert killed
    assert "a worker was killed" in capsys.readouterr().err


@contextlib.contextmanager
def stillborn():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, os._exit, (1,)) as pool:
        yield pool


def test_workers_that_all_die_end_the_build(dataset, tmp_path):
    with pytest.raises(workers.WorkersError, match="were killed before"):
        make(dataset, DEFORMED, tmp_path, stillborn)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def program(tmp_path, *arguments):
    command = [sys.executable, "-m", "augment.build", "--dataset=digits"]
    command += ["--deform=elastic,affine", f"--augmented_dir={tmp_path}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_workers_end_with_their_program_and_the_next_goes_on(tmp_path):
    flags = ["--multiply=30", "--workers=2"]
    killed = program(tmp_path, *flags)
    while not list(tmp_path.glob(".*.unfinished/finished.jsonl")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()  # ends only when no worker holds the pipes any more
    done = program(tmp_path, *flags)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "of 30 shards are built already" in err and "43,110" in out


# --- Dask ---


def test_dask_that_is_not_installed_is_one_line(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    engine = functools.partial(workers.dask, "tcp://127.0.0.1:1")
    with pytest.raises(errors.UserError, match="extra named dask"):
        make(dataset, DEFORMED, tmp_path, engine)


@pytest.mark.parametrize("address", ["", "8786", "127.0.0.1:8786", "http://a:1", "a b"])
def test_impossible_addresses(address):
    with pytest.raises(errors.UserError, match="dask_scheduler"):
        workers.check_scheduler(address)


@pytest.mark.parametrize(
    "flag", ["--dask_scheduler=x", "--workers=-1", "--multiply=0", "--flip_codes=0"]
)
def test_bad_flag_is_one_line(tmp_path, flag):
    failed = program(tmp_path, "--multiply=2", flag)
    _, err = failed.communicate()
    assert failed.returncode == 2
    assert len(err.splitlines()) == 1 and flag.strip("-").partition("=")[0] in err


@pytest.fixture(scope="module")
def cluster():
    """Two Dask workers, processes of this machine that only it can reach."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is missing")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as some:
        yield some


def test_dask_writes_the_same_bytes(dataset, tmp_path, expected, cluster):
    engine = functools.partial(workers.dask, cluster.scheduler_address)
    assert contents(make(dataset, DEFORMED, tmp_path, engine)) == expected


def test_dask_goes_on_without_a_killed_worker(
    dataset, tmp_path, monkeypatch, expected, cluster
):
    note, killed = folder._note, []

    def kill(folder, number, sums):
        note(folder, number, sums)
        if not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(folder, "_note", kill)
    engine = functools.partial(workers.dask, cluster.scheduler_address)
    assert contents(make(dataset, DEFORMED, tmp_path, engine)) == expected
    assert killed


def test_dask_workers_of_another_version_are_refused(
    dataset, tmp_path, monkeypatch, cluster
):
    monkeypatch.setattr(cli, "VERSION", "0.0.0")
    engine = functools.partial(workers.dask, cluster.scheduler_address)
    with pytest.raises(errors.UserError, match="and the build 0.0.0.*install the same"):
        make(dataset, DEFORMED, tmp_path, engine)


def test_a_scheduler_that_is_not_there_is_one_line(dataset, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra dask is missing")
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    engine = functools.partial(workers.dask, "tcp://127.0.0.1:1")
    with pytest.raises(errors.UserError, match="no Dask scheduler answers"):
        make(dataset, DEFORMED, tmp_path, engine)
