# SPDX-License-Identifier: Apache-2.0
"""Tests of how TensorFlow is loaded. Most use a stand-in module of the same name, which
loads at once.
"""

import gc
import os

import numpy as np
import pytest

from data.dataset import empty
from system import device
from tests.helpers import ROOT, command

STAND_IN = """
import os
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], os.environ["TF_CPP_MIN_LOG_LEVEL"])
os.write(2, b"native noise")
"""


def load(*path, code="from system import device", **environment):
    """Runs `code` in a new process with the folders of `path` first on its path."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    folders = os.pathsep.join(map(str, [*path, ROOT]))
    environment = {**inherited, "PYTHONPATH": folders, **environment}
    return command("-c", code, cwd=ROOT.parent, env=environment)


@pytest.fixture
def stand_in(tmp_path):
    (tmp_path / "tensorflow.py").write_text(STAND_IN)
    return tmp_path


def test_onednn_is_on_before_tensorflow_is_loaded(stand_in):
    assert load(stand_in).stdout == "1 3\n"


def test_environment_variables_take_precedence(stand_in):
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "0"}
    assert load(stand_in, **environment).stdout == "0 0\n"


def test_native_output_is_hidden_and_standard_error_restored(stand_in):
    loaded = load(
        stand_in, code="from system import device; import os; os.write(2, b'mine')"
    )
    assert (loaded.returncode, loaded.stderr) == (0, "mine")


def test_native_output_is_shown_if_loading_fails(stand_in):
    (stand_in / "tensorflow.py").write_text(STAND_IN + "raise ImportError('broken')")
    loaded = load(stand_in)
    assert loaded.returncode == 1
    assert "native noise" in loaded.stderr
    assert "ImportError: broken" in loaded.stderr


@pytest.mark.parametrize("first, seen", [("", "no keras"), ("import keras; ", "keras")])
def test_keras_is_hidden_unless_it_is_loaded(stand_in, first, seen):
    (stand_in / "keras.py").write_text("NAME = 'keras'")
    (stand_in / "tensorflow.py").write_text(
        "try:\n    import keras\n    print('keras')\n"
        "except ImportError:\n    print('no keras')\n"
    )
    loaded = load(
        stand_in, code=f"{first}from system import device; import keras; keras.NAME"
    )
    assert (loaded.stdout, loaded.stderr) == (f"{seen}\n", "")


@pytest.mark.parametrize("name", ["h5py", "scipy"])
def test_what_an_old_keras_wants_is_hidden_too(stand_in, name):
    (stand_in / f"{name}.py").write_text("NAME = 'found'")
    (stand_in / "tensorflow.py").write_text(
        f"try:\n    import {name}\nexcept ImportError:\n    print('hidden')\n"
    )
    code = f"from system import device; import {name}; print({name}.NAME)"
    assert load(stand_in, code=code).stdout == "hidden\nfound\n"


def test_the_library_is_loaded_before_the_import(stand_in):
    """By a thread, so that the interpreter's lock is free meanwhile."""
    package = stand_in / "tensorflow"
    package.mkdir()
    (stand_in / "tensorflow.py").unlink()
    (package / "__init__.py").write_text("print('imported')")
    (package / "libtensorflow_cc.so.2").write_text("none")
    code = """
import ctypes, threading
def loaded(path):
    print(path[-21:], threading.current_thread() is threading.main_thread())
    raise OSError("damaged")
ctypes.CDLL = loaded
from system import device
"""
    assert load(stand_in, code=code).stdout == "libtensorflow_cc.so.2 False\nimported\n"


def test_keras_is_visible_again_if_loading_fails(stand_in):
    (stand_in / "keras.py").write_text("NAME = 'keras'")
    (stand_in / "tensorflow.py").write_text("raise ImportError('broken')")
    code = """
try:
    from system import device
except ImportError:
    import keras
    print(keras.NAME)
"""
    assert load(stand_in, code=code).stdout == "keras\n"


def test_tensorflow_loads_quietly_and_uses_the_threads():
    code = """
from system import device
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


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (5,)])
def test_a_tensor_shares_the_memory_of_an_aligned_array(shape):
    array = empty(shape)
    array[:] = 7
    tensor = device.tensor(array)
    assert (tensor.dtype, tensor.shape) == (np.uint8, shape)
    array[0] = 9
    np.testing.assert_array_equal(tensor, array)
    del array  # the tensor keeps the memory alive
    gc.collect()
    assert set(tensor[0].numpy().ravel()) == {9}
    assert set(tensor[1:].numpy().ravel()) == {7}


def test_a_tensor_of_another_array_is_a_copy():
    aligned = empty((200,))
    aligned[:] = 7
    frozen = aligned.view()
    frozen.flags.writeable = False
    for array in (aligned[1:], aligned[::2], frozen):
        tensor = device.tensor(array)
        np.testing.assert_array_equal(tensor, array)
        aligned[:] = 9
        assert set(tensor.numpy()) == {7}
        aligned[:] = 7


def test_cores_are_at_most_those_of_the_machine():
    assert 1 <= device.cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_are_those_of_the_process():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert device.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
