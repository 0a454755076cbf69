# SPDX-License-Identifier: Apache-2.0
"""Tests of files.py."""

import os

import pytest

import files


def write(path, content):
    with files.replacing(path) as file:
        file.write(content)


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    write(path, b"old")
    with pytest.raises(KeyError), files.replacing(path) as file:
        file.write(b"half of the n")
        raise KeyError
    assert path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    link, path = tmp_path / "link", tmp_path / "there" / "a"
    link.symlink_to(path)
    write(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"


def test_a_pipe_stays_one(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="no plain file"):
        write(path, b"new")
    assert path.is_fifo() and os.listdir(tmp_path) == ["pipe"]
