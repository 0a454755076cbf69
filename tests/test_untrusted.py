# SPDX-License-Identifier: Apache-2.0
"""Tests of system/untrusted.py: only regular files, and only up to a limit."""

import json
import os
import signal

import numpy as np
import pytest
from absl import flags

from augment import folder, shards
from data import decode, idx, kaggle, mnist
from evaluation import predictions, recipes
from system import errors, flagfiles, untrusted
from training import history, runs


@pytest.fixture
def alarm():
    """Fails a test that waits for ever."""

    def end(*_):
        raise AssertionError("waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


OPENERS = {
    "idx": idx.read_labels,
    "csv": lambda path: kaggle._read(str(path), kaggle.PIXELS),
    "mnist": lambda path: mnist._verify(str(path), mnist.TEST_LABELS),
    "flagfile": lambda path: flagfiles.expand([f"--flagfile={path}"]),
    "run.json": lambda path: runs.read_run(path.parent),
    "metrics.csv": lambda path: history.read(path.parent),
    "manifest.json": lambda path: folder.read_checksums(path.parent, {}),
    "predictions.npz": lambda path: predictions.read(path.parent),
    "result.json": lambda path: recipes._read_result(path.parent, 1),
    "photo": decode.read,
    "shard": lambda path: shards.read(path, 8, np.zeros(9, np.uint8), None),
}


@pytest.mark.parametrize("kind", ["pipe", "zeros", "folder", "loop", "unreadable"])
@pytest.mark.parametrize("name", OPENERS)
def test_paths_that_are_not_regular_files_are_refused(alarm, tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        path.symlink_to("/proc/self/mem")  # a file whose start cannot be read
    else:
        path.symlink_to("/dev/zero" if kind == "zeros" else name)
    with pytest.raises((errors.UserError, flags.Error)) as caught:
        OPENERS[name](path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


def test_impossible_names_are_refused(tmp_path):
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="no file can have this name"):
            untrusted.open_file(tmp_path / name)


def test_reading_stops_at_the_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert untrusted.read(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        untrusted.read(tmp_path / "file", 4)


def test_valid_json_is_parsed():
    value = {"a": [1, -2.5, None, True, "é\n"], "b": {"c": 2**62}}
    assert untrusted.parse_json(json.dumps(value).encode()) == value
