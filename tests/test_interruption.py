# SPDX-License-Identifier: Apache-2.0
"""Tests of training/interruption.py: signals sent to real processes."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from system import errors, flagfiles
from tests import programs
from tests.helpers import ROOT, command
from training import checkpoints
from training.interruption import Departure, Interruption

# Like a call into TensorFlow: long and not interruptible, but other threads run.
BUSY = """
import hashlib, sys
from training.interruption import Interruption
with Interruption() as asked:
    print("ready", flush=True)
    for _ in range(600):
        for _ in range(5):
            pass
        hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[1]))
        if asked.received:
            break
print("saved", asked.received, flush=True)
"""


@pytest.fixture
def busy(request):
    count = getattr(request, "param", 300_000)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_stop(busy, number):
    busy.send_signal(number)
    out, err = busy.communicate(timeout=60)
    assert (busy.returncode, out) == (0, f"saved {int(number)}\n")
    assert err.count("\n") == 1 and "stopping: finishing the steps" in err


def test_ctrl_c_and_sigterm_ask_once(busy):
    busy.send_signal(signal.SIGINT)
    busy.send_signal(signal.SIGTERM)
    out, err = busy.communicate(timeout=60)
    assert busy.returncode == 0 and out.startswith("saved")
    assert err.count("\n") == 1


# The call must be longer than any delay between the two signals.
@pytest.mark.parametrize("busy", [100_000_000], indirect=True)
def test_a_second_ctrl_c_ends_the_process_even_during_a_call(busy):
    busy.send_signal(signal.SIGINT)
    assert "stopping" in busy.stderr.readline()
    began = time.monotonic()
    busy.send_signal(signal.SIGINT)
    out, err = busy.communicate(timeout=60)
    assert (busy.returncode, out) == (130, "")
    assert "ended at once" in err
    assert time.monotonic() - began < 5


@pytest.fixture
def ctrl_c():
    """Restores Python's handler, which a shell's background jobs do not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_pythons_handlers_are_restored():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_a_run_is_stopped_and_its_command_resumes(tmp_path):
    """SIGTERM in the middle; until then, a second process is refused."""
    run_dir = tmp_path / "my #1 run"  # the command and flags.txt must quote it
    flags = ("--dataset=digits", "--network=mlp", "--hidden_units=8", "--epochs=100000")
    flags += ("--shift_directions=", "--flip_codes=", "--log_steps=5")
    flags += ("--checkpoint_epochs=1000", f"--run_dir={run_dir}")
    with programs.Program(["train.py", *flags]) as first:
        while not (run_dir / "metrics.csv").exists():
            assert first.poll() is None
            time.sleep(0.1)
        second = command("train.py", *flags)
        assert second.returncode == 1
        assert f"is being trained by another process {first.pid}" in second.stderr
        first.terminate()
        _, said = first.communicate(timeout=60)
    assert first.returncode == 143
    line = said.strip().splitlines()[-1]
    pattern = r"stopped at step ([\d,]+), which is saved; to resume: (.*)"
    match = re.search(pattern, line)
    step = int(match[1].replace(",", ""))
    assert checkpoints.steps(run_dir / "checkpoints")[-1] == step
    pasted = shlex.split(match[2])[1:]  # after Python's name
    assert pasted == ["train.py", f"--flagfile={run_dir / 'flags.txt'}"]
    assert f"--run_dir={run_dir}" in flagfiles.expand(pasted[1:])


def test_a_departing_worker_prints_nothing_in_its_signal_handler(capsys):
    """A signal may come while a line is printed, and streams refuse a nested call."""
    with pytest.raises(SystemExit) as left, Departure() as departure:
        try:
            departure._handle(signal.SIGTERM, None)
        finally:
            assert capsys.readouterr().err == ""
    assert left.value.code == errors.SIGNALLED + signal.SIGTERM
    assert capsys.readouterr().err.endswith("stopped by SIGTERM\n")
