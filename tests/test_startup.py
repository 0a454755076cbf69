# SPDX-License-Identifier: Apache-2.0
"""Tests of what a run loads before its first step, and of the startup benchmark."""

import json
import math
from pathlib import Path

import pytest

from benchmarks import peers, startup
from tests.helpers import cells, command

UNUSED = (
    *("cv2", "jinja2", "keras", "matplotlib", "pandas", "pooch", "scipy.ndimage"),
    *("scipy.stats", "sklearn", "tabulate"),
)
# Up to the first step: the graph is traced and called once.
CODE = f"""
import sys
import train
import numpy as np
from pathlib import Path
from config import Config
from training.log import Log
from training.session import Session
from training.sets import Sets

class FirstStep(Exception):
    pass

def stop(*_):
    raise FirstStep

Log.steps = stop
images = np.zeros([8, 28, 28, 1], np.uint8)
labels = np.zeros(8, np.uint8)
config = Config(epochs=1, batch_size=4, replicas=1)
try:
    train.train(config, Sets(images, labels, {{}}), Session(Path(sys.argv[1])))
except FirstStep:
    print([name for name in {UNUSED} if name in sys.modules])
"""


def test_a_run_loads_nothing_that_its_first_step_does_not_use(tmp_path):
    done = command("-c", CODE, tmp_path)
    assert done.stdout == "[]\n", done.stderr


def test_first_step_of_a_run():
    arguments = ["--dataset=digits", "--network=mlp"]
    arguments += ["--shift_directions=", "--flip_codes="]
    seconds, peak = startup.first_call(arguments)
    assert 0.1 < seconds < math.inf
    # TensorFlow alone takes more than that; 0 if the system does not report it.
    assert peak > 1e8 or not Path("/proc/self/status").exists()


def test_a_run_without_a_first_step_is_reported_with_its_last_line():
    with pytest.raises(peers.BenchmarkError, match="step 1: train.py: .*nonesuch"):
        startup.first_call(["--nonesuch"])


def test_the_very_first_run_builds_and_compiles(tmp_path, monkeypatch):
    """The benchmark does not touch the project's own enlarged sets and operations."""
    looked = []
    monkeypatch.setattr(
        startup, "first_call", lambda *call: looked.append(anew(*call)) or (1.5, 0)
    )
    before = set(peers.PROJECT.iterdir())
    assert startup.first_run(["--seed=1"]) == 1.5
    assert looked == [(["--seed=1"], True, [], 100)]
    assert set(peers.PROJECT.iterdir()) == before


def anew(arguments, project, steps):
    """Arguments of a first run, and files of an earlier run that it must not use."""
    found = [n for n in ("augmented", "native/build", "runs") if (project / n).exists()]
    return arguments, (project / "train.py").is_file(), found, steps


@pytest.mark.usefixtures("forked_peers")
def test_evaluation_takes_some_time():
    with peers.Peer("benchmarks.startup", "evaluation", {}) as peer:
        assert 0 < peer.ask(10) < math.inf


def test_table_of_stored_results():
    results = {
        "arguments": ["--flagfile=lenet.flags"],
        "seconds": {startup.IMPORT: [2.0, 3.0, 7.0], startup.FIRST_STEP: [3, 6, 7]}
        | {startup.FIRST_RUN: [9, 10, 12]},
        "peak_bytes": 1_234_567_890,
        "evaluation_seconds": [0.5, 0.567, 0.6],
    }
    section = startup.markdown(json.loads(json.dumps(results)))
    assert section.startswith("## Start-up of `python train.py --flagfile=lenet.flags`")
    assert cells(section)[1:] == [
        ["import tensorflow", "3.00 s", "2.00–7.00 s"],
        ["to the first step", "6.00 s", "3.00–7.00 s"],
        ["the very first run, to step 100", "10.00 s", "9.00–12.00 s"],
        ["10,000 digits scored", "0.57 s", "0.50–0.60 s"],
        ["to the first step / import tensorflow", "1.50", ""],
        ["peak memory until then", "1.23 GB", ""],
    ]
