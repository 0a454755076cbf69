# SPDX-License-Identifier: Apache-2.0
"""The environment of a run, which affects its result: versions, processor, threads."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from system import cli, device

PROJECT = Path(__file__).resolve().parent.parent


def current_environment() -> dict[str, Any]:
    """Environment of this process, for run.json."""
    return {
        "version": cli.VERSION,
        "commit": _commit(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "processor": _processor(),
        "cores": device.cores(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        # Instructions that the operations are held to, ours and TensorFlow's.
        "max_cpu_isa": os.environ.get("LENET_MAX_CPU_ISA"),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
    }


def _commit() -> str:
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            describe, cwd=PROJECT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # no git, or no checkout
    return done.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
