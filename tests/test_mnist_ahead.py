# SPDX-License-Identifier: Apache-2.0
"""Tests of `mnist.foresee`, which reads MNIST while TensorFlow loads."""

import gzip

import numpy as np
import pytest

from data import idx, mnist
from data.dataset import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tiny files that count as MNIST, where no other place holds any."""
    for name, contents in (("train", 3), ("t10k", 2)):
        images = np.full((contents, 28, 28, 1), contents, np.uint8)
        idx.write_idx(tmp_path / f"{name}-images-idx3-ubyte", images)
        idx.write_idx(tmp_path / f"{name}-labels-idx1-ubyte", images[:, 0, 0, 0])
    for path in [*tmp_path.iterdir()]:
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    hashes = {
        name: mnist.untrusted.sha256(tmp_path / name, 10_000) for name in mnist.FILES
    }
    monkeypatch.setattr(mnist, "FILES", hashes)
    monkeypatch.setattr(mnist, "_places", lambda: [str(tmp_path)])
    monkeypatch.setattr(mnist, "_ahead", {})
    return tmp_path


def foresee(monkeypatch, *arguments):
    """Places that were read with these arguments of train.py."""
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    mnist.foresee()
    return [*mnist._ahead]


@pytest.mark.parametrize("given", [True, False])
def test_what_was_read_ahead_is_not_read_again(folder, monkeypatch, given):
    place = str(folder) if given else None
    assert foresee(monkeypatch, *([f"--data_dir={place}"] * given)) == [str(folder)]
    with monkeypatch.context() as patched:
        patched.setattr(idx, "read_pair", None)  # not to be called
        found = mnist.load(place)
    assert found.train_images.shape == (3, 28, 28, 1)
    assert not mnist._ahead  # so that its memory is free once the run has let go of it
    again = mnist.load(place)
    np.testing.assert_array_equal(again.train_images, found.train_images)


def test_a_fault_is_raised_when_the_data_is_wanted(folder, monkeypatch):
    (folder / mnist.TEST_LABELS).unlink()
    foresee(monkeypatch)
    with pytest.raises(DataError, match=f"{mnist.TEST_LABELS}: missing"):
        mnist.load()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset=digits"],
        ["--dataset", "digits"],
        ["--data_dir=elsewhere"],
        ["--flagfile=missing"],
    ],
)
def test_data_that_is_not_wanted_is_not_read(folder, monkeypatch, arguments):
    assert not foresee(monkeypatch, *arguments)
