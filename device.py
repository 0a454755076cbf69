# SPDX-License-Identifier: Apache-2.0
"""Loads TensorFlow the way a CPU wants it. Programs import this before all else."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


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


def _load_tensorflow():
    """Imports TensorFlow with oneDNN on, and quietly.

    oneDNN's kernels double the speed of a convolution. TensorFlow reads the switch
    once, when it is loaded, and on some processors it is off by default. While it
    loads, its native libraries announce themselves on standard error whatever the log
    level; that is held back, and shown only if loading fails.

    At its end TensorFlow also loads Keras, if there is one, and Keras all of
    scikit-learn, pandas and matplotlib, if there are any, which together take as long
    as TensorFlow itself. It is made to see no Keras while it loads; tf.keras and
    `import keras` find it afterwards.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back, _no_keras():
        os.dup2(held_back.fileno(), 2)
        try:
            import tensorflow
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return tensorflow


tf = _load_tensorflow()


def set_threads(threads: int) -> None:
    """Sets how many threads TensorFlow uses within an operation.

    Operations run one after another, each on all threads: two operations at a time
    were no faster at the size of these networks.

    Args:
      threads: 0 for one per core. To be called before the first operation.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads or cores())
    tf.config.threading.set_inter_op_parallelism_threads(1)
