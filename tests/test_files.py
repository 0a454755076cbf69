# SPDX-License-Identifier: Apache-2.0
"""Tests of system/files.py: replacing, appending, checking for links."""

import os

import pytest

from system import errors, files


def write(path, content):
    with files.replacing(path) as file:
        file.write(content)


def test_a_file_is_replaced_only_when_complete(tmp_path):
    path = tmp_path / "a"
    write(path, b"old")
    with pytest.raises(KeyError), files.replacing(path) as file:
        file.write(b"half of the n")
        raise KeyError
    assert path.read_bytes() == b"old"
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.fixture
def victim(tmp_path):
    """A file outside the folder that we write to."""
    path = tmp_path / "victim"
    path.write_bytes(b"mine")
    return path


def test_a_link_that_the_user_names_is_followed(tmp_path, victim):
    link = tmp_path / "link"
    link.symlink_to(victim)
    with files.replacing(link, follow=True) as file:
        file.write(b"new")
    assert link.is_symlink() and victim.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["a", ".a.{pid}"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_nothing_is_written_through_a_link(tmp_path, victim, link, name):
    name = name.format(pid=os.getpid())  # not in parametrize: test processes differ
    folder = tmp_path / "mailed"
    folder.mkdir()
    link(victim, folder / name)
    write(folder / "a", b"new")
    assert victim.read_bytes() == b"mine"
    assert os.listdir(folder) == ["a"]
    assert (folder / "a").read_bytes() == b"new" and not (folder / "a").is_symlink()


def test_a_file_is_appended_to(tmp_path):
    for text in (b"one", b"two"):
        with files.append(tmp_path / "a") as file:
            file.write(text)
    assert (tmp_path / "a").read_bytes() == b"onetwo"


@pytest.mark.parametrize("place", [os.symlink, os.link, lambda _, p: os.mkfifo(p)])
def test_nothing_is_appended_to_another_file(tmp_path, victim, place):
    place(victim, tmp_path / "a")
    with pytest.raises(OSError, match="a is a (hard link|link|pipe).*: delete it"):
        files.append(tmp_path / "a")
    assert victim.read_bytes() == b"mine"


def test_links_and_pipes_are_found_at_any_depth(tmp_path, victim):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "link").symlink_to(victim)
    assert files.find_link(tmp_path, ["a", "missing", "victim"]) is None
    assert files.find_link(victim, ["a"]) is None
    os.mkfifo(tmp_path / "a" / "b" / "pipe")
    found = tmp_path / "a" / "b" / "pipe", "a pipe, socket or device"
    assert files.find_link(tmp_path, ["a"]) == found
    assert files.find_link(tmp_path, ["link"]) == (tmp_path / "link", "a link")


def test_a_pipe_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        write(path, b"new")
    assert path.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_unwritable_paths_are_noticed_beforehand(tmp_path):
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    files.check_writable(tmp_path / "file", "out")
    files.check_writable(tmp_path, "out", is_folder=True)
    files.check_writable(tmp_path / "new" / "folder", "out", is_folder=True)
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "new" / "file", "No such file"),
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        with pytest.raises(errors.UserError, match=f"^cannot write .*{why}.* --out$"):
            files.check_writable(path, "out")
    with pytest.raises(errors.UserError, match="Not a directory"):
        files.check_writable(tmp_path / "file" / "a", "out", is_folder=True)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "pipe"}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path):
    files.write(tmp_path / "file", "text\n")
    assert (tmp_path / "file").read_bytes() == b"text\n"
    with pytest.raises(errors.UserError, match="^cannot write .*Not a d.*, or pray$"):
        files.write(tmp_path / "file" / "below", b"new", remedy="pray")
    assert os.listdir(tmp_path) == ["file"]
