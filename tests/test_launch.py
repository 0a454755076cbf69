# SPDX-License-Identifier: Apache-2.0
"""Tests of training/launch.py."""

import subprocess
import sys

import pytest

from tests.helpers import ROOT
from training import launch

SECONDS = 60  # more than any of these processes takes

# Stands in for train.py: waits for a signal, or fails at once.
WORKER = """
import json, os, signal, sys
assert sys.argv[1:] == ["--seed=3", "--distribute=multi_worker"]
config = json.loads(os.environ["TF_CONFIG"])
number = config["task"]["index"]
assert len(set(config["cluster"]["worker"])) == 3
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.write(1, b"ready\\n")
if "{fails}" != str(number):
    signal.sigwait([signal.SIGTERM])
sys.exit(3 + number)
"""
LAUNCH = """
import pathlib, sys
from absl import flags
from system import cli
from training import launch
launch.PROGRAM = pathlib.Path(sys.argv.pop())
launch.GRACE_SECONDS = 0.5
flags.DEFINE_integer("workers", 2, "")
cli.run(launch.main, arguments=True)
"""


@pytest.mark.parametrize("fails", ["none", "2"])
def test_the_launcher_passes_on_signals_and_exit_codes(tmp_path, fails):
    program = tmp_path / "worker.py"
    program.write_text(WORKER.replace("{fails}", fails))
    command = [sys.executable, "-c", LAUNCH, "--workers=3", "--", "--seed=3", program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        try:
            assert [process.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
            if fails == "none":
                process.terminate()
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.terminate()
    if fails == "none":
        assert process.returncode in (3, 4, 5) and not said
    else:
        assert process.returncode == 5
        assert "exit code 5, and 0, 1 did not exit within 0.5 s: sending SIGT" in said


def test_ports_are_below_those_that_the_system_hands_out(monkeypatch):
    ports = launch.free_ports(3)
    assert len(set(ports)) == 3 and all(20_000 <= port < 32_768 for port in ports)
    monkeypatch.setattr(launch, "PORTS", (ports[0], ports[0] + 2))
    with pytest.raises(launch.LaunchError, match="free, but 3 workers need one each"):
        launch.free_ports(3)
