# SPDX-License-Identifier: Apache-2.0
"""Loads TensorFlow, fast and quietly. Programs import this module first."""

import contextlib
import ctypes
import gc
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 64  # bytes; TensorFlow ends the process at a tensor that has less


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _hidden() -> Iterator[None]:
    """Hides packages that TensorFlow can do without, unless they are loaded."""
    names = [name for name in ("keras", "h5py", "scipy") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: fails
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


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


def _link() -> None:
    """Loads TensorFlow's C++ library, if it is a file of its own.

    It has 800 MB, and takes a fifth of the time of `import tensorflow`. Python's import
    would hold the interpreter's lock meanwhile; ctypes does not.
    """
    spec = importlib.util.find_spec("tensorflow")
    folder = Path(spec.origin if spec and spec.origin else os.curdir).parent
    for path in folder.glob("libtensorflow_cc.so.*"):
        with contextlib.suppress(OSError):  # the import says what is wrong
            ctypes.CDLL(str(path))


def _load_tensorflow():
    """Imports TensorFlow with oneDNN, without Keras and without its log.

    oneDNN's kernels double the speed of a convolution. TensorFlow reads the switch
    when it is loaded; on some processors the default is off.

    TensorFlow would also load Keras if it is installed, and Keras would load
    scikit-learn, pandas and matplotlib, which takes as long as TensorFlow itself. So we
    hide Keras while TensorFlow loads; `tf.keras` and `import keras` find it afterwards.
    h5py and SciPy are for a copy of an old Keras inside TensorFlow, which nobody calls;
    without them, TensorFlow takes a fifteenth less.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet(), _hidden(), _no_garbage():
        library = threading.Thread(target=_link)
        library.start()
        import numpy  # noqa: F401  (meanwhile)

        library.join()
        import tensorflow
    return tensorflow


tf = _load_tensorflow()


def tensor(array: "np.ndarray") -> Any:  # a tf.Tensor
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
