# SPDX-License-Identifier: Apache-2.0
"""How TensorFlow is loaded. Where only the moment of loading matters, a module of the
same name stands for it, which costs no seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import device

ROOT = Path(__file__).parent.parent
STAND_IN = """
import os
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], os.environ["TF_CPP_MIN_LOG_LEVEL"])
os.write(2, b"native noise")
"""


def load(*path, code="import device", **environment):
    """Runs `code` in a fresh process with the folders of `path` ahead of all else."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    folders = os.pathsep.join(map(str, [*path, ROOT]))
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT.parent,
        env={**inherited, "PYTHONPATH": folders, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def stand_in(tmp_path):
    (tmp_path / "tensorflow.py").write_text(STAND_IN)
    return tmp_path


def test_onednn_is_on_before_tensorflow_is_loaded(stand_in):
    assert load(stand_in).stdout == "1 3\n"


def test_the_environment_has_the_last_word(stand_in):
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "0"}
    assert load(stand_in, **environment).stdout == "0 0\n"


def test_native_noise_is_held_back_and_standard_error_given_back(stand_in):
    loaded = load(stand_in, code="import device, os; os.write(2, b'mine')")
    assert (loaded.returncode, loaded.stderr) == (0, "mine")


def test_native_noise_is_shown_when_loading_fails(stand_in):
    (stand_in / "tensorflow.py").write_text(STAND_IN + "raise ImportError('broken')")
    loaded = load(stand_in)
    assert loaded.returncode == 1
    assert "native noise" in loaded.stderr
    assert "ImportError: broken" in loaded.stderr


def test_tensorflow_itself_loads_quietly_and_takes_the_threads():
    code = """
import device
device.set_threads(0)
threading = device.tf.config.threading
print(threading.get_intra_op_parallelism_threads() == device.cores())
device.set_threads(3)
print(threading.get_intra_op_parallelism_threads())
print(threading.get_inter_op_parallelism_threads())
device.set_threads(8, replicas=4)
print(threading.get_intra_op_parallelism_threads())
print(threading.get_inter_op_parallelism_threads())
device.set_threads(1, replicas=2)
print(threading.get_intra_op_parallelism_threads())
print(threading.get_inter_op_parallelism_threads())
print(device.tf.reduce_sum([1, 2]).numpy())
"""
    loaded = load(code=code)
    assert (loaded.stdout, loaded.stderr) == ("True\n3\n1\n2\n4\n1\n2\n3\n", "")


def test_cores():
    assert 1 <= device.cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_are_those_of_the_process():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert device.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
