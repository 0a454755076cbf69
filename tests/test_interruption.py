# SPDX-License-Identifier: Apache-2.0
"""Real processes that are sent signals: saved and told how to go on, or gone."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from system import flagfiles
from training import checkpoints
from training.interruption import Interruption

ROOT = Path(__file__).parent.parent

# What a call into TensorFlow is to Python: a long one that no handler interrupts, while
# other threads go on.
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
def test_the_first_signal_is_a_wish(busy, number):
    busy.send_signal(number)
    out, err = busy.communicate(timeout=60)
    assert (busy.returncode, out) == (0, f"saved {int(number)}\n")
    assert err.count("\n") == 1 and "stopping: finishing the steps" in err


def test_ctrl_c_and_sigterm_together_are_one_wish(busy):
    busy.send_signal(signal.SIGINT)
    busy.send_signal(signal.SIGTERM)
    out, err = busy.communicate(timeout=60)
    assert busy.returncode == 0 and out.startswith("saved")
    assert err.count("\n") == 1


# A call that outlasts whatever holds up this process between the two signals.
@pytest.mark.parametrize("busy", [100_000_000], indirect=True)
def test_a_second_ctrl_c_leaves_within_a_call(busy):
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
    """Python's own handler, which a shell's background jobs are not given."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_python_has_its_handlers_back_afterwards():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def command(*arguments):
    return [sys.executable, "train.py", *map(str, arguments)]


def test_a_run_is_stopped_and_gone_on_with(tmp_path):
    """SIGTERM in the middle; meanwhile another process is refused."""
    run_dir = tmp_path / "my #1 run"  # which the command and flags.txt have to quote
    flags = ("--dataset=digits", "--network=mlp", "--hidden_units=8", "--epochs=100000")
    flags += ("--shift_directions=", "--flip_codes=", "--log_steps=5")
    flags += ("--checkpoint_epochs=1000", f"--run_dir={run_dir}")
    with subprocess.Popen(
        command(*flags), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as first:
        try:
            while not (run_dir / "metrics.csv").exists():
                assert first.poll() is None
                time.sleep(0.1)
            second = subprocess.run(
                command(*flags), cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert second.returncode == 1
            assert f"is being trained by another process {first.pid}" in second.stderr
            first.terminate()
            _, said = first.communicate(timeout=60)
        finally:
            first.kill()
    assert first.returncode == 143
    line = said.strip().splitlines()[-1]
    pattern = r"stopped at step ([\d,]+), which is saved; to resume: (.*)"
    match = re.search(pattern, line)
    step = int(match[1].replace(",", ""))
    assert checkpoints.steps(run_dir / "checkpoints")[-1] == step
    pasted = shlex.split(match[2])[1:]  # behind Python's own name
    assert pasted == ["train.py", f"--flagfile={run_dir / 'flags.txt'}"]
    assert f"--run_dir={run_dir}" in flagfiles.expand(pasted[1:])
