# SPDX-License-Identifier: Apache-2.0
"""From command to first step, time of an evaluation, and memory.

`python train.py --flagfile=lenet.flags` is started in a new process, watched until it
says that its first step is done, and ended; `python -c "import tensorflow"` beside it,
in turns, so that a slow minute of the machine falls on both. The goal is a ratio of at
most 1.5. The enlarged set is built beforehand, as it is for all runs but the first.

The first run of all builds that set and compiles the operations: it is timed in a copy
of the project that has neither, to step 100. The goal is 12 s.
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

from matplotlib.figure import Figure

import data
from benchmarks import peers, results, step_peers

RUN = ("--flagfile=lenet.flags",)
IMPORT, FIRST_STEP = "import tensorflow", "to the first step"
FIRST_RUN = "the first run of all, to step 100"
NOT_COPIED = (".*", "augmented", "build", "runs", "__pycache__")
SAID = "after the start"  # by train.py, when its first call of the graph is done
EVALUATED = 10_000  # images


def import_seconds() -> float:
    """Seconds that a new Python takes to import TensorFlow, as anyone does it."""
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
      arguments: of train.py, but for --run_dir and --log_steps.
      project: folder of train.py.
      steps: so many.

    Returns:
      Seconds from command to the end of these steps, and the most memory that was
      resident until then, in bytes.

    Raises:
      BenchmarkError: the run ends before.
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
            said = any(SAID in line for line in run.stdout)
            seconds = time.perf_counter() - began
            peak = _peak_bytes(run.pid) if said else 0
            run.kill()
            if not said:
                reason = (run.stderr.read().strip() or "no message").splitlines()[-1]
                what = f"train.py did not get to step {steps}: {reason}"
                raise peers.BenchmarkError(what)
    return seconds, peak


def first_run(arguments: Sequence[str]) -> float:
    """Seconds to step 100 of a run that finds nothing but its data.

    Args:
      arguments: of train.py, but for --run_dir and --log_steps.

    Raises:
      BenchmarkError: the run ends before.
    """
    with tempfile.TemporaryDirectory(dir=peers.PROJECT) as folder:
        project = Path(folder, "project")
        ignored = shutil.ignore_patterns(*NOT_COPIED, Path(folder).name)
        shutil.copytree(peers.PROJECT, project, ignore=ignored)
        return first_call(arguments, project, 100)[0]


def _peak_bytes(process: int) -> int:
    """The most memory that a running process had resident; Linux only, else 0."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def evaluation() -> Callable[[int], float]:
    """LeNet-SELU with random weights, on a thread per core.

    Returns:
      From a number of images to the seconds that it takes to score them, when warm.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import models
    from evaluation import scoring

    device.set_threads(0)
    network = models.build({"network": "lenet", "batch_norm": "all", "dropout": 0.3})
    predict = scoring.Predict(network)
    images, labels = step_peers.noise()

    def seconds(count: int) -> float:
        began = time.perf_counter()
        scoring.score(predict, images[:count], labels[:count])
        return time.perf_counter() - began

    seconds(EVALUATED)
    return seconds


PEERS = {"evaluation": evaluation}


def measure(rounds: int, arguments: Sequence[str] = RUN) -> dict[str, Any]:
    """Start-up and evaluation in each round.

    Args:
      rounds: of each.
      arguments: of train.py.

    Returns:
      seconds: of each round, to import TensorFlow, to the first step and of the first
        run of all.
      peak_bytes: the most memory resident up to the first step, of the last round.
      evaluation_seconds: of each round, for 10,000 images.

    Raises:
      BenchmarkError: the run ends before its first step.
    """
    first_call(arguments)  # builds the enlarged set, fills the cache of the disk
    anew = [*arguments, f"--data_dir={data.load('mnist').source}"]  # from anywhere
    seconds: dict[str, list[float]] = {IMPORT: [], FIRST_STEP: [], FIRST_RUN: []}
    peak = 0
    for number in range(1, rounds + 1):
        seconds[IMPORT].append(import_seconds())
        own, peak = first_call(arguments)
        seconds[FIRST_STEP].append(own)
        seconds[FIRST_RUN].append(first_run(anew))
        print(
            f"round {number} of {rounds}: {own:.2f} s {FIRST_STEP},"
            f" {seconds[FIRST_RUN][-1]:.2f} s {FIRST_RUN}"
        )
    with peers.Peer("benchmarks.startup", "evaluation", {}) as peer:
        scored = [peer.ask(EVALUATED) for _ in range(rounds)]
    return {
        "arguments": list(arguments),
        "seconds": seconds,
        "peak_bytes": peak,
        "evaluation_seconds": scored,
    }


def ratio(result: Mapping[str, Any]) -> float:
    """From command to first step, in imports: the median of the rounds' ratios."""
    seconds = result["seconds"]
    pairs = zip(seconds[FIRST_STEP], seconds[IMPORT], strict=True)
    return statistics.median(own / of for own, of in pairs)


def markdown(result: Mapping[str, Any]) -> str:
    """A section with the table of what `measure` returned."""
    seconds = {
        **result["seconds"],
        f"{EVALUATED:,} digits scored": result["evaluation_seconds"],
    }
    rows = [
        [name, f"{statistics.median(v):.2f} s", f"{min(v):.2f}–{max(v):.2f} s"]
        for name, v in seconds.items()
    ]
    rows += [
        [f"{FIRST_STEP} / {IMPORT}", f"{ratio(result):.2f}", ""],
        ["most memory up to it", f"{result['peak_bytes'] / 1e9:.2f} GB", ""],
    ]
    table = results.table(rows, ["", "median", "range"])
    command = f"python {shlex.join(['train.py', *result['arguments']])}"
    return f"## Start-up of `{command}`, and evaluation\n\n{table}"


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """None: the table says it all."""
    return {}
