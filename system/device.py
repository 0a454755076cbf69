# SPDX-License-Identifier: Apache-2.0
"""Loads TensorFlow, fast and quietly. Programs import this module first."""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes; TensorFlow ends the process at a tensor that has less


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _no_keras() -> Iterator[None]:
    """Hides Keras from imports, unless it is already loaded."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # import then fails
    try:
        yield
    finally:
        del sys.modules["keras"]


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Switches garbage collection off; what was loaded is exempt from it for good.

    Python would collect hundreds of times while TensorFlow loads, a sixth of the time
    that takes, and would look at all its modules again whenever a graph is traced.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what native libraries write to standard error, unless an error is raised.

    They announce their settings there at any log level.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _load_tensorflow():
    """Imports TensorFlow with oneDNN, without Keras and without its log.

    oneDNN's kernels double the speed of a convolution. TensorFlow reads the switch
    when it is loaded; on some processors the default is off.

    TensorFlow would also load Keras if it is installed, and Keras would load
    scikit-learn, pandas and matplotlib, which takes as long as TensorFlow itself. So we
    hide Keras while TensorFlow loads; `tf.keras` and `import keras` find it afterwards.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet(), _no_keras(), _no_garbage():
        import tensorflow
    return tensorflow


tf = _load_tensorflow()


def tensor(array: np.ndarray) -> Any:  # a tf.Tensor
    """An array as a tensor, in the same memory if possible: do not write to it again.

    `tf.constant` copies an array twice: with a set of 1 GB, there would be two more GB
    for a moment, and one for good. Arrays of `data.dataset.empty` share their memory;
    one that is read-only, not contiguous or not aligned is copied.
    """
    if not array.flags.carray or array.ctypes.data % ALIGNMENT:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def set_threads(threads: int, replicas: int = 1) -> bool:
    """Sets how many threads TensorFlow uses; call it before the first operation.

    Each replica, a part of the batch, runs one operation at a time: two were no faster
    with networks of this size. No threads, 0, stand for one per core. Returns False if
    it was too late: TensorFlow keeps the threads that its first operation got.
    """
    threads = max(threads or cores(), replicas)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads // replicas)
        tf.config.threading.set_inter_op_parallelism_threads(replicas)
    except RuntimeError:
        return False
    return True
