# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/workers.py: a set has the same bytes, whoever builds it."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from augment import folder, workers
from augment.enlarged import make
from system import cli, errors
from tests.helpers import ROOT
from tests.test_plan import DEFORMED
from tests.test_shards import contents


@pytest.fixture
def expected(dataset, tmp_path):
    """The files of the deformed set, built by threads."""
    return contents(make(dataset, DEFORMED, tmp_path / "expected"))


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


def test_workers_end_with_their_program_and_the_next_one_continues(tmp_path):
    flags = ["--multiply=10", "--workers=2"]
    killed = program(tmp_path, *flags)
    while not list(tmp_path.glob(".*.unfinished/finished.jsonl")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()  # ends only when no worker holds the pipes any more
    done = program(tmp_path, *flags)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "of 10 shards are built already" in err and "14,370" in out


# --- Dask ---


def test_a_missing_dask_gives_one_line(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    engine = functools.partial(workers.dask, "tcp://127.0.0.1:1")
    with pytest.raises(errors.UserError, match="extra named dask"):
        make(dataset, DEFORMED, tmp_path, engine)


@pytest.mark.parametrize("address", ["", "8786", "127.0.0.1:8786", "http://a:1", "a b"])
def test_impossible_addresses_are_refused(address):
    with pytest.raises(errors.UserError, match="dask_scheduler"):
        workers.check_scheduler(address)


def test_dask_writes_the_same_bytes(dataset, tmp_path, expected, cluster):
    engine = functools.partial(workers.dask, cluster.scheduler_address)
    assert contents(make(dataset, DEFORMED, tmp_path, engine)) == expected


def test_dask_continues_without_a_killed_worker(
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
    with pytest.raises(errors.UserError, match="started with 0.0.0.*install the same"):
        make(dataset, DEFORMED, tmp_path, engine)


def test_a_missing_scheduler_gives_one_line(dataset, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra dask is missing")
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    engine = functools.partial(workers.dask, "tcp://127.0.0.1:1")
    with pytest.raises(errors.UserError, match="no Dask scheduler answers"):
        make(dataset, DEFORMED, tmp_path, engine)
