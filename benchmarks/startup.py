# SPDX-License-Identifier: Apache-2.0
"""From command to first step, time of an evaluation, and memory.

    python -m benchmarks.startup

`python train.py --flagfile=lenet.flags` is started in a new process, watched until it
says that its first step is done, and ended; `python -c "import tensorflow"` beside it,
in turns, so that a slow minute of the machine falls on both. The goal is a ratio of at
most 1.5. The enlarged set is built beforehand, as it is for all runs but the first.
"""

import device  # isort: skip  (first: it loads TensorFlow)

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tabulate import tabulate

import cli
import models
from benchmarks import step
from evaluation import scoring

FLAGS = flags.FLAGS

IMPORT, FIRST_STEP = "import tensorflow", "to the first step"
SAID = "after the start"  # by train.py, when its first call of the graph is done
EVALUATED = 10_000  # images
EVALUATIONS = 5


def import_seconds() -> float:
    """Seconds that a new Python takes to import TensorFlow, as anyone does it."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=step.PROJECT,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def first_step(arguments: Sequence[str]) -> tuple[float, int]:
    """Starts a training run and ends it after its first step.

    Args:
      arguments: of train.py, but for --run_dir and --log_steps.

    Returns:
      Seconds from command to the end of the first step, and the most memory that was
      resident until then, in bytes.

    Raises:
      BenchmarkError: the run ends before its first step.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "train.py", *arguments, "--log_steps=1"]
        began = time.perf_counter()
        with subprocess.Popen(
            [*command, f"--run_dir={folder}/run"],
            cwd=step.PROJECT,
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
                raise step.BenchmarkError(f"train.py took no step: {reason}")
    return seconds, peak


def _peak_bytes(process: int) -> int:
    """The most memory that a running process had resident; Linux only, else 0."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def evaluation_seconds(threads: int) -> float:
    """Median seconds to score 10,000 images by LeNet-SELU, warm, in this process."""
    device.set_threads(threads)
    network = models.build({"network": "lenet", "batch_norm": "all", "dropout": 0.3})
    predict = scoring.Predict(network)
    images, labels = (array[:EVALUATED] for array in step.noise())
    seconds = []
    for _ in range(1 + EVALUATIONS):
        began = time.perf_counter()
        scoring.score(predict, images, labels)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def measure(rounds: int, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Seconds of start-up in each round and of an evaluation, peak memory; for JSON."""
    arguments = [*arguments, f"--threads={threads}"]
    first_step(arguments)  # builds the enlarged set, fills the cache of the disk
    seconds: dict[str, list[float]] = {IMPORT: [], FIRST_STEP: []}
    peak = 0
    for number in range(1, rounds + 1):
        seconds[IMPORT].append(import_seconds())
        own, peak = first_step(arguments)
        seconds[FIRST_STEP].append(own)
        print(f"round {number} of {rounds}: {own:.2f} s {FIRST_STEP}")
    ratios = [a / b for a, b in zip(seconds[FIRST_STEP], seconds[IMPORT], strict=True)]
    return {
        "arguments": arguments,
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "peak_bytes": peak,
        "evaluation_seconds": evaluation_seconds(threads),
    }


def table(results: Mapping[str, Any]) -> str:
    """The results of `measure` in Markdown; the ratio is the median of the rounds'."""
    rows = [
        [name, f"{statistics.median(v):.2f} s", f"{min(v):.2f}–{max(v):.2f} s"]
        for name, v in results["seconds"].items()
    ]
    rows += [
        ["ratio of the two", f"{results['ratio']:.2f}", ""],
        ["most memory resident", f"{results['peak_bytes'] / 1e9:.2f} GB", ""],
        ["10,000 digits scored", f"{results['evaluation_seconds']:.2f} s", ""],
    ]
    return tabulate(rows, ["", "median", "range"], "github", disable_numparse=True)


def define_flags() -> None:
    """The flags of the benchmark."""
    flags.DEFINE_integer("rounds", 5, "Measurements of each.", lower_bound=1)
    flags.DEFINE_string("run", "lenet.flags", "Flagfile of the run.")
    flags.DEFINE_integer("threads", 0, "CPU threads; 0: one per core.", lower_bound=0)


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    print(step.conditions(FLAGS.threads))
    arguments = [f"--flagfile={FLAGS.run}", *arguments[1:]]
    print(table(measure(FLAGS.rounds, arguments, FLAGS.threads)))


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True)
