# SPDX-License-Identifier: Apache-2.0
"""Loads TensorFlow the way a CPU wants it. Programs import this before all else."""

import os
import sys
import tempfile


def cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load_tensorflow():
    """Imports TensorFlow with oneDNN on, and quietly.

    oneDNN's kernels double the speed of a convolution. TensorFlow reads the switch
    once, when it is loaded, and on some processors it is off by default. While it
    loads, its native libraries announce themselves on standard error whatever the log
    level; that is held back, and shown only if loading fails.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
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
