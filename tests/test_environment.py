# SPDX-License-Identifier: Apache-2.0
"""Tests of training/environment.py."""

import json

import tensorflow as tf

from training.environment import current_environment


def test_environment_is_json_and_complete(monkeypatch):
    monkeypatch.setenv("LENET_MAX_CPU_ISA", "AVX2")
    environment = current_environment()
    assert json.loads(json.dumps(environment)) == environment
    assert environment["tensorflow"] == tf.__version__
    assert environment["cores"] >= 1
    assert environment["processor"] and environment["commit"]
    assert set(environment) == {
        *("version", "commit", "python", "tensorflow", "numpy", "processor"),
        *("cores", "intra_op_threads", "inter_op_threads", "onednn"),
        *("max_cpu_isa", "onednn_max_cpu_isa"),
    }
    assert environment["max_cpu_isa"] == "AVX2"


def test_environment_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert current_environment()["commit"] == "unknown"
