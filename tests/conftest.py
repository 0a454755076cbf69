# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share."""

# The programs' way of loading TensorFlow: with oneDNN, which is read only then.
from system import device  # isort: skip  (first: it loads TensorFlow)

import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from absl import flags

import data
from benchmarks import peers
from data import mnist as files
from native import ops, toolchain
from system import flagfiles
from tests import programs

# Ctrl-C reaches the programs that tests start even if the tests run in the background,
# where shells have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As the programs do it.
device.set_threads(0)


def pytest_runtest_setup(item):
    """Skips native tests without a compiler; with one that fails, they should fail."""
    if item.get_closest_marker("native") and ops.missing() == toolchain.NO_COMPILER:
        pytest.skip(toolchain.NO_COMPILER)


@pytest.fixture
def dataset():
    """Forty images of noise, four of each digit."""
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), 4)
    return data.Dataset("noise", images, labels, images, labels, {"file": "ab"}, "")


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits, at hand everywhere; not to be written to."""
    return data.load("digits")


@pytest.fixture(scope="module")
def mnist():
    """MNIST if it is on this machine, else a skip: no test downloads it."""
    for place in (*files._places(), files._cache_dir()):
        if all(Path(place, name).exists() for name in files.FILES):
            return data.load("mnist", place)
    return pytest.skip("MNIST is not here; python -m data downloads it")


@pytest.fixture(scope="module")
def cluster():
    """Two Dask workers, as processes that only this machine can reach."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is missing")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
    ) as some:
        yield some


@pytest.fixture
def forked_peers(monkeypatch):
    """Forks the processes of benchmarks.peers."""
    forking = types.SimpleNamespace(**vars(subprocess))
    forking.Popen = programs.Popen
    monkeypatch.setattr(peers, "subprocess", forking)


@pytest.fixture
def call(monkeypatch):
    """call(*arguments) runs train.py; `call.threads` lists the threads that it set."""
    import config
    import train

    if "epochs" not in flags.FLAGS:
        config.define_flags()
    threads = []
    # TensorFlow is at work already.
    monkeypatch.setattr(device, "set_threads", lambda *n: threads.append(n) or True)
    monkeypatch.setattr(sys, "argv", ["train"])

    def call(*arguments):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["train", *flagfiles.expand(arguments)])
        train.main([])

    call.threads = threads
    yield call
    flags.FLAGS.unparse_flags()
