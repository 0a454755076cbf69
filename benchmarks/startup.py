# SPDX-License-Identifier: Apache-2.0
"""Time from command to first step, time of an evaluation, and memory.

We start `python train.py --flagfile=lenet.flags` in a new process and end it when it
reports its first step. `python -c "import tensorflow"` takes turns with it, so that a
slow minute of the machine hits both. The goal is a ratio of at most 1.5. The enlarged
set exists already, as it does for all runs but the first.

The very first run builds that set and compiles the operations. We time it to step 100
in a copy of the project that has neither. The goal is 12 s.
"""

import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import data
from benchmarks import ours, peers, results

RUN = ("--flagfile=lenet.flags",)
IMPORT, FIRST_STEP = "import tensorflow", "to the first step"
FIRST_RUN = "the very first run, to step 100"
NOT_COPIED = (".*", "augmented", "build", "runs", "__pycache__")
REPORT = "after the start"  # in the line that train.py prints after its first step
EVALUATED_IMAGES = 10_000


def import_seconds() -> float:
    """Seconds for a new Python process to import TensorFlow in the usual way."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=peers.PROJECT,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def first_call(
    arguments: Sequence[str], project: Path = peers.PROJECT, steps: int = 1
) -> tuple[float, int]:
    """Starts a training run and ends it after its first steps.

    Args:
      arguments: arguments of train.py without --run_dir and --log_steps.
      project: folder of train.py.
      steps: number of steps.

    Returns:
      Seconds from the command to the end of these steps, and the peak of resident
      memory until then, in bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "train.py", *arguments, f"--log_steps={steps}"]
        began = time.perf_counter()
        with subprocess.Popen(
            [*command, f"--run_dir={folder}/run"],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as run:
            assert run.stdout and run.stderr
            reported = any(REPORT in line for line in run.stdout)
            seconds = time.perf_counter() - began
            peak = _peak_bytes(run.pid) if reported else 0
            run.kill()
            if not reported:
                reason = (run.stderr.read().strip() or "no message").splitlines()[-1]
                what = f"train.py did not reach step {steps}: {reason}"
                raise peers.BenchmarkError(what)
    return seconds, peak


def first_run(arguments: Sequence[str]) -> float:
    """Seconds to step 100 of a run that finds its data but nothing else."""
    with tempfile.TemporaryDirectory(dir=peers.PROJECT) as folder:
        project = Path(folder, "project")
        ignored = shutil.ignore_patterns(*NOT_COPIED, Path(folder).name)
        shutil.copytree(peers.PROJECT, project, ignore=ignored)
        return first_call(arguments, project, 100)[0]


def _peak_bytes(process: int) -> int:
    """Peak of the resident memory of a running process; 0 if not on Linux."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def evaluation() -> Callable[[int], float]:
    """LeNet-SELU with random weights: number of images → seconds of scoring them."""
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import models
    from evaluation import scoring

    device.set_threads(0)
    network = models.build("lenet", batch_norm="all", dropout=0.3)
    predict = scoring.Predict(network)
    images, labels = ours.noise()

    def seconds(count: int) -> float:
        began = time.perf_counter()
        scoring.score(predict, images[:count], labels[:count])
        return time.perf_counter() - began

    seconds(EVALUATED_IMAGES)
    return seconds


PEERS = {"evaluation": evaluation}


def measure(rounds: int, arguments: Sequence[str] = RUN) -> dict[str, Any]:
    """Measures start-up and evaluation in each round.

    Returns:
      seconds: {IMPORT, FIRST_STEP, FIRST_RUN: seconds in each round}.
      peak_bytes: peak of resident memory up to the first step, in the last round.
      evaluation_seconds: seconds for 10,000 images in each round.
    """
    first_call(arguments)  # builds the enlarged set, fills the disk cache
    # The copy of the project does not find our data by itself.
    with_data = [*arguments, f"--data_dir={data.load('mnist').source}"]
    seconds: dict[str, list[float]] = {IMPORT: [], FIRST_STEP: [], FIRST_RUN: []}
    peak = 0
    for number in range(1, rounds + 1):
        seconds[IMPORT].append(import_seconds())
        own, peak = first_call(arguments)
        seconds[FIRST_STEP].append(own)
        seconds[FIRST_RUN].append(first_run(with_data))
        print(
            f"round {number} of {rounds}: {own:.2f} s {FIRST_STEP},"
            f" {seconds[FIRST_RUN][-1]:.2f} s {FIRST_RUN}"
        )
    with peers.Peer("benchmarks.startup", "evaluation", {}) as peer:
        scored = [peer.ask(EVALUATED_IMAGES) for _ in range(rounds)]
    return {
        "arguments": list(arguments),
        "seconds": seconds,
        "peak_bytes": peak,
        "evaluation_seconds": scored,
    }


def ratio(result: Mapping[str, Any]) -> float:
    """Time to the first step over time to import TensorFlow: median of all rounds."""
    seconds = result["seconds"]
    pairs = zip(seconds[FIRST_STEP], seconds[IMPORT], strict=True)
    return statistics.median(own / of for own, of in pairs)


def markdown(result: Mapping[str, Any]) -> str:
    """Section with the table of medians and ranges."""
    seconds = {
        **result["seconds"],
        f"{EVALUATED_IMAGES:,} digits scored": result["evaluation_seconds"],
    }
    rows = [
        [name, f"{statistics.median(v):.2f} s", f"{min(v):.2f}–{max(v):.2f} s"]
        for name, v in seconds.items()
    ]
    rows += [
        [f"{FIRST_STEP} / {IMPORT}", f"{ratio(result):.2f}", ""],
        ["peak memory until then", f"{result['peak_bytes'] / 1e9:.2f} GB", ""],
    ]
    table = results.table(rows, ["", "median", "range"])
    command = f"python {shlex.join(['train.py', *result['arguments']])}"
    return f"## Start-up of `{command}`, and evaluation\n\n{table}"
