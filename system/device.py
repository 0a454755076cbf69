# SPDX-License-Identifier: Apache-2.0
"""Loads TensorFlow the way a CPU wants it. Programs import this before all else."""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes; TensorFlow ends the process at a tensor of less


def cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _no_keras() -> Iterator[None]:
    """Makes Keras look as if it were not installed, unless it is loaded already."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # Python's way to say so
    try:
        yield
    finally:
        del sys.modules["keras"]


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Keeps Python from looking for garbage among modules that are here to stay.

    It would do so hundreds of times while TensorFlow loads, a sixth of the time, and
    again whenever a graph is traced.
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
    """Holds back what native libraries say on standard error, unless there is an error.

    They announce their settings there, whatever the log level.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _load_tensorflow():
    """Imports TensorFlow with oneDNN on, and quietly.

    oneDNN's kernels double the speed of a convolution. TensorFlow reads the switch
    once, when it is loaded, and on some processors it is off by default.

    At its end TensorFlow also loads Keras, if there is one, and Keras all of
    scikit-learn, pandas and matplotlib, if there are any, which together take as long
    as TensorFlow itself. It is made to see no Keras while it loads; tf.keras and
    `import keras` find it afterwards.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet(), _no_keras(), _no_garbage():
        import tensorflow
    return tensorflow


tf = _load_tensorflow()


def tensor(array: np.ndarray) -> Any:  # a tf.Tensor
    """The array as a tensor, in the same memory where possible.

    `tf.constant` copies numpy's own arrays twice: beside a set of a gigabyte there
    would be two more for a moment, and one for good.

    Args:
      array: of any shape and number type, as `data.dataset.empty` makes them; of
        another, that is read-only or badly aligned, the tensor is a copy. Not to be
        written to any more.
    """
    if not array.flags.carray or array.ctypes.data % ALIGNMENT:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def set_threads(threads: int, replicas: int = 1) -> None:
    """Sets how many threads TensorFlow uses, between operations and within one.

    One operation of each replica at a time: two of the same were no faster at the
    size of these networks.

    Args:
      threads: 0 for one per core. To be called before the first operation.
      replicas: parts of a batch that are trained on side by side.
    """
    threads = max(threads or cores(), replicas)
    tf.config.threading.set_intra_op_parallelism_threads(threads // replicas)
    tf.config.threading.set_inter_op_parallelism_threads(replicas)
