# SPDX-License-Identifier: Apache-2.0
"""Tests of photos/program.py: photos are read side by side, and reported in order."""

import threading
import time
import types
import warnings
from pathlib import Path

import pytest

from data import decode
from photos import program, reading
from system import errors

RUN = types.SimpleNamespace(predict=None, classes="0123456789")
OPTIONS = {"ink": "auto", "rotate": "0", "reject": 0.5}
NAMES = ("a.png", "b.png", "c.png", "d.png")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Paths of photos, on a machine of two cores."""
    monkeypatch.setattr("system.device.cores", lambda: 2)
    for name in NAMES:
        (tmp_path / name).touch()
    return [str(tmp_path / name) for name in NAMES]


def more(photos):
    """Paths of 200 photos."""
    folder = Path(photos[0]).parent
    for number in range(200):
        (folder / f"{number}.png").touch()
    return [str(folder / f"{number}.png") for number in range(200)]


def read_all(photos):
    outputs = dict.fromkeys(["readings", "annotated_dir"])
    program.read_all(lambda: RUN, photos, **OPTIONS, **outputs)


def test_two_are_read_at_a_time_and_reported_in_order(photos, monkeypatch, capsys):
    both = threading.Barrier(2, timeout=30)  # raises unless two wait at once
    second_is_done, reading_now, most = threading.Event(), [], []

    def read(_, path, *args, **kinds):
        reading_now.append(path)
        most.append(len(reading_now))
        both.wait()
        if path.name == "a.png":
            second_is_done.wait(30)
        reading_now.remove(path)
        if path.name == "b.png":
            second_is_done.set()
            raise decode.PhotoError("b.png: damaged")
        return reading.Page(path, [], warning=f"{path.name} is dark")

    monkeypatch.setattr(reading, "read", read)
    before = warnings.filters[:]
    with pytest.raises(errors.UserError, match="^b.png: damaged$"):
        read_all(photos)
    said = capsys.readouterr()
    shown = [line.rpartition("/")[2] for line in said.out.splitlines()]
    assert shown == [f"{name[0]}.png: no digits found" for name in "acd"]
    assert [line.split(": ")[1] for line in said.err.splitlines()] == [
        f"{name}.png is dark" for name in "acd"
    ]
    assert max(most) == 2
    assert warnings.filters == before


def test_ctrl_c_does_not_wait_for_photos_that_are_not_begun(photos, monkeypatch):
    begun = []

    def read(_, path, *args, **kinds):
        begun.append(path)
        time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(reading, "read", read)
    with pytest.raises(KeyboardInterrupt):
        read_all(more(photos))
    assert 0 < len(begun) < 100


def test_memory_is_bounded_on_many_cores(photos, monkeypatch):
    monkeypatch.setattr("system.device.cores", lambda: 64)
    threads = set()

    def read(_, path, *args, **kinds):
        threads.add(threading.get_ident())
        time.sleep(0.002)
        return reading.Page(path, [])

    monkeypatch.setattr(reading, "read", read)
    read_all(more(photos))
    assert 0 < len(threads) <= program.MAX_AT_ONCE
